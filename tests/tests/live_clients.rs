//! Real clients against real engines: the observer's numbers beside the clients' own reports.

use std::{collections::HashMap, fs, process::Command};

use observer::exchange::{Outcome, RequestRecord};
use observer_tests::{
    agent::{Agent, Follower, wait_for},
    engine::{Beside, Engine, MODEL, drive},
    live::privileged,
    workload::environment,
};
use rustix::process::Signal;
use serde_json::Value;

/// By how much the client's time to first token is longer: connecting (0.2 ms on loopback, once for each client),
/// making and writing the request, and, once the first event was written, the library's parsing and the wait of its
/// thread for one of the cores, which compute tokens. Measured medians on two cores: 2 to 3 ms for the openai
/// library, 4 to 11 ms for its asynchronous half, whose requests share one thread, 2.3 ms for `AIPerf`; three others that
/// compute on the same two cores make 24 of those 11.
const TTFT_MS: f64 = 25.0;

/// A gap has no such part, only jitter of reading, which goes both ways. Measured medians: below 0.5 ms.
const GAP_MS: f64 = 3.0;

/// Where the machine is so busy that this part of the client's own time is more than those bounds, it counts.
const BUSY: f64 = 0.2;

/// The records of these request ids.
fn records_of(follower: &Follower, ids: &[&str]) -> HashMap<String, RequestRecord> {
    wait_for("a record of every request", || {
        let records = follower.records().into_iter();
        let by_id: HashMap<String, RequestRecord> =
            records.filter_map(|record| Some((record.request_id.clone()?, record))).collect();
        ids.iter().all(|id| by_id.contains_key(*id)).then_some(by_id)
    })
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().expect("text")
}

/// Compares one request; `tokens` are the client's times of events with a token, seconds after the call.
fn compare(beside: &mut Beside, what: &str, record: &RequestRecord, tokens: &[f64], output: Option<u64>) {
    assert!(record.is_complete(), "{record:?}");
    // Also where the openai library hangs up at [DONE], before the last chunk of the framing.
    let left = record.outcome == Some(Outcome::AbortedByClient);
    assert!(record.defects.is_empty() || left && record.defects == ["truncated"], "{record:?}");
    if let Some(output) = output {
        assert_eq!(record.tokens.output_total(), Some(output), "{what}: {record:?}");
    }
    let (Some(first), Some(ttft)) = (tokens.first(), record.ttft) else {
        assert_eq!((tokens.len(), record.ttft), (0, None), "{what}: {record:?}");
        return;
    };
    assert!(ttft <= *first, "{what}: the client had its first token after {first}: {record:?}");
    beside.add(&format!("{what}: TTFT"), *first, ttft);
    let mut gaps: Vec<f64> = tokens.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Of two choices at once, a server may send both tokens in one delivery.
    if gaps.len() > 8 && record.choices == 1 {
        gaps.sort_by(f64::total_cmp);
        beside.add(&format!("{what}: gap"), gaps[gaps.len() / 2], record.gaps.as_ref().expect("gaps").p50);
    }
}

fn assert_near(beside: &Beside) {
    for (what, (client, difference)) in beside.print() {
        let most = if what.ends_with("TTFT") { TTFT_MS } else { GAP_MS }.max(BUSY * client);
        assert!(difference.abs() <= most, "{what}: {difference:.2} ms apart, of {client:.2} ms");
    }
}

/// Both kinds of the openai library against an engine, three requests of each kind.
fn openai_against(kind: &str, kinds: &str) {
    let engine = Engine::start(kind);
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    let mut beside = Beside::default();
    for library in ["openai", "openai-async"] {
        let prefix = format!("{library}-{}", engine.process.pid());
        let lines = drive(&engine.url, MODEL, library, &prefix, kinds, kind == "llama.cpp");
        let records =
            records_of(&follower, &lines.iter().map(|line| text(line, "request_id")).collect::<Vec<_>>());
        assert_eq!(lines.len(), 3 * kinds.split(',').count());
        for line in &lines {
            let (record, what) = (&records[text(line, "request_id")], text(line, "kind"));
            let outcome = if what == "abort" { Outcome::AbortedByClient } else { Outcome::Ok };
            assert_eq!(record.outcome, Some(outcome), "{what}: {record:?}");
            assert_eq!(
                (record.model.as_deref(), record.stream),
                (Some(MODEL), what != "plain"),
                "{record:?}"
            );
            let tokens: Vec<f64> = serde_json::from_value(line["tokens"].clone()).expect("times");
            compare(&mut beside, library, record, &tokens, line["output"].as_u64());
        }
    }
    println!("{kind}");
    assert_near(&beside);
    agent.end(Signal::INT).assert_prompt("SIGINT after real clients");
}

