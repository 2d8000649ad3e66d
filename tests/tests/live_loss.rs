//! What is lost is counted, and what must not be lost is not.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use observer::kernel::Options;
use observer_ebpf::Counter;
use observer_tests::{
    client::{Client, chat},
    hammer,
    live::{Live, Seen, privileged},
    workload::{Workload, folder},
};

const LIMIT: Duration = Duration::from_secs(30);

/// Events of a stream, by its number: no two that follow each other have the same.
fn events(number: usize) -> usize {
    300 + 7 * number
}

/// Streams on one connection; returns bytes sent and received.
fn load(port: &str, streams: usize) -> (u64, u64) {
    let mut client = Client::connect(port);
    for number in 0..streams {
        client.stream("loss", &chat(&format!("m{number}"), true, events(number)));
    }
    (client.sent, client.received)
}

#[test]
fn an_overflowing_ring_is_counted_to_the_record() {
    const STREAMS: usize = 20;
    if !privileged() {
        return;
    }
    let live = Live::start(
        &Options { ring_bytes: 64 << 10, arrival: true, ask_first: false },
        Seen { dawdle: Duration::from_micros(60), ..Seen::default() },
    );
    let (server, port) = Workload::script("openai_server.py", &[]);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let port = port.clone();
            thread::spawn(move || load(&port, STREAMS))
        })
        .collect();
    let (mut sent, mut received) = (0, 0);
    for client in clients {
        let (s, r) = client.join().expect("client");
        sent += s;
        received += r;
    }
    let pid = server.pid();
    live.wait_until("all connections to close", LIMIT, |seen| {
        seen.raw.get(&pid).is_some_and(|raw| raw.close == 4)
    });
    let report = live.stop();
    let raw = report.seen.raw[&pid];
    println!("{:?}\n{:?}\n{raw:?}", report.counts, report.stats);
    assert!(report.counts.get(Counter::DroppedRingData) > 100, "no overload: {:?}", report.counts);
    assert_eq!(report.counts.get(Counter::DroppedRingFull), 0, "lifecycle has its reserve");
    assert!(report.counts.balanced(), "seen = submitted + dropped: {:?}", report.counts);
    assert_eq!(report.counts.get(Counter::Submitted), report.stats.received - report.made_here, "all arrive");
    assert_eq!(report.stats.received, report.stats.decoded + report.stats.dropped_table_full);
    assert_eq!(raw.final_positions, (sent, received), "positions against the script's own count");
    assert_eq!(raw.covered + report.stats.lost_bytes, sent + received, "covered and lost make the whole");
    let mut complete = 0;
    for record in &report.seen.records {
        if record.is_complete() {
            complete += 1;
            let number = record.model.as_deref().and_then(|model| model[1..].parse().ok()).expect("model");
            assert_eq!(record.tokens.output, Some(events(number) as u64), "{record:?}");
            assert_eq!(record.token_events, events(number) as u64, "{record:?}");
        }
    }
    println!("{} exchanges, {complete} complete", report.seen.records.len());
    assert!(complete < report.seen.records.len());
}

#[test]
fn no_write_is_missed_while_others_hammer_bpf_maps() {
    const WRITES: u64 = 300_000;
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let stop = Arc::new(AtomicBool::new(false));
    let hammers: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || hammer::look_up_on_cpu(0, &stop))
        })
        .collect();
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "python3", "-u"]).arg(folder("python").join("identity.py"));
    command.args(["writer", &WRITES.to_string()]);
    let (mut server, port) = Workload::start(command);
    let mut client = Client::connect(&port);
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
    while !client.receive().is_empty() {}
    assert_eq!(server.line(), "done");
    stop.store(true, Ordering::Relaxed);
    let look_ups: u64 = hammers.into_iter().map(|hammer| hammer.join().expect("hammer")).sum();
    live.wait_until("the close", LIMIT, |seen| seen.raw.get(&server.pid()).is_some_and(|raw| raw.close == 1));
    let report = live.stop();
    let raw = report.seen.raw[&server.pid()];
    println!("{look_ups} look-ups; {:?}; missed {:?}", report.counts, report.missed);
    // Bytes are counted call by call: a write that went unseen would be missing here.
    assert_eq!(raw.final_positions.1, client.received, "every byte of every write was seen");
    assert_eq!(report.counts.get(Counter::Unpaired), 0);
    assert!(report.counts.balanced());
}
