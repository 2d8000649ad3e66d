//! The agent as an operator has it: started, scraped, followed; and what it must never tell.

use std::{io::BufRead as _, process::Stdio};

use observer::{
    discover::Process,
    exchange::{Outcome, RequestRecord, TokenSource},
};
use observer_tests::{
    agent::{Agent, Metrics, assert_without, observer, wait_for},
    client::{Client, chat},
    live::privileged,
    workload::Workload,
};
use rustix::process::Signal;

/// Exchanges of each kind that a test runs after the first one.
const EACH: u64 = 3;

const PROMPT: &str = "sentinelofaprompt";
const COMPLETION: &str = "sentinelofacompletion";
const SECRET: &str = "sk-sentinelofasecret";

/// The first exchange with a model confirmed its name as a label; these come after it.
fn exchanges(client: &mut Client, model: &str) {
    for number in 0..EACH {
        client.stream(&format!("streamed-{number}"), &chat(model, true, 5));
        client.plain(&format!("plain-{number}"), &chat(model, false, 5));
    }
}

#[test]
fn exchanges_become_metrics_and_records() {
    if !privileged() {
        return;
    }
    let agent = Agent::start(&[]);
    let (server, port) = Workload::script("openai_server.py", &["--gap", "0.01"]);
    let model = format!("tiny-{}", server.pid());
    let process = Process::look_up(server.pid()).expect("it runs");
    let follower = agent.follow();
    let mut client = Client::connect(&port);
    client.stream("first", &chat(&model, true, 5));
    follower.wait("first");
    exchanges(&mut client, &model);
    follower.wait("plain-2");

    let of_server: Vec<RequestRecord> =
        follower.records().into_iter().filter(|record| record.pid == server.pid()).collect();
    assert_eq!(of_server.len() as u64, 1 + 2 * EACH, "each once");
    for record in &of_server {
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
        assert_eq!((record.tokens.input, record.tokens.output), (Some(7), Some(5)), "{record:?}");
        assert_eq!(record.tokens.source, Some(TokenSource::Usage));
        assert!(record.partial.is_empty() && record.defects.is_empty(), "{record:?}");
        assert_eq!((record.process.as_str(), record.container.as_str()), ("python3", &*process.container()));
        assert_eq!((record.namespace.as_str(), record.pod.as_str()), ("", ""));
        assert_eq!(record.peer.as_deref(), Some(&*client.name()));
        assert_eq!(record.stream, record.ttft.is_some());
        assert!(record.started_at.is_some() && !record.node.is_empty());
    }

    // The agent's own numbers are as of its last look, at most a second ago. A record for each of the server's
    // calls: a read and eight writes for a stream, a read and a write otherwise.
    let least = 9 * (1 + EACH) + 2 * EACH;
    let metrics = wait_for("an agent at rest, with every call seen", || {
        let metrics = agent.metrics();
        let at = |stage| metrics.sum("observer_records_total", &[("stage", stage)]).expect("a stage");
        let rest = at("seen") == at("submitted") && at("seen") >= least;
        (rest && at("received") == at("decoded")).then_some(metrics)
    });
    metrics.assert_lint();
    let workload = [
        ("container", process.container()),
        ("namespace", String::new()),
        ("pod", String::new()),
        ("gen_ai_operation_name", "chat".into()),
        ("gen_ai_request_model", model.clone()),
        ("role", "server".into()),
    ];
    let sum = |name: &str, more: &[(&str, &str)]| {
        let mut labels: Vec<(&str, &str)> = workload.iter().map(|(name, value)| (*name, &**value)).collect();
        labels.extend(more);
        metrics.sum(name, &labels).unwrap_or_else(|| panic!("no {name} {labels:?}\n{}", metrics.0))
    };
    let (streamed, all) = (1 + EACH, 1 + 2 * EACH);
    let ok = [("outcome", "ok"), ("code", "200"), ("finish_reason", "stop")];
    assert_eq!(sum("llm_requests_total", &ok), all);
    assert_eq!(sum("gen_ai_server_request_duration_seconds_count", &[("outcome", "ok")]), all);
    assert_eq!(sum("gen_ai_server_time_to_first_token_seconds_count", &[]), streamed);
    assert_eq!(sum("gen_ai_server_time_per_output_token_seconds_count", &[]), streamed);
    assert_eq!(sum("llm_inter_chunk_latency_seconds_count", &[]), 4 * streamed);
    assert_eq!(sum("llm_tokens_total", &[("type", "output"), ("source", "usage")]), 5 * all);
    assert_eq!(sum("llm_tokens_total", &[("type", "input"), ("source", "usage")]), 7 * all);
    // What began before the model's first answer stays where the name was not known.
    assert_eq!(sum("llm_stream_deliveries_total", &[]), 5 * (streamed - 1));
    assert_eq!(sum("llm_requests_started_total", &[("stream", "true")]), streamed - 1);
    assert_eq!(sum("llm_requests_started_total", &[("stream", "false")]), EACH);
    assert_eq!(sum("llm_requests_in_flight", &[]), 0);
    assert_eq!(metrics.sum("observer_dropped_total", &[]), Some(0), "{}", metrics.0);
    assert_eq!(metrics.sum("observer_probe_info", &[("mode", "attached")]), Some(10));

    assert_eq!(agent.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(agent.get("/readyz").0, 200);
    assert_eq!(agent.get("/nothing").0, 404);
    agent.end(Signal::INT).assert_prompt("SIGINT after exchanges");
}

/// The lines that `observer requests` prints about this test's server, to the first that says `last`.
fn printed(agent: &Agent, args: &[&str], last: &str, mut exchange: impl FnMut()) -> Vec<String> {
    let args = [&["requests", "--address", &agent.address], args].concat();
    let mut command = observer(args);
    command.stdout(Stdio::piped());
    let mut child = command.spawn().expect("observer requests");
    let lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    let (line, next) = std::sync::mpsc::sync_channel(1024);
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|text| line.send(text)));
    let mut seen = Vec::new();
    wait_for("a line of `observer requests`", || {
        // It says nothing when it has begun to follow: exchanges go on until it tells of one.
        exchange();
        seen.extend(next.try_iter());
        seen.iter().any(|line| line.contains(last)).then_some(())
    });
    child.kill().expect("kill");
    child.wait().expect("wait");
    seen
}

