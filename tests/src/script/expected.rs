//! What must be known of an exchange: computed from what was written, not by decoding it.

use observer::{
    exchange::{Outcome, RequestRecord, TokenSource, Tokens},
    llm::Usage,
};

use super::{
    api::Ask,
    content::{Fact, Kind},
};

/// Facts of one exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// Model.
    pub model: Option<String>,
    /// The response was, or was to be, a stream.
    pub stream: bool,
    /// Choices.
    pub choices: u32,
    /// Status.
    pub status: Option<u16>,
    /// Outcome.
    pub outcome: Option<Outcome>,
    /// Answered without a token.
    pub empty: bool,
    /// Why generation ended.
    pub finish_reason: Option<String>,
    /// Type of an error.
    pub error_type: Option<String>,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the response.
    pub response_bytes: u64,
    /// Nanoseconds after the request's start, rounded to whole ones: request end, response start, first event, first
    /// token, first answer, last token, response end.
    pub clocks: [Option<i64>; 7],
    /// The same for the time to the first token.
    pub ttft: Option<i64>,
    /// Picoseconds per output token, rounded.
    pub tpot: Option<i64>,
    /// Token-bearing events.
    pub token_events: u64,
    /// Writes with such events.
    pub deliveries: u64,
    /// Gaps between them.
    pub gap_micros: Vec<u32>,
    /// Token counts.
    pub tokens: Tokens,
    /// Whether nothing is in doubt.
    pub complete: bool,
}

impl Expected {
    /// The facts that differ, by name; empty if none does.
    pub fn differences(&self, other: &Self) -> String {
        let lines = |facts: &Self| -> Vec<String> {
            let Self { model, stream, choices, status, outcome, finish_reason, error_type, .. } = facts;
            let Self { request_bytes, response_bytes, clocks, ttft, tpot, token_events, .. } = facts;
            let Self { deliveries, gap_micros, tokens, complete, .. } = facts;
            vec![
                format!("model {model:?}"),
                format!("stream {stream:?}"),
                format!("choices {choices:?}"),
                format!("status {status:?}"),
                format!("outcome {outcome:?}"),
                format!("finish_reason {finish_reason:?}"),
                format!("error_type {error_type:?}"),
                format!("bytes {request_bytes} {response_bytes}"),
                format!("clocks {clocks:?}"),
                format!("ttft {ttft:?}"),
                format!("tpot {tpot:?}"),
                format!("events {token_events:?}"),
                format!("deliveries {deliveries:?}"),
                format!("gaps {gap_micros:?}"),
                format!("tokens {tokens:?}"),
                format!("complete {complete:?}"),
            ]
        };
        let differing = lines(self).into_iter().zip(lines(other)).filter(|(left, right)| left != right);
        let texts: Vec<String> =
            differing.map(|(left, right)| format!("{left} instead of {right}")).collect();
        texts.join("; ")
    }

    /// The same facts of a record.
    pub fn of(record: &RequestRecord) -> Self {
        let nanos = |seconds: Option<f64>| seconds.map(|seconds| (seconds * 1e9).round() as i64);
        let clocks = &record.clocks;
        Self {
            model: record.model.clone(),
            stream: record.stream,
            choices: record.choices,
            status: record.status,
            outcome: record.outcome,
            empty: record.empty,
            finish_reason: record.finish_reason.clone(),
            error_type: record.error_type.clone(),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            clocks: [
                clocks.request_end,
                clocks.response_start,
                clocks.first_event,
                clocks.first_token,
                clocks.first_answer,
                clocks.last_token,
                clocks.response_end,
            ]
            .map(nanos),
            ttft: nanos(record.ttft),
            tpot: record.tpot.map(|seconds| (seconds * 1e12).round() as i64),
            token_events: record.token_events,
            deliveries: record.deliveries,
            gap_micros: record.gap_micros.clone(),
            tokens: record.tokens.clone(),
            complete: record.is_complete(),
        }
    }
}

/// How the connection went on after its last call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    ClientClosed,
    ClientReset,
    ServerClosed,
    Died,
    Open,
}

