//! Requests that the agent sees, as spans and log records at a receiver.

use observer_tests::{
    agent::{Agent, wait_for},
    fake_engine::FakeEngine,
    live::privileged,
    receiver::{Item, Receiver},
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use rustix::process::Signal;

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
        let lines = recent.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
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
