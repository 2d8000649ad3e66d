//! How long requests usually take, and which took longer.

use std::collections::HashMap;

use crate::exchange::RequestRecord;

/// What is longer than this quantile of its kind is slow.
const SLOW: f64 = 0.95;

/// A kind of request: its model, and whether its first token was waited for.
type Kind = (String, bool);

/// Times that are exceeded by one in twenty requests of a kind.
#[derive(Clone, Debug, Default)]
pub struct Usual(HashMap<Kind, f64>);

impl Usual {
    /// By these requests. Those with numbers that are not trusted do not count.
    pub fn of<'a>(records: impl Iterator<Item = &'a RequestRecord>) -> Self {
        let mut times: HashMap<Kind, Vec<f64>> = HashMap::new();
        for record in records.filter(|record| record.is_complete()) {
            if let Some((streamed, seconds)) = measure(record) {
                times.entry((model(record), streamed)).or_default().push(seconds);
            }
        }
        let quantile = |(kind, mut times): (Kind, Vec<f64>)| Some((kind, quantile(&mut times, SLOW)?));
        Self(times.into_iter().filter_map(quantile).collect())
    }

    /// Whether a request missed an objective; where none is about it, whether it took longer than is usual.
    pub fn is_slow(&self, record: &RequestRecord) -> bool {
        let judged = &record.slo;
        if !judged.is_empty() || !judged.excluded.is_empty() {
            return !judged.missed.is_empty();
        }
        measure(record).is_some_and(|(streamed, seconds)| {
            self.0.get(&(model(record), streamed)).is_some_and(|usual| seconds > *usual)
        })
    }
}

fn model(record: &RequestRecord) -> String {
    record.model.clone().unwrap_or_default()
}

/// What the client waits for: the first token, or the whole answer. And which it is.
fn measure(record: &RequestRecord) -> Option<(bool, f64)> {
    match record.ttft {
        Some(ttft) => Some((true, ttft)),
        None => record.duration.filter(|_| !record.stream).map(|duration| (false, duration)),
    }
}

/// The nearest-rank quantile; none of nothing.
pub(super) fn quantile(values: &mut [f64], quantile: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (quantile * values.len() as f64).ceil().max(1.0) as usize - 1;
    values.get(rank).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Judged;

    fn streamed(model: &str, ttft: f64) -> RequestRecord {
        RequestRecord {
            model: Some(model.to_owned()),
            stream: true,
            ttft: Some(ttft),
            duration: Some(100.0),
            ..RequestRecord::default()
        }
    }

    fn plain(duration: f64) -> RequestRecord {
        RequestRecord { duration: Some(duration), ..RequestRecord::default() }
    }

    #[test]
    fn one_in_twenty_of_its_kind_is_slow() {
        let mut records: Vec<_> = (1..=100).map(|n| streamed("a", f64::from(n))).collect();
        records.extend((1..=100).map(|n| streamed("b", f64::from(n) * 1000.0)));
        records.extend((1..=20).map(|n| plain(f64::from(n) / 10.0)));
        records
            .extend((1..=100).map(|_| RequestRecord { partial: vec!["lost".into()], ..streamed("a", 1e6) }));
        let usual = Usual::of(records.iter());
        assert!(!usual.is_slow(&streamed("a", 95.0)) && usual.is_slow(&streamed("a", 95.1)));
        assert!(!usual.is_slow(&streamed("b", 95_000.0)) && usual.is_slow(&streamed("b", 96_000.0)));
        assert!(!usual.is_slow(&plain(1.9)) && usual.is_slow(&plain(1.95)));
        assert!(!usual.is_slow(&streamed("c", 1e9)), "nobody knows what is usual there");
        assert_eq!(records.iter().filter(|record| record.is_complete() && usual.is_slow(record)).count(), 11);
    }

    #[test]
    fn an_objective_wins_over_what_is_usual() {
        let usual = Usual::of([streamed("a", 1.0)].iter());
        let judged = |slo| RequestRecord { slo, ..streamed("a", 9.0) };
        assert!(usual.is_slow(&judged(Judged::default())));
        let names = || vec!["chat".to_owned()];
        assert!(!usual.is_slow(&judged(Judged { met: names(), ..Judged::default() })));
        assert!(
            !usual
                .is_slow(&judged(Judged { excluded: vec![("chat".into(), "partial")], ..Judged::default() }))
        );
        let missed = Judged { missed: names(), met: names(), ..Judged::default() };
        assert!(Usual::default().is_slow(&judged(missed)));
    }

    #[test]
    fn quantiles_are_nearest_rank() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&mut values, 0.5), Some(2.0));
        assert_eq!(quantile(&mut values, 0.99), Some(4.0));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
