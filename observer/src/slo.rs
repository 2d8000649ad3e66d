//! Objectives: which requests were served as well as promised. A pure judgement of a finished request.
//!
//! In: records and the operator's [`Objective`]s. Out: for each objective whose models a record matches,
//! whether it was met, missed, or why the record says nothing about it. No IO, no clock.

use wildmatch::WildMatch;

use crate::exchange::{Judged, Outcome, RequestRecord};

/// What an objective bounds, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Time to first token; streamed requests.
    Ttft,
    /// Time per output token; streamed requests.
    Tpot,
    /// The longest time between two deliveries of a stream.
    Gap,
    /// The whole request.
    Duration,
}

/// A promise about the requests for some models: each of its bounds is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Its name in records and metrics.
    pub name: String,
    /// Pattern of model names: `*` stands for any characters, `?` for one.
    pub models: String,
    /// Upper bounds, seconds.
    pub bounds: Vec<(Measure, f64)>,
}

/// What a request says about an objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It was kept.
    Met,
    /// It was not: a bound was passed, or the server failed.
    Missed,
    /// Nothing, for this reason: not eligible.
    Excluded(&'static str),
}

/// Judges a record by all objectives.
pub fn judge(objectives: &[Objective], record: &RequestRecord) -> Judged {
    let mut judged = Judged::default();
    for objective in objectives.iter().filter(|objective| objective.is_about(record.model.as_deref())) {
        let name = objective.name.clone();
        match objective.judge(record) {
            Judgement::Met => judged.met.push(name),
            Judgement::Missed => judged.missed.push(name),
            Judgement::Excluded(reason) => judged.excluded.push((name, reason)),
        }
    }
    judged
}

impl Objective {
    /// Whether it is about requests for this model.
    pub fn is_about(&self, model: Option<&str>) -> bool {
        WildMatch::new(&self.models).matches(model.unwrap_or_default())
    }

    /// Judges a request for one of its models.
    ///
    /// What failed at the server is missed. What the client broke off is missed if a bound had been passed by
    /// then, and not eligible before. Bounds on what a request does not have, such as the time to the first
    /// token of a plain answer, are left out.
    pub fn judge(&self, record: &RequestRecord) -> Judgement {
        let outcome = record.outcome.unwrap_or(Outcome::Unknown);
        match outcome {
            failed if failed.is_failure() => return Judgement::Missed,
            Outcome::ClientError => return Judgement::Excluded("client_error"),
            Outcome::Unknown => return Judgement::Excluded("end_not_seen"),
            _ => {}
        }
        // From here on numbers decide, and these may be wrong.
        if !record.is_complete() {
            return Judgement::Excluded("partial");
        }
        let is_over = outcome == Outcome::Ok;
        let mut is_measured = false;
        for (measure, bound) in &self.bounds {
            let known = if is_over { measured(*measure, record) } else { so_far(*measure, record) };
            is_measured |= known.is_some();
            if known.is_some_and(|seconds| seconds > *bound) {
                return Judgement::Missed;
            }
        }
        match (is_over, is_measured) {
            (true, true) => Judgement::Met,
            (true, false) => Judgement::Excluded("not_measured"),
            (false, _) => Judgement::Excluded("client_abort"),
        }
    }
}

/// The value of a request that is over.
fn measured(measure: Measure, record: &RequestRecord) -> Option<f64> {
    match measure {
        Measure::Ttft => record.ttft,
        Measure::Tpot => record.tpot,
        Measure::Gap => record.gaps.as_ref().filter(|gaps| gaps.count > 0).map(|gaps| gaps.max),
        Measure::Duration => record.duration,
    }
}

