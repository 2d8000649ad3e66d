//! A question about finished requests: which, since when, in which order, how many.

use super::pattern::Pattern;
use super::position::Position;
use crate::exchange::{Operation, Outcome, RequestRecord};

/// Requests in an answer unless another number is asked for.
pub(super) const USUAL: usize = 100;

/// Most requests in an answer: a cluster's holds so many at a time.
pub const MOST: usize = 5000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Requests.
    Requests,
    /// Who is served how.
    Top,
}

/// A moment, as whoever answers counts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So many nanoseconds before now.
    Ago(i64),
    /// Nanoseconds since 1970.
    At(i64),
}

impl Moment {
    /// In nanoseconds since 1970, seen from now.
    pub fn seen_from(self, now: i64) -> i64 {
        match self {
            Self::Ago(ago) => now.saturating_sub(ago),
            Self::At(time) => time,
        }
    }
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// What ended last.
    #[default]
    Newest,
    /// What ended first.
    Oldest,
}

/// A question. Without conditions it is about all requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Those that ended at or after this.
    pub since: Option<Moment>,
    /// Those that ended at or before this.
    pub until: Option<Moment>,
    pub(super) node: Option<Pattern>,
    pub(super) namespace: Option<Pattern>,
    pub(super) pod: Option<Pattern>,
    pub(super) container: Option<Pattern>,
    pub(super) model: Option<Pattern>,
    /// One of these, unless empty.
    pub(super) outcomes: Vec<Outcome>,
    /// One of these, unless empty.
    pub(super) operations: Vec<Operation>,
    /// A status in one of these ranges, unless empty.
    pub(super) statuses: Vec<(u16, u16)>,
    pub(super) id: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) trace_id: Option<String>,
    /// At least so many seconds to the first token.
    pub(super) min_ttft: Option<f64>,
    /// At least so many seconds from beginning to end.
    pub(super) min_duration: Option<f64>,
    /// Those that were slower than promised, or else than is usual.
    pub slow: bool,
    /// How many, unless the usual number.
    pub limit: Option<usize>,
    /// In which order.
    pub order: Order,
    /// Only what comes after this in that order.
    pub cursor: Option<Position>,
    /// Also what ends from now on, until the reader leaves.
    pub follow: bool,
}

impl Query {
    /// Most requests in the answer.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(USUAL)
    }

    /// Whether it is about requests of nodes of this name.
    pub fn is_about_node(&self, name: &str) -> bool {
        fits(self.node.as_ref(), name)
    }

    /// Whether it is about requests of this pod for this model.
    pub(super) fn is_about(&self, namespace: &str, pod: &str, container: &str, model: &str) -> bool {
        fits(self.namespace.as_ref(), namespace)
            && fits(self.pod.as_ref(), pod)
            && fits(self.container.as_ref(), container)
            && fits(self.model.as_ref(), model)
    }

    /// Whether a record meets its conditions, but for time and for being slow.
    pub fn matches(&self, record: &RequestRecord) -> bool {
        let is = |wanted: &Option<String>, known: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| known == Some(wanted))
        };
        let least = |least: Option<f64>, known: Option<f64>| {
            least.is_none_or(|least| known.is_some_and(|known| known >= least))
        };
        let model = record.model.as_deref().unwrap_or_default();
        self.is_about_node(&record.node)
            && self.is_about(&record.namespace, &record.pod, &record.container, model)
            && among(&self.outcomes, record.outcome)
            && among(&self.operations, record.operation)
            && (self.statuses.is_empty()
                || record.status.is_some_and(|status| {
                    self.statuses.iter().any(|(from, to)| (*from..=*to).contains(&status))
                }))
            && is(&self.id, Some(&record.id))
            && is(&self.request_id, record.request_id.as_deref())
            && is(&self.trace_id, record.trace_id.as_deref())
            && least(self.min_ttft, record.ttft)
            && least(self.min_duration, record.duration)
    }
}

fn fits(pattern: Option<&Pattern>, name: &str) -> bool {
    pattern.is_none_or(|pattern| pattern.matches(name))
}

fn among<T: PartialEq>(wanted: &[T], known: Option<T>) -> bool {
    wanted.is_empty() || known.is_some_and(|known| wanted.contains(&known))
}
