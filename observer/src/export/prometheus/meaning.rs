//! What an exchange means for the metrics: a pure table from record to changes.
//!
//! A number that could be wrong is not exported as if it were right: an exchange that was seen in part enters
//! no latency histogram, and its tokens count only if the server itself reported the final number.

use std::collections::HashMap;

use crate::capture::REASONS;
use crate::config::MetricsProfile;
use crate::exchange::{Judged, Outcome, RequestRecord, TokenSource};

use super::child::{Child, Class};
use super::labels::{self, Code};

/// What happens to a child.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change<'a> {
    /// A counter grows; by 0, it only comes into being.
    Add(u64),
    /// A histogram takes one value.
    Observe(f64),
    /// A histogram takes many values, given in microseconds.
    ObserveMicros(&'a [u32]),
}

pub(super) type Changes<'a> = Vec<(Child, Change<'a>)>;

const INPUT: &str = "input";
const OUTPUT: &str = "output";

/// Outcomes whose tokens were generated for nothing.
const WASTED: [Outcome; 5] = [
    Outcome::ServerError,
    Outcome::StreamError,
    Outcome::AbortedByClient,
    Outcome::AbortedByServer,
    Outcome::Unterminated,
];

/// The usual ends, shown at 0 as soon as a set of labels is born.
///
/// `rate()` does not see the step from absent to 1. A zero with empty `code` and `finish_reason` would not
/// help, since nobody ever increments it; so the zeros stand where the increments will come: every outcome
/// appears, with the codes and reasons that it usually has. What is left is the first step of a rare
/// combination and of a series that is born by the very request that it counts.
const USUAL: [(Outcome, Code, &str); 15] = [
    (Outcome::Ok, Code::Status(200), "stop"),
    (Outcome::Ok, Code::Status(200), "length"),
    (Outcome::Ok, Code::Status(200), "tool_calls"),
    (Outcome::ClientError, Code::Status(400), ""),
    (Outcome::ClientError, Code::Status(404), ""),
    (Outcome::Rejected, Code::Status(429), ""),
    (Outcome::Rejected, Code::Status(503), ""),
    (Outcome::ServerError, Code::Status(500), ""),
    (Outcome::StreamError, Code::Status(200), ""),
    (Outcome::AbortedByClient, Code::Status(200), ""),
    (Outcome::AbortedByClient, Code::None, ""),
    (Outcome::AbortedByServer, Code::Status(200), ""),
    (Outcome::AbortedByServer, Code::None, ""),
    (Outcome::Unterminated, Code::Status(200), ""),
    (Outcome::Unknown, Code::None, ""),
];

/// What comes into being at 0 with each set of request labels, and needs not be said again.
pub(super) fn born() -> Changes<'static> {
    let ends = USUAL.map(|(outcome, code, finish)| Child::Requests { outcome, code, finish });
    let wasted = WASTED.map(Child::Wasted);
    ends.into_iter().chain(wasted).map(|child| (child, Change::Add(0))).collect()
}

/// What the start of an exchange means.
pub(super) fn started() -> Changes<'static> {
    [Child::Deliveries, Child::Stalls, Child::InFlight].map(|child| (child, Change::Add(0))).to_vec()
}

/// What a request means, once it is known what it asks for.
pub(super) fn requested(stream: bool) -> Changes<'static> {
    let mut changes = started();
    let asked = |stream| Child::Started(if stream { "true" } else { "false" });
    changes.push((asked(stream), Change::Add(1)));
    changes.push((asked(!stream), Change::Add(0)));
    changes
}

/// What a request for a model means that these objectives are about.
pub(super) fn promised<'a>(objectives: impl Iterator<Item = &'a str>) -> Changes<'static> {
    let both = |name: &str| ["true", "false"].map(|met| Child::Slo { slo: name.to_owned(), met });
    objectives.flat_map(both).map(|child| (child, Change::Add(0))).collect()
}