#[test]
fn requests_prints_json_and_a_table() {
    if !privileged() {
        return;
    }
    let agent = Agent::start(&["--set", "slo=[{ name = 'soon', models = 'tiny-*', duration = 30 }]"]);
    let (server, port) = Workload::script("openai_server.py", &["--gap", "0.01"]);
    let model = format!("tiny-{}", server.pid());
    let mut client = Client::connect(&port);
    let mut exchange = || drop(client.stream("again", &chat(&model, true, 5)));

    let lines = printed(&agent, &["--json"], &model, &mut exchange);
    let line = lines.iter().find(|line| line.contains(&model)).expect("waited for");
    let record: RequestRecord = serde_json::from_str(line).expect("JSON");
    assert_eq!((record.pid, record.outcome), (server.pid(), Some(Outcome::Ok)), "{line}");
    assert_eq!((record.tokens.output, record.request_id.as_deref()), (Some(5), Some("again")), "{line}");

    let lines = printed(&agent, &[], &model, &mut exchange);
    let header: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(header[..4], ["TIME", "SERVER", "MODEL", "OP"], "{}", lines[0]);
    let line = lines.iter().find(|line| line.contains(&model)).expect("waited for");
    let cells: Vec<&str> = line.split_whitespace().collect();
    let [_, process, of, operation, status, outcome, ttft, tpot, input, output, source, duration, slo] =
        cells[..]
    else {
        panic!("not the thirteen columns: {line}")
    };
    assert_eq!((process, of, operation, status), ("python3", &*model, "chat", "200"), "{line}");
    assert_eq!((outcome, input, output, source), ("ok", "7", "5", "usage"), "{line}");
    assert_eq!((slo, &record.slo.met[..]), ("met", &["soon".to_owned()][..]), "{line}");
    let metrics = agent.metrics();
    assert!(metrics.sum("llm_slo_requests_total", &[("slo", "soon"), ("met", "true")]) >= Some(2));
    assert_eq!(metrics.sum("llm_slo_requests_total", &[("slo", "soon"), ("met", "false")]), Some(0));
    for time in [ttft, tpot, duration] {
        assert!(time.ends_with("ms") && !time.starts_with('~'), "{line}");
    }
    agent.end(Signal::TERM).assert_prompt("SIGTERM after followers");
}

#[test]
fn nothing_that_was_said_is_told() {
    if !privileged() {
        return;
    }
    let agent = Agent::start(&["--log", "trace"]);
    let (server, port) = Workload::script("openai_server.py", &[]);
    let model = format!("quiet-{}", server.pid());
    let follower = agent.follow();
    let headers = format!("Authorization: Bearer {SECRET}\r\nCookie: session={SECRET}\r\n");
    // Broken answers, too: an error message must not quote what it could not read.
    let answers = [
        ("plain", "usage", "}"),
        ("stream", "[DONE]", "0\r\n\r\n"),
        ("bad_event", "[DONE]", "0\r\n\r\n"),
        ("bad_chunk", "nonsense", ""),
        ("bad_head", "what is this", ""),
    ];
    for (answer, of_answer, end) in answers {
        let body = format!(
            r#"{{"model":"{model}","stream":{},"answer":"{answer}","say":"{COMPLETION} {COMPLETION}","messages":[{{"role":"user","content":"{PROMPT}"}}]}}"#,
            answer != "plain"
        );
        let mut client = Client::connect(&port);
        client.post(answer, &headers, &body);
        let got = if end.is_empty() { client.receive_all() } else { client.receive_until(end.as_bytes()) };
        assert!(got.contains(of_answer), "{got}");
        assert!(answer == "bad_head" || got.contains(COMPLETION), "{got}");
        drop(client);
        follower.wait(answer);
    }
    // A request that is none, with everything in it.
    let mut client = Client::connect(&port);
    client.send(
        format!("POST /v1/chat/completions HTTP/1.1\r\n{PROMPT} {SECRET}\r\n{headers}\r\n\r\n").as_bytes(),
    );
    assert!(client.receive_all().contains("400"));
    // And a body that is no JSON.
    let mut client = Client::connect(&port);
    client.post("no-json", &headers, &format!(r#"{{"messages":[{{"content":"{PROMPT}"#));
    assert!(client.receive_all().contains("400"));
    follower.wait("no-json");

    let Metrics(metrics) = agent.metrics();
    assert!(metrics.contains(&model), "{metrics}");
    let api = follower.text();
    let ended = agent.end(Signal::INT);
    ended.assert_prompt("SIGINT at log level trace");
    assert!(ended.log.contains("TRACE") || ended.log.contains("DEBUG"), "{}", ended.log);
    assert_without(
        &[PROMPT, COMPLETION, SECRET],
        &[("/metrics", metrics.as_bytes()), ("/api", api.as_bytes()), ("the log", ended.log.as_bytes())],
    );
}
