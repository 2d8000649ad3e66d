//! Which connection a descriptor is, when processes make it hard to tell.

use std::{collections::HashSet, time::Duration};

use observer::exchange::Outcome;
use observer_tests::{
    client::{Client, chat},
    live::{Live, privileged},
    workload::{Workload, folder, quiet},
};

const LIMIT: Duration = Duration::from_secs(20);

/// After the end of a connection, its state is kept for a grace period, then swept within a second.
const SWEPT: Duration = Duration::from_millis(4500);

fn answer(client: &mut Client) {
    let answer = client.receive();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

/// Each exchange must carry the tokens that its own model stands for.
fn check_exchanges(mode: &str) {
    let live = Live::start_default();
    let (server, port) = Workload::script("openai_server.py", &["--mode", mode]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(&port)).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let number = round * 100 + number;
            client.post("identity", "", &chat(&format!("m{number}"), false, number + 1));
        }
        clients.iter_mut().for_each(answer);
    }
    // One stays: its server is killed while it waits for the next request. Children would live on.
    let idle = if mode == "thread" { clients.pop() } else { None };
    drop(clients);
    live.wait_until("60 exchanges", LIMIT, |seen| seen.records.len() >= 60);
    let pid = server.pid();
    server.kill();
    quiet(SWEPT);
    drop(idle);
    let report = live.stop();
    let mut models = HashSet::new();
    for record in &report.seen.records {
        let model = record.model.as_deref().expect("model");
        let number: u64 = model[1..].parse().expect("number");
        assert_eq!(record.tokens.output, Some(number + 1), "{record:?}");
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
        assert!(record.partial.is_empty(), "{record:?}");
        if mode == "fork" {
            assert_ne!(record.pid, pid, "served by a child");
        }
        assert!(models.insert(model.to_owned()), "{model} twice");
    }
    assert_eq!(models.len(), 60);
    assert_eq!(report.in_flight, 0);
    assert_eq!((report.sizes.connections, report.sizes.verdicts), (0, 0), "{:?}", report.sizes);
    assert_eq!((report.sizes.descriptors, report.sizes.calls), (0, 0), "{:?}", report.sizes);
}

#[test]
fn threads_serve() {
    if privileged() {
        check_exchanges("thread");
    }
}

#[test]
fn children_serve_what_their_parent_accepted() {
    if privileged() {
        check_exchanges("fork");
    }
}

#[test]
fn a_process_lives_on_after_its_leader_thread() {
    if privileged() {
        check_exchanges("leader-exits");
    }
}

#[test]
fn a_file_under_a_connections_descriptor_is_not_the_connection() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (mut server, port) = Workload::script("identity.py", &["cloexec"]);
    let mut client = Client::connect(&port);
    client.post("cloexec", "", &chat("m0", false, 1));
    assert_eq!(server.line(), "done");
    live.wait_until("the exchange to end", LIMIT, |seen| seen.records.len() == 1);
    let raw = live.look(|seen| seen.raw[&server.pid()]);
    let report = live.stop();
    let record = &report.seen.records[0];
    assert_eq!(record.outcome, Some(Outcome::AbortedByServer), "{record:?}");
    assert_eq!((record.status, record.response_bytes), (None, 0), "{record:?}");
    assert_eq!(raw.data, 1, "only the request: {raw:?}");
}

#[test]
fn a_hundred_thousand_descriptors_on_two_threads() {
    const CONNECTIONS: usize = 100_000;
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (mut server, port) = Workload::script("identity.py", &["storm", &CONNECTIONS.to_string()]);
    let mut client = std::process::Command::new("python3");
    client.arg("-u").arg(folder("python").join("storm_client.py")).args([&port, &CONNECTIONS.to_string()]);
    let (client, first) = Workload::start(client);
    assert_eq!(first, "started");
    client.finish();
    assert_eq!(server.line(), "done");
    live.wait_until("every second connection's exchange", LIMIT, |seen| {
        seen.records.len() >= CONNECTIONS / 2
    });
    server.kill();
    quiet(SWEPT);
    let report = live.stop();
    let mut models = HashSet::new();
    let mut partial = 0;
    for record in &report.seen.records {
        if !record.is_complete() {
            partial += 1;
            continue;
        }
        let model = record.model.as_deref().expect("model");
        let number: u64 = model[1..].parse().expect("number");
        assert_eq!(record.tokens.output, Some(number % 50 + 1), "{record:?}");
        assert!(models.insert(number), "{model} twice");
    }
    println!(
        "{} exchanges, {partial} partial; {:?}; {:?}; missed {:?}",
        report.seen.records.len(),
        report.counts,
        report.stats,
        report.missed
    );
    assert_eq!(partial, 0);
    assert_eq!(models.len(), CONNECTIONS / 2);
    assert!(report.counts.balanced());
    assert_eq!((report.sizes.descriptors, report.sizes.connections), (0, 0), "{:?}", report.sizes);
}