/// An exchange as it was written: positions in its directions, and what they tell.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) model: String,
    pub(super) ask: Ask,
    pub(super) status: u16,
    /// The response's media type is one of events.
    pub(super) streamed: bool,
    pub(super) by_close: bool,
    pub(super) request: std::ops::Range<u64>,
    pub(super) request_head: u64,
    /// Where the members of the request's document end: all of it is read there.
    pub(super) response: std::ops::Range<u64>,
    /// Bytes of an interim response before it.
    pub(super) interim: std::ops::Range<u64>,
    pub(super) response_head: u64,
    /// With positions in the sent direction.
    pub(super) facts: Vec<Fact>,
}

/// When bytes moved.
pub(super) trait Moved {
    /// Time of the call that moved the received byte at a position.
    fn received(&self, position: u64) -> Option<u64>;
    /// Time of the call that moved the sent byte at a position.
    fn sent(&self, position: u64) -> Option<u64>;
    /// Bytes that moved: received, sent.
    fn totals(&self) -> (u64, u64);
}

pub(super) fn expect(written: &Written, moved: &impl Moved, ending: Ending) -> Option<Expected> {
    moved.received(written.request_head - 1)?;
    let start = moved.received(written.request.start)?;
    let (received, sent) = moved.totals();
    let after = |time: Option<u64>| time.map(|time| time.cast_signed() - start.cast_signed());
    let covered = |range: &std::ops::Range<u64>, total: u64| range.end.min(total).saturating_sub(range.start);
    let has_head = sent >= written.response_head;
    let whole = sent >= written.response.end;
    // A server's close ends a stream wherever it stands; a document shows that it broke off.
    let ended = if written.by_close {
        has_head && ending == Ending::ServerClosed && (whole || written.streamed)
    } else {
        whole
    };
    let told: Vec<(u64, &Fact)> =
        written.facts.iter().filter_map(|fact| Some((moved.sent(fact.at as u64)?, fact))).collect();
    let streamed = written.streamed && has_head;
    let request_read = received >= written.request.end;

    let bearing: Vec<(u64, &Fact)> = told.iter().filter(|(_, fact)| fact.bears()).copied().collect();
    let mut deliveries: Vec<u64> = bearing.iter().map(|(time, _)| *time).collect();
    deliveries.dedup();
    let gap_micros = deliveries.windows(2).map(|pair| ((pair[1] - pair[0] + 500) / 1000) as u32).collect();
    let first_token = bearing.first().map(|(time, _)| *time);
    let last_token = bearing.last().map(|(time, _)| *time);
    let over = told.iter().filter(|(_, fact)| fact.over).count() as u32;
    let terminated = over >= written.ask.choices
        || told.iter().any(|(_, f)| matches!(f.kind, Kind::Terminator | Kind::Document));
    let tokens = tokens(&told, terminated);
    // A plain document tells the last choice's reason, so one that broke off before that tells none.
    let may_tell = streamed || terminated || written.ask.choices == 1;
    let finish = told.iter().rev().find_map(|(_, fact)| fact.finish).filter(|_| may_tell);
    let error = told.iter().rev().find_map(|(_, fact)| fact.error);
    let aborted = match ending {
        Ending::ClientClosed | Ending::ClientReset => Outcome::AbortedByClient,
        Ending::ServerClosed | Ending::Died => Outcome::AbortedByServer,
        Ending::Open => Outcome::Unknown,
    };
    let outcome = match written.status {
        _ if !has_head => aborted,
        429 | 503 => Outcome::Rejected,
        400..=499 => Outcome::ClientError,
        500.. => Outcome::ServerError,
        _ if error.is_some() => Outcome::StreamError,
        _ if terminated => Outcome::Ok,
        _ if !ended => aborted,
        _ if written.ask.api.is_unmarked() => Outcome::Ok,
        _ => Outcome::Unterminated,
    };
    let complete = ended || !matches!(ending, Ending::Open | Ending::Died);
    let empty = outcome == Outcome::Ok
        && complete
        && written.ask.api.generates()
        && !told.iter().any(|(_, fact)| fact.has_text());
    let tpot = (|| {
        let first = bearing.first()?.1;
        let counts = [Some(first.ids), first.usage.output, first.engine.output];
        let in_first = counts.into_iter().flatten().find(|count| *count > 0).unwrap_or(1);
        let n = tokens.output_total()?.checked_sub(in_first).filter(|n| *n > 0)?;
        let nanos = last_token? - first_token?;
        (streamed && written.ask.choices == 1).then(|| (nanos as f64 / n as f64 * 1e3).round() as i64)
    })();
    let last_sent =
        (sent > written.response.start).then(|| moved.sent(sent.min(written.response.end) - 1)).flatten();
    Some(Expected {
        model: written.ask.api.has_model().then(|| written.model.clone()),
        stream: if has_head { streamed } else { request_read && written.ask.stream },
        choices: written.ask.choices,
        status: has_head.then_some(written.status),
        outcome: Some(outcome),
        empty,
        finish_reason: finish.map(Into::into),
        error_type: error.map(Into::into),
        request_bytes: covered(&written.request, received),
        response_bytes: covered(&written.response, sent) + covered(&written.interim, sent),
        clocks: [
            after(request_read.then(|| moved.received(written.request.end - 1)).flatten()),
            after(has_head.then(|| moved.sent(written.response.start)).flatten()),
            after(told.first().filter(|_| streamed).map(|(time, _)| *time)),
            after(first_token),
            after(bearing.iter().find(|(_, fact)| fact.answer).map(|(time, _)| *time)),
            after(last_token),
            after(last_sent),
        ],
        ttft: after(first_token),
        tpot,
        token_events: bearing.len() as u64,
        deliveries: deliveries.len() as u64,
        gap_micros,
        tokens,
        complete,
    })
}

