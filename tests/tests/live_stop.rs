//! The agent ends, well or badly, and starts again: nobody is harmed, nothing stays, nothing is made up.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread::JoinHandle,
    time::Duration,
};

use observer::exchange::{Outcome, RequestRecord};
use observer_tests::{
    agent::{Agent, Running, held_by, observer, report, wait_for},
    client::{Client, chat},
    live::privileged,
    workload::Workload,
};
use rustix::process::Signal;

/// Events of a stream that goes on while an agent comes or goes: three seconds, far longer than either takes.
const LONG: usize = 150;
const SHORT: usize = 5;
const GAP: &str = "0.02";

fn server() -> (Workload, String) {
    Workload::script("openai_server.py", &["--gap", GAP])
}

/// A stream's response, read by a thread, which returns the connection, too.
struct Background(JoinHandle<(Client, String)>);

impl Background {
    /// Starts a long stream and waits for its first event.
    fn start(mut client: Client, id: &str) -> Self {
        client.post(id, "", &chat("slow", true, LONG));
        let mut got = client.receive_until(b"\n\n\r\n");
        Self(std::thread::spawn(move || {
            got.push_str(&client.receive_until(b"0\r\n\r\n"));
            (client, got)
        }))
    }

    fn assert_running(&self, when: &str) {
        assert!(!self.0.is_finished(), "the stream was over {when}: nothing was tested");
    }

    /// Waits for its end. Panics unless it came whole and in order.
    fn finish(self) -> Client {
        let (client, response) = self.0.join().expect("stream");
        assert_whole(&response, LONG);
        client
    }
}

