//! A recording, made by the real program, holds no content, and tells the same as an agent beside it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use observer::exchange::{Outcome, RequestRecord};
use observer_tests::{
    agent::{Agent, Running, holds, observer, records, wait_for},
    client::Client,
    live::privileged,
    workload::Workload,
};
use rustix::process::Signal;

const PROMPT: &str = "sentinelofaprompt";
const COMPLETION: &str = "sentinelofacompletion";
const SECRET: &str = "sk-sentinelofasecret";

/// Probes of two programs run one after the other, and may be torn apart by whoever has the CPU in between.
const APART: f64 = 0.005;

fn body(model: &str, stream: bool, answer: &str) -> String {
    format!(
        r#"{{"model":"{model}","stream":{stream},"answer":"{answer}","gap_s":0.02,"say":"{COMPLETION} and {COMPLETION}","messages":[{{"role":"user","content":"Say {PROMPT}"}}]}}"#
    )
}

/// Starts a recording and waits until its probes are there.
fn record(file: &Path, args: &[&str]) -> Running {
    let mut running = Running::start(observer([&["record", file.to_str().expect("UTF-8")], args].concat()));
    wait_for("the recording", || {
        running.assert_alive();
        fs::exists(file).expect("look").then_some(())
    });
    running
}

/// Runs exchanges of all kinds; their ids.
fn exchanges(port: &str, model: &str) -> Vec<&'static str> {
    let headers = format!("Authorization: Bearer {SECRET}\r\nX-Api-Key: {SECRET}\r\n");
    let mut kept = Client::connect(port);
    for id in ["streamed", "streamed-again"] {
        kept.post(id, &headers, &body(model, true, "stream"));
        kept.receive_until(b"0\r\n\r\n");
    }
    kept.post("plain", &headers, &body(model, false, "plain"));
    kept.receive_until(b"}");
    let mut broken = Client::connect(port);
    broken.post("broken", &headers, &body(model, true, "bad_chunk"));
    broken.receive_all();
    vec!["streamed", "streamed-again", "plain", "broken"]
}

fn replayed(file: &Path, json: bool) -> String {
    let mut command = observer(["replay", file.to_str().expect("UTF-8")]);
    if json {
        command.arg("--json");
    }
    let output = command.output().expect("replay");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn of(records: Vec<RequestRecord>, id: &str, pid: u32) -> RequestRecord {
    let mut found: Vec<RequestRecord> = records
        .into_iter()
        .filter(|record| record.request_id.as_deref() == Some(id) && record.pid == pid)
        .collect();
    assert_eq!(found.len(), 1, "{id}: {found:?}");
    found.remove(0)
}

#[test]
fn replays_what_an_agent_saw() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("masked.rec");
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    let recording = record(&file, &[]);
    let (server, port) = Workload::script("openai_server.py", &[]);
    let model = format!("rec-{}", server.pid());
    let ids = exchanges(&port, &model);
    for id in &ids {
        follower.wait(id);
    }
    let ended = recording.end(Signal::INT);
    ended.assert_prompt("SIGINT of a recording");
    ended.wait_unloaded();
    assert!(ended.log.contains(" records in "), "{}", ended.log);

    let mode = fs::metadata(&file).expect("the recording").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "{mode:o}");
    for secret in [PROMPT, COMPLETION, SECRET] {
        assert!(!holds(&file, secret), "{secret} is in the recording");
    }
    // It is no empty file that holds nothing.
    assert!(holds(&file, &model) && holds(&file, "streamed-again") && holds(&file, "completion_tokens"));

    let text = replayed(&file, true);
    for id in &ids {
        let (live, again) = (of(follower.records(), id, server.pid()), of(records(&text), id, server.pid()));
        assert_eq!(live.outcome, again.outcome, "{id}");
        assert_eq!(live.tokens, again.tokens, "{id}");
        assert_eq!((live.stream, live.status), (again.stream, again.status), "{id}");
        assert_eq!((live.token_events, live.deliveries), (again.token_events, again.deliveries), "{id}");
        assert_eq!((live.stalls, live.client_stalls), (again.stalls, again.client_stalls), "{id}");
        assert_eq!((live.request_bytes, live.response_bytes), (again.request_bytes, again.response_bytes));
        assert_eq!((&live.partial, &live.defects), (&again.partial, &again.defects), "{id}");
        assert_eq!((&live.model, &live.finish_reason), (&again.model, &again.finish_reason), "{id}");
        for (name, live, again) in [
            ("ttft", live.ttft, again.ttft),
            ("tpot", live.tpot, again.tpot),
            ("duration", live.duration, again.duration),
        ] {
            assert_eq!(live.is_some(), again.is_some(), "{id}: {name}");
            let apart = (live.unwrap_or(0.0) - again.unwrap_or(0.0)).abs();
            assert!(apart < APART, "{id}: {name} {live:?} {again:?}");
            println!("{id}: {name} {live:?}, {apart:.9} s apart");
        }
        let ok = *id != "broken";
        assert_eq!(again.outcome == Some(Outcome::Ok), ok, "{again:?}");
        assert_eq!(again.ttft.is_some(), *id != "plain", "{again:?}");
        assert_eq!(again.tokens.output, if ok { Some(3) } else { Some(1) }, "{again:?}");
    }
    let table = replayed(&file, false);
    let mut lines = table.lines();
    assert!(
        lines.next().is_some_and(|line| line.starts_with("TIME ") && line.ends_with("DURATION SLO")),
        "{table}"
    );
    // 13 columns for the model: enough for this name.
    let rows: Vec<&str> = lines.filter(|line| line.contains(&model)).collect();
    assert_eq!(rows.len(), ids.len(), "{table}");
    assert!(rows.iter().any(|row| row.contains(" ok ") && row.contains(" usage ")), "{table}");
    agent.end(Signal::INT).assert_prompt("SIGINT of the agent beside a recording");
}

#[test]
fn holds_content_only_where_that_is_allowed() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("content.rec");
    let recording = record(&file, &["--with-content", "--set", "content.allow_recording=true"]);
    let (server, port) = Workload::script("openai_server.py", &[]);
    let ids = exchanges(&port, "recorded");
    recording.end(Signal::TERM).assert_prompt("SIGTERM of a recording");
    let mode = fs::metadata(&file).expect("the recording").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "{mode:o}");
    for text in [PROMPT, COMPLETION, SECRET] {
        assert!(holds(&file, text), "{text} is not in the recording");
    }
    let text = replayed(&file, true);
    for id in ids {
        let record = of(records(&text), id, server.pid());
        assert_eq!(record.outcome == Some(Outcome::Ok), id != "broken", "{record:?}");
    }
    for secret in [PROMPT, COMPLETION, SECRET] {
        assert!(!text.contains(secret), "replay tells {secret}");
    }
}

#[test]
fn ends_by_itself_after_its_time() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("short.rec");
    let output =
        observer(["record", file.to_str().expect("UTF-8"), "--duration", "200ms"]).output().expect("record");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(replayed(&file, false).starts_with("TIME "));
}
