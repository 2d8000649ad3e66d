//! `observer logs` and `observer events`: what was written and what occurred, as it comes or as it is searched for.
//!
//! In: lines of JSON. Out: a time, where, how bad, and what; or the lines as they are.

use std::io::{self, IsTerminal, Write};

use super::colours;
use super::failure::Failure;
use super::reach::Way;
use super::shown::{Shape, Shown};
use crate::config::cli::{EventsArgs, LogsArgs, Pair, RowsArgs};
use crate::recent::Hits;
use crate::timeline::{Kind, Level, Row};

/// Shows lines of logs on standard output. Returns when all are shown, or whoever reads the output has had enough.
///
/// # Errors
///
/// When nobody answers, a stream ends, or the output fails.
pub fn logs(args: &LogsArgs) -> Result<(), Failure> {
    let output = io::stdout().lock();
    let colour = colours(output.is_terminal());
    show("/api/v1/logs", &args.rows, &args.parameters(), colour, output, io::stderr())
}

/// Shows events on standard output.
///
/// # Errors
///
/// As [`logs`].
pub fn events(args: &EventsArgs) -> Result<(), Failure> {
    let output = io::stdout().lock();
    let colour = colours(output.is_terminal());
    show("/api/v1/events", &args.rows, &args.parameters(), colour, output, io::stderr())
}

fn show(
    path: &str,
    args: &RowsArgs,
    parameters: &[Pair],
    colour: bool,
    output: impl Write,
    remarks: impl Write,
) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    let mut shown = Shown { json: args.json, shape: Text { colour }, output, remarks };
    Failure::unless_enough(runtime.block_on(async {
        let way = Way::find(&args.reach).await?;
        let answer = way.ask(path, parameters).await?;
        if args.follow || parameters.is_empty() {
            shown.follow(&way, answer).await
        } else {
            let is_newest_first = args.bucket.is_none() && args.order.as_deref() != Some("oldest");
            shown.past(&way, is_newest_first, answer).await.map(drop)
        }
    }))
}

/// Rows as text.
struct Text {
    colour: bool,
}

impl Shape for Text {
    const NAME: &str = "lines";

    fn header(&self) -> Option<String> {
        None
    }

    fn line(&self, line: &[u8]) -> Result<String, serde_json::Error> {
        if let Ok(hits) = serde_json::from_slice::<Hits>(line) {
            let node = if hits.node.is_empty() { "all" } else { &hits.node };
            return Ok(format!("{:.0} {} {}", hits.time, harmless(node), hits.hits));
        }
        let row: Row = serde_json::from_slice(line)?;
        let place: Vec<&str> = [&row.namespace, &row.pod, &row.container]
            .into_iter()
            .map(String::as_str)
            .filter(|name| !name.is_empty())
            .collect();
        let place = if place.is_empty() { row.node.clone() } else { place.join("/") };
        let level = row.level.map_or("-", Level::as_str);
        let what = match row.kind {
            Kind::Log => String::new(),
            kind if row.reason.is_empty() => format!("{}: ", kind.as_str()),
            kind => format!("{} {}: ", kind.as_str(), row.reason),
        };
        let (before, after) = match row.level {
            Some(Level::Error | Level::Fatal) if self.colour => ("\x1b[31m", "\x1b[0m"),
            Some(Level::Warn) if self.colour => ("\x1b[33m", "\x1b[0m"),
            _ => ("", ""),
        };
        // Lines of one entry stay lines; nothing else that moves the cursor is passed on.
        let message = row.message.replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}");
        let message = message.replace('\n', "\n    ");
        let time = crate::timeline::time_text(row.time);
        Ok(format!("{time:.3} {} {before}{level}{after} {what}{message}", harmless(&place)))
    }
}

fn harmless(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(row: &Row) -> String {
        Text { colour: false }.line(&serde_json::to_vec(row).unwrap()).unwrap()
    }

    #[test]
    fn lines_say_when_where_and_what() {
        let row = Row {
            time: 1_000_000_000,
            node: "a".into(),
            namespace: "ml".into(),
            pod: "llama-0".into(),
            container: "server".into(),
            level: Some(Level::Error),
            message: "one\ntwo\x1b[2J".into(),
            ..Row::default()
        };
        assert_eq!(shown(&row), "1970-01-01T00:00:01.000Z ml/llama-0/server error one\n    two\u{fffd}[2J");
        let event = Row {
            kind: Kind::Process,
            reason: "exit".into(),
            namespace: String::new(),
            pod: String::new(),
            ..row
        };
        assert!(shown(&event).contains(" server error process exit: one"), "{}", shown(&event));
        assert_eq!(
            shown(&Row { time: 0, node: "a".into(), message: "x".into(), ..Row::default() }),
            "1970-01-01T00:00:00.000Z a - x"
        );
        let hits = br#"{"time":"1970-01-01T00:00:00Z","node":"a","hits":3}"#;
        assert_eq!(Text { colour: false }.line(hits).unwrap(), "1970-01-01T00:00:00Z a 3");
    }
}
