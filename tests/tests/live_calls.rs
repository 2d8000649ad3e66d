//! Every system call that moves data: what it moved is captured, or is a hole that is told.

use std::{thread, time::Duration};

use observer::exchange::{Outcome, RequestRecord};
use observer_ebpf::Counter;
use observer_tests::{
    client::{Client, chat},
    live::{Live, Report, privileged},
    workload::Workload,
};

const LIMIT: Duration = Duration::from_secs(10);
const REQUESTS: usize = 2;

/// Two requests on one connection through the given calls. Positions must equal what the client counted.
fn serve(arguments: &[&str], slow_reader: bool) -> Option<Report> {
    if !privileged() {
        return None;
    }
    let live = Live::start_default();
    let (server, port) = Workload::script("calls.py", arguments);
    let mut client = Client::connect(&port);
    for number in 0..REQUESTS {
        client.post("call", "", &chat(&format!("m{number}"), true, 6));
        let mut tail = Vec::new();
        while !tail.ends_with(b"\r\n0\r\n\r\n") {
            if slow_reader {
                thread::sleep(Duration::from_micros(500));
            }
            let more = client.receive();
            assert!(!more.is_empty(), "the response ended early");
            tail.extend_from_slice(&more);
            tail.drain(..tail.len().saturating_sub(7));
        }
    }
    let moved = (client.sent, client.received);
    drop(client);
    let pid = server.pid();
    // A duplicate is closed after each response.
    let closes = if matches!(arguments, ["dup" | "fcntl"]) { 3 } else { 1 };
    live.wait_until("both exchanges and the close", LIMIT, |seen| {
        seen.records.len() == REQUESTS && seen.raw.get(&pid).is_some_and(|raw| raw.close >= closes)
    });
    let report = live.stop();
    // Each descriptor of the connection tells its positions when it is closed; the last one has them all.
    assert_eq!(report.seen.raw[&pid].highest, moved, "{arguments:?}");
    assert!(report.counts.balanced(), "{:?}", report.counts);
    Some(report)
}

fn whole(record: &RequestRecord, deliveries: u64) {
    assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
    assert!(record.is_complete() && record.defects.is_empty(), "{record:?}");
    assert_eq!((record.tokens.output, record.token_events), (Some(6), 6), "{record:?}");
    assert_eq!(record.deliveries, deliveries, "{record:?}");
    assert!(record.model.as_deref().is_some_and(|model| model.starts_with('m')), "{record:?}");
}

macro_rules! captured_whole {
    ($($name:ident: $arguments:expr, $deliveries:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let Some(report) = serve(&$arguments, false) else { return };
                for record in &report.seen.records {
                    whole(record, $deliveries);
                }
            }
        )*
    };
}

captured_whole! {
    write: ["plain"], 6;
    writev_of_eight: ["writev", "8"], 6;
    writev_of_thirty_two: ["writev", "32"], 6;
    sendmsg: ["sendmsg"], 6;
    all_in_one_write: ["one-write"], 1;
    responses_through_a_duplicate: ["dup"], 6;
    responses_through_a_duplicate_by_fcntl: ["fcntl"], 6;
    peeked_requests: ["peek"], 6;
    recvmsg_into_pieces: ["recvmsg"], 6;
    requests_read_byte_by_byte: ["bytewise"], 6;
}

#[test]
fn vectors_beyond_the_limit_are_a_hole() {
    let Some(report) = serve(&["writev", "40"], false) else { return };
    for record in &report.seen.records {
        assert!(!record.is_complete(), "{record:?}");
    }
}

#[test]
fn what_is_not_copied_is_an_exact_hole() {
    for mode in ["sendfile", "sendmmsg"] {
        let Some(report) = serve(&[mode], false) else { return };
        assert!(report.counts.get(Counter::OpaqueBytes) > 0, "{mode}: {:?}", report.counts);
        for record in &report.seen.records {
            assert!(!record.is_complete(), "{mode}: {record:?}");
            assert_eq!((record.status, record.ttft), (Some(200), None), "{mode}: {record:?}");
        }
        assert_eq!(report.stats.lost_bytes, 0, "{mode}: holes are no losses");
    }
}

#[test]
fn discarded_content_is_a_hole() {
    let Some(report) = serve(&["trunc"], false) else { return };
    for record in &report.seen.records {
        // The content was never in memory: what it asked for is not known, what was answered is.
        assert_eq!((record.max_tokens, record.tokens.output), (None, Some(6)), "{record:?}");
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
    }
}

#[test]
fn short_writes_and_full_buffers_lose_nothing() {
    let Some(report) = serve(&["nonblocking"], true) else { return };
    for record in &report.seen.records {
        assert_eq!((record.outcome, record.tokens.output), (Some(Outcome::Ok), Some(6)), "{record:?}");
    }
    assert_eq!(report.stats.lost_bytes, 0);
}
