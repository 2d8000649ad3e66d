//! The request record: what is known of one finished exchange.
//!
//! Absent means not known; nothing is guessed. Durations are seconds, `started_at` and `ended_at` are
//! RFC 3339 with nanoseconds, clocks are seconds after `request_start`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::gpu::GpuUse;
use super::judged::Judged;
use crate::llm::{Operation, Timings};

/// How an exchange ended, independent of its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered completely.
    Ok,
    /// A 4xx other than a rejection.
    ClientError,
    /// 429, or 503 before any body: no capacity.
    Rejected,
    /// Any other 5xx.
    ServerError,
    /// An error object inside a stream that had begun with 2xx.
    StreamError,
    /// The client went away before the end.
    AbortedByClient,
    /// The server cut the connection or said that it aborted.
    AbortedByServer,
    /// The stream ended without its terminator.
    Unterminated,
    /// The end was not seen.
    Unknown,
}

impl Outcome {
    /// All outcomes, so that a metric can show each at 0.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::ClientError,
        Self::Rejected,
        Self::ServerError,
        Self::StreamError,
        Self::AbortedByClient,
        Self::AbortedByServer,
        Self::Unterminated,
        Self::Unknown,
    ];

    /// Whether the server let the client down.
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Rejected
                | Self::ServerError
                | Self::StreamError
                | Self::AbortedByServer
                | Self::Unterminated
        )
    }

    /// The word used in records and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::Rejected => "rejected",
            Self::ServerError => "server_error",
            Self::StreamError => "stream_error",
            Self::AbortedByClient => "aborted_by_client",
            Self::AbortedByServer => "aborted_by_server",
            Self::Unterminated => "unterminated",
            Self::Unknown => "unknown",
        }
    }
}

/// Where token counts come from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// Final `usage` object.
    Usage,
    /// Last `usage` of a stream that reports it continuously.
    UsagePartial,
    /// Counts that the engine reports beside `usage`: timings, `eval_count`, `meta_info`, details.
    Engine,
    /// Token ids or log-probability entries, counted.
    Ids,
    /// Token-bearing events, counted: an event may hold several tokens.
    Estimated,
}

impl TokenSource {
    /// The word used in records and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::UsagePartial => "usage_partial",
            Self::Engine => "engine",
            Self::Ids => "ids",
            Self::Estimated => "estimated",
        }
    }
}

/// What the serving process is in the path of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Answers requests itself.
    #[default]
    Server,
    /// Sends LLM requests upstream itself.
    Gateway,
    /// Loopback hop inside one pod.
    Sidecar,
    /// Serves prefill-only requests of a disaggregated engine.
    Prefill,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Server, Self::Gateway, Self::Sidecar, Self::Prefill];

    /// The word used in records and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Sidecar => "sidecar",
            Self::Prefill => "prefill",
        }
    }
}

/// Where an exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The request is still arriving.
    Receiving,
    /// The request is complete, no token has come.
    Waiting,
    /// Tokens are flowing, or a plain response is being written.
    Generating,
    /// Tokens flowed, and none has come for too long, although the client reads.
    Stalled,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 4] = [Self::Receiving, Self::Waiting, Self::Generating, Self::Stalled];

    /// The word used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Waiting => "waiting",
            Self::Generating => "generating",
            Self::Stalled => "stalled",
        }
    }
}

/// Clocks of an exchange, seconds after `request_start`. Accepted and arrived lie before it: negative.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clocks {
    /// TCP became ESTABLISHED; first exchange of a connection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<f64>,
    /// `accept` returned; first exchange of a connection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<f64>,
    /// Request data reached the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrived: Option<f64>,
    /// First byte of the request head was read: the origin of the other clocks, so always 0.
    pub request_start: f64,
    /// Last byte of the request body was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_end: Option<f64>,
    /// First byte of the final status line was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_start: Option<f64>,
    /// First body event of any kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_event: Option<f64>,
    /// First token-bearing event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token: Option<f64>,
    /// First token-bearing event that is not reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_answer: Option<f64>,
    /// Last token-bearing event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_token: Option<f64>,
    /// Last byte of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_end: Option<f64>,
}

/// One stall of a stream, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// When the stream fell silent, after `request_start`.
    pub at: f64,
    /// For how long, until it went on or was over.
    pub seconds: f64,
}

/// Distribution of the times between deliveries of one stream, seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    /// Number of gaps: deliveries less one.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

/// Token counts. Types are disjoint, so that sums are true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Prompt tokens that were not served from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Prompt tokens served from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_cached: Option<u64>,
    /// Generated tokens that are not reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Generated reasoning tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_reasoning: Option<u64>,
    /// Where the counts come from; the weaker source, should there be two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<TokenSource>,
}

impl Tokens {
    /// All prompt tokens, if any count of them is known.
    pub fn input_total(&self) -> Option<u64> {
        match (self.input, self.input_cached) {
            (None, None) => None,
            (input, cached) => Some(input.unwrap_or(0).saturating_add(cached.unwrap_or(0))),
        }
    }

