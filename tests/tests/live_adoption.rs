//! Every way in which a process comes by a connection: the exchange is told once, by whoever served it.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::Command,
    time::Duration,
};

use observer::exchange::{Outcome, RequestRecord};
use observer_tests::{
    agent::{Running, wait_for},
    client::{Client, chat},
    live::{Live, Report, privileged},
    scripted::by_id,
    workload::{Workload, folder, venv},
};

const LIMIT: Duration = Duration::from_secs(10);

/// Connections of a test; one after the other keeps a request on each.
const CONNECTIONS: usize = 24;

/// Panics unless all of a streamed exchange was seen.
fn whole(record: &RequestRecord, model: &str, tokens: u64) {
    assert_eq!((record.outcome, record.model.as_deref()), (Some(Outcome::Ok), Some(model)), "{record:?}");
    assert_eq!((record.tokens.output, record.token_events), (Some(tokens), tokens), "{record:?}");
    assert!(record.is_complete() && record.defects.is_empty() && record.ttft.is_some(), "{record:?}");
}

/// Panics unless nothing of a stopped capture's exchanges is left, and none was counted away.
fn settled(report: &Report) {
    assert_eq!((report.in_flight, report.stats.lost_bytes), (0, 0), "{:?}", report.stats);
    assert!(report.counts.balanced(), "{:?}", report.counts);
}

/// Two streams on each of many connections, all open at once; each of them is told once, whole, with its own
/// client's address, and by one process per connection. The processes that served.
fn served_by(arguments: &[&str]) -> Option<(HashSet<u32>, u32)> {
    if !privileged() {
        return None;
    }
    let live = Live::start_default();
    let (server, port) = Workload::script("adoption.py", arguments);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(&port)).collect();
    let id = |round: usize, number: usize| format!("{round}-{number}");
    // Who serves one connection at a time serves the next one after its end.
    let one_by_one = arguments == ["passed"];
    let mut peers = HashMap::new();
    let mut ask = |client: &mut Client, round: usize, number: usize| {
        let events = 1 + round + number;
        client.stream(&id(round, number), &chat(&format!("m{number}"), true, events));
        peers.insert(id(round, number), client.name());
    };
    if one_by_one {
        for (number, mut client) in clients.drain(..).enumerate() {
            ask(&mut client, 0, number);
            ask(&mut client, 1, number);
        }
    } else {
        for round in 0..2 {
            for (number, client) in clients.iter_mut().enumerate() {
                ask(client, round, number);
            }
        }
    }
    drop(clients);
    live.wait_until("all exchanges", LIMIT, |seen| seen.records.len() == 2 * CONNECTIONS);
    let report = live.stop();
    settled(&report);
    let records = by_id(&report.seen.records);
    for number in 0..CONNECTIONS {
        let [first, second] = [0, 1].map(|round| records[id(round, number).as_str()]);
        for (round, record) in [first, second].into_iter().enumerate() {
            whole(record, &format!("m{number}"), (1 + round + number) as u64);
            assert_eq!(record.peer.as_ref(), peers.get(&id(round, number)), "{record:?}");
        }
        assert_eq!(first.pid, second.pid, "one connection: {first:?} {second:?}");
        let connection = |record: &RequestRecord| record.id.split_once('-').expect("an id").0.to_owned();
        assert_eq!(connection(first), connection(second), "one connection: {first:?} {second:?}");
    }
    Some((records.values().map(|record| record.pid).collect(), server.pid()))
}

#[test]
fn workers_with_a_listener_each_on_one_port() {
    let Some((served, parent)) = served_by(&["reuseport", "4"]) else { return };
    assert!(served.len() > 1 && !served.contains(&parent), "{served:?} of {parent}");
}

#[test]
fn children_that_accept_from_their_parents_listener() {
    let Some((served, parent)) = served_by(&["prefork", "4"]) else { return };
    assert!(!served.contains(&parent), "{served:?} of {parent}");
}

#[test]
fn programs_that_were_started_with_a_listener() {
    let Some((served, parent)) = served_by(&["inherited", "3"]) else { return };
    assert!(!served.contains(&parent), "{served:?} of {parent}");
}

#[test]
fn a_child_that_is_passed_what_its_parent_accepted() {
    let Some((served, parent)) = served_by(&["passed"]) else { return };
    assert!(served.len() == 1 && !served.contains(&parent), "{served:?} of {parent}");
}

/// The server itself checks that the number is the same.
#[test]
fn a_descriptors_number_is_used_again_at_once() {
    const NUMBER: usize = 200;
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (_server, port) = Workload::script("adoption.py", &["next"]);
    // All have connected and asked before the first is closed.
    let mut clients: Vec<Client> = (0..NUMBER).map(|_| Client::connect(&port)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.post(&number.to_string(), "", &chat(&format!("m{number}"), true, 1 + number % 7));
    }
    for client in &mut clients {
        client.receive_all();
    }
    live.wait_until("all exchanges", LIMIT, |seen| seen.records.len() == NUMBER);
    let report = live.stop();
    settled(&report);
    let records = by_id(&report.seen.records);
    for (number, client) in clients.iter().enumerate() {
        let record = records[number.to_string().as_str()];
        whole(record, &format!("m{number}"), 1 + number as u64 % 7);
        assert_eq!(record.peer, Some(client.name()), "{record:?}");
        assert_eq!((record.request_bytes, record.response_bytes), (client.sent, client.received));
    }
}