#[test]
fn openai_against_llama_cpp() {
    if privileged() {
        openai_against("llama.cpp", "usage,bare,plain,choices,abort");
    }
}

#[test]
fn openai_against_fastllm() {
    if privileged() && environment("fastllm").is_some() {
        // No hang-ups: now and then this engine serves nobody any more after one, with all its threads idle.
        openai_against("fastllm", "usage,bare,plain,choices");
    }
}

/// Against an engine. Its tokenizer's table comes with `LiteLLM`: there is no other way to it without a network.
fn aiperf_against(kind: &str) {
    const REQUESTS: usize = 20;
    let (Some(aiperf), Some(litellm)) = (environment("aiperf"), environment("litellm")) else { return };
    let folder = tempfile::tempdir().expect("a folder for its report");
    let mut libraries =
        fs::read_dir(litellm.join("lib")).expect("lib").map(|entry| entry.expect("entry").path());
    let table = libraries.next().expect("python").join("site-packages/litellm/litellm_core_utils/tokenizers");
    let engine = Engine::start(kind);
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    let mut command = Command::new(aiperf.join("bin/aiperf"));
    command.env("TIKTOKEN_CACHE_DIR", table).args(["profile", "-m", MODEL, "--url", &engine.url]);
    command.args([
        "--endpoint-type",
        "chat",
        "--streaming",
        "--tokenizer",
        "builtin",
        "--isl",
        "32",
        "--osl",
        "16",
    ]);
    command.args([
        "--concurrency",
        "2",
        "--request-count",
        &REQUESTS.to_string(),
        "--use-server-token-count",
    ]);
    command
        .args(["--connection-reuse-strategy", if kind == "llama.cpp" { "never" } else { "pooled" }])
        .args(["--export-level", "records", "--ui", "none"])
        .arg("--output-artifact-dir")
        .arg(folder.path());
    let output = command.output().expect("aiperf");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = fs::read_to_string(folder.path().join("profile_export.jsonl")).expect("its report");
    let lines: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), REQUESTS);
    let id = |line: &'_ Value| line["metadata"]["x_request_id"].as_str().expect("an id").to_owned();
    let ids: Vec<String> = lines.iter().map(id).collect();
    let records = records_of(&follower, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    let mut beside = Beside::default();
    for line in &lines {
        let (record, metrics) = (&records[&id(line)], &line["metrics"]);
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
        let seconds = |value: &Value| value.as_f64().expect("milliseconds") / 1e3;
        let gaps = metrics["inter_chunk_latency"]["value"].as_array().expect("gaps");
        let mut tokens = vec![seconds(&metrics["time_to_first_token"]["value"])];
        for gap in gaps {
            tokens.push(tokens[tokens.len() - 1] + seconds(gap));
        }
        let output = metrics["usage_completion_tokens"]["value"].as_f64().map(|tokens| tokens as u64);
        assert!(output.is_some(), "{line}");
        compare(&mut beside, "AIPerf", record, &tokens, output);
    }
    println!("{kind}");
    assert_near(&beside);
    agent.end(Signal::INT).assert_prompt("SIGINT after AIPerf");
}

#[test]
fn aiperf_against_llama_cpp() {
    if privileged() {
        aiperf_against("llama.cpp");
    }
}

#[test]
fn aiperf_against_fastllm() {
    if privileged() && environment("fastllm").is_some() {
        aiperf_against("fastllm");
    }
}

