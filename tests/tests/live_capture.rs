//! One exchange of each kind, from a real socket to a request record.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use observer::exchange::{Outcome, TokenSource};
use observer_tests::{
    live::{Live, privileged},
    workload::Workload,
};

const LIMIT: Duration = Duration::from_secs(10);

fn post(stream: &mut TcpStream, body: &str) {
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-ID: r1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("request");
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !all.ends_with(end) {
        let n = stream.read(&mut buffer).expect("response");
        assert!(n > 0, "response ended early: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..n]);
    }
    all
}

#[test]
fn streamed_and_plain_on_one_connection() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (server, port) = Workload::script("openai_server.py", &["--events", "5", "--gap", "0.02"]);
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse().expect("port"))).expect("connect");
    post(
        &mut stream,
        r#"{"model":"tiny","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
    );
    read_until(&mut stream, b"0\r\n\r\n");
    post(&mut stream, r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#);
    read_until(&mut stream, b"}");
    drop(stream);
    live.wait_until("two exchanges", LIMIT, |seen| seen.records.len() == 2);
    let report = live.stop();
    let [streamed, plain] = &report.seen.records[..] else { unreachable!("waited for two") };
    println!("{}", serde_json::to_string_pretty(streamed).expect("json"));
    println!("{}", serde_json::to_string_pretty(plain).expect("json"));
    assert_eq!(streamed.pid, server.pid());
    assert_eq!(streamed.outcome, Some(Outcome::Ok));
    assert_eq!(streamed.model.as_deref(), Some("tiny"));
    assert_eq!(streamed.max_tokens, Some(9));
    assert_eq!((streamed.tokens.input, streamed.tokens.output), (Some(7), Some(5)));
    assert_eq!(streamed.tokens.source, Some(TokenSource::Usage));
    assert_eq!((streamed.token_events, streamed.deliveries), (5, 5));
    assert_eq!(streamed.request_id.as_deref(), Some("r1"));
    let ttft = streamed.ttft.expect("streamed");
    assert!((0.02..0.2).contains(&ttft), "{ttft}");
    let tpot = streamed.tpot.expect("streamed");
    assert!((0.02..0.05).contains(&tpot), "{tpot}");
    assert!(streamed.started_at.is_some() && streamed.clocks.accepted.is_some());
    assert_eq!(plain.outcome, Some(Outcome::Ok));
    assert_eq!((plain.ttft, plain.tpot), (None, None));
    assert_eq!(plain.tokens.output, Some(5));
    assert!(plain.partial.is_empty() && plain.defects.is_empty(), "{plain:?}");
    assert!(report.counts.balanced(), "{:?}", report.counts);
    assert!(report.detach < Duration::from_secs(1), "{:?}", report.detach);
}