    /// All generated tokens, if any count of them is known.
    pub fn output_total(&self) -> Option<u64> {
        match (self.output, self.output_reasoning) {
            (None, None) => None,
            (output, reasoning) => Some(output.unwrap_or(0).saturating_add(reasoning.unwrap_or(0))),
        }
    }
}

/// Time spent waiting, by part, seconds. The parts overlap and are never summed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Queue {
    /// `accepted − connected`: the listener's backlog. First exchange of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<f64>,
    /// `request_start − arrived`: data lay in the socket, the event loop did not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<f64>,
    /// At a gateway: from the client's request to the upstream request that it caused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<f64>,
    /// As the engine reports it on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<f64>,
    /// What the fastest prefill of such a prompt when idle does not explain: an estimate, and no part. Not known
    /// to the core, like the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<f64>,
}

/// One finished exchange.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestRecord {
    /// Unique on this node: connection and number of the exchange on it.
    pub id: String,
    /// `x-request-id` of the request, else of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `id` in the response body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Trace id of the request's `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Span of that trace that caused it: the parent id of the request's `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Wall-clock time of `request_start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Wall-clock time at which it was known to be over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Node that the observer runs on.
    pub node: String,
    /// Kubernetes namespace; empty outside Kubernetes.
    pub namespace: String,
    /// Pod name; empty outside Kubernetes.
    pub pod: String,
    /// Container name, else the process name.
    pub container: String,
    /// Process that served.
    pub pid: u32,
    /// Its name.
    pub process: String,
    /// Software that serves: `vllm`, `llama.cpp`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Role of the serving process.
    pub role: Role,
    /// Address of the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// `http/1.1`, …
    pub protocol: String,
    /// Whether it was captured inside a TLS library.
    pub tls: bool,
    /// Operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Request path, without query.
    pub path: String,
    /// Model that was asked for, else the one that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the response was streamed, else whether streaming was asked for.
    pub stream: bool,
    /// Choices asked for.
    pub choices: u32,
    /// Limit on generated tokens that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Answered without a single token: no text, no reasoning, no call of a tool.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// Why generation ended, in the engine's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Type or code of an error that was reported in a body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// Bytes of the request: head and body as sent.
    pub request_bytes: u64,
    /// Bytes of the response: head and body as sent.
    pub response_bytes: u64,
    /// Clocks.
    pub clocks: Clocks,
    /// `first_token − request_start`; streamed exchanges only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft: Option<f64>,
    /// `response_start − request_start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttfb: Option<f64>,
    /// `(last_token − first_token) / (n − k)`; streamed exchanges with one choice only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot: Option<f64>,
    /// `response_end − request_start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Times between deliveries; streamed exchanges only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaps: Option<Gaps>,
    /// Times that the stream fell silent for too long while the client read. Streamed exchanges that were seen
    /// whole only, like `client_stalls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalls: Option<u64>,
    /// When those were, the first 16 of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silences: Vec<Silence>,
    /// Times that the client took nothing of the stream for as long as would make a stall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_stalls: Option<u64>,
    /// Seconds in which the stream had something to say and the client did not read, in pieces of 10 ms and more where
    /// the server waits in its writes. Known like `stalls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_wait: Option<f64>,
    /// Events that bore tokens: what `estimated` would count.
    pub token_events: u64,
    /// Writes that carried at least one token-bearing event.
    pub deliveries: u64,
    /// Token counts.
    pub tokens: Tokens,
    /// Waiting, by part.
    pub queue: Queue,
    /// What the engine reports of its own work.
    #[serde(skip_serializing_if = "Timings::is_empty")]
    pub timings: Timings,
    /// Objectives that were judged; not known to the core, like the owner.
    #[serde(skip_serializing_if = "Judged::is_empty")]
    pub slo: Judged,
    /// The GPUs that it used and what they did meanwhile; not known to the core, like the owner.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpu: Vec<GpuUse>,
    /// Why numbers of this exchange cannot be trusted: it is left out of latency histograms.
    pub partial: Vec<String>,
    /// Defects seen on the wire, and holes in what was copied of it: what lay in them is absent here.
    pub defects: Vec<String>,
    /// When the client closed or reset its side before the end, seconds after `request_start`; not part of the
    /// JSON.
    #[serde(skip)]
    pub client_left: Option<f64>,
    /// Address that the server was reached at; not part of the JSON.
    #[serde(skip)]
    pub local: Option<SocketAddr>,
    /// Each gap in microseconds, for histograms; bounded, not part of the JSON.
    #[serde(skip)]
    pub gap_micros: Vec<u32>,
}

impl RequestRecord {
    /// Whether every clock of the exchange can be trusted.
    pub fn is_complete(&self) -> bool {
        self.partial.is_empty()
    }
}