/// What the end of an exchange means, for the metrics that carry request labels.
pub(super) fn finished(record: &RequestRecord, profile: MetricsProfile) -> Changes<'_> {
    let outcome = record.outcome.unwrap_or(Outcome::Unknown);
    let finish = labels::finish_reason(record.finish_reason.as_deref());
    let ended = Child::Requests { outcome, code: Code::of(record.status), finish };
    let mut changes = vec![(ended, Change::Add(1))];
    if let Some(stalls) = record.client_stalls {
        changes.push((Child::ClientStalls, Change::Add(stalls)));
    }
    if record.is_complete() {
        latencies(record, outcome, profile, &mut changes);
    }
    judged(record, &mut changes);
    tokens(record, outcome, &mut changes);
    changes
}

/// What the end of an exchange means, for the metrics that carry workload labels only.
pub(super) fn trust(record: &RequestRecord) -> Changes<'static> {
    let cause = |cause: &String| Child::Partial(labels::cause(cause).into_owned());
    record.partial.iter().map(|text| (cause(text), Change::Add(1))).collect()
}

/// What became of processes before their container's first request; what did not happen is shown at 0.
pub(super) fn lives(lives: &HashMap<Child, u64>) -> Changes<'static> {
    let exits = REASONS.into_iter().map(Child::ProcessExits);
    let all = [Child::ProcessStarts].into_iter().chain(exits);
    all.map(|child| {
        let count = lives.get(&child).copied().unwrap_or_default();
        (child, Change::Add(count))
    })
    .collect()
}

fn latencies<'a>(
    record: &'a RequestRecord,
    outcome: Outcome,
    profile: MetricsProfile,
    changes: &mut Changes<'a>,
) {
    let queue = &record.queue;
    let full = |child| (profile == MetricsProfile::Full).then_some(child);
    let values = [
        (full(Child::ResponseStart), record.ttfb),
        (full(Child::RequestRead), record.clocks.request_end),
        (full(Child::WaitEstimate), queue.estimate),
        (Class::of(outcome).map(Child::Duration), record.duration),
        (Some(Child::Ttft), record.ttft),
        (Some(Child::Tpot), record.tpot),
        (Some(Child::Queue("accept")), queue.accept),
        (Some(Child::Queue("socket")), queue.socket),
        (Some(Child::Queue("dispatch")), queue.dispatch),
        (Some(Child::Queue("engine")), queue.engine),
    ];
    for (child, value) in values {
        if let (Some(child), Some(value)) = (child, value)
            // `engine` is what somebody wrote into a body; a histogram's sum would never recover from NaN.
            && value.is_finite()
            && value >= 0.0
        {
            changes.push((child, Change::Observe(value)));
        }
    }
    if !record.gap_micros.is_empty() {
        changes.push((Child::Chunk, Change::ObserveMicros(&record.gap_micros)));
    }
}

fn judged(record: &RequestRecord, changes: &mut Changes<'_>) {
    let Judged { met, missed, excluded } = &record.slo;
    for (names, is_met) in [(met, "true"), (missed, "false")] {
        for name in names {
            changes.extend(promised([name.as_str()].into_iter()));
            changes.push((Child::Slo { slo: name.clone(), met: is_met }, Change::Add(1)));
        }
    }
    for (name, reason) in excluded {
        changes.push((Child::SloExcluded { slo: name.clone(), reason }, Change::Add(1)));
    }
}

