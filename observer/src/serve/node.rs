//! What one node answers: by the requests that it remembers, and by those that end from now on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::explained::explained;
use super::past::{deadline, follow_rows, in_files, lacks, stored};
use super::requests::RequestFeed;
use super::rows::{LogFiles, RowFeed};
use super::{Api, Lines, Question};
use crate::exchange::RequestRecord;
use crate::recent::{Asked, Finished, Order, Partial, Position, Query, Running, Trailer, Usual, select, top};
use crate::store::Store;
use crate::timeline::Kind;

/// Requests of this node that have not ended.
pub type RunningNow = Arc<dyn Fn() -> Vec<Running> + Send + Sync>;

/// The API of one node.
#[derive(Clone)]
pub struct NodeApi {
    /// Its name.
    pub node: String,
    /// Its requests.
    pub feed: RequestFeed,
    /// Those that have not ended.
    pub running: RunningNow,
    /// Lines and events.
    pub rows: RowFeed,
    /// What happened before, if it is kept.
    pub store: Option<Store>,
    /// Whether lines of logs are among it.
    pub stores_logs: bool,
    /// Where they are looked for if not.
    pub files: LogFiles,
    /// The wall clock in nanoseconds since 1970.
    pub wall: fn() -> i64,
}

impl Api for NodeApi {
    fn answer(&self, asked: Asked, question: Question) -> BoxFuture<'static, Lines> {
        let (api, query, now) = (self.clone(), question.query, (self.wall)());
        let is_brief = query.follow || asked == Asked::Top;
        let answer = move || match asked {
            Asked::Requests if query.follow => follow(&api.feed, &api.node, query, now),
            Asked::Requests => {
                let (requests, trailer) = api.past(&query, now);
                let lines = requests.iter().filter_map(|told| line(told.record()));
                stream::iter(lines.chain(line(&trailer)).collect::<Vec<_>>()).boxed()
            }
            Asked::Top => api.top(&query, now),
            Asked::Logs | Asked::Events => api.rows(asked, query, now),
            Asked::Explain => explained(&api, &query, now),
        };
        if is_brief { blocking(answer) } else { searching(answer) }
    }
}

/// A request that answers a question.
pub(super) enum Told {
    /// One that is remembered.
    Remembered(Arc<Finished>),
    /// One that is only stored.
    Stored(Box<RequestRecord>),
}

impl Told {
    /// What is known of it.
    pub(super) fn record(&self) -> &RequestRecord {
        match self {
            Self::Remembered(finished) => &finished.record,
            Self::Stored(record) => record,
        }
    }
}

impl NodeApi {
    fn top(&self, query: &Query, now: i64) -> Lines {
        let (all, complete_since) = self.feed.all();
        let (rows, trailer) = top(&all, complete_since, &(self.running)(), &self.node, query, now);
        let rows = rows.into_iter().filter_map(|row| line(&row));
        stream::iter(rows.chain(line(&trailer))).boxed()
    }

    fn rows(&self, asked: Asked, query: Query, now: i64) -> Lines {
        let is_kept = self.stores_logs || !query.is_about_kind(Kind::Log);
        match self.store.as_ref().filter(|_| is_kept) {
            _ if asked == Asked::Logs && !self.stores_logs => {
                let knew = |pod: &str| self.feed.all().0.iter().any(|finished| finished.record.pod == pod);
                in_files(&self.files, &self.node, query, now, knew)
            }
            store if query.follow => follow_rows(&self.rows, store, &self.node, query, now),
            Some(store) => stored(store, &self.node, &query, now),
            None => nothing(&self.node, KEEPS_NOTHING),
        }
    }

    /// Requests that ended: those that are remembered and, further back, those that are only stored.
    pub(super) fn past(&self, query: &Query, now: i64) -> (Vec<Told>, Trailer) {
        let (all, complete_since) = self.feed.all();
        let selected = select(&all, complete_since, &self.node, query, now);
        let remembered = selected.requests.into_iter().map(Told::Remembered);
        // What is usual is told by what is remembered.
        let reaches_back = query.window(now).0 < complete_since && query.since.is_some()
            || query.names_one() && remembered.len() == 0;
        match self.store.as_ref().filter(|_| reaches_back && !query.slow) {
            Some(store) => {
                let is_cut = selected.trailer.next.is_some();
                past_and_before(store, remembered, is_cut, &self.node, query, now)
            }
            None => (remembered.collect(), selected.trailer),
        }
    }
}

