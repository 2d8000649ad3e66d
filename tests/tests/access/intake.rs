//! Lines that others send: who may, what is taken, and what becomes of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use flate2::{Compression, write::GzEncoder};
use observer::recent::{Asked, Query};
use observer::timeline::Row;
use observer_tests::agent::wait_for;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message as _;

use super::{ELSEWHERE, LOCAL, NOW, World};

const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

/// A message with these lines, and so many events.
fn message(lines: &[&str], events: usize) -> Vec<u8> {
    let text = |text: &str| AnyValue { value: Some(Value::StringValue(text.to_owned())) };
    let line = |line: &&str| LogRecord {
        time_unix_nano: NOW.unsigned_abs() - 5,
        body: Some(text(line)),
        ..LogRecord::default()
    };
    let event = LogRecord { event_name: "llm.process.exit".to_owned(), ..LogRecord::default() };
    let log_records = lines.iter().map(line).chain(vec![event; events]).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

/// Status and answer of a POST.
fn post(world: &World, host: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(world.address).expect("a connection");
    let length = body.len();
    write!(
        stream,
        "POST /v1/logs HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .expect("a request");
    // What is refused may be refused before all of it was read.
    let _refused_early = stream.write_all(body);
    let mut answer = Vec::new();
    let _cut_off = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    (text.split(' ').nth(1).expect("a status").parse().expect("a number"), text)
}

fn stored(world: &World) -> Vec<Row> {
    let query = Query::parse(Asked::Logs, &[("order".to_owned(), "oldest".to_owned())]).expect("a question");
    world.store.search(&query, NOW, u64::MAX).rows
}

#[test]
fn who_may_send_lines() {
    let world = World::start(false);
    for (at, (host, token, expected)) in [
        (LOCAL, None, 200),
        (ELSEWHERE, None, 403),
        (ELSEWHERE, Some("wrong"), 403),
        (ELSEWHERE, Some("shared"), 200),
        // Whoever may read all logs may not write them.
        (ELSEWHERE, Some("token-of-admin"), 403),
        (ELSEWHERE, Some("token-of-nobody"), 403),
    ]
    .into_iter()
    .enumerate()
    {
        let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let line = format!("from {at}");
        let (status, answer) = post(&world, host, &format!("{PROTOBUF}{token}"), &message(&[&line], 0));
        assert_eq!(status, expected, "{at}: {answer}");
    }
    let lines = wait_for("the lines", || Some(stored(&world)).filter(|rows| rows.len() >= 2));
    let lines: Vec<_> = lines.into_iter().map(|row| row.message).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(["from 0", "from 3"].iter().all(|line| lines.iter().any(|told| told == line)), "{lines:?}");
}

#[test]
fn what_is_taken_and_what_is_not() {
    let world = World::start(false);
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    };
    let (plain, gzipped) = (message(&["plain"], 2), gzip(&message(&["zipped"], 0)));
    let encoded = |encoding: &str| format!("{PROTOBUF}Content-Encoding: {encoding}\r\n");
    // Small on the wire, and 512 MiB when it is not.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(&mut std::io::repeat(0).take(512 << 20), &mut encoder).expect("in memory");
    let bomb = encoder.finish().expect("in memory");
    for (headers, body, expected) in [
        (PROTOBUF.to_owned(), &plain, 200),
        (encoded("gzip"), &gzipped, 200),
        (PROTOBUF.to_owned(), &Vec::new(), 200),
        (String::new(), &plain, 415),
        ("Content-Type: text/plain\r\n".to_owned(), &plain, 415),
        ("Content-Type: application/json\r\n".to_owned(), &b"{}".to_vec(), 415),
        (encoded("zstd"), &plain, 415),
        (encoded("gzip"), &plain, 400),
        (PROTOBUF.to_owned(), &gzipped, 400),
        (encoded("gzip"), &bomb, 413),
        (PROTOBUF.to_owned(), &vec![0; 17 << 20], 413),
    ] {
        let (status, answer) = post(&world, LOCAL, &headers, body);
        assert_eq!(status, expected, "{headers}: {answer}");
        let kind = if status == 200 { "application/x-protobuf" } else { "text/plain" };
        assert!(answer.contains(kind), "{answer}");
    }
    let lines = wait_for("the lines", || Some(stored(&world)).filter(|rows| rows.len() >= 2));
    assert_eq!(lines.len(), 2, "{lines:?}");
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the most memory");
    let most: u64 = most.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(most < 300 << 10, "no more is decompressed than may come: {most} KiB");
}

#[test]
fn lines_of_others_are_redacted_and_the_same_line_is_the_same_row() {
    let world = World::start(false);
    let secret = "Authorization: Bearer sk-abcdefghijklmnopqrstuvwxyz0123";
    let long = "x".repeat(300 << 10);
    for _ in 0..2 {
        let (status, answer) = post(&world, LOCAL, PROTOBUF, &message(&[secret, &long], 0));
        assert_eq!(status, 200, "{answer}");
    }
    let rows = wait_for("the lines", || Some(stored(&world)).filter(|rows| rows.len() >= 4));
    let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| row.id.clone()).collect();
    assert_eq!((rows.len(), ids.len()), (4, 2), "sent twice, and known as the same");
    let redacted = rows.iter().find(|row| row.redacted > 0).expect("a redacted row");
    assert!(!redacted.message.contains("abcdefghijklm"), "{redacted:?}");
    let cut = rows.iter().find(|row| row.left_out > 0).expect("a row that was cut");
    assert_eq!((cut.message.len(), cut.left_out), (256 << 10, 44 << 10));
}
