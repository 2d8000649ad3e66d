//! A question about finished requests: which, since when, in which order, how many.

use super::pattern::Pattern;
use super::position::Position;
use crate::exchange::{Operation, Outcome, RequestRecord};
use crate::timeline::{Kind, Level, Row, Stream, Wanted};

/// Requests in an answer unless another number is asked for.
pub(super) const USUAL: usize = 100;

/// Most requests in an answer: a cluster's holds so many at a time.
pub const MOST: usize = 5000;

/// How long a search for one answer may take, nanoseconds: what was found by then is told, and that it is not all.
pub const PATIENCE: u64 = 10_000_000_000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Requests.
    Requests,
    /// Who is served how.
    Top,
    /// Lines of logs.
    Logs,
    /// Events, and whatever else is asked for beside them.
    Events,
    /// Why requests took as long as they did, or failed.
    Explain,
}

impl Asked {
    /// Kinds of rows that are meant unless others are asked for.
    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Requests | Self::Top | Self::Explain => &[Kind::Request],
            Self::Logs => &[Kind::Log],
            Self::Events => &Kind::EVENTS,
        }
    }
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
    /// Any of the names of a request.
    pub(super) request: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) trace_id: Option<String>,
    /// At least so many seconds to the first token.
    pub(super) min_ttft: Option<f64>,
    /// At least so many seconds from beginning to end.
    pub(super) min_duration: Option<f64>,
    /// Those that were slower than promised, or else than is usual.
    pub slow: bool,
    /// Rows of these kinds.
    pub(super) kinds: Vec<Kind>,
    pub(super) workload: Option<Pattern>,
    /// One of these, unless empty.
    pub(super) levels: Vec<Level>,
    pub(super) stream: Option<Stream>,
    /// What the message of a row holds.
    pub wanted: Wanted,
    /// So many rows of the same container before and after each.
    pub context: usize,
    /// How many there are in each of these spans, in nanoseconds, in place of the rows.
    pub bucket: Option<i64>,
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

    /// The same question without conditions, about rows of what is asked for.
    pub(super) fn about(asked: Asked) -> Self {
        Self { kinds: asked.kinds().to_vec(), ..Self::default() }
    }

    /// About so many lines of the same container next to one, in this order, and no further from it than this.
    pub fn beside(row: &Row, rows: usize, order: Order, within: i64) -> Self {
        let name = |name: &str| Some(Pattern::literal(name));
        let bound = |is_it: bool, time| is_it.then_some(Moment::At(time));
        Self {
            since: bound(order == Order::Newest, row.time.saturating_sub(within)),
            until: bound(order == Order::Oldest, row.time.saturating_add(within)),
            namespace: name(&row.namespace),
            pod: name(&row.pod),
            container: name(&row.container),
            cursor: Some(Position::of_row(row)),
            limit: Some(rows),
            order,
            ..Self::about(Asked::Logs)
        }
    }

    /// About the newest rows of these kinds and levels from one time to another; of this pod, if one is meant.
    pub fn between(
        (from, until): (i64, i64),
        limit: usize,
        kinds: &[Kind],
        levels: &[Level],
        pod: Option<(&str, &str)>,
    ) -> Self {
        Self {
            since: Some(Moment::At(from)),
            until: Some(Moment::At(until)),
            limit: Some(limit),
            kinds: kinds.to_vec(),
            levels: levels.to_vec(),
            namespace: pod.map(|(namespace, _)| Pattern::literal(namespace)),
            pod: pod.map(|(_, pod)| Pattern::literal(pod)),
            ..Self::default()
        }
    }

    /// The same, of what names this request.
    #[must_use]
    pub fn naming(mut self, request_id: &str) -> Self {
        self.request_id = Some(request_id.to_owned());
        self
    }

    /// Whether it is about one request by a name of its.
    pub fn names_one(&self) -> bool {
        [&self.id, &self.request, &self.request_id].into_iter().any(Option::is_some)
    }

    /// Whether it is about rows of this kind.
    pub fn is_about_kind(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The same about fewer kinds; none if none of them is left.
    pub fn only(&self, is_wanted: impl Fn(Kind) -> bool) -> Option<Self> {
        let kinds: Vec<_> = self.kinds.iter().copied().filter(|kind| is_wanted(*kind)).collect();
        (!kinds.is_empty()).then(|| Self { kinds, ..self.clone() })
    }

    /// Kinds that it is about.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The time from which and the time up to which it is about, nanoseconds since 1970.
    pub fn window(&self, now: i64) -> (i64, i64) {
        let [since, until] =
            [self.since, self.until].map(|moment| moment.map(|moment| moment.seen_from(now)));
        (since.unwrap_or(i64::MIN), until.unwrap_or(i64::MAX))
    }

    /// Whether something at this place comes after the page before.
    pub fn is_beyond_cursor(&self, position: &Position) -> bool {
        match (&self.cursor, self.order) {
            (None, _) => true,
            (Some(cursor), Order::Newest) => position < cursor,
            (Some(cursor), Order::Oldest) => position > cursor,
        }
    }

    /// Names that it asks for exactly, so that an index can be asked for them.
    pub fn exact(&self) -> Exact<'_> {
        Exact {
            namespace: self.namespace.as_ref().and_then(Pattern::exact),
            pod: self.pod.as_ref().and_then(Pattern::exact),
            container: self.container.as_ref().and_then(Pattern::exact),
            request_id: self.request_id.as_deref(),
            trace_id: self.trace_id.as_deref(),
        }
    }

    /// Whether it is about rows of this container.
    pub fn is_about_container(&self, namespace: &str, pod: &str, container: &str, workload: &str) -> bool {
        fits(self.namespace.as_ref(), namespace)
            && fits(self.pod.as_ref(), pod)
            && fits(self.container.as_ref(), container)
            && fits(self.workload.as_ref(), workload)
    }

    /// Whether a row meets its conditions, but for time. A request has to meet those about requests, too.
    pub fn matches_row(&self, row: &Row) -> bool {
        let is = |wanted: &Option<String>, known: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| known == Some(wanted))
        };
        let told = match &row.request {
            Some(record) => self.matches(record),
            None => {
                is(&self.id, Some(&row.id))
                    && is(&self.request_id, row.request_id.as_deref())
                    && is(&self.trace_id, row.trace_id.as_deref())
            }
        };
        told && self.is_about_kind(row.kind)
            && self.is_about_node(&row.node)
            && self.is_about_container(&row.namespace, &row.pod, &row.container, &row.workload)
            && among(&self.levels, row.level)
            && self.stream.is_none_or(|stream| row.stream == Some(stream))
            && self.wanted.is_met_by(&row.message)
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
            && self.request.as_deref().is_none_or(|name| is_called(record, name))
            && least(self.min_ttft, record.ttft)
            && least(self.min_duration, record.duration)
    }
}

/// Names that are asked for as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exact<'a> {
    /// Namespace.
    pub namespace: Option<&'a str>,
    /// Pod.
    pub pod: Option<&'a str>,
    /// Container.
    pub container: Option<&'a str>,
    /// Id of a request.
    pub request_id: Option<&'a str>,
    /// Trace.
    pub trace_id: Option<&'a str>,
}

/// Whether a request has this id of the observer's, of the client's or of the engine's.
fn is_called(record: &RequestRecord, name: &str) -> bool {
    record.id == name || [&record.request_id, &record.response_id].into_iter().flatten().any(|id| id == name)
}

fn fits(pattern: Option<&Pattern>, name: &str) -> bool {
    pattern.is_none_or(|pattern| pattern.matches(name))
}

fn among<T: PartialEq>(wanted: &[T], known: Option<T>) -> bool {
    wanted.is_empty() || known.is_some_and(|known| wanted.contains(&known))
}
