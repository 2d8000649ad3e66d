//! How requests of two sets differ, by model: those of two windows of time, or those of a pod and of its peers. Pure.
//!
//! Medians and 95th percentiles of requests that were seen whole. Something differs if the median of each set lies outside
//! of the middle half of the other: what varies anyway does not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::parts::{Span, seconds};
use super::words::{span as say, time};
use crate::exchange::{Outcome, RequestRecord};

/// Fewer requests than this on either side tell nothing.
const ENOUGH: usize = 5;

/// Of the larger median: less is no difference, however tight the quartiles are.
const NOTABLE: f64 = 0.1;

/// What is measured of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Time to the first token, seconds.
    Ttft,
    /// Time per output token, seconds.
    Tpot,
    /// From the first byte of the request to the last of the response, seconds.
    Duration,
    /// Prompt tokens, cached ones among them.
    InputTokens,
    /// Generated tokens.
    OutputTokens,
    /// A part of the time, seconds.
    Part(Span),
}

impl Measure {
    fn all() -> impl Iterator<Item = Self> {
        let parts = Span::ALL.into_iter().map(Self::Part);
        [Self::Ttft, Self::Tpot, Self::Duration, Self::InputTokens, Self::OutputTokens]
            .into_iter()
            .chain(parts)
    }

    /// The word used in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::Duration => "duration",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Part(span) => span.as_str(),
        }
    }

    /// Whether it is a time.
    pub const fn is_time(self) -> bool {
        !matches!(self, Self::InputTokens | Self::OutputTokens)
    }

    fn of(self, record: &RequestRecord) -> Option<f64> {
        match self {
            Self::Ttft => record.ttft,
            Self::Tpot => record.tpot,
            Self::Duration => record.duration,
            Self::InputTokens => record.tokens.input_total().map(|tokens| tokens as f64),
            Self::OutputTokens => record.tokens.output_total().map(|tokens| tokens as f64),
            Self::Part(span) => seconds(record, span),
        }
    }
}

/// A measure in both sets: first in the one that is asked about, then in the one that it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Beside {
    /// What.
    pub measure: Measure,
    /// Medians.
    pub p50: [f64; 2],
    /// 95th percentiles.
    pub p95: [f64; 2],
    /// Whether it differs.
    pub differs: bool,
}

/// How the requests for a model differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The model; empty if none is known.
    pub model: String,
    /// Whether they were streamed.
    pub stream: bool,
    /// Requests.
    pub requests: [usize; 2],
    /// Share of them that failed, 0 to 1.
    pub failed: [f64; 2],
    /// Those of which not all was seen: they are in no time.
    pub partial: [usize; 2],
    /// What both have enough of.
    pub measures: Vec<Beside>,
    /// In one sentence.
    pub summary: String,
}

/// Compares two sets.
pub fn diff(these: &[RequestRecord], others: &[RequestRecord]) -> Vec<Difference> {
    let mut kinds: BTreeMap<(String, bool), [Vec<&RequestRecord>; 2]> = BTreeMap::new();
    for (side, records) in [these, others].into_iter().enumerate() {
        for record in records {
            let kind = (record.model.clone().unwrap_or_default(), record.stream);
            kinds.entry(kind).or_default()[side].push(record);
        }
    }
    kinds.into_iter().map(|((model, stream), sides)| difference(model, stream, &sides)).collect()
}

fn difference(model: String, stream: bool, sides: &[Vec<&RequestRecord>; 2]) -> Difference {
    let requests = sides.each_ref().map(Vec::len);
    let share = |side: &Vec<&RequestRecord>| {
        let failed = side.iter().filter(|record| record.outcome.is_some_and(Outcome::is_failure));
        failed.count() as f64 / side.len().max(1) as f64
    };
    let measures: Vec<Beside> = Measure::all().filter_map(|measure| beside(measure, sides)).collect();
    let partial = sides.each_ref().map(|side| side.iter().filter(|record| !record.is_complete()).count());
    let failed = sides.each_ref().map(share);
    let summary = summary(requests, failed, &measures);
    Difference { model, stream, requests, failed, partial, measures, summary }
}

fn beside(measure: Measure, sides: &[Vec<&RequestRecord>; 2]) -> Option<Beside> {
    let [these, others] = sides.each_ref().map(|side| {
        let whole = side.iter().filter(|record| record.is_complete());
        let mut values: Vec<f64> = whole.filter_map(|record| measure.of(record)).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    });
    if these.len() < ENOUGH || others.len() < ENOUGH {
        return None;
    }
    let at = |quantile| [quantile_of(&these, quantile), quantile_of(&others, quantile)];
    let ([p25, p50, p75], p95) = ([0.25, 0.5, 0.75].map(at), at(0.95));
    let is_outside = |one: usize, other: usize| p50[one] < p25[other] || p50[one] > p75[other];
    let is_felt = (p50[0] - p50[1]).abs() >= NOTABLE * p50[0].abs().max(p50[1].abs());
    Some(Beside { measure, p50, p95, differs: is_felt && is_outside(0, 1) && is_outside(1, 0) })
}