#[test]
fn anthropic_against_llama_cpp() {
    if !privileged() {
        return;
    }
    let engine = Engine::start("llama.cpp");
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    let lines = drive(
        &engine.url,
        MODEL,
        "anthropic",
        &format!("anthropic-{}", engine.process.pid()),
        "stream,plain",
        true,
    );
    assert_eq!(lines.len(), 6);
    let ids: Vec<&str> = lines.iter().map(|line| text(line, "request_id")).collect();
    let records = records_of(&follower, &ids);
    let mut beside = Beside::default();
    for line in &lines {
        let record = &records[text(line, "request_id")];
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
        assert_eq!(record.path, "/v1/messages", "{record:?}");
        let tokens: Vec<f64> = serde_json::from_value(line["tokens"].clone()).expect("times");
        compare(&mut beside, "anthropic", record, &tokens, line["output"].as_u64());
    }
    assert_near(&beside);
    agent.end(Signal::INT).assert_prompt("SIGINT after the anthropic library");
}

/// The last count of generated tokens that an answer of llama.cpp names, in the words of whichever API.
fn generated(answer: &str) -> Option<u64> {
    ["\"completion_tokens\":", "\"output_tokens\":", "\"tokens_predicted\":", "\"predicted_n\":"]
        .iter()
        .filter_map(|name| answer.rfind(name).map(|at| &answer[at + name.len()..]))
        .find_map(|rest| rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
}

/// Each API that llama.cpp serves, streamed and plain, and how it refuses.
#[test]
fn every_api_of_llama_cpp() {
    const ASKED: [(&str, &str); 5] = [
        ("/completion", r#""prompt":"Count to ten:","n_predict":12"#),
        ("/v1/completions", r#""prompt":"Count to ten:","max_tokens":12"#),
        ("/v1/chat/completions", r#""messages":[{"role":"user","content":"Hello"}],"max_tokens":12"#),
        ("/v1/messages", r#""messages":[{"role":"user","content":"Hello"}],"max_tokens":12"#),
        ("/v1/responses", r#""input":"Hello","max_output_tokens":12"#),
    ];
    if !privileged() {
        return;
    }
    let engine = Engine::start("llama.cpp");
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    // No connection is kept: llama.cpp closes it after a stream without having said so.
    let http: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(0).build().into();
    let mut answers = Vec::new();
    for (path, asks) in ASKED {
        for (kind, rest) in
            [("stream", r#","stream":true"#), ("plain", ""), ("refused", r#","temperature":"warm""#)]
        {
            let id = format!("{kind}{path}");
            let body = format!(r#"{{"model":"{MODEL}",{asks}{rest}}}"#);
            let mut response = http
                .post(format!("{}{path}", engine.url))
                .header("content-type", "application/json")
                .header("x-request-id", &id)
                .send(&body)
                .expect("an answer");
            let status = response.status().as_u16();
            answers.push((id, kind, status, response.body_mut().read_to_string().expect("text")));
        }
    }
    let records = records_of(&follower, &answers.iter().map(|(id, ..)| &**id).collect::<Vec<_>>());
    for (id, kind, status, answer) in &answers {
        let record = &records[id];
        println!("{id}: {status} {:?} {:?}", record.outcome, record.tokens);
        assert_eq!(record.status, Some(*status), "{answer}\n{record:?}");
        assert!(record.is_complete() && record.defects.is_empty(), "{answer}\n{record:?}");
        if *status == 200 {
            assert_eq!(record.outcome, Some(Outcome::Ok), "{answer}\n{record:?}");
            assert_eq!(record.tokens.output_total(), generated(answer), "{answer}\n{record:?}");
            assert!(record.tokens.output_total() > Some(0), "{answer}\n{record:?}");
            assert_eq!((record.stream, record.ttft.is_some()), (*kind == "stream", *kind == "stream"));
            assert_eq!(record.model.as_deref(), Some(MODEL), "{record:?}");
            assert_eq!(record.provider.as_deref(), Some("llama.cpp"), "{record:?}");
        } else {
            let outcome = if *status < 500 { Outcome::ClientError } else { Outcome::ServerError };
            assert_eq!(record.outcome, Some(outcome), "{answer}\n{record:?}");
            assert!(record.error_type.is_some(), "{answer}\n{record:?}");
        }
    }
    agent.end(Signal::INT).assert_prompt("SIGINT after every API");
}
