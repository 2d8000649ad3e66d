//! The metrics of requests: one variant per metric and set of own labels, with name, HELP and cost.

use std::borrow::Cow;

use crate::config::Buckets;
use crate::exchange::{Outcome, Phase};

use super::labels::Code;

/// Commit of OpenTelemetry's generative-AI semantic conventions that names and definitions follow.
pub const SEMCONV: &str = "7b0c0fe1e";

/// Bucket bounds of token counts: those of OpenTelemetry's `gen_ai.client.token.usage` up to 1 Mi. It goes on to
/// 64 Mi, for bills; one request's context ends long before, and each bound is two series for each model.
const TOKEN_BUCKETS: [f64; 11] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// How a request ended, as coarse as a latency needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Ok,
    Error,
    Aborted,
}

impl Class {
    /// `None` when the end was not seen: there is no duration then.
    pub(super) fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Ok => Some(Self::Ok),
            Outcome::ClientError
            | Outcome::Rejected
            | Outcome::ServerError
            | Outcome::StreamError
            | Outcome::Unterminated => Some(Self::Error),
            Outcome::AbortedByClient | Outcome::AbortedByServer => Some(Self::Aborted),
            Outcome::Unknown => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Aborted => "aborted",
        }
    }
}

/// One metric with values for the labels that are its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Child {
    Duration(Class),
    Ttft,
    Tpot,
    Chunk,
    RequestTokens(&'static str),
    Requests {
        outcome: Outcome,
        code: Code,
        finish: &'static str,
    },
    Started(&'static str),
    /// Both gauges of requests in flight, in every phase; computed at each scrape.
    InFlight,
    Deliveries,
    Stalls,
    ClientStalls,
    Tokens {
        kind: &'static str,
        source: &'static str,
    },
    Wasted(Outcome),
    Queue(&'static str),
    WaitEstimate,
    Slo {
        slo: String,
        met: &'static str,
    },
    SloExcluded {
        slo: String,
        reason: &'static str,
    },
    ResponseStart,
    RequestRead,
    Partial(String),
    Undecoded(String),
    ProcessStarts,
    /// Ends for one of [`crate::capture::REASONS`].
    ProcessExits(&'static str),
}

impl Child {
    /// Name of the metric.
    pub(super) const fn metric(&self) -> &'static str {
        match self {
            Self::Duration(_) => "gen_ai_server_request_duration_seconds",
            Self::Ttft => "gen_ai_server_time_to_first_token_seconds",
            Self::Tpot => "gen_ai_server_time_per_output_token_seconds",
            Self::Chunk => "llm_inter_chunk_latency_seconds",
            Self::RequestTokens(_) => "llm_request_tokens",
            Self::Requests { .. } => "llm_requests_total",
            Self::Started(_) => "llm_requests_started_total",
            Self::InFlight => "llm_requests_in_flight",
            Self::Deliveries => "llm_stream_deliveries_total",
            Self::Stalls => "llm_stream_stalls_total",
            Self::ClientStalls => "llm_stream_client_stalls_total",
            Self::Tokens { .. } => "llm_tokens_total",
            Self::Wasted(_) => "llm_wasted_tokens_total",
            Self::Queue(_) => "llm_queue_wait_seconds",
            Self::WaitEstimate => "llm_queue_wait_estimate_seconds",
            Self::Slo { .. } => "llm_slo_requests_total",
            Self::SloExcluded { .. } => "llm_slo_excluded_requests_total",
            Self::ResponseStart => "llm_response_start_seconds",
            Self::RequestRead => "llm_request_read_seconds",
            Self::Partial(_) => "llm_requests_partial_total",
            Self::Undecoded(_) => "llm_undecoded_bytes_total",
            Self::ProcessStarts => "llm_process_starts_total",
            Self::ProcessExits(_) => "llm_process_exits_total",
        }
    }

    /// The definition, for operators.
    pub(super) const fn help(&self) -> &'static str {
        match self {
            Self::Duration(_) => DURATION,
            Self::Ttft => TTFT,
            Self::Tpot => TPOT,
            Self::Chunk => CHUNK,
            Self::RequestTokens(_) => REQUEST_TOKENS,
            Self::Requests { .. } => REQUESTS,
            Self::Started(_) => STARTED,
            Self::InFlight => IN_FLIGHT,
            Self::Deliveries => DELIVERIES,
            Self::Stalls => STALLS,
            Self::ClientStalls => CLIENT_STALLS,
            Self::Tokens { .. } => TOKENS,
            Self::Wasted(_) => WASTED,
            Self::Queue(_) => QUEUE,
            Self::WaitEstimate => WAIT_ESTIMATE,
            Self::Slo { .. } => SLO,
            Self::SloExcluded { .. } => SLO_EXCLUDED,
            Self::ResponseStart => RESPONSE_START,
            Self::RequestRead => REQUEST_READ,
            Self::Partial(_) => PARTIAL,
            Self::Undecoded(_) => UNDECODED,
            Self::ProcessStarts => PROCESS_STARTS,
            Self::ProcessExits(_) => PROCESS_EXITS,
        }
    }

    /// Labels that are its own.
    pub(super) fn labels(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        match self {
            Self::Ttft
            | Self::Tpot
            | Self::Chunk
            | Self::InFlight
            | Self::Deliveries
            | Self::Stalls
            | Self::ClientStalls
            | Self::WaitEstimate
            | Self::ResponseStart
            | Self::RequestRead
            | Self::ProcessStarts => vec![],
            Self::Duration(class) => vec![("outcome", class.as_str().into())],
            Self::RequestTokens(kind) => vec![("type", (*kind).into())],
            Self::Requests { outcome, code, finish } => vec![
                ("outcome", outcome.as_str().into()),
                ("code", code.as_text()),
                ("finish_reason", (*finish).into()),
            ],
            Self::Started(stream) => vec![("stream", (*stream).into())],
            Self::Tokens { kind, source } => vec![("type", (*kind).into()), ("source", (*source).into())],
            Self::Wasted(outcome) => vec![("outcome", outcome.as_str().into())],
            Self::Queue(part) => vec![("part", (*part).into())],
            Self::Slo { slo, met } => vec![("slo", slo.as_str().into()), ("met", (*met).into())],
            Self::SloExcluded { slo, reason } => {
                vec![("slo", slo.as_str().into()), ("reason", (*reason).into())]
            }
            Self::Partial(cause) | Self::Undecoded(cause) => vec![("cause", cause.as_str().into())],
            Self::ProcessExits(reason) => vec![("reason", (*reason).into())],
        }
    }

    /// Bucket bounds, for a histogram.
    pub(super) fn buckets<'a>(&self, buckets: &'a Buckets) -> Option<&'a [f64]> {
        match self {
            Self::Duration(_) => Some(&buckets.duration),
            Self::Ttft | Self::ResponseStart => Some(&buckets.ttft),
            Self::Queue(_) | Self::WaitEstimate | Self::RequestRead => Some(&buckets.wait),
            Self::Tpot => Some(&buckets.tpot),
            Self::Chunk => Some(&buckets.chunk),
            Self::RequestTokens(_) => Some(&TOKEN_BUCKETS),
            _ => None,
        }
    }

    /// Series that it adds to a scrape.
    pub(super) fn cost(&self, buckets: &Buckets) -> usize {
        match self.buckets(buckets) {
            // +Inf, _sum and _count.
            Some(bounds) => bounds.len() + 3,
            None if matches!(self, Self::InFlight) => 2 * Phase::ALL.len(),
            None => 1,
        }
    }
}