#[test]
fn a_server_that_comes_back_on_its_port() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (server, port) = Workload::script("openai_server.py", &[]);
    let old = server.pid();
    let (mut idle, mut cut) = (Client::connect(&port), Client::connect(&port));
    idle.stream("old", &chat("old", true, 3));
    cut.post("cut", "", r#"{"model":"cut","stream":true,"events":100,"gap_s":0.05}"#);
    cut.receive_until(b"\n\n\r\n");
    server.kill();
    let (server, again) = Workload::script("openai_server.py", &["--port", &port]);
    assert_eq!(again, port);
    // The connections to the one that was killed are over; the new ones have the same numbers there.
    let mut clients = [Client::connect(&port), Client::connect(&port)];
    for (number, client) in clients.iter_mut().enumerate() {
        client.stream(&format!("new-{number}"), &chat("new", true, 4 + number));
    }
    idle.outlive();
    cut.outlive();
    live.wait_until("all exchanges", LIMIT, |seen| seen.records.len() == 4);
    let report = live.stop();
    settled(&report);
    let records = by_id(&report.seen.records);
    whole(records["old"], "old", 3);
    assert_eq!(records["cut"].outcome, Some(Outcome::AbortedByServer), "{:?}", records["cut"]);
    assert!(records["cut"].token_events < 100, "{:?}", records["cut"]);
    for (number, id) in ["new-0", "new-1"].into_iter().enumerate() {
        whole(records[id], "new", 4 + number as u64);
        assert_eq!(records[id].pid, server.pid());
    }
    assert_eq!((records["old"].pid, records["cut"].pid), (old, old));
}

/// Two exchanges on one connection over a Unix socket, and one that the client gives up.
fn over_a_unix_socket(server: u32, path: &Path, live: Live, long: &str, short: &str) {
    let mut client = Client::connect_unix(path);
    client.stream("first", short);
    client.stream("second", short);
    let (sent, received) = (client.sent, client.received);
    drop(client);
    let mut client = Client::connect_unix(path);
    client.post("given-up", "", long);
    // Events: the first may say the role only.
    client.receive_until(b"\n\n\r\n");
    client.receive_until(b"\n\n\r\n");
    drop(client);
    live.wait_until("all exchanges", LIMIT, |seen| seen.records.len() == 3);
    let report = live.stop();
    settled(&report);
    let records = by_id(&report.seen.records);
    let [first, second, given_up] = ["first", "second", "given-up"].map(|id| records[id]);
    for record in [first, second] {
        whole(record, "m", 5);
        assert!(record.clocks.connected.is_none() && record.queue.accept.is_none(), "{record:?}");
    }
    assert_eq!((first.clocks.accepted.is_some(), second.clocks.accepted.is_some()), (true, false));
    assert_eq!(first.request_bytes + second.request_bytes, sent);
    assert_eq!(first.response_bytes + second.response_bytes, received);
    assert_eq!(given_up.outcome, Some(Outcome::AbortedByClient), "{given_up:?}");
    assert!(given_up.is_complete() && given_up.token_events > 0, "{given_up:?}");
    for record in [first, second, given_up] {
        assert_eq!((record.pid, &record.peer), (server, &None), "{record:?}");
    }
}

#[test]
fn a_server_on_a_unix_socket() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let folder = tempfile::tempdir().expect("a folder for its socket");
    let path = folder.path().join("socket");
    let (server, _) = Workload::script("adoption.py", &["unix", path.to_str().expect("UTF-8 path")]);
    let long = r#"{"model":"m","stream":true,"events":100,"gap_s":0.02}"#;
    over_a_unix_socket(server.pid(), &path, live, long, &chat("m", true, 5));
}

#[test]
fn uvicorn_on_a_unix_socket() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let sockets = tempfile::tempdir().expect("a folder for its socket");
    let path = sockets.path().join("socket");
    let mut command = Command::new(venv().join("bin/uvicorn"));
    command.arg("--app-dir").arg(folder("python")).args([
        "scripted_server:app",
        "--log-level",
        "warning",
        "--uds",
    ]);
    let mut server = Running::start({
        command.arg(&path);
        command
    });
    wait_for("its socket", || {
        server.assert_alive();
        path.exists().then_some(())
    });
    let body = |events: usize, gap_ms: usize| {
        format!(
            r#"{{"model":"m","stream":true,"stream_options":{{"include_usage":true}},"script":{{"events":{events},"gap_ms":{gap_ms}}}}}"#
        )
    };
    over_a_unix_socket(server.pid(), &path, live, &body(100, 20), &body(5, 0));
}
