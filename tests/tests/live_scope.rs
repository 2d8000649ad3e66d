//! What is copied of connections that are of no interest, and that none of interest is missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use observer::{
    capture::{Decision, Scope},
    discover::Process,
    exchange::Outcome,
    kernel::Options,
};
use observer_tests::{
    client::{Client, chat},
    live::{Live, Seen, is_descendant, privileged},
    workload::{Workload, quiet},
};

const LIMIT: Duration = Duration::from_secs(10);

/// Time for a verdict to reach the kernel side.
const VERDICT: Duration = Duration::from_millis(100);

#[test]
fn a_protocol_that_is_not_http_costs_one_record() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (server, port) = Workload::script("identity.py", &["echo"]);
    let mut client = Client::connect(&port);
    for number in 0..500 {
        client.exchange(&format!("*1\r\n$4\r\nPING {number}\r\n"));
    }
    drop(client);
    live.wait_until("its connection to close", LIMIT, |seen| {
        seen.raw.get(&server.pid()).is_some_and(|raw| raw.close == 1)
    });
    let raw = live.look(|seen| seen.raw[&server.pid()]);
    println!("{raw:?}");
    assert_eq!(raw.data, 1);
    assert!(raw.captured <= 16);
    assert!(live.stop().seen.records.is_empty());
}

#[test]
fn a_plain_web_server_costs_nothing_for_get_and_one_record_for_post() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (server, port) = Workload::script("identity.py", &["web"]);
    let data = || live.look(|seen| seen.raw.get(&server.pid()).map_or(0, |raw| raw.data));
    let mut client = Client::connect(&port);
    client.exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    quiet(VERDICT);
    let decided = data();
    assert!((1..=2).contains(&decided), "the first exchange: {decided}");
    for _ in 0..200 {
        client.exchange("GET /style.css HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    quiet(VERDICT);
    assert_eq!(data(), decided, "GET after the verdict");
    for _ in 0..200 {
        client.exchange("POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd");
    }
    quiet(VERDICT);
    let posts = data() - decided;
    assert_eq!(posts, 200, "one record for each POST");
    assert!(live.stop().seen.records.is_empty());
}

/// Pooled clients ask for something else first.
fn first_then_completion(first: &str) {
    let live = Live::start_default();
    let (_server, port) = Workload::script("openai_server.py", &["--events", "6", "--gap", "0.02"]);
    let mut client = Client::connect(&port);
    for _ in 0..3 {
        client.exchange(&format!("GET {first} HTTP/1.1\r\nHost: x\r\n\r\n"));
        quiet(VERDICT);
    }
    client.stream("m", &chat("m", true, 6));
    live.wait_until("the completion", LIMIT, |seen| seen.records.len() == 1);
    let report = live.stop();
    let record = &report.seen.records[0];
    assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
    assert_eq!(record.tokens.output, Some(6), "{record:?}");
    assert!(record.partial.is_empty(), "{record:?}");
}

#[test]
fn a_pooled_client_may_ask_for_the_models_first() {
    if privileged() {
        first_then_completion("/v1/models");
    }
}

/// What lies before it on the connection must not use up what is copied of it.
#[test]
fn a_pooled_client_may_ask_for_the_models_a_thousand_times() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (_server, port) = Workload::script("openai_server.py", &["--events", "6"]);
    let mut client = Client::connect(&port);
    for _ in 0..1000 {
        client.exchange("GET /v1/models HTTP/1.1\r\nHost: x\r\nUser-Agent: a client with a pool\r\n\r\n");
    }
    client.stream("m", &chat("m", true, 6));
    live.wait_until("the completion", LIMIT, |seen| seen.records.len() == 1);
    let report = live.stop();
    let record = &report.seen.records[0];
    assert_eq!((record.outcome, record.tokens.output), (Some(Outcome::Ok), Some(6)), "{record:?}");
    assert!(record.is_complete(), "{record:?}");
}