/// Expands to the sentence that pins the convention; the commit is [`SEMCONV`].
macro_rules! semconv {
    ($text:literal) => {
        concat!($text, " Name from OpenTelemetry GenAI semantic conventions at 7b0c0fe1e (Development).")
    };
}

const DURATION: &str = semconv!(
    "Seconds from the first byte of the request read by the server to the last byte of the response written, \
     by outcome (ok, error, aborted). Requests whose end was not seen are left out."
);
const TTFT: &str = semconv!(
    "Seconds from the first byte of the request read by the server to the first token-bearing event written \
     (non-empty content, text, reasoning, tool-call arguments or refusal), not to the status line. Streamed \
     responses only, whatever their outcome."
);
const TPOT: &str = semconv!(
    "Seconds per output token after the first event: (last token - first token) / (n - k), with n output \
     tokens of which k came in the first event. OpenTelemetry's formula, (duration - TTFT) / (n - 1), includes \
     the tail after the last token; this one does not. Streamed responses with one choice only."
);
const CHUNK: &str = "Seconds between successive deliveries of a stream: writes that carry at least one \
                     token-bearing event. A delivery may hold several tokens.";
const REQUEST_TOKENS: &str = "Tokens of one request, as counted by the engine, by type (input includes cached, \
                              output includes reasoning). Estimated counts are left out.";