fn assert_whole(response: &str, events: usize) {
    let contents: Vec<&str> =
        response.lines().filter_map(|line| line.split_once(r#""content": ""#)?.1.split('"').next()).collect();
    let expected: Vec<String> = (0..events).map(|number| format!("t{number}")).collect();
    assert_eq!(contents, expected);
    assert!(response.contains("data: [DONE]\n\n") && response.ends_with("0\r\n\r\n"), "{response}");
}

/// One short stream, which comes whole.
fn short(client: &mut Client, id: &str) {
    assert_whole(&client.stream(id, &chat("slow", true, SHORT)), SHORT);
}

/// Panics unless everything of a short stream was seen.
fn assert_complete(record: &RequestRecord) {
    assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
    assert!(record.partial.is_empty() && record.defects.is_empty(), "{record:?}");
    assert_eq!(record.tokens.output, Some(SHORT as u64), "{record:?}");
    assert_eq!((record.token_events, record.stream), (SHORT as u64, true), "{record:?}");
}

#[test]
fn signals_end_it_within_a_second() {
    if !privileged() {
        return;
    }
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let idle = Agent::start(&[]).end(signal);
        idle.assert_prompt(&format!("{name}, idle"));
        report("then probes gone", idle.wait_unloaded());

        let (_server, port) = server();
        let agent = Agent::start(&[]);
        let _follower = agent.follow();
        let mut followers = Vec::new();
        for args in [
            &["requests", "--json", "--address", &agent.address][..],
            &["requests", "--address", &agent.address],
        ] {
            followers.push(Running::start(observer(args)));
        }
        // A follower that does not read, one that has not finished asking, and one that asks for nothing.
        let mut stalled: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect(&agent.address).expect("connect")).collect();
        stalled[0].write_all(b"GET /api/v1/requests HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("send");
        stalled[0].read_exact(&mut [0; 12]).expect("a head");
        stalled[1].write_all(b"GET /metrics HTTP/1.1\r\nHo").expect("send");
        let stream = Background::start(Client::connect(&port), "running");
        let ended = agent.end(signal);
        stream.assert_running("before the agent ended");
        ended.assert_prompt(&format!("{name}, followed, with a stream running"));
        report("then probes gone", ended.wait_unloaded());
        stream.finish();
        for follower in followers {
            let mut follower = follower;
            wait_for("the end of a follower", || follower.has_ended());
            let log = follower.log();
            assert!(log.contains("stopped") || log.contains("no agent answers"), "{log}");
        }
    }
}

#[test]
fn a_signal_while_it_starts_ends_it_too() {
    if !privileged() {
        return;
    }
    let running = Running::start(observer(["agent", "--listen", "127.0.0.1:0"]));
    wait_for("the first probe", || running.log().contains("serving").then_some(()));
    running.end(Signal::TERM).assert_prompt("SIGTERM while starting");
}

#[test]
fn killing_it_harms_nobody_and_the_next_start_works() {
    if !privileged() {
        return;
    }
    let (server, port) = server();
    let agent = Agent::start(&[]);
    let probes = held_by(agent.running.pid());
    assert!(probes.len() > 10, "{probes:?}");
    let first = Background::start(Client::connect(&port), "killed");
    let killed = agent.end(Signal::KILL);
    assert!(!killed.status.success());
    report("SIGKILL", killed.took);
    let unloaded = killed.wait_unloaded();
    report("after SIGKILL, probes gone", unloaded);
    assert!(unloaded < Duration::from_secs(5), "{unloaded:?}");
    first.assert_running("before the agent was killed");
    let client = first.finish();

    // The second agent comes in the middle of a stream.
    let under_way = Background::start(client, "under-way");
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    under_way.assert_running("before the second agent was there");
    let mut client = under_way.finish();
    short(&mut client, "next");
    assert_complete(&follower.wait("next"));
    short(&mut Client::connect(&port), "other");
    assert_complete(&follower.wait("other"));

    // Of the one under way nothing is claimed to be whole.
    let of_server: Vec<RequestRecord> =
        follower.records().into_iter().filter(|record| record.pid == server.pid()).collect();
    for record in &of_server {
        let id = record.request_id.as_deref();
        let whole = matches!(id, Some("next" | "other"));
        assert!(whole || !record.partial.is_empty(), "{record:?}");
        assert!(whole || record.outcome != Some(Outcome::Ok), "{record:?}");
        assert_ne!(id, Some("killed"));
    }
    println!("records of the second agent: {}", of_server.len());
    let metrics = agent.metrics();
    let ttft = metrics.sum(
        "gen_ai_server_time_to_first_token_seconds_count",
        &[("gen_ai_request_model", "slow"), ("container", &of_server[0].container)],
    );
    assert_eq!(ttft, Some(2), "{}", metrics.0);
    agent.end(Signal::INT).assert_prompt("SIGINT of the second agent");
}

/// A chat request to the scripted server.
fn scripted() -> String {
    format!(
        r#"{{"model":"slow","stream":true,"stream_options":{{"include_usage":true}},"messages":[],"script":{{"events":{SHORT}}}}}"#
    )
}

#[test]
fn idle_connections_from_before_are_adopted() {
    if !privileged() {
        return;
    }
    let (server, line) = Workload::venv_script("scripted_server.py", &[]);
    let port = line.rsplit(':').next().expect("port");
    let mut clients = [Client::connect(port), Client::connect(port)];
    clients[0].stream("before", &scripted());
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    for (client, id) in [(0, "used"), (1, "unused"), (0, "used-again")] {
        let client = &mut clients[client];
        client.stream(id, &scripted());
        let record = follower.wait(id);
        assert_complete(&record);
        assert_eq!(record.peer.as_deref(), Some(&*client.name()), "{record:?}");
    }
    let records = follower.records();
    let of_server = records.iter().filter(|record| record.pid == server.pid()).count();
    assert_eq!(of_server, 3, "{records:?}");
    agent.end(Signal::INT).assert_prompt("SIGINT after adopting");
}

/// A thread that sleeps in a read when the agent comes has entered that call unseen; its exit tells enough.
#[test]
fn a_read_that_slept_when_the_probes_came_is_captured() {
    if !privileged() {
        return;
    }
    let (server, port) = server();
    let mut client = Client::connect(&port);
    short(&mut client, "before");
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    for id in ["first", "second", "third"] {
        short(&mut client, id);
    }
    for id in ["first", "second", "third"] {
        assert_complete(&follower.wait(id));
    }
    let of_server = follower.records().into_iter().filter(|record| record.pid == server.pid()).count();
    assert_eq!(of_server, 3, "and nothing is made up");
    agent.end(Signal::INT).assert_prompt("SIGINT after a read from before");
}
