//! `observer logs` and `observer events` as an operator types them: lines that are stored, and lines in the kubelet's files.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use observer_tests::{
    agent::{Agent, observer, wait_for},
    client::{Client, chat},
    live::privileged,
    pod_logs::{PodLogs, append, compress, cri},
    workload::folder,
};
use serde_json::Value;
use tempfile::TempDir;

/// An agent that knows no cluster, with logs of all pods; and the folder of its store.
fn agent(logs: &Path, stores: bool) -> (Agent, TempDir) {
    let store = tempfile::tempdir().expect("a folder");
    let pods = format!("kubernetes.pod_logs={}", logs.display());
    let path = format!("store.path={}", store.path().display());
    let kept = if stores { "logs.store=on" } else { "logs.store=off" };
    let mut args = vec!["--node", "node-a"];
    for setting in ["kubernetes.mode=off", "store.enabled=true", "logs.all=true", kept, &pods, &path] {
        args.extend(["--set", setting]);
    }
    (Agent::start(&args), store)
}

/// A command that asks this agent. Its arguments have no spaces; `_` stands for one.
fn command(agent: &Agent, line: &str) -> Command {
    let args: Vec<String> = line.split(' ').map(|word| word.replace('_', " ")).collect();
    let mut command = observer(&args);
    command.args(["--address", &agent.address]);
    command
}

/// What it shows, and what it remarks.
fn shown(agent: &Agent, line: &str) -> (Vec<String>, String) {
    let output = command(agent, line).output().expect("the command");
    let remarks = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {remarks}");
    (String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(), remarks)
}

/// The last words of what it shows.
fn last(agent: &Agent, line: &str) -> Vec<String> {
    let (lines, _) = shown(agent, line);
    lines.iter().map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect()
}

/// Two pods: one that was started again and whose files were rotated and compressed, and one beside it.
fn written() -> PodLogs {
    let logs = PodLogs::default();
    let (llama, other) = (logs.server("ml", "llama-0"), logs.server("web", "front-0"));
    let text = |lines: &[(i64, &str, &str)]| -> String {
        lines.iter().map(|(minutes, stream, text)| cri(logs.ago(*minutes), stream, text)).collect()
    };
    let rotated = llama.join("0.log.20260101-000000");
    fs::write(
        &rotated,
        text(&[(180, "stdout", "INFO: begin a1"), (170, "stderr", "ERROR: CUDA out of memory a2")]),
    )
    .expect("written");
    compress(&rotated);
    fs::write(
        llama.join("0.log.20260101-010000"),
        text(&[(120, "stdout", "INFO: served chatcmpl-0a1b2c3d4e a3")]),
    )
    .expect("written");
    fs::write(llama.join("0.log"), text(&[(110, "stderr", "FATAL: out, of memory a4")])).expect("written");
    fs::write(
        llama.join("1.log"),
        text(&[
            (60, "stdout", "INFO: again a5"),
            (59, "stdout", "WARNING: memory is short a6"),
            (3, "stdout", "INFO: prompt: 'sentinel' a7"),
            (2, "stdout", "INFO: end a8"),
        ]),
    )
    .expect("written");
    fs::write(
        other.join("0.log"),
        text(&[(61, "stdout", "INFO: out of memory b1"), (1, "stdout", "plain b2")]),
    )
    .expect("written");
    logs
}