/// The first request of a connection may be larger than what is copied before the verdict. What it asks for may
/// stand at its end.
#[test]
fn a_large_first_request_is_known_to_its_end() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (_server, port) = Workload::script("openai_server.py", &["--events", "6"]);
    let mut client = Client::connect(&port);
    client.stream("m", &chat("m", true, 6));
    let mut client = Client::connect(&port);
    let padding = "x".repeat(900_000);
    let body =
        format!(r#"{{"messages":[{{"role":"user","content":"{padding}"}}],"model":"large","stream":true}}"#);
    client.stream("large", &body);
    live.wait_until("both completions", LIMIT, |seen| seen.records.len() == 2);
    let report = live.stop();
    let record = &report.seen.records[1];
    assert_eq!((record.model.as_deref(), record.stream), (Some("large"), true), "{record:?}");
    assert_eq!((record.outcome, record.tokens.output), (Some(Outcome::Ok), Some(6)), "{record:?}");
    assert!(record.request_bytes > 900_000, "{record:?}");
}

#[test]
fn bytes_of_tls_are_counted() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (_server, port) = Workload::script("identity.py", &["echo"]);
    let mut client = Client::connect(&port);
    // The start of a handshake record, then whatever: the server echoes it.
    let hello = format!("\x16\x03\x01\x02\x00{}", "h".repeat(500));
    for _ in 0..20 {
        client.exchange(&hello);
    }
    drop(client);
    live.wait_until("the bytes", LIMIT, |seen| !seen.undecoded.is_empty());
    let undecoded = live.look(|seen| seen.undecoded.clone());
    assert_eq!(undecoded, [("tls", 2 * 20 * hello.len() as u64)]);
    drop(live.stop());
}

#[test]
fn a_connection_that_was_ignored_is_looked_at_again() {
    if privileged() {
        first_then_completion("/favicon.ico");
    }
}

/// Decides as it is told to, on processes of this test.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicU64>);

impl Gate {
    const DECISIONS: [Decision; 3] = [Decision::Wait, Decision::Observe, Decision::Ignore];

    fn set(&self, decision: Decision) {
        let at = Self::DECISIONS.iter().position(|known| *known == decision).expect("one of them");
        self.0.store(at as u64, Ordering::Relaxed);
        // Decisions are made again once a second.
        quiet(Duration::from_millis(1500));
    }
}

impl Scope for Gate {
    fn decide(&self, tgid: u32, _: &Process) -> Decision {
        if is_descendant(tgid) { Self::DECISIONS[self.version() as usize] } else { Decision::Ignore }
    }

    fn version(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn nothing_is_captured_before_a_process_is_admitted_nor_after_it_is_not_any_more() {
    if !privileged() {
        return;
    }
    let gate = Gate::default();
    let options = Options { ask_first: true, ..Live::options() };
    let live = Live::start_scoped(&options, Seen::default(), Box::new(gate.clone()));
    let (server, port) = Workload::script("openai_server.py", &["--events", "6", "--gap", "0.02"]);
    let records = || live.look(|seen| seen.raw.get(&server.pid()).map_or(0, |raw| raw.data + raw.open));
    let mut client = Client::connect(&port);
    client.stream("before", &chat("m", true, 6));
    quiet(VERDICT);
    assert_eq!(records(), 0, "not decided on yet");

    gate.set(Decision::Observe);
    client.stream("kept", &chat("m", true, 6));
    Client::connect(&port).stream("new", &chat("m", true, 6));
    live.wait_until("both completions", LIMIT, |seen| seen.records.len() == 2);
    for record in live.look(|seen| seen.records.clone()) {
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
        assert_eq!(record.tokens.output, Some(6), "{record:?}");
        assert!(record.is_complete() && record.ttft.is_some(), "{record:?}");
    }

    let mut open = Client::connect(&port);
    open.post("open", "", &chat("m", true, 200));
    quiet(VERDICT);
    gate.set(Decision::Ignore);
    let until = records();
    client.stream("after", &chat("m", true, 6));
    Client::connect(&port).stream("after", &chat("m", true, 6));
    quiet(VERDICT);
    assert_eq!(records(), until, "out of scope");
    let report = live.stop();
    let records = report.seen.records;
    assert_eq!(records.len(), 3, "{records:?}");
    assert_eq!(records[2].request_id.as_deref(), Some("open"), "{records:?}");
    assert!(!records[2].is_complete(), "its end was not seen: {:?}", records[2]);
}
