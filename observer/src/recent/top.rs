//! Who is served how, over the last while: one row for each pod and model.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::{Partial, Trailer};
use super::memory::Finished;
use super::query::Query;
use super::usual::quantile;
use crate::exchange::{Outcome, Role};

/// The window unless another one is asked for: a minute, in nanoseconds.
const USUAL: i64 = 60_000_000_000;

/// What is served for one model by one container of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Node.
    pub node: String,
    /// Kubernetes namespace; empty outside Kubernetes.
    pub namespace: String,
    /// Pod; empty outside Kubernetes.
    pub pod: String,
    /// Container, else process.
    pub container: String,
    /// Model; empty if it is not known.
    pub model: String,
    /// Role of the serving process: sums over servers count each request once.
    pub role: Role,
    /// Seconds that the other numbers are about.
    pub window: f64,
    /// Requests that ended.
    pub requests: u64,
    /// The same per second.
    pub requests_per_second: f64,
    /// Those of them in which the server let the client down.
    pub failed: u64,
    /// Those of them that the client was to blame for, by a bad request.
    pub client_errors: u64,
    /// Those of them that the client broke off.
    pub aborted_by_client: u64,
    /// Tokens that they generated, per second.
    pub tokens_per_second: f64,
    /// Median of their time to the first token, seconds. Streamed requests with numbers that are trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_p50: Option<f64>,
    /// Its 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_p99: Option<f64>,
    /// Median of their time per output token, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot_p50: Option<f64>,
    /// Requests that have not ended, now.
    pub in_flight: u64,
}

/// Requests of a container for a model that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Namespace, pod, container.
    pub whose: [String; 3],
    /// Model; empty while it is not known, `other` beyond the bound on names.
    pub model: String,
    /// Role.
    pub role: Role,
    /// How many.
    pub requests: u64,
}

type Key = ([String; 3], String, Role);

#[derive(Default)]
struct Sums {
    row: Row,
    tokens: u64,
    ttft: Vec<f64>,
    tpot: Vec<f64>,
}

/// Rows of a node, the busiest first, and what they lack.
pub fn top(
    all: &[Arc<Finished>],
    complete_since: i64,
    running: &[Running],
    node: &str,
    query: &Query,
    now: i64,
) -> (Vec<Row>, Trailer) {
    let asked = query.since.map_or(now.saturating_sub(USUAL), |since| since.seen_from(now));
    let since = asked.max(complete_since);
    let window = (now.saturating_sub(since) as f64 / 1e9).max(1e-9);
    let mut sums: HashMap<Key, Sums> = HashMap::new();
    let in_window = |finished: &&Arc<Finished>| finished.position.time >= since;
    for finished in all.iter().filter(in_window).filter(|finished| query.matches(&finished.record)) {
        let record = &finished.record;
        let whose = [&record.namespace, &record.pod, &record.container].map(String::clone);
        let key = (whose, record.model.clone().unwrap_or_default(), record.role);
        let sums = sums.entry(key).or_default();
        let outcome = record.outcome.unwrap_or(Outcome::Unknown);
        sums.row.requests += 1;
        sums.row.failed += u64::from(outcome.is_failure());
        sums.row.client_errors += u64::from(outcome == Outcome::ClientError);
        sums.row.aborted_by_client += u64::from(outcome == Outcome::AbortedByClient);
        sums.tokens += record.tokens.output_total().unwrap_or(0);
        if record.is_complete() {
            sums.ttft.extend(record.ttft);
            sums.tpot.extend(record.tpot);
        }
    }
    let is_asked_for = |running: &&Running| {
        let [namespace, pod, container] = &running.whose;
        query.is_about_node(node) && query.is_about(namespace, pod, container, &running.model)
    };
    for running in running.iter().filter(is_asked_for).filter(|running| running.requests > 0) {
        let key = (running.whose.clone(), running.model.clone(), running.role);
        sums.entry(key).or_default().row.in_flight += running.requests;
    }
    let row = |((whose, model, role), mut sums): (Key, Sums)| {
        let [namespace, pod, container] = whose;
        Row {
            node: node.to_owned(),
            namespace,
            pod,
            container,
            model,
            role,
            window,
            requests_per_second: sums.row.requests as f64 / window,
            tokens_per_second: sums.tokens as f64 / window,
            ttft_p50: quantile(&mut sums.ttft, 0.5),
            ttft_p99: quantile(&mut sums.ttft, 0.99),
            tpot_p50: quantile(&mut sums.tpot, 0.5),
            ..sums.row
        }
    };
    let mut rows: Vec<Row> = sums.into_iter().map(row).collect();
    rows.sort_unstable_by(|a, b| a.rank().cmp(&b.rank()));
    let mut partial = Vec::new();
    if asked < complete_since {
        partial.push(Partial::forgotten(node, complete_since));
    }
    let left_out = rows.len().saturating_sub(query.limit());
    if left_out > 0 {
        rows.truncate(query.limit());
        partial.push(Partial { node: node.to_owned(), reason: format!("has {left_out} rows more") });
    }
    (rows, Trailer { partial, next: None })
}

