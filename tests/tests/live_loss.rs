//! What is lost is counted, and what must not be lost is not.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
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
    hammer,
    live::{Live, Seen, privileged},
    workload::{Workload, folder},
};

const LIMIT: Duration = Duration::from_secs(30);

fn connect(port: &str) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port.parse().expect("port"))).expect("connect")
}

/// Events of a stream, by its number: no two that follow each other have the same.
fn events(number: usize) -> usize {
    300 + 7 * number
}

/// Streams on one connection; returns bytes sent and received.
fn load(port: &str, streams: usize) -> (u64, u64) {
    let mut stream = connect(port);
    let (mut sent, mut received) = (0, 0);
    for number in 0..streams {
        let body = format!(r#"{{"model":"m{number}","stream":true,"events":{}}}"#, events(number));
        let request =
            format!("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).expect("request");
        sent += request.len() as u64;
        let mut tail = Vec::new();
        let mut buffer = [0; 16384];
        while !tail.ends_with(b"0\r\n\r\n") {
            let n = stream.read(&mut buffer).expect("response");
            assert!(n > 0, "response ended early");
            received += n as u64;
            tail.extend_from_slice(&buffer[..n]);
            let keep = tail.len().saturating_sub(5);
            tail.drain(..keep);
        }
    }
    (sent, received)
}

#[test]
fn an_overflowing_ring_is_counted_to_the_record() {
    const STREAMS: usize = 20;
    if !privileged() {
        return;
    }
    let live = Live::start(
        &Options { ring_bytes: 64 << 10, arrival: true },
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
    let mut stream = connect(&port);
    stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}").expect("request");
    let mut received = 0;
    let mut buffer = [0; 16384];
    loop {
        let n = stream.read(&mut buffer).expect("response");
        if n == 0 {
            break;
        }
        received += n as u64;
    }
    assert_eq!(server.line(), "done");
    stop.store(true, Ordering::Relaxed);
    let look_ups: u64 = hammers.into_iter().map(|hammer| hammer.join().expect("hammer")).sum();
    live.wait_until("the close", LIMIT, |seen| seen.raw.get(&server.pid()).is_some_and(|raw| raw.close == 1));
    let report = live.stop();
    let raw = report.seen.raw[&server.pid()];
    println!("{look_ups} look-ups; {:?}; missed {:?}", report.counts, report.missed);
    // Bytes are counted call by call: a write that went unseen would be missing here.
    assert_eq!(raw.final_positions.1, received, "every byte of every write was seen");
    assert_eq!(report.counts.get(Counter::Unpaired), 0);
    assert!(report.counts.balanced());
}