#[test]
fn lines_are_found_alike_in_the_store_and_in_files() {
    if !privileged() {
        return;
    }
    for stores in [true, false] {
        let logs = written();
        let (agent, _store) = agent(logs.path(), stores);
        wait_for("all lines", || (shown(&agent, "logs --since 24h").0.len() == 10).then_some(()));
        for (line, expected) in [
            ("logs --pod llama-0 --since 24h", "a1 a2 a3 a4 a5 a6 a7 a8"),
            ("logs --pod llama-0 --phrase out_of_memory --since 24h", "a2 a4"),
            ("logs --phrase out_of_memory --since 90m", "b1"),
            ("logs --words memory --since 24h --until 65m", "a2 a4"),
            ("logs -n ml --words memory,short --since 24h", "a6"),
            ("logs --regex ^(INFO|plain) -n web --since 24h", "b1 b2"),
            ("logs --level error,fatal --since 24h", "a2 a4"),
            ("logs --stream stderr --since 24h", "a2 a4"),
            ("logs --container x* --since 24h", ""),
            ("logs --node node-b --since 24h", ""),
            ("logs --request-id chatcmpl-0a1b2c3d4e --since 24h", "a3"),
            ("logs --pod llama-0 --since 24h --limit 2", "a7 a8"),
            ("logs --pod llama-0 --since 24h --limit 2 --order oldest", "a1 a2"),
            ("logs --pod llama-0 --level fatal --since 24h -C 1", "a3 a4 a5"),
        ] {
            assert_eq!(last(&agent, line).join(" "), expected, "stores: {stores}; {line}");
        }
        let (found, _) = shown(&agent, "logs --words a7 --since 24h");
        assert!(found[0].contains("ml/llama-0/server info INFO: prompt: '[redacted]' a7"), "{found:?}");
        let (_, remarks) = shown(&agent, "logs --pod llama-0 --since 24h --limit 2");
        assert!(remarks.contains("more than these 2"), "{remarks}");

        let (hits, _) = shown(&agent, "logs --pod llama-0 --since 24h --bucket 24h");
        let counts = hits.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        assert_eq!(counts.sum::<u64>(), 8, "{hits:?}");
        assert!(hits[0].contains("T00:00:00Z node-a "), "{hits:?}");

        for order in ["newest", "oldest"] {
            let (mut all, mut cursor) = (Vec::new(), String::new());
            loop {
                let line = format!("logs --since 24h --json --limit 3 --order {order}{cursor}");
                let (mut lines, _) = shown(&agent, &line);
                let trailer: Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
                let page = lines.iter().map(|line| {
                    let row: Value = serde_json::from_str(line).unwrap();
                    row["message"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned()
                });
                // A page that comes newest first is shown the other way round.
                let page: Vec<String> = page.collect();
                if order == "newest" {
                    all.splice(0..0, page)
                } else {
                    all.splice(all.len().., page)
                };
                let Some(next) = trailer["next"].as_str() else { break };
                cursor = format!(" --cursor {next}");
            }
            assert_eq!(all.join(" "), "a1 a2 a3 a4 b1 a5 a6 a7 a8 b2", "{order}");
        }
        let refused = command(&agent, "logs --regex (").output().unwrap();
        assert!(!refused.status.success(), "no expression");
    }
}

/// A command that follows, and what it has shown.
struct Following(Child, BufReader<std::process::ChildStdout>);

impl Following {
    fn start(agent: &Agent, line: &str) -> Self {
        let mut child = command(agent, line).stdout(Stdio::piped()).spawn().expect("the command");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self(child, output)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn lines_are_shown_as_they_are_written() {
    if !privileged() {
        return;
    }
    for stores in [true, false] {
        let logs = written();
        let (agent, _store) = agent(logs.path(), stores);
        wait_for("all lines", || (shown(&agent, "logs --since 24h").0.len() == 10).then_some(()));
        let mut following = Following::start(&agent, "logs -f --pod llama-0 --words needle");
        let (file, other) =
            (logs.server("ml", "llama-0").join("1.log"), logs.server("web", "front-0").join("0.log"));
        let stop = AtomicBool::new(false);
        let first = std::thread::scope(|scope| {
            // When the command is there is not told: it is written until something is shown.
            scope.spawn(|| {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    append(&other, &cri(jiff::Timestamp::now(), "stdout", "needle elsewhere"));
                    append(&file, &cri(jiff::Timestamp::now(), "stdout", "hay"));
                    append(&file, &cri(jiff::Timestamp::now(), "stdout", &format!("INFO: needle {number}")));
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            });
            let first = following.line();
            let second = following.line();
            stop.store(true, Ordering::Relaxed);
            let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<u32>().expect("its number");
            assert_eq!(number(&second), number(&first) + 1, "all, in order: {first} {second}");
            first
        });
        assert!(first.contains(" ml/llama-0/server info INFO: needle "), "{first}");
    }
}

/// A server outside of containers whose output goes to a file: what it did is one story in order.
#[test]
fn events_requests_and_lines_are_one_story() {
    if !privileged() {
        return;
    }
    let logs = PodLogs::default();
    let (agent, _store) = agent(logs.path(), true);
    let output = logs.path().join("engine.log");
    let mut server = Command::new("python3");
    server.arg("-u").arg(folder("python").join("openai_server.py")).args(["--events", "4", "--gap", "0.01"]);
    let file = File::create(&output).unwrap();
    let mut server = server.stdin(Stdio::null()).stdout(file).spawn().expect("the server");
    let port = wait_for("its port", || {
        let text = fs::read_to_string(&output).unwrap();
        text.ends_with('\n').then(|| text.trim().to_owned())
    });
    Client::connect(&port).stream("story", &chat("m", true, 4));
    wait_for("its log", || {
        // Its output is known to be its log once it has answered.
        append(&output, "INFO: served story\n");
        std::thread::sleep(std::time::Duration::from_millis(300));
        (!last(&agent, "logs --phrase served_story --since 1m").is_empty()).then_some(())
    });
    server.kill().unwrap();
    server.wait().unwrap();
    let story = wait_for("its end", || {
        let (story, _) = shown(&agent, "events --kind process,request,log --since 5m --container python3");
        story.iter().any(|line| line.contains("process exit")).then_some(story)
    });
    let place = |what: &str| {
        story.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {story:#?}"))
    };
    let places = [
        place("process observed"),
        place("request: ok 200 chat m"),
        place("INFO: served story"),
        place("process exit"),
    ];
    assert!(places.is_sorted(), "{story:#?}");
    let (only, _) = shown(&agent, "events --since 5m --container python3");
    assert!(
        only.iter().all(|line| line.contains(" process ")),
        "no requests nor lines unless asked: {only:?}"
    );
    let (found, _) = shown(&agent, "events --kind request --request-id story --json --since 5m");
    let request: Value = serde_json::from_str(&found[0]).unwrap();
    assert_eq!((&request["kind"], &request["request"]["request_id"]), (&"request".into(), &"story".into()));
    assert!(found.iter().all(|line| !line.contains("messages")), "no text of it: {found:?}");
}