/// The best source that was told.
fn tokens(told: &[(u64, &Fact)], terminated: bool) -> Tokens {
    let facts = || told.iter().map(|(_, fact)| *fact);
    let parts = |usage: Usage, source| Tokens {
        input: match usage.input_uncached {
            Some(uncached) => Some(uncached + usage.input_written.unwrap_or(0)),
            None => usage.input.map(|input| input - usage.input_cached.unwrap_or(0)),
        },
        input_cached: usage.input_cached,
        output: usage.output.map(|output| output - usage.output_reasoning.unwrap_or(0)),
        output_reasoning: usage.output_reasoning,
        source: Some(source),
    };
    let merged = |of: fn(&Fact) -> &Usage| {
        facts().map(of).filter(|usage| usage.is_some()).fold(Usage::default(), |mut merged, usage| {
            merged.update(usage);
            merged
        })
    };
    let (usage, mut engine) = (merged(|fact| &fact.usage), merged(|fact| &fact.engine));
    let told_by_engine = engine.is_some();
    // An engine counts choice by choice, and does not tell whether they share a prompt.
    let last = facts().map(|fact| fact.index).max().unwrap_or(0);
    let of = |index: u32| {
        facts()
            .filter(|fact| fact.index == index && fact.engine.is_some())
            .filter_map(|fact| fact.engine.output)
            .next_back()
    };
    engine.output = engine.output.map(|_| (0..=last).filter_map(of).sum());
    if last > 0 {
        engine = Usage { output: engine.output, ..Usage::default() };
    }
    let mut tokens = if usage.is_some() {
        let over = terminated || facts().any(|fact| fact.finish.is_some());
        parts(usage, if over { TokenSource::Usage } else { TokenSource::UsagePartial })
    } else if told_by_engine {
        parts(engine, TokenSource::Engine)
    } else {
        Tokens::default()
    };
    if tokens.output_total().is_none() {
        let ids = facts().map(|fact| fact.ids).sum();
        let bearing = facts().filter(|fact| fact.bears()).count() as u64;
        for (count, source) in [(ids, TokenSource::Ids), (bearing, TokenSource::Estimated)] {
            if count > 0 && tokens.output.is_none() {
                (tokens.output, tokens.source) = (Some(count), Some(source));
            }
        }
    }
    tokens
}
