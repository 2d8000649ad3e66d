//! Two hops on one machine: a gateway and the engine behind it.

use std::{fs, process::Command};

use observer::exchange::{Outcome, RequestRecord, Role};
use observer_tests::{
    agent::{Agent, wait_for},
    engine::{Engine, MODEL, drive, free_port},
    live::privileged,
    receiver::Receiver,
    scripted::{Scripted, by_id, by_request},
    workload::{Workload, environment},
};
use rustix::process::Signal;

/// `LiteLLM`'s proxy before an engine.
fn litellm(engine: &Engine, folder: &std::path::Path) -> Option<(Workload, String)> {
    let litellm = environment("litellm")?;
    let (file, port) = (folder.join("config.yaml"), free_port());
    let config = format!(
        "model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n      \
         api_base: {}/v1\n      api_key: none\n",
        engine.url
    );
    fs::write(&file, config).expect("its configuration");
    let mut command = Command::new(litellm.join("bin/litellm"));
    // It would fetch a list of prices.
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("PYTHONUNBUFFERED", "1");
    // On loopback, and only for the test: without a key.
    command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--config"]).arg(&file);
    let (process, _) = Workload::start(command);
    let url = format!("http://127.0.0.1:{port}");
    wait_for("LiteLLM", || ureq::get(format!("{url}/health/liveliness")).call().ok());
    Some((process, url))
}

#[test]
fn litellm_and_llama_cpp_are_two_hops() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::start("llama.cpp");
    let Some((gateway, url)) = litellm(&engine, folder.path()) else { return };
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    let mut lines = Vec::new();
    for library in ["openai", "openai-async"] {
        lines.extend(drive(
            &url,
            MODEL,
            library,
            &format!("{library}-{}", gateway.pid()),
            "usage,plain",
            false,
        ));
    }
    assert_eq!(lines.len(), 12);
    let of = |pid: u32| {
        let records = follower.records().into_iter();
        records.filter(|record| record.pid == pid).collect::<Vec<RequestRecord>>()
    };
    let (inner, outer) = wait_for("both hops of every request", || {
        let (inner, outer) = (of(engine.process.pid()), of(gateway.pid()));
        (inner.len() >= lines.len() && outer.len() >= lines.len()).then_some((inner, outer))
    });
    assert_eq!((inner.len(), outer.len()), (lines.len(), lines.len()));
    for record in inner.iter().chain(&outer) {
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
        assert!(record.is_complete(), "{record:?}");
        assert_eq!(record.model.as_deref(), Some(MODEL), "{record:?}");
    }
    // Of each hop the client's own counts; `LiteLLM` compresses its plain answers.
    let output = |line: &serde_json::Value| line["output"].as_u64().expect("usage");
    assert_eq!(
        inner.iter().filter_map(|record| record.tokens.output).sum::<u64>(),
        lines.iter().map(output).sum::<u64>()
    );
    for record in outer.iter().filter(|record| record.stream) {
        let of = lines.iter().find(|line| line["request_id"].as_str() == record.request_id.as_deref());
        assert_eq!(record.tokens.output, of.map(output), "{record:?}");
    }
    for record in &outer {
        let id = record.request_id.as_deref();
        assert!(lines.iter().any(|line| line["request_id"].as_str() == id), "{record:?}");
    }
    let roles = |records: &[RequestRecord], role| records.iter().filter(|record| record.role == role).count();
    assert_eq!((roles(&outer, Role::Gateway), roles(&inner, Role::Server)), (lines.len(), lines.len()));
    // Over the processes of this test: others may serve on the same machine.
    let metrics = agent.metrics();
    let servers = metrics.sum("llm_requests_total", &[("role", "server"), ("gen_ai_request_model", MODEL)]);
    assert_eq!(servers, Some(lines.len() as u64), "{}", metrics.0);
    agent.end(Signal::INT).assert_prompt("SIGINT after a gateway");
}

