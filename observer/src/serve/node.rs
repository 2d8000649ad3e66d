//! What one node answers: by the requests that it remembers, and by those that end from now on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::past::{deadline, follow_rows, in_files, lacks, stored};
use super::requests::RequestFeed;
use super::rows::{LogFiles, RowFeed};
use super::{Api, Lines, Question};
use crate::recent::{Asked, Finished, Order, Partial, Position, Query, Running, Trailer, Usual, select, top};
use crate::store::Store;
use crate::timeline::Kind;

/// Requests of this node that have not ended.
pub type RunningNow = Arc<dyn Fn() -> Vec<Running> + Send + Sync>;

/// The API of one node.
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
    fn requests(&self, question: Question) -> BoxFuture<'static, Lines> {
        let (feed, node, now) = (self.feed.clone(), self.node.clone(), (self.wall)());
        let (query, store) = (question.query, self.store.clone());
        if query.follow {
            return blocking(move || follow(&feed, &node, query, now));
        }
        searching(move || past(&feed, store.as_ref(), &node, &query, now))
    }

    fn top(&self, question: Question) -> BoxFuture<'static, Lines> {
        let (feed, node, now) = (self.feed.clone(), self.node.clone(), (self.wall)());
        let running = Arc::clone(&self.running);
        blocking(move || {
            let (all, complete_since) = feed.all();
            let (rows, trailer) = top(&all, complete_since, &running(), &node, &question.query, now);
            let rows = rows.into_iter().filter_map(|row| line(&row));
            stream::iter(rows.chain(line(&trailer))).boxed()
        })
    }

    fn rows(&self, asked: Asked, question: Question) -> BoxFuture<'static, Lines> {
        let (feed, node, now) = (self.rows.clone(), self.node.clone(), (self.wall)());
        let (store, stores_logs, query) = (self.store.clone(), self.stores_logs, question.query);
        let (files, requests) = (self.files.clone(), self.feed.clone());
        let is_followed = query.follow;
        let answer = move || {
            let is_kept = stores_logs || !query.is_about_kind(Kind::Log);
            match store.filter(|_| is_kept) {
                _ if asked == Asked::Logs && !stores_logs => {
                    let knew = |pod: &str| requests.all().0.iter().any(|finished| finished.record.pod == pod);
                    in_files(&files, &node, query, now, knew)
                }
                store if query.follow => follow_rows(&feed, store.as_ref(), &node, query, now),
                Some(store) => stored(&store, &node, &query, now),
                None => nothing(&node, "keeps nothing: see store.enabled and store.path"),
            }
        };
        if is_followed { blocking(answer) } else { searching(answer) }
    }
}

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

fn past(feed: &RequestFeed, store: Option<&Store>, node: &str, query: &Query, now: i64) -> Lines {
    let (all, complete_since) = feed.all();
    let selected = select(&all, complete_since, node, query, now);
    // What is usual is told by what is remembered.
    let reaches_back = query.window(now).0 < complete_since && query.since.is_some() && !query.slow;
    if let Some(store) = store.filter(|_| reaches_back) {
        return past_and_before(store, &selected.requests, selected.trailer.next.is_some(), node, query, now);
    }
    let trailer = line(&selected.trailer);
    let lines = selected.requests.into_iter().filter_map(|finished| line(&finished.record));
    stream::iter(lines.chain(trailer)).boxed()
}

/// Requests that are remembered, with those that are only stored.
fn past_and_before(
    store: &Store,
    remembered: &[Arc<Finished>],
    is_cut: bool,
    node: &str,
    query: &Query,
    now: i64,
) -> Lines {
    let found = store.search(query, now, deadline());
    let mut trailer = Trailer { partial: lacks(store, &found, node, query, now), next: None };
    let is_cut = is_cut || found.next.is_some();
    let mut all: Vec<(Position, Option<Bytes>)> =
        remembered.iter().map(|finished| (finished.position.clone(), line(&finished.record))).collect();
    let stored = found
        .rows
        .into_iter()
        .filter_map(|row| Some((Position::of_row(&row), line(row.request.as_deref()?))));
    all.extend(stored);
    all.sort_by(|a, b| match query.order {
        Order::Newest => b.0.cmp(&a.0),
        Order::Oldest => a.0.cmp(&b.0),
    });
    // Most of what is remembered is stored, too.
    all.dedup_by(|a, b| a.0 == b.0);
    if is_cut || all.len() > query.limit() {
        all.truncate(query.limit());
        trailer.next = all.last().map(|(last, _)| last.to_string());
    }
    stream::iter(all.into_iter().filter_map(|(_, line)| line).chain(line(&trailer))).boxed()
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