/// What the value had come to when the client left.
fn so_far(measure: Measure, record: &RequestRecord) -> Option<f64> {
    let known = measured(measure, record);
    let left = record.client_left;
    let waited = match measure {
        Measure::Ttft => left.filter(|_| record.stream && record.ttft.is_none()),
        Measure::Tpot => None,
        Measure::Gap => left.zip(record.clocks.last_token).map(|(left, last)| left - last),
        Measure::Duration => left,
    };
    match (known, waited) {
        (Some(known), Some(waited)) => Some(known.max(waited)),
        (known, waited) => known.or(waited),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Clocks, Gaps};

    fn objective(bounds: &[(Measure, f64)]) -> Objective {
        Objective { name: "o".to_owned(), models: "*".to_owned(), bounds: bounds.to_vec() }
    }

    fn stream() -> RequestRecord {
        RequestRecord {
            outcome: Some(Outcome::Ok),
            stream: true,
            ttft: Some(0.4),
            tpot: Some(0.02),
            duration: Some(3.0),
            gaps: Some(Gaps { count: 9, max: 0.5, ..Gaps::default() }),
            ..RequestRecord::default()
        }
    }

    #[test]
    fn every_bound_must_be_kept() {
        let bounds =
            [(Measure::Ttft, 0.4), (Measure::Tpot, 0.02), (Measure::Gap, 0.5), (Measure::Duration, 3.0)];
        assert_eq!(objective(&bounds).judge(&stream()), Judgement::Met);
        for at in 0..bounds.len() {
            let mut bounds = bounds;
            bounds[at].1 *= 0.99;
            assert_eq!(objective(&bounds).judge(&stream()), Judgement::Missed, "{bounds:?}");
        }
    }

    #[test]
    fn outcomes_decide_first() {
        let objective = objective(&[(Measure::Ttft, 1.0)]);
        for outcome in Outcome::ALL {
            let judgement = objective.judge(&RequestRecord { outcome: Some(outcome), ..stream() });
            let expected = match outcome {
                Outcome::Ok => Judgement::Met,
                Outcome::ClientError => Judgement::Excluded("client_error"),
                Outcome::Unknown => Judgement::Excluded("end_not_seen"),
                Outcome::AbortedByClient => Judgement::Excluded("client_abort"),
                _ => Judgement::Missed,
            };
            assert_eq!(judgement, expected, "{outcome:?}");
        }
    }

    #[test]
    fn a_client_that_had_waited_too_long_was_let_down() {
        let aborted = |client_left: f64| RequestRecord {
            outcome: Some(Outcome::AbortedByClient),
            client_left: Some(client_left),
            ..stream()
        };
        let waiting = |client_left| RequestRecord { ttft: None, gaps: None, ..aborted(client_left) };
        let ttft = objective(&[(Measure::Ttft, 1.0)]);
        assert_eq!(ttft.judge(&waiting(0.9)), Judgement::Excluded("client_abort"));
        assert_eq!(ttft.judge(&waiting(1.1)), Judgement::Missed);
        assert_eq!(ttft.judge(&aborted(9.0)), Judgement::Excluded("client_abort"), "its token came in time");
        let plain = RequestRecord { stream: false, ..waiting(9.0) };
        assert_eq!(ttft.judge(&plain), Judgement::Excluded("client_abort"), "there was to be no token");
        assert_eq!(objective(&[(Measure::Duration, 2.0)]).judge(&aborted(2.1)), Judgement::Missed);
        let clocks = Clocks { last_token: Some(1.0), ..Clocks::default() };
        let silent = |client_left| RequestRecord { clocks: clocks.clone(), ..aborted(client_left) };
        let gap = objective(&[(Measure::Gap, 2.0)]);
        assert_eq!(gap.judge(&silent(3.1)), Judgement::Missed);
        assert_eq!(gap.judge(&silent(2.9)), Judgement::Excluded("client_abort"));
    }

    #[test]
    fn what_is_not_known_is_not_judged() {
        let both = objective(&[(Measure::Ttft, 1.0), (Measure::Duration, 5.0)]);
        let plain = RequestRecord { stream: false, ttft: None, tpot: None, gaps: None, ..stream() };
        assert_eq!(both.judge(&plain), Judgement::Met, "by its duration alone");
        let ttft = objective(&[(Measure::Ttft, 1.0)]);
        assert_eq!(ttft.judge(&plain), Judgement::Excluded("not_measured"));
        let partial = RequestRecord { partial: vec!["lost".to_owned()], ..stream() };
        assert_eq!(ttft.judge(&partial), Judgement::Excluded("partial"));
        let failed = RequestRecord { outcome: Some(Outcome::ServerError), ..partial };
        assert_eq!(ttft.judge(&failed), Judgement::Missed, "no number matters");
    }

    #[test]
    fn objectives_are_about_models() {
        let about = |models: &str, model: Option<&str>| {
            Objective { models: models.to_owned(), ..objective(&[]) }.is_about(model)
        };
        assert!(about("*", None) && about("*", Some("a/b")));
        assert!(about("meta-llama/*-8B*", Some("meta-llama/Llama-3.1-8B-Instruct")));
        assert!(!about("llama*", Some("meta-llama/x")) && !about("llama?", Some("llama")));
    }
}
