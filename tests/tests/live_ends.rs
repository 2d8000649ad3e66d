//! How processes end: told for certain, although their parent asked at once and nothing of them is left in /proc.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use observer_tests::{
    agent::{Agent, Follower, wait_for},
    client::{Client, chat},
    live::privileged,
    memory::MemoryCgroup,
    workload::Workload,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// An agent, and what it tells of processes.
struct Place {
    agent: Agent,
    told: Follower,
    folder: tempfile::TempDir,
}

impl Place {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = format!("store.path={}", folder.path().join("store").display());
        let agent = Agent::start(&["--set", "store.enabled=true", "--set", &path]);
        let told = agent.follow_feed("events?kind=process&follow=true");
        Self { agent, told, folder }
    }

    /// What was told of a process, in that order.
    fn of(&self, pid: u32) -> Vec<Value> {
        let text = self.told.text();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        rows.filter(|row| row["pid"] == pid).collect()
    }

    /// The same once it has ended.
    fn ended(&self, pid: u32) -> Vec<Value> {
        wait_for("the row of its end", || {
            let rows = self.of(pid);
            rows.iter().any(|row| row["reason"] == "exit").then_some(rows)
        })
    }

    /// Has a server that has served end in a way; its id, and its parent to hold on to.
    fn end_serving(&self, how: &str, argument: &str) -> (u32, Workload) {
        let body = r#"{"model":"m","messages":[]}"#;
        let length = body.len();
        self.end_after(
            &format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
            how,
            argument,
        )
    }

    /// Has a server end in a way.
    fn end(&self, how: &str, argument: &str) -> (u32, Workload) {
        self.end_after("", how, argument)
    }

    fn end_after(&self, request: &str, how: &str, argument: &str) -> (u32, Workload) {
        let (parent, first) = Workload::script("endings.py", &[how, argument]);
        let (pid, port) = first.split_once(' ').expect("an id and a port");
        let pid = pid.parse().expect("an id");
        wait_for("the server to be observed", || (!self.of(pid).is_empty()).then_some(()));
        let mut stream = TcpStream::connect(("127.0.0.1", port.parse().expect("a port"))).expect("connect");
        stream.write_all(request.as_bytes()).expect("a request");
        if !request.is_empty() {
            let answered = stream.read(&mut [0; 4096]).expect("an answer");
            assert!(answered > 0);
        }
        (pid, parent)
    }
}

fn reasons(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["reason"].as_str().expect("a reason")).collect()
}

#[test]
fn codes_and_signals_are_told_although_the_parent_asked_at_once() {
    if !privileged() {
        return;
    }
    let place = Place::start();
    let cases = [
        ("code", "0", "with code 0", "info"),
        ("code", "3", "with code 3", "error"),
        ("thread", "7", "with code 7", "error"),
        ("leader", "5", "with code 5", "error"),
        ("signal", "11", "by signal 11", "error"),
        ("signal", "9", "by signal 9", "error"),
        ("signal", "15", "by signal 15", "info"),
    ];
    for (how, argument, expected, level) in cases {
        let (pid, _parent) = place.end(how, argument);
        let rows = place.ended(pid);
        assert_eq!(reasons(&rows), ["observed", "exit"], "{how} {argument}: {rows:?}");
        assert_eq!(rows[1]["message"], format!("python3 (pid {pid}) ended {expected}"), "{how} {argument}");
        assert_eq!(rows[1]["level"], level, "{how} {argument}");
        let time =
            |row: &Value| row["time"].as_str().expect("a time").parse::<jiff::Timestamp>().expect("one");
        assert!(time(&rows[0]) < time(&rows[1]), "{rows:?}");
        assert!(std::fs::metadata(format!("/proc/{pid}")).is_err(), "its parent has asked");
    }
    // The same is stored.
    let stored = wait_for("the store", || {
        let (_, text) =
            place.agent.get("/api/v1/events?kind=process&since=5m&limit=1000&regex=by%20signal%2011");
        text.contains("\"exit\"").then_some(text)
    });
    assert!(stored.contains("by signal 11"), "{stored}");
    assert!(place.folder.path().join("store").exists());
}

#[test]
fn a_victim_of_the_out_of_memory_killer_is_told_apart_from_other_kills() {
    if !privileged() {
        return;
    }
    let place = Place::start();
    let cgroup = MemoryCgroup::new(48 << 20);
    let (pid, _parent) = place.end("memory", &cgroup.path().display().to_string());
    let rows = place.ended(pid);
    assert_eq!(reasons(&rows), ["observed", "oom_kill", "exit"], "{rows:?}");
    assert_eq!(rows[1]["level"], "error");
    let how = "ended by signal 9: the kernel killed it because memory had run out";
    assert_eq!(rows[2]["message"], format!("python3 (pid {pid}) {how}"));
}

#[test]
fn a_worker_that_serves_nothing_and_crashes_is_told_of() {
    if !privileged() {
        return;
    }
    let place = Place::start();
    let (pid, mut parent) = place.end_serving("worker", "11");
    let worker: u32 = parent.line().parse().expect("its id");
    let rows = place.ended(worker);
    assert_eq!(reasons(&rows), ["exit"], "{rows:?}");
    assert_eq!(rows[0]["message"], format!("python3 (pid {worker}) ended by signal 11"));
    assert_eq!(
        place.ended(pid).last().expect("a row")["message"],
        format!("python3 (pid {pid}) ended with code 0")
    );
}

#[test]
fn a_new_program_is_told_by_its_name_and_its_end_too() {
    if !privileged() {
        return;
    }
    let place = Place::start();
    let (pid, _parent) = place.end("exec", "4");
    let rows = place.ended(pid);
    assert_eq!(reasons(&rows), ["observed", "exec", "exit"], "{rows:?}");
    assert_eq!(rows[1]["message"], format!("sh (pid {pid}) was started in place of python3"));
    assert_eq!(rows[2]["message"], format!("sh (pid {pid}) ended with code 4"));
    assert!(!place.told.text().contains("secret-argument"));
}

#[test]
fn starts_and_ends_of_servers_are_counted_by_how_they_ended() {
    if !privileged() {
        return;
    }
    let place = Place::start();
    let serve = || {
        let (server, port) = Workload::script("openai_server.py", &["--events", "2", "--gap", "0.01"]);
        Client::connect(&port).stream("a", &chat("m", true, 2));
        server
    };
    let server = serve();
    let labels = [("namespace", ""), ("pod", ""), ("container", "python3")];
    let with = |reason: &'static str| [&labels[..], &[("reason", reason)]].concat();
    let metrics = wait_for("its series", || {
        let metrics = place.agent.metrics();
        metrics.value("llm_process_exits_total", &with("killed")).map(|_| metrics)
    });
    metrics.assert_lint();
    let count =
        |reason| place.agent.metrics().sum("llm_process_exits_total", &with(reason)).unwrap_or_default();
    let [killed, terminated] = ["killed", "terminated"].map(count);
    let starts = || place.agent.metrics().sum("llm_process_starts_total", &labels).unwrap_or_default();
    let before = starts();
    assert!(before >= 1);
    server.kill();
    let server = serve();
    let pid = Pid::from_raw(server.pid().cast_signed()).expect("an id");
    kill_process(pid, Signal::TERM).expect("a signal");
    drop(server);
    wait_for("both ends", || (count("killed") > killed && count("terminated") > terminated).then_some(()));
    assert!(starts() > before);
}