/// The nearest-rank quantile of sorted values.
fn quantile_of(values: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * values.len() as f64).ceil().max(1.0) as usize - 1;
    values.get(rank).copied().unwrap_or(f64::NAN)
}

fn summary(requests: [usize; 2], failed: [f64; 2], measures: &[Beside]) -> String {
    if requests.into_iter().any(|count| count < ENOUGH) {
        return format!("{} requests beside {}: too few to compare", requests[0], requests[1]);
    }
    let mut said: Vec<String> = Vec::new();
    let [now, then] = failed.map(|share| share * requests[0].min(requests[1]) as f64);
    // Beyond what chance does to so few.
    if (now - then).abs() > 2.0 * (now + then).max(1.0).sqrt() {
        said.push(format!("{:.1} % failed, of the others {:.1} %", failed[0] * 100.0, failed[1] * 100.0));
    }
    let parts = measures.iter().filter_map(|one| match one.measure {
        Measure::Part(span) if one.differs => Some((span, one.p50[0] - one.p50[1])),
        _ => None,
    });
    let mut parts: Vec<(Span, f64)> = parts.collect();
    parts.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
    for (span, more) in parts.into_iter().take(2) {
        let way = if more > 0.0 { "longer" } else { "shorter" };
        said.push(format!("{} took {} {way}", say(span), time(more.abs())));
    }
    for (measure, what) in [(Measure::InputTokens, "prompts"), (Measure::OutputTokens, "answers")] {
        if let Some(one) = measures.iter().find(|one| one.measure == measure && one.differs) {
            said.push(format!("{what} had {:.0} tokens, those of the others {:.0}", one.p50[0], one.p50[1]));
        }
    }
    if said.is_empty() { "no difference beyond what varies anyway".to_owned() } else { said.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: usize, ttft: f64, tokens: u64, failed: usize) -> Vec<RequestRecord> {
        let one = |number: usize| {
            let ttft = ttft * (1.0 + 0.01 * (number % 5) as f64);
            let mut record = RequestRecord {
                model: Some("m".into()),
                stream: true,
                outcome: Some(if number < failed { Outcome::ServerError } else { Outcome::Ok }),
                ttft: Some(ttft),
                duration: Some(ttft + 1.0),
                ..RequestRecord::default()
            };
            record.tokens.input = Some(tokens);
            (record.clocks.request_end, record.clocks.first_token) = (Some(0.0), Some(ttft));
            record
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn what_changed_is_named_and_what_varies_is_not() {
        let same = diff(&records(40, 0.1, 50, 0), &records(40, 0.1, 50, 1));
        assert_eq!(same.len(), 1);
        assert_eq!(same[0].summary, "no difference beyond what varies anyway");
        assert!(same[0].measures.iter().all(|one| !one.differs), "{same:?}");
        let slower = &diff(&records(40, 0.5, 400, 0), &records(60, 0.1, 50, 0))[0];
        assert_eq!((slower.model.as_str(), slower.stream, slower.requests), ("m", true, [40, 60]));
        assert_eq!(
            slower.summary,
            "from the end of the request to the first token took 408 ms longer; prompts had 400 tokens, those of the others 50"
        );
        let ttft = slower.measures.iter().find(|one| one.measure == Measure::Ttft).unwrap();
        let micros = |pair: [f64; 2]| pair.map(|seconds| (seconds * 1e6).round() as u64);
        assert_eq!(
            (micros(ttft.p50), micros(ttft.p95), ttft.differs),
            ([510_000, 102_000], [520_000, 104_000], true)
        );
        let failing = &diff(&records(40, 0.1, 50, 20), &records(40, 0.1, 50, 0))[0];
        assert_eq!(failing.summary, "50.0 % failed, of the others 0.0 %");
    }

    #[test]
    fn few_and_partial_requests_tell_nothing() {
        let few = &diff(&records(4, 9.0, 50, 0), &records(40, 0.1, 50, 0))[0];
        assert_eq!(few.summary, "4 requests beside 40: too few to compare");
        let mut partial = records(40, 9.0, 50, 0);
        for record in &mut partial {
            record.partial = vec!["gap".into()];
        }
        let partial = &diff(&partial, &records(40, 0.1, 50, 0))[0];
        assert_eq!((partial.partial, partial.measures.len()), ([40, 0], 0));
        let other: Vec<_> = records(40, 1.0, 5, 0)
            .into_iter()
            .map(|record| RequestRecord { stream: false, ..record })
            .collect();
        assert_eq!(diff(&other, &records(40, 1.0, 5, 0)).len(), 2, "streamed ones are not like plain ones");
    }
}
