//! Clocks against the server's own: real `FastAPI` under real uvicorn, which notes `CLOCK_MONOTONIC` before
//! each send.

use std::time::Duration;

use observer::exchange::Outcome;
use observer_tests::{
    live::{Live, privileged},
    scripted::{Scripted, by_id, quantile},
};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn two_hundred_streams_at_sixteen() {
    const STREAMS: usize = 240;
    const EVENTS: usize = 20;
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let scripted = Scripted::start(&[]);
    let script = format!(r#"{{"events":{EVENTS},"gap_ms":25,"first_token_delay_s":0.04}}"#);
    let client =
        scripted.load(&["--streams", &STREAMS.to_string(), "--concurrency", "16", "--script", &script]);
    live.wait_until("all streams", LIMIT, |seen| seen.records.len() >= STREAMS);
    let report = live.stop();
    let sends = scripted.sends();
    let records = by_id(&report.seen.records);
    assert_eq!(
        (client.len(), records.len(), sends.len()),
        (STREAMS, STREAMS, STREAMS),
        "every one is matched"
    );

    let (mut first_errors, mut gap_errors) = (Vec::new(), Vec::new());
    for (id, record) in &records {
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
        assert!(record.is_complete() && record.defects.is_empty(), "{record:?}");
        assert_eq!(record.deliveries, EVENTS as u64, "{record:?}");
        // The role event is the first send; then one per token.
        let tokens = &sends[*id][1..=EVENTS];
        let origin = report.seen.started[&record.id] as f64;
        let first = record.clocks.first_token.expect("a stream with tokens").mul_add(1e9, origin);
        first_errors.push((first - tokens[0].0 as f64).abs() / 1e6);
        assert_eq!(record.gap_micros.len(), EVENTS - 1);
        for (gap, pair) in record.gap_micros.iter().zip(tokens.windows(2)) {
            let own = (pair[1].0 - pair[0].0) as f64 / 1e6;
            gap_errors.push((f64::from(*gap) / 1e3 - own).abs());
        }
        let first_own = (tokens[0].0 as f64 - origin) / 1e9;
        assert!((record.ttft.expect("ttft") - first_own).abs() < 0.05, "{record:?}");
    }
    let quantiles = |name: &str, errors: &mut [f64]| {
        let (p50, p99) = (quantile(errors, 0.5), quantile(errors, 0.99));
        println!(
            "{name}: p50 {p50:.4} ms, p99 {p99:.4} ms, max {:.4} ms of {}",
            quantile(errors, 1.0),
            errors.len()
        );
        (p50, p99)
    };
    let ttft = quantiles("TTFT error", &mut first_errors);
    let gaps = quantiles("inter-chunk error", &mut gap_errors);
    assert!(ttft.0 <= 0.1 && ttft.1 <= 1.0, "TTFT error {ttft:?}");
    assert!(gaps.0 <= 0.1 && gaps.1 <= 1.0, "inter-chunk error {gaps:?}");
    assert!(report.counts.balanced() && report.counts.dropped() == 0, "{:?}", report.counts);
}

#[test]
fn headers_are_no_tokens_and_silence_is_no_end() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let scripted = Scripted::start(&[]);
    let late = r#"{"events":5,"gap_ms":10,"first_token_delay_s":12}"#;
    let pause = r#"{"events":6,"gap_ms":10,"pause_after":3,"pause_s":12}"#;
    scripted.load(&[
        "--streams",
        "2",
        "--concurrency",
        "2",
        "--script",
        late,
        "--script",
        pause,
        "--prefix",
        "p",
    ]);
    live.wait_until("both streams", LIMIT, |seen| seen.records.len() == 2);
    let report = live.stop();
    let records = by_id(&report.seen.records);
    let (late, paused) = (records["p-000000"], records["p-000001"]);
    println!("late: ttfb {:?}, ttft {:?}; paused: gaps {:?}", late.ttfb, late.ttft, paused.gaps);
    assert!(late.ttfb.is_some_and(|ttfb| ttfb < 0.1), "{late:?}");
    assert!(late.ttft.is_some_and(|ttft| (12.0..12.2).contains(&ttft)), "{late:?}");
    assert!(late.clocks.first_event.is_some_and(|first| first < 0.1), "{late:?}");
    assert_eq!((late.outcome, late.token_events), (Some(Outcome::Ok), 5), "{late:?}");
    assert_eq!((paused.outcome, paused.token_events), (Some(Outcome::Ok), 6), "{paused:?}");
    // The script sleeps for 12 s from before it hands an event over: on the wire the gap may be a little less.
    assert!(paused.gaps.as_ref().is_some_and(|gaps| (11.99..12.2).contains(&gaps.max)), "{paused:?}");
    assert!(paused.duration.is_some_and(|duration| duration > 11.99), "{paused:?}");
}

#[test]
fn a_server_that_reads_late_shows_a_socket_wait() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let scripted = Scripted::start(&["--read-delay-ms", "500"]);
    scripted.load(&["--streams", "4", "--keep-alive", "--script", r#"{"events":2}"#]);
    live.wait_until("all streams", LIMIT, |seen| seen.records.len() == 4);
    let report = live.stop();
    for record in &report.seen.records {
        println!("{}: socket wait {:?}, ttft {:?}", record.id, record.queue.socket, record.ttft);
        let wait = record.queue.socket.expect("the kernel tells when data arrived");
        assert!((0.498..0.56).contains(&wait), "{record:?}");
        assert!(
            record.ttft.is_some_and(|ttft| ttft < 0.2),
            "waiting in the socket is no part of it: {record:?}"
        );
    }
}
