//! A finished exchange as a span, by the GenAI conventions of the commit in `observer_build_info`
//! (semantic-conventions: docs/gen-ai/gen-ai-spans.md). What they have no name for is under `llm.`.
//!
//! Of kind SERVER: conventions for clients say CLIENT, and whoever sent the `traceparent` has a span of that kind. Times
//! are the kernel's; ids are made of them and of the connection, so that a record has one span however often it is sent.

use jiff::Timestamp;
use opentelemetry_proto::tonic::trace::v1::{
    Span, SpanFlags, Status, span, span::SpanKind, status::StatusCode,
};
use ring::digest::{Context, SHA256};

use super::attribute::Attributes;
use super::failure;
use crate::exchange::{RequestRecord, TokenSource};

/// The flag `sampled` (W3C Trace Context 2, section 3.2.2.5).
const SAMPLED: u32 = 1;

/// The ids of a record's span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) trace: Vec<u8>,
    pub(super) span: Vec<u8>,
    pub(super) parent: Vec<u8>,
}

impl Ids {
    pub(super) fn of(record: &RequestRecord) -> Self {
        let mut digest = Context::new(&SHA256);
        for part in [&record.node, &record.id, record.started_at.as_ref().unwrap_or(&String::new())] {
            digest.update(part.as_bytes());
            digest.update(&[0]);
        }
        let digest = digest.finish();
        let (own, span) = digest.as_ref().split_at(16);
        let known = record.trace_id.as_deref().and_then(hex).zip(record.parent_id.as_deref().and_then(hex));
        let (trace, parent) = known.unwrap_or_else(|| (own.to_vec(), Vec::new()));
        Self { trace, span: span.iter().copied().take(8).collect(), parent }
    }
}

/// Bytes that are written as digits.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    Some(digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// When an exchange began and when it was over, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Times {
    /// None if the core did not know the wall clock yet.
    pub(super) fn of(record: &RequestRecord) -> Option<Self> {
        let start = moment(record.started_at.as_deref()?)?;
        let seconds = record.clocks.response_end.or(record.client_left);
        let end = match seconds {
            Some(seconds) => after(start, seconds),
            None => record.ended_at.as_deref().and_then(moment)?,
        };
        Some(Self { start, end: end.max(start) })
    }
}

pub(super) fn moment(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok()
}

fn after(start: u64, seconds: f64) -> u64 {
    start.saturating_add((seconds * 1e9).round() as u64)
}

/// The span, if its times are known.
pub(super) fn span(record: &RequestRecord) -> Option<Span> {
    let times = Times::of(record)?;
    let ids = Ids::of(record);
    let remote = SpanFlags::ContextHasIsRemoteMask as u32
        | if ids.parent.is_empty() { 0 } else { SpanFlags::ContextIsRemoteMask as u32 };
    let status = if failure::is_of_server(record) {
        let message = failure::error_type(record).unwrap_or_default().to_owned();
        Status { message, code: StatusCode::Error.into() }
    } else {
        Status::default()
    };
    Some(Span {
        trace_id: ids.trace,
        span_id: ids.span,
        parent_span_id: ids.parent,
        flags: remote | SAMPLED,
        name: name(record),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: times.start,
        end_time_unix_nano: times.end,
        attributes: attributes(record).0,
        events: events(record, times),
        status: Some(status),
        ..Span::default()
    })
}

/// `{gen_ai.operation.name} {gen_ai.request.model}`.
fn name(record: &RequestRecord) -> String {
    let operation = operation(record);
    match record.model.as_deref() {
        Some(model) if !model.is_empty() => format!("{operation} {model}"),
        _ => operation.to_owned(),
    }
}

fn operation(record: &RequestRecord) -> &'static str {
    record.operation.map_or("unknown", crate::exchange::Operation::as_str)
}

