//! Finished requests as aligned lines of at most 120 columns.
//!
//! In: records. Out: text without line end; colours only if asked for. What came from the wire cannot move
//! the cursor: control characters are replaced.

use super::columns::{self, ABSENT, Align, Column, count, duration, line};
use crate::exchange::{Judged, Outcome, RequestRecord, TokenSource};

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

/// Widths and the spaces between them sum up to 120.
const COLUMNS: [Column; 13] = [
    Column("TIME", 12, Align::Left),
    Column("SERVER", 12, Align::Tail),
    Column("MODEL", 13, Align::Left),
    Column("OP", 4, Align::Left),
    Column("CODE", 4, Align::Left),
    Column("OUTCOME", 17, Align::Left),
    Column("TTFT", 8, Align::Right),
    Column("TPOT", 8, Align::Right),
    Column("IN", 6, Align::Right),
    Column("OUT", 6, Align::Right),
    Column("SOURCE", 6, Align::Left),
    Column("DURATION", 8, Align::Right),
    Column("SLO", 4, Align::Left),
];

const OUTCOME: usize = 5;

/// Formats finished requests.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    colour: bool,
}

impl Table {
    /// A table, with colours or without.
    pub const fn new(colour: bool) -> Self {
        Self { colour }
    }

    /// The line with the titles.
    pub fn header(self) -> String {
        columns::titles(&COLUMNS)
    }

    /// The line of one finished request. A time that may be wrong, because the request was seen in part,
    /// has a `~` before it.
    pub fn row(self, record: &RequestRecord) -> String {
        let outcome = record.outcome.unwrap_or(Outcome::Unknown);
        let time = |seconds: Option<f64>| match seconds {
            Some(seconds) if record.is_complete() => duration(seconds),
            Some(seconds) => format!("~{}", duration(seconds)),
            None => ABSENT.to_owned(),
        };
        let tokens = |known: Option<u64>| known.map_or_else(|| ABSENT.to_owned(), count);
        let cells = [
            record.started_at.as_deref().map_or(ABSENT, time_of_day).to_owned(),
            if record.pod.is_empty() { record.process.clone() } else { record.pod.clone() },
            record.model.clone().unwrap_or_else(|| ABSENT.to_owned()),
            record.operation.map_or(ABSENT, |operation| operation.as_str()).to_owned(),
            record.status.map_or_else(|| ABSENT.to_owned(), |status| status.to_string()),
            outcome.as_str().to_owned(),
            time(record.ttft),
            time(record.tpot),
            tokens(record.tokens.input_total()),
            tokens(record.tokens.output_total()),
            record.tokens.source.map_or(ABSENT, source).to_owned(),
            time(record.duration),
            slo(&record.slo).to_owned(),
        ];
        line(&COLUMNS, &cells, self.colour.then(|| (OUTCOME, colour(outcome), RESET)))
    }
}

fn colour(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => GREEN,
        Outcome::AbortedByClient | Outcome::ClientError | Outcome::Rejected | Outcome::Unknown => YELLOW,
        Outcome::ServerError | Outcome::StreamError | Outcome::AbortedByServer | Outcome::Unterminated => RED,
    }
}

/// Whether it was as good as promised, in each way in which that can be said.
fn slo(judged: &Judged) -> &'static str {
    match (judged.met.is_empty(), judged.missed.is_empty()) {
        (_, false) => "miss",
        (false, true) => "met",
        (true, true) => ABSENT,
    }
}

/// `12:34:56.789` of an RFC 3339 time, as it stands there.
fn time_of_day(started_at: &str) -> &str {
    let time = started_at.split_once('T').map_or(started_at, |(_, time)| time);
    time.get(..12).unwrap_or(time)
}

