//! Large messages, as the kernel side copies them: their start, and the end of each call.

use observer_ebpf::State;

use crate::{
    dialects::{JSON, SSE, events, only, told},
    wire::Wire,
};

/// Bytes of a turn that are copied whole, and those at the end of each later call.
const WHOLE: usize = 1 << 20;
const TAIL: usize = 1 << 10;

/// A request in calls of 64 KiB, of which beyond the first MiB only ends are copied; its length.
fn ask(wire: &mut Wire, body: &str) -> usize {
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    let bytes = [head.as_bytes(), body.as_bytes()].concat();
    for (at, call) in bytes.chunks(64 << 10).enumerate() {
        if at * (64 << 10) < WHOLE {
            wire.read(call);
        } else {
            let cut = call.len().saturating_sub(TAIL);
            wire.read(&call[..cut]).hole(0).read(&call[cut..]);
        }
    }
    bytes.len()
}

#[test]
fn model_and_stream_are_found_wherever_they_stand() {
    let prompt = "a \\\"b\\\" ".repeat(400_000);
    let messages = format!(r#""messages":[{{"role":"user","content":"{prompt}"}}]"#);
    for body in [
        format!(r#"{{"model":"m","stream":true,{messages}}}"#),
        format!(r#"{{{messages},"model":"m","stream":true}}"#),
        format!(r#"{{"model":"m",{messages},"stream":true}}"#),
        format!(r#"{{"stream":true,{messages},"temperature":0.5,"model":"m"}}"#),
    ] {
        let mut wire = Wire::new();
        let length = ask(&mut wire, &body);
        wire.close();
        let seen = wire.seen();
        let [record] = &seen.records[..] else { panic!("{seen:#?}") };
        assert_eq!(seen.requested[&record.id], (true, Some("m".into())), "{}", &body[..60]);
        assert_eq!(record.request_bytes, length as u64);
        assert!(record.clocks.request_end.is_some());
    }
}

#[test]
fn a_stream_of_ten_mebibytes() {
    let word = "x".repeat(1000);
    let event =
        events(&[&format!(r#"{{"model":"m","choices":[{{"index":0,"delta":{{"content":"{word}"}}}}]}}"#)]);
    let count = (10 << 20) / event[0].len();
    let mut wire = Wire::new();
    wire.read(format!("POST /v1/chat/completions HTTP/1.1\r\n{JSON}Content-Length: 2\r\n\r\n{{}}"));
    wire.write(format!("HTTP/1.1 200 OK\r\n{SSE}\r\n"));
    for _ in 0..count {
        wire.write(&event[0]);
    }
    wire.write("data: [DONE]\n\n").close();
    let record = only(&wire);
    assert_eq!(told(&record), format!("ok m - - -+- {count}+- estimated {count}"));
    assert_eq!(record.gaps.map(|gaps| gaps.count), Some(count as u64 - 1));
}

#[test]
fn a_document_of_ten_mebibytes_byte_by_byte_at_its_ends() {
    let text = format!(
        r#"{{"model":"m","choices":[{{"index":0,"message":{{"content":"{}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":3}}}}"#,
        "y".repeat(10 << 20)
    );
    let mut wire = Wire::new();
    wire.read(format!("POST /v1/chat/completions HTTP/1.1\r\n{JSON}Content-Length: 2\r\n\r\n{{}}"));
    wire.write(format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: {}\r\n\r\n", text.len()));
    let bytes = text.as_bytes();
    let (start, rest) = bytes.split_at(200);
    let (middle, end) = rest.split_at(rest.len() - 200);
    for byte in start.chunks(1) {
        wire.write(byte);
    }
    wire.write(middle);
    for byte in end.chunks(1) {
        wire.write(byte);
    }
    wire.state(State::ESTABLISHED, State::CLOSE_WAIT).close();
    assert_eq!(told(&only(&wire)), "ok m stop - 9+- 3+- usage 0");
}