/// Attributes of a request: names, counts and times, no text.
pub(super) fn attributes(record: &RequestRecord) -> Attributes {
    let mut all = Attributes::default();
    all.text("gen_ai.operation.name", operation(record));
    all.text("gen_ai.provider.name", record.provider.as_deref().unwrap_or("unknown"));
    all.known("gen_ai.request.model", record.model.as_ref());
    all.flag("gen_ai.request.stream", record.stream);
    all.count("gen_ai.request.max_tokens", record.max_tokens);
    all.count("gen_ai.request.choice.count", (record.choices > 1).then_some(record.choices.into()));
    all.known("gen_ai.response.id", record.response_id.as_ref());
    all.texts("gen_ai.response.finish_reasons", record.finish_reason.as_ref());
    all.seconds("gen_ai.response.time_to_first_chunk", record.ttft.filter(|_| record.is_complete()));
    all.count("gen_ai.usage.input_tokens", record.tokens.input_total());
    all.count("gen_ai.usage.output_tokens", record.tokens.output_total());
    all.count("gen_ai.usage.cache_read.input_tokens", record.tokens.input_cached);
    all.count("gen_ai.usage.reasoning.output_tokens", record.tokens.output_reasoning);
    all.text("error.type", failure::error_type(record).unwrap_or_default());
    all.count("http.response.status_code", record.status.map(u64::from));
    all.text("http.request.method", "POST");
    all.text("url.path", &record.path);
    if let Some((protocol, version)) = record.protocol.split_once('/') {
        all.text("network.protocol.name", protocol);
        all.text("network.protocol.version", version);
    }
    if let Some(local) = record.local {
        all.text("server.address", &local.ip().to_canonical().to_string());
        all.count("server.port", Some(local.port().into()));
    }
    if let Some(peer) = record.peer.as_deref().and_then(|peer| peer.parse::<std::net::SocketAddr>().ok()) {
        all.text("client.address", &peer.ip().to_canonical().to_string());
        all.count("client.port", Some(peer.port().into()));
    }
    all.count("http.request.size", Some(record.request_bytes));
    all.count("http.response.size", Some(record.response_bytes));
    own(record, &mut all);
    all
}

/// What the conventions have no name for.
fn own(record: &RequestRecord, all: &mut Attributes) {
    all.text("llm.record.id", &record.id);
    all.known("llm.request.id", record.request_id.as_ref());
    all.text("llm.role", record.role.as_str());
    all.text("llm.outcome", record.outcome.map_or("", crate::exchange::Outcome::as_str));
    all.text("llm.tokens.source", record.tokens.source.map_or("", TokenSource::as_str));
    let trusted = |seconds: Option<f64>| seconds.filter(|_| record.is_complete());
    all.seconds("llm.time_to_first_token", trusted(record.ttft));
    all.seconds("llm.time_per_output_token", trusted(record.tpot));
    for (part, wait) in [
        ("llm.queue.accept", record.queue.accept),
        ("llm.queue.socket", record.queue.socket),
        ("llm.queue.dispatch", record.queue.dispatch),
        ("llm.queue.engine", record.queue.engine),
    ] {
        all.seconds(part, trusted(wait));
    }
    all.seconds("llm.gap.p99", trusted(record.gaps.as_ref().map(|gaps| gaps.p99)));
    all.count("llm.stalls", record.stalls);
    all.count("llm.client_stalls", record.client_stalls);
    all.texts("llm.slo.met", &record.slo.met);
    all.texts("llm.slo.missed", &record.slo.missed);
    all.texts("llm.partial", &record.partial);
    all.texts("llm.defects", &record.defects);
    if record.empty {
        all.flag("llm.empty", true);
    }
}

/// What happened in between. A time that may be wrong is not told as if it was right.
fn events(record: &RequestRecord, times: Times) -> Vec<span::Event> {
    let event = |name: &str, seconds: f64, attributes: Attributes| span::Event {
        time_unix_nano: after(times.start, seconds),
        name: name.to_owned(),
        attributes: attributes.0,
        ..span::Event::default()
    };
    let clocks = [
        ("llm.request_end", record.clocks.request_end),
        ("llm.response_start", record.clocks.response_start),
        ("llm.first_token", record.clocks.first_token),
        ("llm.first_answer", record.clocks.first_answer),
        ("llm.last_token", record.clocks.last_token),
    ];
    let told = clocks.into_iter().filter(|_| record.is_complete());
    let mut events: Vec<_> = told
        .filter_map(|(name, seconds)| Some(event(name, seconds?, Attributes::default())))
        .chain(record.silences.iter().map(|silence| {
            let mut attributes = Attributes::default();
            attributes.seconds("llm.stall.duration", Some(silence.seconds));
            event("llm.stall", silence.at, attributes)
        }))
        .collect();
    events.sort_by_key(|event| event.time_unix_nano);
    events
}
