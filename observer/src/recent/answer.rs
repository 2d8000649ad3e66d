//! Which requests answer a question, and what an answer says of itself.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::memory::Finished;
use super::query::{Order, Query};
use super::usual::Usual;

/// The last line of an answer. A record has something `partial`, too, and more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trailer {
    /// What is missing in the answer; empty if nothing is.
    pub partial: Vec<Partial>,
    /// There are more: the value of `cursor` for the next question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How many rows there are in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hits {
    /// When the span begins. Spans are counted from 1970 on, so that those of all nodes are the same.
    pub time: Timestamp,
    /// On which node; empty if on all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// How many.
    pub hits: u64,
}

/// Something that is missing in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Of which node; empty if of all.
    pub node: String,
    /// Why, as it follows `node x`.
    pub reason: String,
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node.as_str() {
            "" => f.write_str(&self.reason),
            node => write!(f, "node {node} {}", self.reason),
        }
    }
}

impl Partial {
    /// What ended on this node before this time may be missing.
    pub(super) fn forgotten(node: &str, complete_since: i64) -> Self {
        // Only one of these times has another reading, and that not either.
        let since = Timestamp::from_nanosecond(complete_since.into()).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { node: node.to_owned(), reason: format!("tells of requests since {since:.0} only") }
    }
}

/// The answer of one node.
#[derive(Clone, Debug)]
pub struct Selected {
    /// In the order that was asked for.
    pub requests: Vec<Arc<Finished>>,
    /// What it says of itself.
    pub trailer: Trailer,
}

/// Answers by all that a node remembers. `complete_since` says since when that is everything.
pub fn select(all: &[Arc<Finished>], complete_since: i64, node: &str, query: &Query, now: i64) -> Selected {
    let since = query.since.map(|since| since.seen_from(now));
    let until = query.until.map(|until| until.seen_from(now));
    let in_window = |finished: &&Arc<Finished>| {
        let time = finished.position.time;
        since.is_none_or(|since| time >= since) && until.is_none_or(|until| time <= until)
    };
    let window: Vec<&Arc<Finished>> = all.iter().filter(in_window).collect();
    let usual = query.slow.then(|| Usual::of(window.iter().map(|finished| &finished.record)));
    let after = |finished: &Finished| match (&query.cursor, query.order) {
        (None, _) => true,
        (Some(cursor), Order::Newest) => finished.position < *cursor,
        (Some(cursor), Order::Oldest) => finished.position > *cursor,
    };
    let is_asked_for = |finished: &&Arc<Finished>| {
        after(finished)
            && query.matches(&finished.record)
            && usual.as_ref().is_none_or(|usual| usual.is_slow(&finished.record))
    };
    let mut requests: Vec<Arc<Finished>> = window.into_iter().filter(is_asked_for).cloned().collect();
    requests.sort_unstable_by(|a, b| match query.order {
        Order::Newest => b.position.cmp(&a.position),
        Order::Oldest => a.position.cmp(&b.position),
    });
    let is_cut = requests.len() > query.limit();
    requests.truncate(query.limit());
    let next = requests.last().filter(|_| is_cut).map(|last| last.position.to_string());
    // What is missing is older than all that is there, so a full page of the newest lacks nothing.
    let full = is_cut && query.order == Order::Newest;
    let forgotten = since.is_some_and(|since| since < complete_since) && !full;
    let partial = if forgotten { vec![Partial::forgotten(node, complete_since)] } else { Vec::new() };
    Selected { requests, trailer: Trailer { partial, next } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::RequestRecord;
    use crate::recent::{Asked, Recent};

    const SECOND: i64 = 1_000_000_000;

    /// Requests that ended at seconds 1 to 100, of which every tenth has another model and every 25th is slow.
    fn memory() -> Vec<Arc<Finished>> {
        let mut memory = Recent::new(1 << 20, 0);
        for n in 1..=100 {
            let record = RequestRecord {
                id: n.to_string(),
                node: "a".to_owned(),
                model: Some(if n % 10 == 0 { "big" } else { "small" }.to_owned()),
                ttft: Some(if n % 25 == 0 { 9.0 } else { 1.0 }),
                stream: true,
                ended_at: Some(Timestamp::from_second(n).unwrap().to_string()),
                ..RequestRecord::default()
            };
            memory.remember(record, 0);
        }
        memory.before(u64::MAX, usize::MAX).collect()
    }

    fn ask(text: &str, complete_since: i64) -> (Vec<i64>, Trailer) {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        let pairs: Vec<_> = text.split('&').map(pair).collect();
        let query = Query::parse(Asked::Requests, &pairs).unwrap();
        let selected = select(&memory(), complete_since, "a", &query, 100 * SECOND);
        let ids = selected.requests.iter().map(|finished| finished.record.id.parse().unwrap()).collect();
        (ids, selected.trailer)
    }

    #[test]
    fn windows_and_orders() {
        assert_eq!(ask("since=3s", 0).0, [100, 99, 98, 97]);
        assert_eq!(ask("since=3s&order=oldest", 0).0, [97, 98, 99, 100]);
        assert_eq!(ask("since=1970-01-01T00:00:50Z&until=48s&model=small", 0).0, [52, 51]);
        assert_eq!(ask("model=big&limit=2", 0).0, [100, 90]);
        assert_eq!(ask("model=none", 0), (Vec::new(), Trailer::default()));
    }

    #[test]
    fn a_cursor_goes_on_where_a_page_ended_whatever_came_meanwhile() {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let (ids, trailer) = ask(&format!("model=small&limit=7{cursor}"), 0);
            assert!(ids.len() == 7 || trailer.next.is_none());
            all.extend(ids);
            match trailer.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(all, (1..=100).rev().filter(|n| n % 10 != 0).collect::<Vec<_>>());
        let (first, trailer) = ask("order=oldest&limit=2", 0);
        let (second, _) = ask(&format!("order=oldest&limit=2&cursor={}", trailer.next.unwrap()), 0);
        assert_eq!((first, second), (vec![1, 2], vec![3, 4]));
    }

    #[test]
    fn slow_is_told_by_the_window() {
        assert_eq!(ask("slow=true", 0).0, [75, 25], "of `big` half are as slow as these");
        assert_eq!(ask("slow=true&since=10s", 0).0, [0; 0], "too few to tell");
    }

    #[test]
    fn an_answer_says_what_it_lacks() {
        let (_, trailer) = ask("since=90s", 20 * SECOND);
        assert_eq!(
            trailer.partial[0].to_string(),
            "node a tells of requests since 1970-01-01T00:00:20Z only"
        );
        assert_eq!(ask("since=80s", 20 * SECOND).1.partial, []);
        assert_eq!(ask("since=90s&limit=5", 20 * SECOND).1.partial, [], "the newest five are there");
        assert_ne!(ask("since=90s&limit=5&order=oldest", 20 * SECOND).1.partial, []);
        assert_eq!(ask("limit=100", 20 * SECOND).1.partial, [], "all that it remembers");
        let none = Partial { node: String::new(), reason: "agents are not known".to_owned() };
        assert_eq!(none.to_string(), "agents are not known");
        let text = serde_json::to_string(&Trailer::default()).unwrap();
        assert_eq!(text, "{\"partial\":[]}");
        assert_eq!(serde_json::from_str::<Trailer>(&text).unwrap(), Trailer::default());
        let record = serde_json::to_string(&RequestRecord::default()).unwrap();
        assert!(serde_json::from_str::<Trailer>(&record).is_err(), "no record is one");
    }
}
