//! Lines and events: those that are stored, those that stand in files, and those that come.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::broadcast::error::RecvError;

use super::Lines;
use super::node::line;
use super::rows::{LogFiles, RowFeed};
use crate::capture::monotonic;
use crate::lines::Redactor;
use crate::logs::{Searched, Tail, search};
use crate::recent::{Hits, MOST, Order, PATIENCE, Partial, Position, Query, Trailer};
use crate::store::{Found, Store};
use crate::timeline::{Row, time_text};

/// Between looks at files that are followed.
const LOOK: Duration = Duration::from_millis(250);

/// What an answer of the store lacks.
pub(super) fn lacks(store: &Store, found: &Found, node: &str, query: &Query, now: i64) -> Vec<Partial> {
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

/// Rows beside one are looked for within this at first, nanoseconds: mostly they are there, and little has to be read.
const NEAR: i64 = 60_000_000_000;

/// When an answer that is looked for now has to be there, on the monotonic clock in nanoseconds.
pub(super) fn deadline() -> u64 {
    monotonic() + PATIENCE
}

/// Lines or events that are stored.
pub(super) fn stored(store: &Store, node: &str, query: &Query, now: i64) -> Lines {
    let end = deadline();
    if let Some(span) = query.bucket {
        let (spans, found) = store.hits(query, span, now, end);
        return hits(spans, node, lacks(store, &found, node, query, now));
    }
    let found = store.search(query, now, end);
    let next = found.next.as_ref().map(ToString::to_string);
    let partial = lacks(store, &found, node, query, now);
    let search = |beside: &Query| store.search(beside, now, end).rows;
    answer(with_context(found.rows, query, end, search), node, partial, next)
}

/// Rows, with those beside them; the latter may be missing.
fn answer(
    (rows, lacks_context): (Vec<Row>, bool),
    node: &str,
    mut partial: Vec<Partial>,
    next: Option<String>,
) -> Lines {
    if lacks_context {
        let reason = "was asked for too much: lines beside those found are missing".to_owned();
        partial.push(Partial { node: node.to_owned(), reason });
    }
    let trailer = line(&Trailer { partial, next });
    stream::iter(rows.into_iter().filter_map(|row| line(&row)).chain(trailer).collect::<Vec<_>>()).boxed()
}

/// Rows with those beside them in the same container, in the order of the question, each once; and whether the time was
/// not enough.
fn with_context(
    rows: Vec<Row>,
    query: &Query,
    end: u64,
    search: impl Fn(&Query) -> Vec<Row>,
) -> (Vec<Row>, bool) {
    if query.context == 0 {
        return (rows, false);
    }
    let mut all: BTreeMap<Position, Row> = BTreeMap::new();
    for row in rows {
        for order in [Order::Newest, Order::Oldest] {
            let mut found = Vec::new();
            for within in [NEAR, i64::MAX] {
                if found.len() < query.context && monotonic() < end {
                    found = search(&Query::beside(&row, query.context, order, within));
                }
            }
            for mut beside in found {
                beside.context = true;
                all.entry(Position::of_row(&beside)).or_insert(beside);
            }
        }
        all.insert(Position::of_row(&row), row);
    }
    let rows = all.into_values();
    let rows = match query.order {
        Order::Newest => rows.rev().collect(),
        Order::Oldest => rows.collect(),
    };
    (rows, monotonic() >= end)
}

/// Lines and events as they come.
pub(super) fn follow_rows(
    feed: &RowFeed,
    store: Option<&Store>,
    node: &str,
    query: Query,
    now: i64,
) -> Lines {
    // First, so that nothing falls between what is stored and what comes.
    let live = feed.follow();
    let mut before = Vec::new();
    let mut last = None;
    if let (true, Some(store)) = (query.since.is_some(), store) {
        let mut everything = query.clone();
        (everything.order, everything.limit) = (Order::Oldest, Some(MOST));
        let found = store.search(&everything, now, deadline());
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

/// Counts by spans, oldest first: of so many as an answer may have lines, the newest.
fn hits(mut spans: BTreeMap<i64, u64>, node: &str, mut partial: Vec<Partial>) -> Lines {
    if spans.len() > MOST {
        let first = *spans.keys().nth(spans.len() - MOST).unwrap_or(&i64::MIN);
        spans = spans.split_off(&first);
        let reason = format!("was asked for too many spans: those since {:.0} are told", time_text(first));
        partial.push(Partial { node: node.to_owned(), reason });
    }
    let trailer = Trailer { partial, next: None };
    let lines = spans
        .into_iter()
        .filter_map(|(time, hits)| line(&Hits { time: time_text(time), node: node.to_owned(), hits }));
    stream::iter(lines.chain(line(&trailer)).collect::<Vec<_>>()).boxed()
}

/// Lines that are looked for in the files themselves. `knew` tells whether a pod was seen to serve.
pub(super) fn in_files(
    files: &LogFiles,
    node: &str,
    query: Query,
    now: i64,
    knew: impl Fn(&str) -> bool,
) -> Lines {
    if query.follow {
        return follow_files(files.clone(), query, now);
    }
    let (sources, redactor, end) = ((files.sources)(), Redactor::new(files.redacts), deadline());
    let Searched { rows, next, spans, unfinished, unreadable, logs } =
        search(&sources, &query, (now, end), &redactor);
    let mut reasons = Vec::new();
    if unfinished > 0 {
        reasons.push(format!("was asked for too much: {unfinished} logs were not looked through to the end"));
    }
    if unreadable > 0 {
        reasons.push(format!("has {unreadable} files of logs that cannot be read"));
    }
    if let Some(pod) = query.exact().pod.filter(|pod| logs == 0 && knew(pod)) {
        reasons.push(format!("had pod {pod}, whose logs are gone with it"));
    }
    let partial = reasons.into_iter().map(|reason| Partial { node: node.to_owned(), reason }).collect();
    if query.bucket.is_some() {
        return hits(spans, node, partial);
    }
    let beside = |beside: &Query| search(&sources, beside, (now, end), &redactor).rows;
    answer(with_context(rows, &query, end, beside), node, partial, next.map(|next| next.to_string()))
}

/// What is written to files from now on.
fn follow_files(files: LogFiles, query: Query, now: i64) -> Lines {
    let tail = Tail::from_now_on(&(files.sources)(), files.redacts, now);
    let open = Some((tail, files, query));
    stream::unfold(open, async |open| {
        let (mut tail, mut files, query) = open?;
        loop {
            tokio::time::sleep(LOOK).await;
            let look = move || {
                let mut rows = Vec::new();
                tail.turn(&(files.sources)(), (files.wall)(), &mut rows);
                (tail, files, rows)
            };
            let rows;
            // It has panicked if it failed: the stream ends then.
            (tail, files, rows) = tokio::task::spawn_blocking(look).await.ok()?;
            let lines: Vec<_> = rows.iter().filter(|row| query.matches_row(row)).filter_map(line).collect();
            if !lines.is_empty() {
                return Some((lines, Some((tail, files, query))));
            }
        }
    })
    // Each on its own: who may see it is decided line by line.
    .flat_map(stream::iter)
    .boxed()
}
