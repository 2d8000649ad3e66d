//! `observer top`: who is served how, as a table that is drawn anew every two seconds.
//!
//! In: rows of JSON. Out: aligned lines, or the rows as they are.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::columns::{self, ABSENT, Align, Column, count, duration, line};
use super::failure::Failure;
use super::lacks;
use super::reach::Way;
use crate::config::cli::TopArgs;
use crate::fleet::Answer;
use crate::recent::{Row, Trailer};

const PATH: &str = "/api/v1/top";

/// Between two tables.
const REFRESH: Duration = Duration::from_secs(2);

/// Moves the cursor home, and clears what is below it (ECMA-48: CUP, ED).
const HOME: &str = "\x1b[H\x1b[J";

/// Widths and the spaces between them sum up to 120.
const COLUMNS: [Column; 12] = [
    Column("NAMESPACE", 12, Align::Left),
    Column("POD", 20, Align::Tail),
    Column("MODEL", 17, Align::Tail),
    Column("NODE", 9, Align::Tail),
    Column("ROLE", 7, Align::Left),
    Column("REQ/S", 6, Align::Right),
    Column("FLY", 4, Align::Right),
    Column("TTFT50", 7, Align::Right),
    Column("TTFT99", 7, Align::Right),
    Column("TPOT50", 7, Align::Right),
    Column("TOK/S", 6, Align::Right),
    Column("ERR", 5, Align::Right),
];

/// Shows the table on standard output, once or until interrupted.
///
/// # Errors
///
/// When nobody answers, or the output fails.
pub fn run(args: &TopArgs) -> Result<(), Failure> {
    let output = io::stdout().lock();
    let refreshes = output.is_terminal() && !args.once && !args.json;
    show(args, refreshes, output, io::stderr())
}

/// Shows the table: rows to `output`, remarks about them to `remarks`, or below them where they are drawn anew.
///
/// # Errors
///
/// When nobody answers, or the output fails.
pub fn show(
    args: &TopArgs,
    refreshes: bool,
    mut output: impl Write,
    mut remarks: impl Write,
) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    Failure::unless_enough(runtime.block_on(async {
        let way = Way::find(&args.reach).await?;
        loop {
            let told = Told::read(&way, way.ask(PATH, &args.parameters()).await?).await?;
            if !refreshes {
                output.write_all(&told.lines(args.json)).map_err(Failure::Output)?;
                if !args.json {
                    lacks(&mut remarks, &told.trailer.partial)?;
                }
                return output.flush().map_err(Failure::Output);
            }
            let mut screen = HOME.as_bytes().to_vec();
            screen.extend(told.lines(false));
            lacks(&mut screen, &told.trailer.partial)?;
            // In one piece, so that it does not flicker.
            output.write_all(&screen).and_then(|()| output.flush()).map_err(Failure::Output)?;
            tokio::time::sleep(REFRESH).await;
        }
    }))
}

/// An answer.
struct Told {
    rows: Vec<Row>,
    trailer: Trailer,
}

impl Told {
    async fn read(way: &Way, mut answer: Answer) -> Result<Self, Failure> {
        let mut rows = Vec::new();
        loop {
            let line = answer.line().await.map_err(|cause| Failure::Broken { whom: way.whom(), cause })?;
            let Some(line) = line else { return Err(Failure::Ended { whom: way.whom() }) };
            match serde_json::from_slice(&line) {
                Ok(trailer) => return Ok(Self { rows, trailer }),
                Err(_a_row) => rows.push(
                    serde_json::from_slice(&line)
                        .map_err(|cause| Failure::NoLine { whom: way.whom(), cause })?,
                ),
            }
        }
    }

    fn lines(&self, json: bool) -> Vec<u8> {
        let mut text = String::new();
        let mut add = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        if json {
            let lines =
                self.rows.iter().map(serde_json::to_string).chain([serde_json::to_string(&self.trailer)]);
            // Texts and numbers always have a form.
            lines.filter_map(Result::ok).for_each(|line| add(&line));
        } else {
            add(&columns::titles(&COLUMNS));
            self.rows.iter().for_each(|row| add(&line(&COLUMNS, &cells(row), None)));
        }
        text.into_bytes()
    }
}

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let or_absent = |text: &str| if text.is_empty() { ABSENT.to_owned() } else { text.to_owned() };
    let time = |seconds: Option<f64>| seconds.map_or_else(|| ABSENT.to_owned(), duration);
    [
        or_absent(&row.namespace),
        // Outside Kubernetes, what stands for it.
        or_absent(if row.pod.is_empty() { &row.container } else { &row.pod }),
        or_absent(&row.model),
        or_absent(&row.node),
        row.role.as_str().to_owned(),
        rate(row.requests_per_second),
        count(row.in_flight),
        time(row.ttft_p50),
        time(row.ttft_p99),
        time(row.tpot_p50),
        rate(row.tokens_per_second),
        count(row.failed + row.client_errors),
    ]
}

/// At most six characters.
fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        rate if rate < 99.95 => format!("{rate:.2}"),
        rate => count(rate.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Role;

    fn row() -> Row {
        Row {
            node: "gpu-node-17".to_owned(),
            namespace: "ml".to_owned(),
            pod: "llama-5d8f7c9b6d-x2k4p".to_owned(),
            model: "meta-llama/Llama-3.1-8B-Instruct".to_owned(),
            role: Role::Server,
            requests_per_second: 1.25,
            in_flight: 12,
            ttft_p50: Some(0.25),
            ttft_p99: Some(2.5),
            tpot_p50: Some(0.02),
            tokens_per_second: 1234.4,
            failed: 2,
            client_errors: 1,
            ..Row::default()
        }
    }

    #[test]
    fn lines_are_aligned_and_fit() {
        let partial = vec![crate::recent::Partial { node: "b".into(), reason: "unreachable (x)".into() }];
        let idle = Row { container: "llama-server".to_owned(), ..Row::default() };
        let told = Told { rows: vec![row(), idle], trailer: Trailer { partial, next: None } };
        let text = String::from_utf8(told.lines(false)).unwrap();
        let expected = "\
NAMESPACE    POD                  MODEL             NODE      ROLE     REQ/S  FLY  TTFT50  TTFT99  TPOT50  TOK/S   ERR
ml           …ma-5d8f7c9b6d-x2k4p …-3.1-8B-Instruct …-node-17 server    1.25   12 250.0ms  2.500s  20.0ms   1234     3
-            llama-server         -                 -         server       0    0       -       -       -      0     0
";
        assert_eq!(text, expected);
        assert_eq!(COLUMNS.iter().map(|Column(_, width, _)| width + 1).sum::<usize>() - 1, 118);
        let json = String::from_utf8(told.lines(true)).unwrap();
        let lines: Vec<&str> = json.lines().collect();
        assert_eq!(serde_json::from_str::<Row>(lines[0]).unwrap(), row());
        assert_eq!(lines[2], "{\"partial\":[{\"node\":\"b\",\"reason\":\"unreachable (x)\"}]}");
    }

    #[test]
    fn rates_fit() {
        for (rate_per_second, text) in
            [(0.0, "0"), (0.004, "0.00"), (1.5, "1.50"), (99.94, "99.94"), (99.96, "100"), (1e9, "1G")]
        {
            assert_eq!(rate(rate_per_second), text);
            assert!(text.len() <= 6);
        }
    }
}
