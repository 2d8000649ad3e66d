//! Requests that the agent sees, as spans and log records at a receiver.

use observer_tests::{
    agent::{Agent, Running, assert_without, wait_for},
    engine::{Engine, MODEL, free_port},
    fake_engine::FakeEngine,
    live::privileged,
    pod_logs::{PodLogs, append, cri},
    receiver::{Answer, Item, Receiver},
    workload::environment,
};
use opentelemetry_proto::tonic::{
    common::v1::any_value,
    logs::v1::LogRecord,
    trace::v1::{Span, span::SpanKind},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{collections::BTreeSet, fs, ops::Range, path::Path, process::Command, time::Duration};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn sending(receiver: &Receiver, more: &[&str]) -> Agent {
    let endpoint = format!("otlp.endpoint={}", receiver.url());
    Agent::start(&[&["--set", &endpoint, "--set", "otlp.logs=true"], more].concat())
}

fn ask(engine: &FakeEngine, id: &str, traceparent: Option<&str>) {
    let mut request = ureq::post(format!("{}/v1/chat/completions", engine.url()))
        .header("Content-Type", "application/json")
        .header("X-Request-Id", id);
    if let Some(value) = traceparent {
        request = request.header("traceparent", value);
    }
    request.send(r#"{"model":"m","messages":[]}"#).expect("it answers");
}

fn span_of(receiver: &Receiver, id: &str) -> Item<Span> {
    wait_for("the span", || {
        receiver
            .spans()
            .into_iter()
            .find(|span| span.attributes.get("llm.request.id").is_some_and(|of| of == id))
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[test]
fn a_request_becomes_a_span_and_an_event_below_the_clients_span() {
    if !privileged() {
        return;
    }
    let (receiver, engine) =
        (Receiver::start(), FakeEngine::start("Server: uvicorn\r\n", "vllm-0.33.0-tp1-fake"));
    for more in [&[][..], &["--set", "otlp.protocol=grpc"]] {
        let agent = sending(&receiver, more);
        let (mine, none) = (format!("mine-{}", more.len()), format!("none-{}", more.len()));
        ask(&engine, &mine, Some(&format!("00-{TRACE}-{PARENT}-01")));
        ask(&engine, &none, None);
        let span = span_of(&receiver, &mine);
        assert_eq!((hex(&span.item.trace_id), hex(&span.item.parent_span_id)), (TRACE.into(), PARENT.into()));
        assert_eq!((span.item.name.as_str(), span.item.kind), ("chat m", SpanKind::Server as i32));
        for (name, value) in [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "vllm"),
            ("gen_ai.usage.input_tokens", "1"),
            ("llm.outcome", "ok"),
            ("http.response.status_code", "200"),
        ] {
            assert_eq!(span.attributes.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(span.resource.contains_key("host.name") && span.resource.contains_key("service.name"));
        let alone = span_of(&receiver, &none);
        assert!(alone.item.parent_span_id.is_empty() && alone.item.trace_id != span.item.trace_id);
        assert_ne!(alone.item.span_id, span.item.span_id);

        let (_, recent) = agent.get("/api/v1/requests?since=1h");
        let lines = recent.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let record =
            lines.into_iter().find(|record| record["request_id"] == mine.as_str()).expect("the record");
        assert_eq!(record["parent_id"], PARENT);
        let started: jiff::Timestamp =
            record["started_at"].as_str().expect("a start").parse().expect("a time");
        assert_eq!(i128::from(span.item.start_time_unix_nano), started.as_nanosecond(), "the kernel's time");
        let log = wait_for("the event", || {
            receiver.logs().into_iter().find(|log| log.item.span_id == span.item.span_id)
        });
        assert_eq!(
            (log.item.event_name.as_str(), log.item.trace_id),
            ("llm.request.end", span.item.trace_id)
        );
        let metrics = agent.metrics();
        metrics.assert_lint();
        assert_eq!(metrics.sum("observer_otlp_dropped_total", &[]), Some(0));
    }
}

#[test]
fn the_end_of_the_agent_loses_no_span() {
    if !privileged() {
        return;
    }
    let (receiver, engine) =
        (Receiver::start(), FakeEngine::start("Server: uvicorn\r\n", "vllm-0.33.0-tp1-fake"));
    let agent = sending(&receiver, &[]);
    ask(&engine, "first", None);
    span_of(&receiver, "first");
    ask(&engine, "last", None);
    let ended = agent.running.end(Signal::TERM);
    ended.assert_prompt("SIGTERM with something to send");
    span_of(&receiver, "last");
}

/// Settings of an agent that sends the lines of these pods, and keeps its places in this folder.
fn sends_lines(receiver: &Receiver, logs: &PodLogs, folder: &Path, more: &[&str]) -> Vec<String> {
    let settings = [
        format!("otlp.endpoint={}", receiver.url()),
        format!("kubernetes.pod_logs={}", logs.path().display()),
        format!("store.path={}", folder.display()),
    ];
    let fixed =
        ["kubernetes.mode=off", "store.enabled=true", "logs.store=off", "logs.all=true", "otlp.lines=true"];
    let all = settings.iter().map(String::as_str).chain(fixed).chain(more.iter().copied());
    ["--node", "node-a"]
        .into_iter()
        .chain(all.flat_map(|setting| ["--set", setting]))
        .map(str::to_owned)
        .collect()
}

fn start(args: &[String]) -> Agent {
    Agent::start(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Lines that a receiver took, in order.
fn lines(receiver: &Receiver) -> Vec<Item<LogRecord>> {
    receiver.logs().into_iter().filter(|log| log.item.event_name.is_empty()).collect()
}

fn text(log: &Item<LogRecord>) -> String {
    match log.item.body.as_ref().and_then(|body| body.value.clone()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("no text: {other:?}"),
    }
}

#[test]
fn lines_and_events_become_log_records() {
    if !privileged() {
        return;
    }
    let (logs, folder) = (PodLogs::default(), tempfile::tempdir().expect("a folder"));
    let engine = FakeEngine::start("Server: uvicorn\r\n", "vllm-0.33.0-tp1-fake");
    let llama = logs.server("ml", "llama-0");
    append(
        &llama.join("0.log"),
        &cri(logs.ago(5), "stderr", "ERROR: api_key=sk-abcdefghijklmnopqrstuvwx failed chatcmpl-0a1b2c3d4e"),
    );
    let protocols =
        [("otlp.protocol=http/protobuf", true), ("otlp.protocol=grpc", true), ("otlp.logs=false", false)];
    for (at, (setting, events)) in protocols.into_iter().enumerate() {
        let receiver = Receiver::start();
        let store = folder.path().join(at.to_string());
        let mut more = vec!["otlp.traces=false"];
        if events {
            more.push("otlp.logs=true");
        }
        more.push(setting);
        let agent = start(&sends_lines(&receiver, &logs, &store, &more));
        ask(&engine, "one", None);
        let line = wait_for("the line", || lines(&receiver).pop());
        assert_eq!(line.item.severity_text, "error");
        assert!(
            text(&line).starts_with("ERROR: ") && !text(&line).contains("abcdefghijkl"),
            "{}",
            text(&line)
        );
        for (name, value) in
            [("k8s.namespace.name", "ml"), ("k8s.pod.name", "llama-0"), ("host.name", "node-a")]
        {
            assert_eq!(line.resource.get(name).map(String::as_str), Some(value), "{name}");
        }
        for (name, value) in
            [("log.iostream", "stderr"), ("llm.request.id", "chatcmpl-0a1b2c3d4e"), ("llm.log.redacted", "1")]
        {
            assert_eq!(line.attributes.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(line.attributes["log.record.uid"].starts_with("node-a/"));
        let names = || receiver.logs().into_iter().map(|log| log.item.event_name).collect::<BTreeSet<_>>();
        if events {
            wait_for("the events", || {
                ["llm.process.observed", "llm.request.end", ""]
                    .iter()
                    .all(|name| names().contains(*name))
                    .then_some(())
            });
        } else {
            assert_eq!(names(), BTreeSet::from([String::new()]), "lines alone");
        }
        agent.metrics().assert_lint();
    }
}

#[test]
fn lines_that_were_sent_are_not_sent_again_after_a_crash() {
    if !privileged() {
        return;
    }
    let (logs, folder, receiver) =
        (PodLogs::default(), tempfile::tempdir().expect("a folder"), Receiver::start());
    let log = logs.server("ml", "llama-0").join("0.log");
    let write = |numbers: Range<u32>| {
        numbers.for_each(|number| append(&log, &cri(logs.ago(5), "stdout", &format!("number{number}"))));
    };
    let args = sends_lines(&receiver, &logs, folder.path(), &["otlp.traces=false"]);
    let told = || lines(&receiver).iter().map(text).collect::<Vec<_>>();
    let numbers = |numbers: Range<u32>| numbers.map(|number| format!("number{number}")).collect::<Vec<_>>();
    write(0..300);
    let agent = start(&args);
    wait_for("the first lines", || (told().len() == 300).then_some(()));
    // Places are committed within a second.
    std::thread::sleep(Duration::from_millis(2500));
    receiver.always(Some(Answer::Status(503, &[])));
    write(300..310);
    wait_for("a failure", || {
        (agent.metrics().sum("observer_otlp_retries_total", &[]) > Some(0)).then_some(())
    });
    agent.end(Signal::KILL);
    // They were read and not sent: whoever comes next sends them.
    receiver.always(None);
    write(310..320);
    let again = start(&args);
    wait_for("the others", || (told().len() >= 320).then_some(()));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(told(), numbers(0..320), "each once, in order");
    assert_eq!(again.metrics().sum("observer_otlp_dropped_total", &[]), Some(0));
}

#[test]
fn lines_wait_in_their_files_while_the_receiver_is_away() {
    if !privileged() {
        return;
    }
    let (logs, folder, receiver) =
        (PodLogs::default(), tempfile::tempdir().expect("a folder"), Receiver::start());
    let log = logs.server("ml", "llama-0").join("0.log");
    // Far more than the queue takes.
    let text_of = |number: u32| format!("number{number} {}", "x".repeat(900));
    let all: String = (0..8000).map(|number| cri(logs.ago(5), "stdout", &text_of(number))).collect();
    append(&log, &all);
    receiver.always(Some(Answer::Status(503, &[("retry-after", "1")])));
    let agent =
        start(&sends_lines(&receiver, &logs, folder.path(), &["otlp.traces=false", "otlp.queue=1MiB"]));
    wait_for("a failure", || {
        (agent.metrics().sum("observer_otlp_retries_total", &[]) > Some(1)).then_some(())
    });
    let metrics = agent.metrics();
    assert!(
        metrics.sum("observer_otlp_waiting_bytes", &[("signal", "logs")]) <= Some(1 << 20),
        "{}",
        metrics.0
    );
    receiver.always(None);
    wait_for("all lines", || (lines(&receiver).len() >= 8000).then_some(()));
    let told: Vec<_> = lines(&receiver).iter().map(text).collect();
    assert!(told.iter().enumerate().all(|(at, text)| *text == text_of(at as u32)), "each once, in order");
    assert_eq!((told.len(), agent.metrics().sum("observer_otlp_dropped_total", &[])), (8000, Some(0)));
}

/// What the API of Phoenix shows of a request.
fn shown_by_phoenix(url: &str, id: &str) -> Option<Value> {
    let mut answer = ureq::get(format!("{url}/v1/projects/default/spans?limit=100")).call().ok()?;
    let spans: Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
    let spans = spans["data"].as_array()?;
    spans.iter().find(|span| span["attributes"]["llm.request.id"] == id).cloned()
}

#[test]
fn phoenix_shows_requests_to_a_real_engine() {
    let Some(receivers) = environment("otlp").filter(|_| privileged()) else { return };
    let (port, grpc) = (free_port(), free_port());
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(receivers.join("bin/phoenix"));
    command.arg("serve").env("PHOENIX_WORKING_DIR", folder.path()).env("PHOENIX_HOST", "127.0.0.1");
    command.env("PHOENIX_PORT", port.to_string()).env("PHOENIX_GRPC_PORT", grpc.to_string());
    command.env("PHOENIX_TELEMETRY_ENABLED", "false");
    let mut phoenix = Running::start(command);
    let engine = Engine::start("llama.cpp");
    let url = format!("http://127.0.0.1:{port}");
    wait_for("Phoenix", || {
        phoenix.assert_alive();
        ureq::get(format!("{url}/healthz")).call().ok()
    });
    for (protocol, endpoint) in [("http/protobuf", url.clone()), ("grpc", format!("http://127.0.0.1:{grpc}"))]
    {
        let agent = Agent::start(&[
            "--set",
            &format!("otlp.endpoint={endpoint}"),
            "--set",
            &format!("otlp.protocol={protocol}"),
        ]);
        let body = format!(
            r#"{{"model":"{MODEL}","stream":true,"max_tokens":8,"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":"Count."}}]}}"#
        );
        let mut answer = ureq::post(format!("{}/v1/chat/completions", engine.url))
            .header("Content-Type", "application/json")
            .header("X-Request-Id", protocol)
            .send(body)
            .expect("it answers");
        answer.body_mut().read_to_string().expect("the stream");
        let span = wait_for("the span in Phoenix", || shown_by_phoenix(&url, protocol));
        println!("{protocol}: {span}");
        let (_, recent) = agent.get("/api/v1/requests?since=1h");
        let mut lines = recent.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let record = lines.find(|record| record["request_id"] == protocol).expect("the record");
        let attributes = &span["attributes"];
        assert_eq!(span["name"], format!("chat {MODEL}"));
        assert_eq!(attributes["gen_ai.request.model"], MODEL);
        assert_eq!(attributes["gen_ai.usage.output_tokens"], record["tokens"]["output"]);
        assert_eq!(attributes["llm.token_count.completion"], record["tokens"]["output"], "as Phoenix counts");
        let time =
            |value: &Value| value.as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
        let nanos = |at: &Value| time(at).as_nanosecond() as f64;
        // Phoenix keeps microseconds.
        assert!((nanos(&span["start_time"]) - nanos(&record["started_at"])).abs() < 1e3);
        let took = (nanos(&span["end_time"]) - nanos(&span["start_time"])) / 1e9;
        assert!((took - record["duration"].as_f64().expect("a duration")).abs() < 3e-6, "{took}");
        assert!(
            span["events"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["name"] == "llm.first_token"))
        );
    }
}

#[test]
fn a_collector_shows_the_events() {
    let Some(receivers) = environment("otlp").filter(|_| privileged()) else { return };
    let (http, grpc) = (free_port(), free_port());
    let folder = tempfile::tempdir().expect("a folder");
    let shown = folder.path().join("shown");
    // The program comes in the package of a Python, whose library it needs.
    let find = "import glob, sys, sysconfig; print(sysconfig.get_config_var('LIBDIR')); \
                print(glob.glob(sys.prefix + '/lib/*/site-packages/rotel/rotel-agent')[0])";
    let found = Command::new(receivers.join("bin/python")).args(["-c", find]).output().expect("Python");
    let found = String::from_utf8(found.stdout).expect("UTF-8");
    let (library, program) = found.trim().split_once('\n').expect("two lines");
    let mut command = Command::new("sh");
    command.env("LD_LIBRARY_PATH", library).args(["-c", "exec \"$@\" >\"$0\""]).arg(&shown).arg(program);
    command.args([
        "start",
        "--exporter",
        "blackhole",
        "--debug-log",
        "logs",
        "--debug-log-verbosity",
        "detailed",
    ]);
    command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")]);
    command.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")]);
    let mut collector = Running::start(command);
    let engine = FakeEngine::start("Server: uvicorn\r\n", "vllm-0.33.0-tp1-fake");
    for (protocol, port) in [("http/protobuf", http), ("grpc", grpc)] {
        let agent = Agent::start(&[
            "--set",
            &format!("otlp.endpoint=http://127.0.0.1:{port}"),
            "--set",
            &format!("otlp.protocol={protocol}"),
            "--set",
            "otlp.logs=true",
            "--set",
            "otlp.traces=false",
        ]);
        ask(&engine, protocol, None);
        wait_for("the event, shown", || {
            collector.assert_alive();
            let text = fs::read_to_string(&shown).ok()?;
            let (_, record) = text.split_once(&format!("llm.request.id: Str({protocol})"))?;
            (!record.is_empty() && text.contains("/v1/chat/completions 200 ok")).then_some(())
        });
        // The request, and that the process began to be observed.
        assert!(agent.metrics().sum("observer_otlp_sent_total", &[("signal", "logs")]) >= Some(1));
    }
}

#[test]
fn no_text_of_prompts_or_answers_is_in_any_output() {
    const PROMPT: &str = "zanzibar-prompt-secret";
    const ANSWER: &str = "quixotic-answer-secret";
    if !privileged() {
        return;
    }
    let (receiver, engine) =
        (Receiver::start(), FakeEngine::start("Server: uvicorn\r\n", "vllm-0.33.0-tp1-fake"));
    let endpoint = format!("otlp.endpoint={}", receiver.url());
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("store.path={}", folder.path().join("store").display());
    let agent = Agent::start(&[
        "--log",
        "trace",
        "--set",
        "store.enabled=true",
        "--set",
        &store,
        "--set",
        &endpoint,
        "--set",
        "otlp.logs=true",
        "--set",
        "otlp.gzip=false",
    ]);
    let plain = format!(
        r#"{{"id":"1","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{ANSWER}","tool_calls":[{{"function":{{"name":"f","arguments":"{ANSWER}"}}}}]}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1}}}}"#
    );
    let stream = format!(
        "data: {{\"id\":\"1\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{ANSWER}\"}}}}]}}\n\ndata: [DONE]\n\n"
    );
    let cases = [
        ("200 OK", "application/json", plain.clone()),
        ("200 OK", "text/event-stream", stream),
        (
            "200 OK",
            "text/event-stream",
            format!("data: {{\"error\":{{\"message\":\"{ANSWER} {PROMPT}\",\"type\":\"bad\"}}}}\n\n"),
        ),
        (
            "400 Bad Request",
            "application/json",
            format!(
                r#"{{"error":{{"message":"cannot take {PROMPT}: {ANSWER}","type":"invalid","code":400}}}}"#
            ),
        ),
        ("500 Internal Server Error", "text/plain", format!("Traceback: {PROMPT} {ANSWER}")),
        ("200 OK", "application/json", format!("{{\"choices\":[{{\"message\":{{\"content\":\"{ANSWER}")),
    ];
    for (at, (status, kind, body)) in cases.iter().enumerate() {
        engine.answer(status, kind, body);
        let id = format!("case-{at}");
        // An answer with an error is an answer, too.
        let _status = ureq::post(format!("{}/v1/chat/completions?q={PROMPT}", engine.url()))
            .header("Content-Type", "application/json")
            .header("X-Request-Id", &id)
            .header("Authorization", format!("Bearer {PROMPT}"))
            .send(format!(
                r#"{{"model":"m","stream":{},"messages":[{{"role":"system","content":"{PROMPT}"}},{{"role":"user","content":[{{"type":"text","text":"{PROMPT}"}}]}}],"tools":[{{"function":{{"description":"{PROMPT}"}}}}],"stop":["{PROMPT}"]}}"#,
                kind.contains("stream")
            ));
        span_of(&receiver, &id);
    }
    wait_for("the events", || (receiver.logs().len() >= cases.len()).then_some(()));
    let metrics = agent.metrics().0;
    let (_, recent) = agent.get("/api/v1/requests?since=1h");
    let (_, top) = agent.get("/api/v1/top");
    let (_, explained) = agent.get("/api/v1/explain?since=1h&limit=100");
    let kinds = "process,kubernetes,gpu,stall,observer,request";
    let has_all = |text: &str| (0..cases.len()).all(|at| text.contains(&format!("case-{at}")));
    let events = wait_for("all requests, stored", || {
        let (_, events) = agent.get(&format!("/api/v1/events?since=1h&kind={kinds}&limit=5000"));
        has_all(&events).then_some(events)
    });
    assert!(has_all(&explained) && explained.contains("\"verdict\""), "{explained}");
    assert!(recent.contains("case-0") && recent.contains("case-5"));
    let log = agent.running.log();
    let mut texts = vec![
        ("metrics", metrics.as_bytes()),
        ("requests", recent.as_bytes()),
        ("top", top.as_bytes()),
        ("explanations", explained.as_bytes()),
        ("events and requests of the store", events.as_bytes()),
        ("the observer's log", log.as_bytes()),
    ];
    let came = receiver.came();
    texts.extend(came.iter().map(|came| (came.path.as_str(), came.message.as_ref())));
    assert_without(&[PROMPT, ANSWER], &texts);
}