fn tokens(record: &RequestRecord, outcome: Outcome, changes: &mut Changes<'_>) {
    let tokens = &record.tokens;
    let Some(source) = tokens.source else { return };
    // With a hole in the response, events that were counted are too few and a running count is not the last.
    let reported = matches!(source, TokenSource::Usage | TokenSource::Engine);
    if !record.is_complete() && !reported {
        return;
    }
    let kinds = [
        (INPUT, tokens.input),
        ("input_cached", tokens.input_cached),
        (OUTPUT, tokens.output),
        ("output_reasoning", tokens.output_reasoning),
    ];
    for (kind, count) in kinds {
        let child = Child::Tokens { kind, source: source.as_str() };
        changes.push((child, Change::Add(count.unwrap_or(0))));
    }
    if source != TokenSource::Estimated {
        for (kind, total) in [(INPUT, tokens.input_total()), (OUTPUT, tokens.output_total())] {
            if let Some(total) = total {
                changes.push((Child::RequestTokens(kind), Change::Observe(total as f64)));
            }
        }
    }
    if let Some(output) = tokens.output_total()
        && WASTED.contains(&outcome)
    {
        changes.push((Child::Wasted(outcome), Change::Add(output)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Tokens;

    fn has(changes: &Changes<'_>, metric: &str) -> bool {
        changes.iter().any(|(child, change)| child.metric() == metric && *change != Change::Add(0))
    }

    fn record(outcome: Outcome, source: TokenSource, partial: &[&str]) -> RequestRecord {
        RequestRecord {
            outcome: Some(outcome),
            status: Some(200),
            duration: Some(1.0),
            ttft: Some(0.5),
            tpot: Some(0.1),
            gap_micros: vec![1000],
            tokens: Tokens { input: Some(3), output: Some(5), source: Some(source), ..Tokens::default() },
            partial: partial.iter().map(|&cause| cause.to_owned()).collect(),
            ..RequestRecord::default()
        }
    }

    #[test]
    fn every_outcome_is_born_at_zero() {
        for outcome in Outcome::ALL {
            let at_zero = |(child, change): &(Child, Change<'_>)| {
                matches!(child, Child::Requests { outcome: this, .. } if *this == outcome)
                    && *change == Change::Add(0)
            };
            assert!(born().iter().any(at_zero), "{outcome:?}");
        }
    }

    #[test]
    fn a_partial_exchange_has_no_latency_and_only_reported_tokens() {
        let complete = record(Outcome::Ok, TokenSource::Estimated, &[]);
        let changes = finished(&complete, MetricsProfile::Default);
        assert!(has(&changes, "gen_ai_server_time_to_first_token_seconds"));
        assert!(has(&changes, "llm_tokens_total"));
        assert!(!has(&changes, "llm_request_tokens"), "an estimate enters no histogram");

        for (source, counted) in [(TokenSource::Estimated, false), (TokenSource::Usage, true)] {
            let partial = record(Outcome::Ok, source, &["gap", "gap in text"]);
            let changes = finished(&partial, MetricsProfile::Default);
            assert!(has(&changes, "llm_requests_total"));
            for metric in [
                "gen_ai_server_request_duration_seconds",
                "gen_ai_server_time_to_first_token_seconds",
                "gen_ai_server_time_per_output_token_seconds",
                "llm_inter_chunk_latency_seconds",
            ] {
                assert!(!has(&changes, metric), "{metric}");
            }
            assert_eq!(has(&changes, "llm_tokens_total"), counted);
            let causes: Vec<_> = trust(&partial).into_iter().map(|(child, _)| child).collect();
            assert_eq!(causes, [Child::Partial("gap".into()), Child::Partial("other".into())]);
        }
    }

    #[test]
    fn tokens_of_bad_ends_are_wasted_and_unseen_ends_have_no_duration() {
        for outcome in Outcome::ALL {
            let record = record(outcome, TokenSource::Usage, &[]);
            let changes = finished(&record, MetricsProfile::Default);
            assert_eq!(has(&changes, "llm_wasted_tokens_total"), WASTED.contains(&outcome), "{outcome:?}");
            let timed = has(&changes, "gen_ai_server_request_duration_seconds");
            assert_eq!(timed, outcome != Outcome::Unknown, "{outcome:?}");
        }
    }

    #[test]
    fn impossible_values_are_not_observed() {
        let mut record = record(Outcome::Ok, TokenSource::Usage, &[]);
        record.queue.engine = Some(f64::NAN);
        record.queue.socket = Some(-1.0);
        assert!(!has(&finished(&record, MetricsProfile::Default), "llm_queue_wait_seconds"));
    }
}
