//! What is usual: other requests of the same kind, and which of them were in flight.

use super::parts::{Span, seconds};
use crate::exchange::{Outcome, RequestRecord};

/// Fewer others tell nothing of what is usual.
pub(super) const ENOUGH: usize = 5;

/// So many tell it well.
pub(super) const MANY: usize = 20;

/// Others that are compared with, at most: the newest.
const MOST: usize = 2_000;

/// A record with its place in time.
#[derive(Clone, Copy, Debug)]
struct Placed<'a> {
    record: &'a RequestRecord,
    /// Nanoseconds of the wall clock at its start and end.
    start: i64,
    end: i64,
}

/// Requests that a node remembers.
#[derive(Debug)]
pub struct Peers<'a>(Vec<Placed<'a>>);

/// Those that one is compared with.
#[derive(Debug)]
pub(super) struct Compared<'a> {
    /// Trusted ones of the same kind that ended well; the newest first.
    pub(super) records: Vec<&'a RequestRecord>,
    /// Most at a time of the same container that were in flight while it was.
    pub(super) beside: usize,
    /// The same for those that are compared with: the median.
    pub(super) usually_beside: usize,
    /// Whether any other was in flight in the container when it was asked for.
    pub(super) found_busy: bool,
    /// Whether any other was served by its process before it began.
    pub(super) found_warm: bool,
    /// Most at a time of other containers that were in flight on one of its GPUs while it was.
    pub(super) neighbours: usize,
    /// The same for those that are compared with: the median.
    pub(super) usual_neighbours: usize,
}

impl<'a> Peers<'a> {
    /// Of these requests, newest first.
    pub fn new(records: impl Iterator<Item = &'a RequestRecord>) -> Self {
        let place = |record: &'a RequestRecord| {
            let nanos = |text: &Option<String>| {
                let time: jiff::Timestamp = text.as_ref()?.parse().ok()?;
                i64::try_from(time.as_nanosecond()).ok()
            };
            let start = nanos(&record.started_at)?;
            let end = match record.clocks.response_end.or(record.client_left) {
                Some(end) => start + (end * 1e9) as i64,
                None => nanos(&record.ended_at)?,
            };
            Some(Placed { record, start, end })
        };
        Self(records.filter_map(place).collect())
    }

    /// How many others that are `meant` beside it were in flight at some time between these two.
    fn most(
        &self,
        one: &RequestRecord,
        (from, to): (i64, i64),
        meant: fn(&RequestRecord, &RequestRecord) -> bool,
    ) -> usize {
        let mut turns: Vec<(i64, i32)> = Vec::new();
        for other in self.0.iter().filter(|other| other.start < to && other.end > from) {
            if other.record.id != one.id && meant(other.record, one) {
                turns.extend([(other.start, 1), (other.end, -1)]);
            }
        }
        turns.sort_unstable();
        let (mut now, mut most) = (0_i32, 0_i32);
        for (_, turn) in turns {
            now += turn;
            most = most.max(now);
        }
        usize::try_from(most).unwrap_or(0)
    }

    /// Those of the kind of one.
    pub(super) fn of(&self, one: &RequestRecord) -> Compared<'a> {
        let is_usable = |other: &&Placed<'a>| {
            let other = other.record;
            other.id != one.id
                && other.is_complete()
                && other.outcome == Some(Outcome::Ok)
                && (other.model == one.model
                    && other.operation == one.operation
                    && other.stream == one.stream)
        };
        let all: Vec<Placed<'a>> = self.0.iter().filter(is_usable).take(MOST).copied().collect();
        let same: Vec<Placed<'a>> = all.iter().filter(|other| is_of(other.record, one)).copied().collect();
        let kind = if same.len() >= ENOUGH { same } else { all };
        let own = self.0.iter().find(|other| other.record.id == one.id && other.record.node == one.node);
        let usual = |meant| {
            let mut most: Vec<usize> = kind
                .iter()
                .take(MANY)
                .map(|one| self.most(one.record, (one.start, one.end), meant))
                .collect();
            most.sort_unstable();
            most.get(most.len() / 2).copied().unwrap_or(0)
        };
        let beside = |meant| own.map_or(0, |own| self.most(one, (own.start, own.end), meant));
        let asked = own.map(|own| own.start + (one.clocks.request_end.unwrap_or(0.0) * 1e9) as i64);
        Compared {
            records: kind.iter().map(|placed| placed.record).collect(),
            beside: beside(is_of),
            usually_beside: usual(is_of),
            found_busy: asked.is_some_and(|asked| self.most(one, (asked, asked + 1), is_of) > 0),
            found_warm: own.is_some_and(|own| {
                let is_earlier = |other: &Placed<'_>| {
                    other.record.pid == one.pid && other.record.node == one.node && other.end <= own.start
                };
                self.0.iter().any(is_earlier)
            }),
            neighbours: beside(shares_gpu),
            usual_neighbours: usual(shares_gpu),
        }
    }
}

/// Whether both were served by the same container, or outside of containers by the same process.
fn is_of(one: &RequestRecord, other: &RequestRecord) -> bool {
    one.pod == other.pod
        && one.container == other.container
        && one.namespace == other.namespace
        && one.node == other.node
        && (!one.pod.is_empty() || one.pid == other.pid)
}

/// Whether both used the same GPU from different containers.
fn shares_gpu(one: &RequestRecord, other: &RequestRecord) -> bool {
    !is_of(one, other)
        && one.node == other.node
        && one.gpu.iter().any(|gpu| other.gpu.iter().any(|other| other.uuid == gpu.uuid))
}

impl Compared<'_> {
    /// The median of a part.
    pub(super) fn usual(&self, span: Span) -> Option<f64> {
        self.median(|record| seconds(record, span))
    }

    /// The median of something, if enough have it.
    pub(super) fn median(&self, of: impl Fn(&RequestRecord) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.records.iter().filter_map(|record| of(record)).collect();
        if values.len() < ENOUGH {
            return None;
        }
        let middle = values.len() / 2;
        let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
        Some(*median)
    }

    /// What generating such an answer takes at the usual speed: answers differ in length. What comes before the first token
    /// has a part that does not depend on the prompt, so that nothing is told by its length.
    pub(super) fn expected(&self, record: &RequestRecord, span: Span) -> Option<f64> {
        match span {
            Span::Decode => {
                let rate = self.median(|other| Some(seconds(other, span)? / generated(other)?))?;
                Some(rate * generated(record)?.min(self.median(generated)?))
            }
            _ => None,
        }
    }
}

/// Prompt tokens that were not cached.
pub(super) fn prompt(record: &RequestRecord) -> Option<f64> {
    record.tokens.input.map(|tokens| tokens as f64)
}

/// Tokens after the first.
pub(super) fn generated(record: &RequestRecord) -> Option<f64> {
    record.tokens.output_total().filter(|tokens| *tokens > 1).map(|tokens| (tokens - 1) as f64)
}
