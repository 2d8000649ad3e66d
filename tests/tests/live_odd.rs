//! What is rare on the wire, and large: told as exactly as what is common, or marked.

use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use observer::exchange::{Outcome, RequestRecord, TokenSource};
use observer_tests::{
    client::{Client, chat, request},
    live::{Live, Report, privileged},
    scripted::by_id,
    workload::Workload,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Runs a client against the bare server until so many exchanges were seen, none of which lost anything.
fn observed(exchanges: usize, play: impl FnOnce(&str)) -> Option<Report> {
    if !privileged() {
        return None;
    }
    let live = Live::start_default();
    let (_server, port) = Workload::script("openai_server.py", &[]);
    play(&port);
    live.wait_until("the exchanges", LIMIT, |seen| seen.records.len() == exchanges);
    let report = live.stop();
    assert_eq!(report.stats.lost_bytes, 0, "{:?}", report.stats);
    assert!(report.counts.balanced(), "{:?}", report.counts);
    Some(report)
}

/// Panics unless every clock and the exact number of tokens are known.
fn whole(record: &RequestRecord, model: &str, tokens: u64) {
    assert_eq!((record.outcome, record.model.as_deref()), (Some(Outcome::Ok), Some(model)), "{record:?}");
    assert!(record.is_complete(), "{record:?}");
    assert_eq!((record.tokens.input, record.tokens.output), (Some(7), Some(tokens)), "{record:?}");
    assert_eq!(record.tokens.source, Some(TokenSource::Usage), "{record:?}");
    assert_eq!(record.ttft.is_some(), record.stream, "{record:?}");
    if record.stream {
        assert_eq!(record.token_events, tokens, "{record:?}");
    }
}

/// Larger than what is copied whole of any request.
#[test]
fn a_prompt_of_a_megabyte_and_a_half_wherever_its_model_stands() {
    let prompt = format!(r#""messages":[{{"role":"user","content":"{}"}}]"#, "word ".repeat(300_000));
    let asked = r#""model":"large","stream":true,"events":6"#;
    let bodies = [("start", format!("{{{asked},{prompt}}}")), ("end", format!("{{{prompt},{asked}}}"))];
    let mut sent = Vec::new();
    let report = observed(4, |port| {
        for (place, body) in &bodies {
            // The first on its connection comes before the verdict, the second after it.
            let mut client = Client::connect(port);
            for turn in ["first", "second"] {
                let id = format!("{place}-{turn}");
                let before = client.sent;
                client.stream(&id, body);
                sent.push((id, client.sent - before));
            }
        }
    });
    let Some(report) = report else { return };
    let records = by_id(&report.seen.records);
    for (id, bytes) in sent {
        let record = records[id.as_str()];
        whole(record, "large", 6);
        assert!(record.stream, "{record:?}");
        assert_eq!(record.request_bytes, bytes, "{record:?}");
    }
}

#[test]
fn a_server_that_writes_byte_by_byte() {
    let report = observed(2, |port| {
        let mut client = Client::connect(port);
        let body = |stream| chat("bytes", stream, 6).replacen('{', r#"{"bytewise":true,"#, 1);
        client.stream("true", &body(true));
        client.plain("false", &body(false));
    });
    let Some(report) = report else { return };
    let records = by_id(&report.seen.records);
    for id in ["true", "false"] {
        whole(records[id], "bytes", 6);
    }
    assert_eq!(records["true"].deliveries, 6, "{:?}", records["true"]);
}

/// Ten mebibytes in one document: most of it is a hole, and what it says of itself stands at its end.
#[test]
fn a_plain_answer_of_ten_megabytes() {
    const WORDS: usize = 640;
    let mut received = 0;
    let report = observed(1, |port| {
        let mut client = Client::connect(port);
        let body = chat("large", false, WORDS).replacen('{', r#"{"width":16384,"#, 1);
        received = client.plain("large", &body).len() as u64;
    });
    let Some(report) = report else { return };
    let record = by_id(&report.seen.records)["large"];
    assert!(received > 10 << 20 && record.response_bytes == received, "{received}: {record:?}");
    assert_eq!((record.outcome, record.status), (Some(Outcome::Ok), Some(200)), "{record:?}");
    assert_eq!((record.tokens.input, record.tokens.output), (Some(7), Some(WORDS as u64)), "{record:?}");
    assert!(record.defects.contains(&"document_hole".to_owned()), "{record:?}");
}

/// They are answered with chunks, as uvicorn answers them, too.
#[test]
fn clients_of_http_1_0() {
    let report = observed(2, |port| {
        for stream in [true, false] {
            let mut client = Client::connect(port);
            let asked = request(&stream.to_string(), "", chat("old", stream, 6).as_bytes());
            let asked = String::from_utf8(asked).expect("text").replacen("HTTP/1.1", "HTTP/1.0", 1);
            client.send(asked.as_bytes());
            if stream {
                client.receive_until(b"0\r\n\r\n")
            } else {
                client.receive_whole()
            };
        }
    });
    let Some(report) = report else { return };
    for id in ["true", "false"] {
        whole(by_id(&report.seen.records)[id], "old", 6);
    }
}

/// What follows an upgrade is not HTTP: it is counted, and no exchange is made of it.
#[test]
fn an_upgrade_is_opaque() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (_server, port) = Workload::script("openai_server.py", &[]);
    let mut client = Client::connect(&port);
    client.plain("before", &chat("m", false, 2));
    client.send(
        b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    let head = client.receive_head();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for _ in 0..4 {
        client.send(&[0x82, 0x83, 1, 2, 3, 4, 5, 6, 7]);
        client.receive();
    }
    let moved = client.sent + client.received;
    drop(client);
    live.wait_until("the end of the connection", LIMIT, |seen| !seen.undecoded.is_empty());
    let report = live.stop();
    let ids: Vec<_> = report.seen.records.iter().map(|record| record.request_id.as_deref()).collect();
    assert_eq!(ids, [Some("before")]);
    assert_eq!(report.seen.undecoded, [("upgraded", moved)], "all of the connection's bytes");
}

#[test]
fn content_that_is_coded_with_gzip() {
    let coded = |body: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body.as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    };
    let report = observed(4, |port| {
        let mut client = Client::connect(port);
        for (id, stream, answer, asked) in [
            ("stream-answer", true, true, false),
            ("plain-answer", false, true, false),
            ("stream-both", true, true, true),
            ("plain-request", false, false, true),
        ] {
            let mut body = chat("coded", stream, 6);
            if answer {
                body = body.replacen('{', r#"{"coding":"gzip","#, 1);
            }
            let headers = if asked { "Content-Encoding: gzip\r\n" } else { "" };
            let body = if asked { coded(&body) } else { body.into_bytes() };
            client.send(&request(id, headers, &body));
            if stream {
                let mut all = Vec::new();
                while !all.ends_with(b"\r\n0\r\n\r\n") {
                    all.extend(client.receive());
                }
                assert!(!all.windows(5).any(|window| window == b"data:"), "it is coded");
            } else {
                // One call sends all of it.
                client.receive();
            }
        }
    });
    let Some(report) = report else { return };
    let records = by_id(&report.seen.records);
    for (id, record) in &records {
        whole(record, "coded", 6);
        assert_eq!(record.stream, id.starts_with("stream"), "{record:?}");
        assert!(record.defects.is_empty(), "{record:?}");
    }
    assert_eq!(records.len(), 4);
    assert_eq!(records["stream-answer"].deliveries, 6, "{:?}", records["stream-answer"]);
}

#[test]
fn pipelined_requests_in_one_write() {
    let report = observed(4, |port| {
        for [first, second] in [[false, false], [true, false]] {
            let mut client = Client::connect(port);
            let one = request(&format!("{first}-1"), "", chat("one", first, 3).as_bytes());
            let two = request(&format!("{first}-2"), "", chat("two", second, 5).as_bytes());
            client.send(&[one, two].concat());
            client.receive_until(br#""total_tokens": 12}}"#);
        }
    });
    let Some(report) = report else { return };
    let records = by_id(&report.seen.records);
    for first in [false, true] {
        let [one, two] = [1, 2].map(|number| records[format!("{first}-{number}").as_str()]);
        whole(one, "one", 3);
        whole(two, "two", 5);
        let (one_over, two_begun) = (one.clocks.response_end, two.clocks.response_start);
        // Both requests were read by one call.
        assert!(one.started_at == two.started_at && one_over <= two_begun, "{one:?} {two:?}");
    }
}

#[test]
fn a_target_in_absolute_form() {
    let report = observed(2, |port| {
        let mut client = Client::connect(port);
        for stream in [true, false] {
            let asked = request(&stream.to_string(), "", chat("absolute", stream, 3).as_bytes());
            let asked = String::from_utf8(asked).expect("UTF-8");
            client.send(asked.replacen(" /v1", " http://llm.example:8000/v1", 1).as_bytes());
            client.receive_until(if stream { b"0\r\n\r\n" } else { b"}}" });
        }
    });
    let Some(report) = report else { return };
    for record in &report.seen.records {
        whole(record, "absolute", 3);
        assert_eq!(record.path, "/v1/chat/completions", "{record:?}");
    }
}