const fn source(source: TokenSource) -> &'static str {
    match source {
        TokenSource::Usage => "usage",
        TokenSource::UsagePartial => "part",
        TokenSource::Engine => "engine",
        TokenSource::Ids => "ids",
        TokenSource::Estimated => "est",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Operation, Tokens};

    fn record() -> RequestRecord {
        RequestRecord {
            started_at: Some("2026-03-01T12:34:56.789012345Z".to_owned()),
            process: "llama-server".to_owned(),
            model: Some("smollm2".to_owned()),
            operation: Some(Operation::Chat),
            status: Some(200),
            outcome: Some(Outcome::Ok),
            ttft: Some(0.0421),
            tpot: Some(0.008),
            duration: Some(1.234_56),
            slo: Judged { met: vec!["chat".to_owned()], ..Judged::default() },
            tokens: Tokens {
                input: Some(12),
                input_cached: Some(3),
                output: Some(41),
                output_reasoning: None,
                source: Some(TokenSource::Usage),
            },
            ..RequestRecord::default()
        }
    }

    #[test]
    fn lines_are_aligned() {
        let table = Table::new(false);
        let text = [
            table.header(),
            table.row(&record()),
            table.row(&RequestRecord {
                outcome: Some(Outcome::AbortedByClient),
                partial: vec!["gap".to_owned()],
                slo: Judged {
                    met: vec!["batch".to_owned()],
                    missed: vec!["chat".to_owned()],
                    ..Judged::default()
                },
                ..record()
            }),
            table.row(&RequestRecord::default()),
        ];
        let expected = [
            "TIME         SERVER       MODEL         OP   CODE OUTCOME               \
             TTFT     TPOT     IN    OUT SOURCE DURATION SLO",
            "12:34:56.789 llama-server smollm2       chat 200  ok                  \
             42.1ms    8.0ms     15     41 usage    1.235s met",
            "12:34:56.789 llama-server smollm2       chat 200  aborted_by_client  \
             ~42.1ms   ~8.0ms     15     41 usage   ~1.235s miss",
            "-                         -             -    -    unknown                  \
             -        -      -      - -             - -",
        ];
        for (is, should) in text.iter().zip(expected) {
            assert_eq!(is, should);
        }
    }

    #[test]
    fn a_pod_serves_where_there_is_one() {
        let row =
            Table::new(false).row(&RequestRecord { pod: "llama-5d8f7c9b6d-x2k4p".to_owned(), ..record() });
        assert!(row.starts_with("12:34:56.789 …c9b6d-x2k4p smollm2"), "{row}");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_or_moves_its_cursor() {
        let long = "é\u{1b}[2J\n".repeat(40);
        let record = RequestRecord {
            started_at: Some(long.clone()),
            process: long.clone(),
            model: Some(long),
            operation: Some(Operation::TextCompletion),
            outcome: Some(Outcome::AbortedByServer),
            status: Some(u16::MAX),
            ttft: Some(9999.9),
            tpot: Some(1e300),
            duration: Some(f64::NAN),
            partial: vec!["x".to_owned()],
            slo: Judged { missed: vec!["x".to_owned()], ..Judged::default() },
            tokens: Tokens {
                input: Some(u64::MAX),
                output: Some(999_999),
                source: Some(TokenSource::Engine),
                ..Tokens::default()
            },
            ..RequestRecord::default()
        };
        let row = Table::new(false).row(&record);
        assert_eq!(row.chars().count(), 120, "{row}");
        assert!(!row.contains(char::is_control), "{row:?}");
        assert_eq!(COLUMNS.iter().map(|Column(_, width, _)| width + 1).sum::<usize>() - 1, 120);
    }

    #[test]
    fn colours_only_when_asked_for() {
        assert!(!Table::new(false).row(&record()).contains('\x1b'));
        let coloured = Table::new(true).row(&record());
        assert!(coloured.contains("\x1b[32mok\x1b[0m"), "{coloured:?}");
        let plain = coloured.replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, Table::new(false).row(&record()), "alignment does not depend on colour");
    }
}