/// Why nothing is told of what happened.
pub(super) const KEEPS_NOTHING: &str = "keeps nothing: see store.enabled and store.path";

/// An answer that has nothing but a reason.
pub(super) fn nothing(node: &str, reason: &str) -> Lines {
    let partial = vec![Partial { node: node.to_owned(), reason: reason.to_owned() }];
    stream::iter(line(&Trailer { partial, next: None })).boxed()
}

/// Does what takes a while beside the thread that serves.
fn blocking(answer: impl FnOnce() -> Lines + Send + 'static) -> BoxFuture<'static, Lines> {
    let answer = tokio::task::spawn_blocking(answer);
    // It has panicked if it failed: the answer has no trailer then, which tells.
    async { answer.await.unwrap_or_else(|_panic| stream::empty().boxed()) }.boxed()
}

/// The same, while the answer has begun: whoever asks knows at once that somebody is there.
fn searching(answer: impl FnOnce() -> Lines + Send + 'static) -> BoxFuture<'static, Lines> {
    let lines: Lines = stream::once(blocking(answer)).flatten().boxed();
    ready(lines).boxed()
}

/// Requests that are remembered, with those that are only stored.
fn past_and_before(
    store: &Store,
    remembered: impl Iterator<Item = Told>,
    is_cut: bool,
    node: &str,
    query: &Query,
    now: i64,
) -> (Vec<Told>, Trailer) {
    let found = store.search(query, now, deadline());
    let mut trailer = Trailer { partial: lacks(store, &found, node, query, now), next: None };
    let is_cut = is_cut || found.next.is_some();
    let stored = found.rows.into_iter().filter_map(|row| row.request.map(Told::Stored));
    // Those that are remembered come first and stay where both are the same.
    let mut all: Vec<(Position, Told)> =
        remembered.chain(stored).filter_map(|told| Some((Position::of(told.record())?, told))).collect();
    all.sort_by(|(a, _), (b, _)| match query.order {
        Order::Newest => b.cmp(a),
        Order::Oldest => a.cmp(b),
    });
    // Most of what is remembered is stored, too.
    all.dedup_by(|a, b| a.0 == b.0);
    if is_cut || all.len() > query.limit() {
        all.truncate(query.limit());
        trailer.next = all.last().map(|(last, _)| last.to_string());
    }
    (all.into_iter().map(|(_, told)| told).collect(), trailer)
}

/// What ended since the time that is asked for, if one is, and then what ends. What is slow is told by what is known at
/// the beginning.
fn follow(feed: &RequestFeed, node: &str, query: Query, now: i64) -> Lines {
    // First, so that nothing falls between what is remembered and what comes.
    let live = feed.follow();
    let (all, complete_since) = feed.all();
    let usual = query.slow.then(|| Usual::of(all.iter().map(|finished| &finished.record)));
    let mut seen = None;
    let mut before = Vec::new();
    if query.since.is_some() {
        seen = all.first().map(|newest| newest.sequence);
        let mut everything = query.clone();
        (everything.order, everything.limit) = (Order::Oldest, Some(usize::MAX));
        let selected = select(&all, complete_since, node, &everything, now);
        before.extend(
            Some(selected.trailer).filter(|told| *told != Trailer::default()).and_then(|told| line(&told)),
        );
        before.extend(selected.requests.iter().filter_map(|finished| line(&finished.record)));
    }
    let open = (live, query, usual, seen);
    let lines = stream::unfold(open, async |(mut live, query, usual, seen)| {
        let line = loop {
            match live.recv().await {
                Ok(finished) => {
                    let record = &finished.record;
                    let is_new = seen.is_none_or(|seen| finished.sequence > seen);
                    let is_slow = usual.as_ref().is_none_or(|usual| usual.is_slow(record));
                    if is_new
                        && is_slow
                        && query.matches(record)
                        && let Some(line) = line(record)
                    {
                        break line;
                    }
                }
                Err(RecvError::Lagged(missed)) => break Bytes::from(format!("{{\"lagged\":{missed}}}\n")),
                Err(RecvError::Closed) => return None,
            }
        };
        Some((line, (live, query, usual, seen)))
    });
    stream::iter(before).chain(lines).boxed()
}

/// A line of an answer.
pub(crate) fn line(value: &impl Serialize) -> Option<Bytes> {
    match serde_json::to_vec(value) {
        Ok(mut line) => {
            line.push(b'\n');
            Some(Bytes::from(line))
        }
        Err(error) => {
            tracing::warn!(%error, "a line of an answer cannot be written as JSON");
            None
        }
    }
}
