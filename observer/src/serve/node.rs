//! What one node answers: by the requests that it remembers, and by those that end from now on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::requests::RequestFeed;
use super::{Api, Lines, Question};
use crate::recent::{Order, Query, Running, Trailer, Usual, select, top};

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
    /// The wall clock in nanoseconds since 1970.
    pub wall: fn() -> i64,
}

impl Api for NodeApi {
    fn requests(&self, question: Question) -> BoxFuture<'static, Lines> {
        let (feed, node, now) = (self.feed.clone(), self.node.clone(), (self.wall)());
        let query = question.query;
        blocking(move || {
            if query.follow { follow(&feed, &node, query, now) } else { past(&feed, &node, &query, now) }
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
}

/// Does what takes a while beside the thread that serves.
fn blocking(answer: impl FnOnce() -> Lines + Send + 'static) -> BoxFuture<'static, Lines> {
    let answer = tokio::task::spawn_blocking(answer);
    // It has panicked if it failed: the answer has no trailer then, which tells.
    async { answer.await.unwrap_or_else(|_panic| stream::empty().boxed()) }.boxed()
}

fn past(feed: &RequestFeed, node: &str, query: &Query, now: i64) -> Lines {
    let (all, complete_since) = feed.all();
    let selected = select(&all, complete_since, node, query, now);
    let trailer = line(&selected.trailer);
    let lines = selected.requests.into_iter().filter_map(|finished| line(&finished.record));
    stream::iter(lines.chain(trailer)).boxed()
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
