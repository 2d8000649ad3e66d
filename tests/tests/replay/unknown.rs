//! Requests under paths of no known API.

use observer::exchange::{Operation, Outcome};
use observer_ebpf::Verdict;
use observer_tests::script::Seen;

use crate::{
    dialects::{Asked, JSON, SSE, check, events},
    wire::Wire,
};

const ASK: &str = r#"{"q":"a","stream":true}"#;
const HI: &str = "data: {\"text\":\"Hi\"}\n\n";

fn post(path: &str, head: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn stream(wire: &mut Wire, writes: &[&str]) {
    wire.write(format!("HTTP/1.1 200 OK\r\n{SSE}Transfer-Encoding: chunked\r\n\r\n"));
    for text in writes {
        wire.write(format!("{:x}\r\n{text}\r\n", text.len()));
    }
    wire.write("0\r\n\r\n");
}

fn verdicts(seen: &Seen) -> Vec<Verdict> {
    seen.verdicts.iter().map(|(_, verdict)| *verdict).collect()
}

#[test]
fn tokens_under_an_unknown_path_are_timed() {
    let mut wire = Wire::new();
    wire.read(post("/ask", JSON, ASK));
    stream(&mut wire, &["data: {\"status\":\"thinking\"}\n\n", HI, HI]);
    // What follows on such a connection is looked at as on any other.
    wire.read(post("/other", JSON, "{}")).write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    wire.read(post("/ask", JSON, ASK));
    stream(&mut wire, &[HI, "data: {\"error\":\"x\"}\n\n"]);
    wire.close();
    let seen = wire.seen();
    assert_eq!(verdicts(&seen), [Verdict::Observe]);
    let [first, second] = &seen.records[..] else { panic!("{seen:#?}") };
    assert_eq!((first.operation, first.outcome), (Some(Operation::Unknown), Some(Outcome::Ok)));
    assert!(first.is_complete() && first.ttft > first.ttfb && first.tpot.is_some());
    assert_eq!((first.token_events, first.tokens.output), (2, Some(2)));
    assert_eq!(second.outcome, Some(Outcome::StreamError));
    assert_eq!(seen.unfinished, 0);
}

/// Only tokens make a stream one of an LLM, and only a stream that was asked for can hold them.
#[test]
fn a_web_server_is_ignored() {
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (head, body) in
        [(JSON, r#"{"q":"a"}"#), (JSON, r#"{"stream":false}"#), (form, "stream=true"), (JSON, "no")]
    {
        let mut wire = Wire::new();
        wire.read(post("/ask", head, body));
        stream(&mut wire, &[HI]);
        wire.close();
        let seen = wire.seen();
        assert_eq!((verdicts(&seen), seen.records.len()), (vec![Verdict::Ignore], 0), "{body}");
    }
    let mut wire = Wire::new();
    wire.read(post("/ask", JSON, ASK));
    stream(&mut wire, &["data: {\"price\":1}\n\n", "data: {\"price\":2}\n\n"]);
    wire.read(post("/v1/chat/completions", JSON, "{}"));
    let text = r#"{"model":"m","choices":[]}"#;
    wire.write(format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: {}\r\n\r\n{text}", text.len())).close();
    let seen = wire.seen();
    assert_eq!(verdicts(&seen), [Verdict::Ignore, Verdict::Observe]);
    assert_eq!(seen.records.len(), 1);
    assert!(seen.records[0].is_complete());
}

/// Routes that are known to be of an LLM server, with content of more than one shape.
#[test]
fn known_routes_of_no_one_api() {
    let invoke = Asked { path: "/invocations", body: r#"{"model":"m","messages":[],"stream":true}"# };
    let chat = r#"{"model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
    let ids = Asked {
        path: "/inference/v1/generate",
        body: r#"{"token_ids":[1,2],"sampling_params":{"max_tokens":5},"model":"m"}"#,
    };
    let answer = r#"{"request_id":"r","choices":[{"index":0,"finish_reason":"stop","token_ids":[5,6,7]}]}"#;
    let record = invoke.streamed(SSE, &events(&[chat, "[DONE]"]));
    assert_eq!(record.operation, Some(Operation::Unknown));
    check(&[
        (record, "ok m - - 9+- 1+- usage 1"),
        (
            invoke.streamed(SSE, &events(&[chat, r#"{"error":{"message":"x","type":"t"}}"#, "[DONE]"])),
            "stream_error m - t 9+- 1+- usage 1",
        ),
        (invoke.aborted(SSE, &events(&[chat])), "aborted_by_client m - - 9+- 1+- usage_partial 1"),
        (ids.plain(200, JSON, answer), "ok m stop - -+- 3+- ids 0"),
        (ids.plain(400, JSON, r#"{"error":{"message":"x","type":"t"}}"#), "client_error m - t -+- -+- - 0"),
    ]);
}
