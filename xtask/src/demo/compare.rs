//! What the observer saw beside what the client received. In: both as JSON objects; out: one row per request
//! and the verdict.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::Value;

/// Token counts of one exchange: prompt and generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Prompt tokens, cached ones included.
    pub(super) input: u64,
    /// Generated tokens, reasoning included.
    pub(super) output: u64,
}

/// One request that the client sent.
#[derive(Debug)]
pub(super) struct Row {
    /// Its x-request-id.
    pub(super) id: String,
    /// Kind of request.
    pub(super) kind: String,
    /// What the engine itself counted, and the field that said so.
    pub(super) engine: Option<(Counts, &'static str)>,
    /// The observer's record.
    pub(super) record: Option<Value>,
    /// What is wrong with the row; empty if nothing is.
    pub(super) wrong: Vec<String>,
}

/// All requests of a run.
#[derive(Debug)]
pub(super) struct Compared {
    /// In the order of their ids.
    pub(super) rows: Vec<Row>,
}

impl Compared {
    /// Joins the client's lines with the observer's records by request id.
    pub(super) fn of(sent: &[Value], records: &[Value]) -> Self {
        let mut by_id: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for record in records {
            by_id.entry(record["request_id"].as_str().unwrap_or_default()).or_default().push(record);
        }
        let mut rows: Vec<_> = sent
            .iter()
            .map(|sent| {
                let id = sent["request_id"].as_str().unwrap_or_default();
                Row::of(sent, by_id.get(id).map_or(&[][..], Vec::as_slice))
            })
            .collect();
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        Self { rows }
    }

    /// Requests that the observer has a record of.
    pub(super) fn seen(&self) -> usize {
        self.rows.iter().filter(|row| row.record.is_some()).count()
    }

    /// Requests whose counts are the engine's own.
    pub(super) fn equal(&self) -> usize {
        let equal = |row: &&Row| row.engine.is_some_and(|(counts, _)| row.observed() == Some(counts));
        self.rows.iter().filter(equal).count()
    }

    /// One line.
    pub(super) fn summary(&self) -> String {
        let all = self.rows.len();
        format!("{} of {all} exchanges seen, token counts equal in {}", self.seen(), self.equal())
    }

    /// Fails if one was missed, a number is absent that must be there, or a count differs.
    pub(super) fn verdict(&self, requests: usize) -> Result<()> {
        let mut wrong: Vec<_> = self
            .rows
            .iter()
            .flat_map(|row| row.wrong.iter().map(|what| format!("{}: {what}", row.id)))
            .collect();
        if self.rows.len() != requests {
            wrong.push(format!("the client sent {} requests, not {requests}", self.rows.len()));
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            bail!("the observer and the client differ:\n  {}", wrong.join("\n  "))
        }
    }
}

impl Row {
    fn of(sent: &Value, records: &[&Value]) -> Self {
        let stream = sent["stream"].as_bool().unwrap_or(false);
        let api = sent["api"].as_str().unwrap_or("?");
        let mut row = Self {
            id: sent["request_id"].as_str().unwrap_or_default().to_owned(),
            kind: if stream { format!("{api} stream") } else { api.to_owned() },
            engine: engine_counts(sent),
            record: records.first().map(|record| (*record).clone()),
            wrong: Vec::new(),
        };
        row.wrong = row.find_wrong(sent, records.len(), stream);
        row
    }

    fn find_wrong(&self, sent: &Value, records: usize, stream: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(error) = sent["error"].as_str() {
            wrong.push(format!("the client failed: {error}"));
        }
        let Some(record) = &self.record else {
            wrong.push("missed".into());
            return wrong;
        };
        if records > 1 {
            wrong.push(format!("seen {records} times"));
        }
        let needed: &[&str] = if stream { &["duration", "ttft", "tpot"] } else { &["duration"] };
        wrong.extend(
            needed.iter().filter(|name| !record[**name].is_number()).map(|name| format!("no {name}")),
        );
        if !stream {
            let invented = ["ttft", "tpot"].into_iter().filter(|name| record[*name].is_number());
            wrong.extend(invented.map(|name| format!("a plain response has no {name}")));
        }
        if record["outcome"] != "ok" {
            wrong.push(format!("outcome {}, the client got a whole answer", record["outcome"]));
        }
        if record["tokens"]["source"].is_null() {
            wrong.push("no source of the token counts".into());
        }
        match (self.engine, self.observed()) {
            (None, _) => wrong.push("the engine told the client no counts".into()),
            (Some(_), None) => wrong.push("no token counts".into()),
            (Some((engine, from)), Some(observed)) if engine != observed => {
                wrong.push(format!("counts {observed:?}, the engine's {from} says {engine:?}"));
            }
            (Some(_), Some(_)) => {}
        }
        wrong
    }

    /// The observer's counts, if it has both.
    pub(super) fn observed(&self) -> Option<Counts> {
        let tokens = &self.record.as_ref()?["tokens"];
        let sum = |names: [&str; 2]| {
            let known: Vec<_> = names.iter().filter_map(|name| tokens[*name].as_u64()).collect();
            (!known.is_empty()).then(|| known.iter().sum())
        };
        Some(Counts { input: sum(["input", "input_cached"])?, output: sum(["output", "output_reasoning"])? })
    }
}

/// The engine's own counts, as the client received them: `usage`, else llama.cpp's `timings`.
fn engine_counts(sent: &Value) -> Option<(Counts, &'static str)> {
    let (usage, timings) = (&sent["usage"], &sent["timings"]);
    if let (Some(input), Some(output)) =
        (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64())
    {
        return Some((Counts { input, output }, "usage"));
    }
    let input = timings["prompt_n"].as_u64()? + timings["cache_n"].as_u64().unwrap_or(0);
    Some((Counts { input, output: timings["predicted_n"].as_u64()? }, "timings"))
}

#[cfg(test)]
mod tests;
