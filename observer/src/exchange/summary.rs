//! A finished exchange becomes a request record.

use super::{
    context::Context,
    keys::trace_parent,
    one::Exchange,
    outcome,
    record::{Clocks, Gaps, Outcome, Queue, RequestRecord, Role},
};
use crate::llm::{self, Timings};

/// Nanoseconds to seconds.
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Builds the record of an exchange that ended at this time. Who the process is, and where, is not known here:
/// enrichment adds it.
pub(super) fn record(exchange: Exchange, context: &Context, end: u64) -> RequestRecord {
    let start = exchange.times.request_start;
    let after =
        |time: Option<u64>| time.map(|time| round(time.wrapping_sub(start).cast_signed() as f64 / 1e9));
    let times = exchange.times;
    let is_stream = exchange.is_stream();
    let streamed = exchange.evidence.streamed;
    let whole = streamed && exchange.partial.is_empty();
    let first = exchange.id.sequence == 0;
    let accepted = context.accepted.filter(|_| first);
    let connected = context.connected.filter(|_| first);
    let outcome = outcome::judge(&exchange.evidence);
    let tokens = exchange.counts.best(exchange.evidence.terminated || outcome == Outcome::Ok);
    let since = |from: u64, to: u64| round(seconds(to.saturating_sub(from)));
    let choices = exchange.request.choices.unwrap_or(1).max(1);

    let tpot = (|| {
        let (first, last) = (times.first_token?, times.last_token?);
        let n = tokens.output_total()?.checked_sub(exchange.counts.in_first())?;
        let is_single = exchange.choices() == Some(1) && !exchange.counts.has_several_choices();
        (streamed && is_single && n >= 1).then(|| since(first, last) / n as f64)
    })();
    let field = |head: Option<&crate::http::Fields>, name: &str| {
        head.and_then(|fields| fields.text(name)).map(|text| text.chars().take(256).collect::<String>())
    };
    let request_fields = exchange.request_head.as_deref().map(|head| &head.fields);
    let response_fields = exchange.response_head.as_deref().map(|head| &head.fields);
    let provider = exchange.provider.or_else(|| {
        llm::provider(
            response_fields.and_then(|fields| fields.text("server")),
            exchange.fingerprint.as_deref(),
            response_fields.into_iter().flat_map(|fields| fields.iter().map(|(name, _)| name)),
        )
    });
    let trace_parent = field(request_fields, "traceparent").and_then(|value| trace_parent(&value));
    let (trace_id, parent_id) = trace_parent.unzip();
    let empty = outcome == Outcome::Ok && exchange.is_empty();
    RequestRecord {
        id: exchange.id.to_string(),
        request_id: field(request_fields, "x-request-id").or_else(|| field(response_fields, "x-request-id")),
        response_id: exchange.response_id,
        trace_id,
        parent_id,
        started_at: wall(context.clock, start),
        ended_at: wall(context.clock, end),
        pid: exchange.tgid,
        provider: provider.map(Into::into),
        role: if exchange.request.prefill_only { Role::Prefill } else { Role::Server },
        peer: context.peer.map(|peer| peer.to_string()),
        protocol: "http/1.1".into(),
        operation: exchange.llm.map(|(_, operation)| operation),
        path: exchange.request_head.as_ref().map(|head| head.path.clone()).unwrap_or_default(),
        model: exchange.request.model.or(exchange.model),
        stream: is_stream,
        choices,
        max_tokens: exchange.request.max_tokens,
        status: exchange.evidence.status,
        outcome: Some(outcome),
        empty,
        finish_reason: exchange.finish_reason,
        error_type: exchange.error,
        request_bytes: exchange.request_bytes,
        response_bytes: exchange.response_bytes,
        clocks: Clocks {
            connected: after(connected),
            accepted: after(accepted),
            arrived: after(times.arrived),
            request_start: 0.0,
            request_end: after(times.request_end),
            response_start: after(times.response_start),
            first_event: after(times.first_event),
            first_token: after(times.first_token),
            first_answer: after(times.first_answer),
            last_token: after(times.last_token),
            response_end: after(times.response_end),
        },
        ttft: times.first_token.filter(|_| streamed).map(|time| since(start, time)),
        ttfb: times.response_start.map(|time| since(start, time)),
        tpot,
        duration: times.response_end.map(|time| since(start, time)),
        gaps: streamed.then(|| gaps(&exchange.gap_micros, exchange.gaps)),
        stalls: whole.then_some(exchange.flow.stalls),
        silences: if whole { exchange.flow.silences(start) } else { Vec::new() },
        client_stalls: whole.then_some(exchange.flow.client_stalls),
        client_wait: whole.then(|| round(seconds(exchange.flow.client_wait))),
        token_events: exchange.counts.events,
        deliveries: exchange.deliveries,
        tokens,
        queue: Queue {
            // The tracepoint may come late, or not at all: never negative.
            accept: connected
                .zip(accepted)
                .and_then(|(from, to)| to.checked_sub(from))
                .map(seconds)
                .map(round),
            socket: times.arrived.and_then(|arrived| start.checked_sub(arrived)).map(seconds).map(round),
            dispatch: exchange.dispatch.map(seconds).map(round),
            engine: exchange.timings.queue.map(round),
            estimate: None,
        },
        timings: Timings {
            prefill: exchange.timings.prefill.map(round),
            decode: exchange.timings.decode.map(round),
            ..exchange.timings
        },
        partial: exchange.partial.iter().map(ToString::to_string).collect(),
        defects: exchange.defects.iter().map(ToString::to_string).collect(),
        client_left: after(exchange.flow.gone),
        local: context.local,
        gap_micros: exchange.gap_micros,
        ..RequestRecord::default()
    }
}

/// RFC 3339 with nanoseconds, by a moment that is known on both clocks.
fn wall(clock: Option<(u64, u64)>, time: u64) -> Option<String> {
    let (monotonic, realtime) = clock?;
    let nanos = i128::from(realtime) + i128::from(time) - i128::from(monotonic);
    let moment = jiff::Timestamp::from_nanosecond(nanos).ok()?;
    Some(moment.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string())
}

/// Nanoseconds are the clock's resolution; more digits are noise of the division.
fn round(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e9
}

/// Nearest-rank quantiles of the gaps that were kept.
fn gaps(micros: &[u32], count: u64) -> Gaps {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let at = |quantile: f64| {
        let rank = (quantile * sorted.len() as f64).ceil().max(1.0) as usize - 1;
        sorted.get(rank).map_or(0.0, |micros| f64::from(*micros) / 1e6)
    };
    Gaps { count, p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_rank() {
        let quantiles = gaps(&[4000, 1000, 3000, 2000], 4);
        assert_eq!((quantiles.p50, quantiles.p99, quantiles.max), (0.002, 0.004, 0.004));
        assert_eq!(gaps(&[], 0), Gaps::default());
    }
}