/// The observer's dispatch waits beside what the gateway itself logged, seconds, for every request; none where the
/// observer reports none.
fn dispatch(args: &[&str], streams: &str, concurrency: &str) -> Vec<(Option<f64>, f64)> {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("gateway.jsonl");
    let upstream = Scripted::start(&[]);
    let url = format!("http://127.0.0.1:{}", upstream.port);
    let log_path = log.to_str().expect("UTF-8");
    let (gateway, port) =
        Workload::venv_script("slot_gateway.py", &[&["--upstream", &url, "--log", log_path], args].concat());
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    // Other than one another's, so that the waits differ.
    let script = |events: u32| format!(r#"{{"events":{events},"gap_ms":7}}"#);
    let (short, long) = (script(3), script(9));
    let arguments =
        ["--streams", streams, "--concurrency", concurrency, "--script", &short, "--script", &long];
    // The first requests of a Python process load modules, and the gateway's connections are made with them.
    upstream.load_at(
        &port,
        &["--streams", "16", "--concurrency", concurrency, "--prefix", "warm", "--script", &short],
    );
    let seen = upstream.load_at(&port, &arguments);
    let records = wait_for("a record of every request at the gateway", || {
        let mut records = follower.records();
        records.retain(|record| {
            let is_warm = record.request_id.as_deref().is_some_and(|id| id.starts_with("warm"));
            record.pid == gateway.pid() && !is_warm
        });
        (records.len() >= seen.len()).then_some(records)
    });
    let logged = by_request(&log);
    let waits = by_id(&records).into_iter().map(|(id, record)| {
        let line = &logged[id][0];
        let at = |name: &str| line[name].as_u64().expect("a clock") as f64 / 1e9;
        (record.queue.dispatch, at("sent_ns") - at("received_ns"))
    });
    let waits: Vec<_> = waits.collect();
    assert_eq!(waits.len(), seen.len());
    waits
}

/// How many are reported, and within 5 ms of the gateway's own clock. Panics if more than one of a hundred is further off:
/// a process may lose its core between its look at the clock and its call, but a wait that belongs to another request is
/// off by a whole stream.
fn right(waits: &[(Option<f64>, f64)]) -> usize {
    let reported: Vec<_> = waits.iter().filter_map(|(observer, own)| Some(((*observer)?, own))).collect();
    let off: Vec<_> = reported.iter().filter(|(observer, own)| (observer - **own).abs() >= 0.005).collect();
    println!("{} of {} reported, {} off by 5 ms or more: {off:?}", reported.len(), waits.len(), off.len());
    assert!(off.len() <= waits.len() / 100, "the observer's seconds, and the gateway's own: {off:?}");
    reported.len() - off.len()
}

#[test]
fn waits_for_a_slot_are_matched_by_request_id() {
    if privileged() {
        assert!(right(&dispatch(&[], "200", "8")) >= 198, "at least 99 of 100 are matched");
    }
}

#[test]
fn waits_for_a_slot_are_matched_by_order_where_only_one_can_be_meant() {
    if privileged() {
        assert_eq!(right(&dispatch(&["--strip"], "40", "1")), 40);
    }
}

#[test]
fn waits_for_a_slot_that_cannot_be_matched_are_not_reported() {
    if privileged() {
        // Who came last goes first: order alone would mislead.
        let waits = dispatch(&["--strip", "--last-first"], "200", "8");
        assert!(right(&waits) < waits.len());
    }
}

#[test]
fn both_hops_are_spans_of_the_clients_trace() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    if !privileged() {
        return;
    }
    let (receiver, folder, upstream) =
        (Receiver::start(), tempfile::tempdir().expect("a folder"), Scripted::start(&[]));
    let log = folder.path().join("gateway.jsonl");
    let (gateway, port) = Workload::venv_script(
        "slot_gateway.py",
        &["--upstream", &format!("http://{}", upstream.address()), "--log", log.to_str().expect("UTF-8")],
    );
    let _agent = Agent::start(&["--set", &format!("otlp.endpoint={}", receiver.url())]);
    let ask = |id: &str, traceparent: &str| {
        let mut answer = ureq::post(format!("http://127.0.0.1:{port}/v1/chat/completions"))
            .header("Content-Type", "application/json")
            .header("X-Request-Id", id)
            .header("traceparent", traceparent)
            .send(r#"{"model":"scripted","stream":true,"messages":[],"script":{"events":4,"gap_ms":5}}"#)
            .expect("it answers");
        answer.body_mut().read_to_string().expect("the stream");
    };
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let of = |id: &str| {
        wait_for("both spans", || {
            let spans = receiver.spans().into_iter();
            let mut both: Vec<_> = spans
                .filter(|span| span.attributes.get("llm.request.id").is_some_and(|of| of == id))
                .collect();
            both.sort_by_key(|span| span.item.start_time_unix_nano);
            (both.len() >= 2).then_some(both)
        })
    };
    // A gateway is known as one once it has asked upstream.
    ask("first", &format!("00-{TRACE}-{PARENT}-00"));
    of("first");
    ask("second", &format!("00-{TRACE}-{PARENT}-00"));
    let both = of("second");
    assert_eq!(both.len(), 2, "one of each hop");
    for (span, (role, pid)) in
        both.iter().zip([("gateway", gateway.pid()), ("server", upstream.server.pid())])
    {
        assert_eq!(span.attributes["llm.role"], role);
        assert_eq!(span.resource["process.pid"], pid.to_string());
        // The gateway passes the header on as it came, so both are the client's children.
        assert_eq!((hex(&span.item.trace_id), hex(&span.item.parent_span_id)), (TRACE.into(), PARENT.into()));
    }
    let [outer, inner] = [&both[0].item, &both[1].item];
    assert_ne!(outer.span_id, inner.span_id);
    assert!(
        outer.start_time_unix_nano <= inner.start_time_unix_nano
            && inner.end_time_unix_nano <= outer.end_time_unix_nano
    );
}
