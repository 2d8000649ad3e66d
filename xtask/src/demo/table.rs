//! The run as a table: the observer's numbers, the engine's own counts, and what counting events would have said.

use serde_json::Value;

use super::compare::{Compared, Row};

const HEAD: [&str; 10] = [
    "request",
    "kind",
    "duration",
    "outcome",
    "TTFT",
    "TPOT",
    "tokens in+out",
    "source",
    "engine says",
    "estimated",
];

/// The table, a line per request.
pub(super) fn drawn(compared: &Compared) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(compared.rows.iter().map(cells));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn cells(row: &Row) -> [String; 10] {
    let none = Value::Null;
    let record = row.record.as_ref().unwrap_or(&none);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let seconds = |value: &Value, digits: usize| {
        value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{:.digits$} ms", value * 1e3))
    };
    [
        row.id.clone(),
        row.kind.clone(),
        seconds(&record["duration"], 0),
        if row.record.is_some() { text(&record["outcome"]) } else { "MISSED".into() },
        seconds(&record["ttft"], 1),
        seconds(&record["tpot"], 2),
        row.observed().map_or_else(|| "-".into(), |counts| format!("{}+{}", counts.input, counts.output)),
        text(&record["tokens"]["source"]),
        row.engine.map_or_else(
            || "-".into(),
            |(counts, from)| {
                let same = if row.observed() == Some(counts) { "=" } else { "≠" };
                format!("{same} {}+{} ({from})", counts.input, counts.output)
            },
        ),
        record["token_events"].as_u64().map_or_else(|| "-".into(), |events| events.to_string()),
    ]
}
