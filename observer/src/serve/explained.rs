//! Why requests took as long as they did: their node's memory and its store are asked for what is needed to tell.

use futures_util::{StreamExt as _, stream};

use super::Lines;
use super::node::{KEEPS_NOTHING, NodeApi, Told, line};
use super::past::deadline;
use crate::capture::monotonic;
use crate::exchange::RequestRecord;
use crate::explain::{Around, Case, Happening, Peers, explain, happenings};
use crate::lines::Redactor;
use crate::logs::search;
use crate::recent::{MOST, Partial, Query};
use crate::store::Store;
use crate::timeline::{Kind, Level, Row};

/// Rows of each kind that are looked at, the newest.
const ROWS: usize = 200;

/// Requests that ended so much earlier are compared with one that is only stored, nanoseconds.
const EARLIER: i64 = 3_600_000_000_000;

/// What is written when something is not as expected.
const BAD: [Level; 3] = [Level::Warn, Level::Error, Level::Fatal];

/// Explains the requests that a question is about.
pub(super) fn explained(api: &NodeApi, query: &Query, now: i64) -> Lines {
    let end = deadline();
    let (told, mut trailer) = api.past(query, now);
    let (all, _) = api.feed.all();
    let remembered = Peers::new(all.iter().map(|finished| &finished.record));
    let explain_one = |told: &Told| {
        let record = told.record();
        let happenings = around(api, record, (now, end));
        match (told, &api.store) {
            (Told::Stored(_), Some(store)) => {
                let stored = before(store, record, (now, end));
                let peers = Peers::new(stored.iter().chain([record]));
                line(&explain(&Case { record, peers: &peers, happenings: &happenings }))
            }
            _ => line(&explain(&Case { record, peers: &remembered, happenings: &happenings })),
        }
    };
    let lines: Vec<_> = told.iter().filter_map(explain_one).collect();
    let mut lacks = |reason: &str| {
        trailer.partial.push(Partial { node: api.node.clone(), reason: reason.to_owned() });
    };
    if monotonic() >= end {
        lacks("was asked for too much: not all that happened around these requests was looked for");
    }
    if api.store.is_none() {
        // What happened around a request is not known, then.
        lacks(KEEPS_NOTHING);
    }
    stream::iter(lines.into_iter().chain(line(&trailer))).boxed()
}

/// What happened around a request.
fn around(api: &NodeApi, record: &RequestRecord, (now, end): (i64, u64)) -> Vec<Happening> {
    let Some(around) = Around::of(record) else { return Vec::new() };
    let pod = (!record.pod.is_empty()).then_some((record.namespace.as_str(), record.pod.as_str()));
    let bad = Query::between(around.lines, ROWS, &[Kind::Log], &BAD, pod);
    let naming = record
        .request_id
        .as_deref()
        .map(|id| Query::between(around.lines, ROWS, &[Kind::Log], &[], pod).naming(id));
    let lines = [Some(bad), naming].into_iter().flatten();
    let mut rows: Vec<Row> = Vec::new();
    if let Some(store) = &api.store {
        let of_pod = Query::between(around.events, ROWS, &[Kind::Process, Kind::Kubernetes], &[], pod);
        let stalls = Query::between(around.events, ROWS, &[Kind::Stall], &[], pod).naming(&record.id);
        let own = Query::between(around.gpus, ROWS, &[Kind::Observer], &[], None);
        let gpus = Query::between(around.gpus, ROWS, &[Kind::Gpu], &[], None);
        for query in [of_pod, stalls, own, gpus] {
            rows.extend(store.search(&query, now, end).rows);
        }
        if api.stores_logs {
            lines.for_each(|query| rows.extend(store.search(&query, now, end).rows));
        } else {
            let (sources, redactor) = ((api.files.sources)(), Redactor::new(api.files.redacts));
            lines.for_each(|query| rows.extend(search(&sources, &query, (now, end), &redactor).rows));
        }
    }
    rows.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    rows.dedup_by(|a, b| a.id == b.id && a.time == b.time);
    happenings(&rows, record)
}

/// Requests that ended before and while one was in flight, newest first.
fn before(store: &Store, record: &RequestRecord, (now, end): (i64, u64)) -> Vec<RequestRecord> {
    let Some(around) = Around::of(record) else { return Vec::new() };
    let window = (around.events.0.saturating_sub(EARLIER), around.events.1);
    let found = store.search(&Query::between(window, MOST, &[Kind::Request], &[], None), now, end);
    let others = found.rows.into_iter().filter_map(|row| row.request);
    others.map(|other| *other).filter(|other| other.id != record.id).collect()
}