const REQUESTS: &str = "Finished requests by outcome (independent of the HTTP status), status code and finish \
                        reason. A code is empty when no status was seen.";
const STARTED: &str = "Requests that were recognised as LLM requests, by whether they ask for a stream. \
                       Counted when the request is complete, or answered before it is.";
pub(super) const IN_FLIGHT: &str = "Requests that have started and not ended, by phase: receiving (the request \
                                    is still arriving), waiting (for the first token), generating, stalled (no \
                                    token for longer than stall.minimum and than ten times the stream's median \
                                    gap, although the client reads).";
pub(super) const OLDEST: &str = "Seconds since the first byte of the oldest request in this phase; 0 when \
                                 there is none.";
const DELIVERIES: &str = "Writes that carried at least one token-bearing event, counted as they happen. Not \
                          tokens: one write may carry several.";
const STALLS: &str = "Times that a stream that had delivered a token then delivered none for longer than \
                      stall.minimum and than ten times its median gap, while its client read. Counted as it \
                      happens.";
const CLIENT_STALLS: &str = "Times that the client of a stream took nothing for as long as would make a stall: \
                             its socket was full. Counted when the request ends.";
const TOKENS: &str = "Tokens by type (input, input_cached, output, output_reasoning: disjoint, so sums are \
                      true) and by where the count comes from (usage, usage_partial, engine, ids, estimated).";
const WASTED: &str = "Output tokens generated for requests that did not end well, by outcome. Tokens of such \
                      requests are in llm_tokens_total too.";
const QUEUE: &str = "Seconds spent waiting, by part: accept (listen backlog), socket (data lay unread), \
                     dispatch (at a gateway, until its upstream request), engine (as reported on the wire). \
                     Parts overlap; do not add them.";
const WAIT_ESTIMATE: &str = "An estimate, not measured and no part of llm_queue_wait_seconds: seconds from the last byte \
                             of the request to the first token, less the fastest that the same process took for \
                             the same model and size of prompt (input tokens not cached, by powers of two) while \
                             it served nothing else for that model, and at least 0. So prompts of one size differ \
                             by up to a factor of two, and what an engine serves from a cache without reporting it \
                             shortens what is subtracted. Streamed requests seen whole with known tokens, once 5 \
                             idle ones of that size were seen. Only with metrics.profile=full.";
const SLO: &str = "Requests that were eligible for an objective of the configuration, by whether each of its bounds \
                   was kept. Requests that failed at the server, were rejected, or that the client broke off \
                   after a bound had passed, are not met.";
const SLO_EXCLUDED: &str = "Requests that say nothing about an objective, by reason: partial (seen incompletely), \
                            client_error, client_abort (before a bound had passed), not_measured (it bounds \
                            nothing that the request has), end_not_seen.";
const RESPONSE_START: &str = "Seconds from the first byte of the request read by the server to the first byte of \
                              the status line written. Only with metrics.profile=full.";
const REQUEST_READ: &str = "Seconds from the first byte of the request read by the server to its last: the \
                            upload. Only with metrics.profile=full.";
const PARTIAL: &str = "Requests that were seen incompletely, by cause. They are counted in \
                       llm_requests_total and left out of every latency histogram.";
const UNDECODED: &str = "Bytes of finished connections that were not decoded: TLS outside observed libraries, \
                         HTTP/2, and what followed an upgrade.";
const PROCESS_STARTS: &str = "Programs that began to serve, or were started by those that do, in containers that have \
                              answered LLM requests. What ran before the observer is left out.";
const PROCESS_EXITS: &str = "Processes of containers that have answered LLM requests that ended, by how: ok (code 0), \
                             error (another code), oom_kill (by the kernel, because memory was out), killed \
                             (SIGKILL by somebody), terminated (SIGTERM, SIGINT, SIGHUP), crash (SIGSEGV, SIGABRT \
                             and others that dump core), signal (any other), unknown (not told by this kernel).";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_pins_the_convention() {
        for child in [Child::Duration(Class::Ok), Child::Ttft, Child::Tpot] {
            assert!(child.help().contains(SEMCONV), "{}", child.metric());
        }
        assert!(Child::Tpot.help().contains("OpenTelemetry's formula, (duration - TTFT) / (n - 1)"));
    }

    #[test]
    fn cost_counts_series() {
        let buckets = Buckets::default();
        assert_eq!(Child::Ttft.cost(&buckets), 22);
        assert_eq!(Child::Deliveries.cost(&buckets), 1);
        assert_eq!(Child::InFlight.cost(&buckets), 8);
    }
}
