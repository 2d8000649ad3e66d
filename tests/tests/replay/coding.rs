//! Compressed content: decoded as it comes, marked where it cannot be.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use observer::exchange::{Outcome, RequestRecord, TokenSource, Tokens};

use crate::{
    dialects::{JSON, SSE, told},
    wire::Wire,
};

const ASK: &str = r#"{"model":"m","messages":[],"stream":true}"#;
const EVENTS: [&str; 4] = [
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" there\"}}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n",
    "data: [DONE]\n\n",
];

fn asked(wire: &mut Wire, head: &str, body: &[u8]) {
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\n{JSON}{head}Content-Length: {}\r\n\r\n", body.len());
    wire.read([head.as_bytes(), body].concat());
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Events of a stream, flushed one by one.
fn gzipped(parts: &[&str]) -> Vec<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut done = 0;
    let mut pieces: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| {
            encoder.write_all(part.as_bytes()).expect("memory");
            encoder.flush().expect("memory");
            let piece = encoder.get_ref()[done..].to_vec();
            done += piece.len();
            piece
        })
        .collect();
    pieces.push(encoder.finish().expect("memory")[done..].to_vec());
    pieces
}

fn head(coding: &str, media: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{media}Content-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n")
}

fn only(wire: &Wire) -> RequestRecord {
    let mut records = wire.seen().records;
    assert_eq!(records.len(), 1, "{records:#?}");
    records.remove(0)
}

#[test]
fn a_compressed_stream_is_timed_like_any_other() {
    let mut wire = Wire::new();
    asked(&mut wire, "", ASK.as_bytes());
    wire.write(head("gzip", SSE));
    for piece in gzipped(&EVENTS) {
        wire.write(chunk(&piece));
    }
    wire.write("0\r\n\r\n").close();
    let record = only(&wire);
    assert!(record.is_complete());
    assert_eq!(told(&record), "ok m - - 9+- 3+- usage 2");
    assert_eq!((record.ttft, record.deliveries), (Some(0.002), 2));
}

#[test]
fn a_hole_ends_a_compressed_stream() {
    let mut wire = Wire::new();
    asked(&mut wire, "", ASK.as_bytes());
    let head = format!("HTTP/1.1 200 OK\r\n{SSE}Content-Encoding: gzip\r\n\r\n");
    let pieces = gzipped(&EVENTS);
    wire.write(&head).write(&pieces[0]).write(&pieces[1]).hole(6);
    for piece in &pieces[2..] {
        wire.write(piece);
    }
    wire.close();
    let record = only(&wire);
    assert_eq!(record.partial, ["response_hole"]);
    let tokens = Tokens { output: Some(1), source: Some(TokenSource::Estimated), ..Tokens::default() };
    assert_eq!((record.tokens, record.outcome), (tokens, Some(Outcome::Unknown)));
    assert_eq!(record.response_bytes, (head.len() + pieces.concat().len()) as u64);
    assert!(record.duration.is_some());
}

#[test]
fn what_cannot_be_decoded_says_so() {
    for (coding, body, mark) in [
        ("compress", &b"\x1f\x9d"[..], "content_coding_unknown"),
        ("gzip, br", b"x", "content_coding_unknown"),
        ("br", &[0xff; 40], "content_coding_malformed"),
        ("gzip", b"this is no gzip at all", "content_coding_malformed"),
        ("zstd", b"this is no zstd at all", "content_coding_malformed"),
    ] {
        let mut wire = Wire::new();
        asked(&mut wire, "", ASK.as_bytes());
        wire.write(head(coding, SSE)).write(chunk(body)).write("0\r\n\r\n").close();
        let record = only(&wire);
        assert_eq!((&record.partial[..], record.tokens.output), (&[mark.to_owned()][..], None), "{coding}");
        assert!(record.defects.contains(&mark.to_owned()) && record.duration.is_some(), "{coding}");
    }
}

#[test]
fn a_compressed_document_is_read() {
    let text = r#"{"model":"m","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    let body = gzipped(&[text]).concat();
    let mut wire = Wire::new();
    asked(&mut wire, "", ASK.as_bytes());
    wire.write(head("x-gzip", JSON)).write(chunk(&body)).write("0\r\n\r\n").close();
    let record = only(&wire);
    assert_eq!((told(&record).as_str(), record.is_complete()), ("ok m stop - 9+- 3+- usage 0", true));
}

#[test]
fn a_compressed_request_is_read() {
    let body = gzipped(&[ASK]).concat();
    let mut wire = Wire::new();
    asked(&mut wire, "Content-Encoding: gzip\r\n", &body);
    wire.close();
    let seen = wire.seen();
    let record = &seen.records[0];
    assert_eq!(seen.requested[&record.id], (true, Some("m".into())));
    let mut wire = Wire::new();
    asked(&mut wire, "Content-Encoding: compress\r\n", &body);
    wire.close();
    let record = only(&wire);
    assert_eq!(
        (record.model.as_deref(), &record.defects[..]),
        (None, &["content_coding_unknown".to_owned()][..])
    );
}