/// The place of a row among those of all nodes: the busiest first, then by names.
type Rank<'a> = (std::cmp::Reverse<u64>, [&'a str; 5]);

impl Row {
    /// Its place.
    pub fn rank(&self) -> Rank<'_> {
        let names = [&self.node, &self.namespace, &self.pod, &self.container, &self.model];
        (std::cmp::Reverse(self.requests + self.in_flight), names.map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::exchange::{RequestRecord, Tokens};
    use crate::recent::{Asked, Recent};

    const SECOND: i64 = 1_000_000_000;

    fn record(second: i64, pod: &str, outcome: Outcome, ttft: f64) -> RequestRecord {
        RequestRecord {
            id: second.to_string(),
            node: "a".to_owned(),
            namespace: "ml".to_owned(),
            pod: pod.to_owned(),
            model: Some("m".to_owned()),
            outcome: Some(outcome),
            stream: true,
            ttft: Some(ttft),
            tpot: Some(ttft / 10.0),
            tokens: Tokens { output: Some(30), ..Tokens::default() },
            ended_at: Some(Timestamp::from_second(second).unwrap().to_string()),
            ..RequestRecord::default()
        }
    }

    fn ask(
        records: Vec<RequestRecord>,
        running: &[Running],
        pairs: &[(&str, &str)],
        since: i64,
    ) -> (Vec<Row>, Trailer) {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let query = Query::parse(Asked::Top, &pairs).unwrap();
        let mut memory = Recent::new(1 << 20, since);
        for record in records {
            memory.remember(record, 0);
        }
        let all: Vec<_> = memory.before(u64::MAX, usize::MAX).collect();
        top(&all, since, running, "a", &query, 100 * SECOND)
    }

    fn running(pod: &str, model: &str, requests: u64) -> Running {
        let whose = ["ml", pod, ""].map(str::to_owned);
        Running { whose, model: model.to_owned(), requests, ..Running::default() }
    }

    #[test]
    fn a_row_counts_what_ended_in_the_window_and_what_runs() {
        let mut records: Vec<_> = (71..=90).map(|n| record(n, "p", Outcome::Ok, n as f64)).collect();
        records.push(record(91, "p", Outcome::StreamError, 1000.0));
        records.push(record(92, "p", Outcome::AbortedByClient, 1.0));
        records.push(record(93, "p", Outcome::ClientError, 1.0));
        records.push(RequestRecord {
            partial: vec!["lost".into()],
            ..record(94, "p", Outcome::Unknown, 5000.0)
        });
        records.push(record(30, "p", Outcome::Ok, 1.0));
        records.push(record(80, "q", Outcome::Ok, 1.0));
        let in_flight =
            [running("p", "m", 2), running("p", "m", 1), running("p", "", 1), running("p", "m", 0)];
        let (rows, trailer) = ask(records, &in_flight, &[], 0);
        assert_eq!(trailer, Trailer::default());
        let names: Vec<_> = rows.iter().map(|row| (row.pod.as_str(), row.model.as_str())).collect();
        assert_eq!(names, [("p", "m"), ("p", ""), ("q", "m")], "the busiest first");
        let row = &rows[0];
        assert_eq!((row.requests, row.failed, row.client_errors, row.aborted_by_client), (24, 1, 1, 1));
        assert_eq!((row.window, row.requests_per_second, row.tokens_per_second), (60.0, 0.4, 12.0));
        // 1, 1, 71…90, 1000: ranks 12 and 23 of 23.
        assert_eq!((row.ttft_p50, row.ttft_p99), (Some(80.0), Some(1000.0)));
        assert_eq!((row.tpot_p50, row.in_flight), (Some(8.0), 3));
        assert_eq!((rows[1].requests, rows[1].in_flight, rows[1].ttft_p50), (0, 1, None));
    }

    #[test]
    fn rates_are_about_the_time_that_is_remembered() {
        let records = vec![record(95, "p", Outcome::Ok, 1.0), record(96, "p", Outcome::Ok, 1.0)];
        let (rows, trailer) = ask(records, &[], &[], 90 * SECOND);
        assert_eq!((rows[0].window, rows[0].requests_per_second), (10.0, 0.2));
        assert_eq!(
            trailer.partial[0].to_string(),
            "node a tells of requests since 1970-01-01T00:01:30Z only"
        );
    }

    #[test]
    fn conditions_and_the_bound_on_rows() {
        let records: Vec<_> = (0..9).map(|n| record(90 + n, &format!("p-{n}"), Outcome::Ok, 1.0)).collect();
        let (rows, trailer) = ask(records.clone(), &[running("q", "m", 5)], &[("limit", "4")], 0);
        assert_eq!((rows.len(), rows[0].pod.as_str()), (4, "q"));
        assert_eq!(trailer.partial[0].to_string(), "node a has 6 rows more");
        let (rows, _) = ask(records.clone(), &[running("q", "m", 5)], &[("pod", "p-*"), ("since", "5s")], 0);
        assert_eq!((rows.len(), rows[0].window), (4, 5.0));
        assert_eq!(ask(records, &[running("q", "m", 5)], &[("node", "b")], 0).0, []);
    }
}
