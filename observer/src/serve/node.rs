//! What one node answers: by the requests that it remembers, and by those that end from now on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::requests::RequestFeed;
use super::rows::RowFeed;
use super::{Api, Lines, Question};
use crate::recent::{Asked, Finished, Order, Partial, Position, Query, Running, Trailer, Usual, select, top};
use crate::store::{Found, Store};
use crate::timeline::{Kind, Row, time_text};

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
    /// The wall clock in nanoseconds since 1970.
    pub wall: fn() -> i64,
}

impl Api for NodeApi {
    fn requests(&self, question: Question) -> BoxFuture<'static, Lines> {
        let (feed, node, now) = (self.feed.clone(), self.node.clone(), (self.wall)());
        let (query, store) = (question.query, self.store.clone());
        blocking(move || {
            if query.follow {
                follow(&feed, &node, query, now)
            } else {
                past(&feed, store.as_ref(), &node, &query, now)
            }
        })
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
        blocking(move || {
            let is_kept = stores_logs || !query.is_about_kind(Kind::Log);
            match store.filter(|_| is_kept) {
                _ if asked == Asked::Logs && !stores_logs => {
                    nothing(&node, "keeps no lines of logs: see logs.store and store.enabled")
                }
                store if query.follow => follow_rows(&feed, store.as_ref(), &node, query, now),
                Some(store) => stored(&store, &node, &query, now),
                None => nothing(&node, "keeps nothing: see store.enabled and store.path"),
            }
        })
    }
}

/// An answer that has nothing but a reason.
fn nothing(node: &str, reason: &str) -> Lines {
    let partial = vec![Partial { node: node.to_owned(), reason: reason.to_owned() }];
    stream::iter(line(&Trailer { partial, next: None })).boxed()
}

/// Does what takes a while beside the thread that serves.
fn blocking(answer: impl FnOnce() -> Lines + Send + 'static) -> BoxFuture<'static, Lines> {
    let answer = tokio::task::spawn_blocking(answer);
    // It has panicked if it failed: the answer has no trailer then, which tells.
    async { answer.await.unwrap_or_else(|_panic| stream::empty().boxed()) }.boxed()
}

fn past(feed: &RequestFeed, store: Option<&Store>, node: &str, query: &Query, now: i64) -> Lines {
    let (all, complete_since) = feed.all();
    let selected = select(&all, complete_since, node, query, now);
    // What is usual is told by what is remembered.
    let reaches_back = query.window(now).0 < complete_since && query.since.is_some() && !query.slow;
    if let Some(store) = store.filter(|_| reaches_back) {
        return past_and_before(store, selected.requests, selected.trailer.next.is_some(), node, query, now);
    }
    let trailer = line(&selected.trailer);
    let lines = selected.requests.into_iter().filter_map(|finished| line(&finished.record));
    stream::iter(lines.chain(trailer)).boxed()
}

/// Requests that are remembered, with those that are only stored.
fn past_and_before(
    store: &Store,
    remembered: Vec<Arc<Finished>>,
    is_cut: bool,
    node: &str,
    query: &Query,
    now: i64,
) -> Lines {
    let found = store.search(query, now);
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

/// What an answer of the store lacks.
fn lacks(store: &Store, found: &Found, node: &str, query: &Query, now: i64) -> Vec<Partial> {
    let mut reasons = Vec::new();
    if let Some(reached) = found.reached {
        reasons.push(format!("was asked for too much: the answer reaches to {:.0} only", time_text(reached)));
    }
    let counts = store.counts();
    if found.damaged > 0 || counts.set_aside > 0 {
        reasons.push("has a part of its store that is damaged and set aside".to_owned());
    }
    let since = query.window(now).0;
    let is_old = query.since.is_some() && since < store.complete_since();
    // What is missing is older than all that is there, so a full page of the newest lacks nothing.
    if is_old && !(found.next.is_some() && query.order == Order::Newest) {
        let since = time_text(store.complete_since());
        reasons.push(format!("tells of what happened since {since:.0} only"));
    }
    reasons.into_iter().map(|reason| Partial { node: node.to_owned(), reason }).collect()
}

/// How often something happened in a span of time.
#[derive(Serialize)]
struct Hits<'a> {
    /// Where the span begins.
    time: String,
    node: &'a str,
    /// Tells the spans of one time and node apart: there is one.
    id: &'a str,
    hits: u64,
}

/// Lines or events that are stored.
fn stored(store: &Store, node: &str, query: &Query, now: i64) -> Lines {
    if let Some(span) = query.bucket {
        let (spans, found) = store.hits(query, span, now);
        let trailer = Trailer { partial: lacks(store, &found, node, query, now), next: None };
        let lines = spans.into_iter().filter_map(|(time, hits)| {
            line(&Hits { time: time_text(time).to_string(), node, id: "hits", hits })
        });
        return stream::iter(lines.chain(line(&trailer)).collect::<Vec<_>>()).boxed();
    }
    let found = store.search(query, now);
    let next = found.next.as_ref().map(ToString::to_string);
    let trailer = Trailer { partial: lacks(store, &found, node, query, now), next };
    let rows = if query.context > 0 { with_context(store, found.rows, query, now) } else { found.rows };
    stream::iter(rows.into_iter().filter_map(|row| line(&row)).chain(line(&trailer))).boxed()
}

/// Rows with those beside them in the same container, in the order of the question, each once.
fn with_context(store: &Store, rows: Vec<Row>, query: &Query, now: i64) -> Vec<Row> {
    let mut all: std::collections::BTreeMap<Position, Row> = std::collections::BTreeMap::new();
    for row in rows {
        for order in [Order::Newest, Order::Oldest] {
            let beside = Query::beside(&row, query.context, order);
            for mut beside in store.search(&beside, now).rows {
                beside.context = true;
                all.entry(Position::of_row(&beside)).or_insert(beside);
            }
        }
        all.insert(Position::of_row(&row), row);
    }
    let rows = all.into_values();
    match query.order {
        Order::Newest => rows.rev().collect(),
        Order::Oldest => rows.collect(),
    }
}

/// Lines and events as they come.
fn follow_rows(feed: &RowFeed, store: Option<&Store>, node: &str, query: Query, now: i64) -> Lines {
    // First, so that nothing falls between what is stored and what comes.
    let live = feed.follow();
    let mut before = Vec::new();
    let mut last = None;
    if let (true, Some(store)) = (query.since.is_some(), store) {
        let mut everything = query.clone();
        (everything.order, everything.limit) = (Order::Oldest, Some(crate::recent::MOST));
        let found = store.search(&everything, now);
        let partial = lacks(store, &found, node, &everything, now);
        before.extend((!partial.is_empty()).then(|| line(&Trailer { partial, next: None })).flatten());
        last = found.rows.last().map(Position::of_row);
        before.extend(found.rows.iter().filter_map(line));
    }
    let open = (live, query, last);
    let lines = stream::unfold(open, async |(mut live, query, last)| {
        let line = loop {
            match live.recv().await {
                Ok(row) => {
                    let is_new = last.as_ref().is_none_or(|last| Position::of_row(&row) > *last);
                    if is_new
                        && query.matches_row(&row)
                        && let Some(line) = line(&*row)
                    {
                        break line;
                    }
                }
                Err(RecvError::Lagged(missed)) => break Bytes::from(format!("{{\"lagged\":{missed}}}\n")),
                Err(RecvError::Closed) => return None,
            }
        };
        Some((line, (live, query, last)))
    });
    stream::iter(before).chain(lines).boxed()
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
