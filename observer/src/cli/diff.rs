//! `observer diff`: the requests of two windows of time, or those of a pod and of its peers, side by side.
//!
//! In: records, as lines of JSON. Out: by model a sentence and a table, or lines of JSON.

use std::collections::HashSet;
use std::io::{self, Write};

use jiff::{SignedDuration, Timestamp};

use super::columns::duration;
use super::failure::Failure;
use super::lacks;
use super::reach::Way;
use super::remark;
use crate::config::cli::{DiffArgs, Pair, WhichArgs, WhoseArgs};
use crate::exchange::RequestRecord;
use crate::explain::{Difference, diff};
use crate::recent::{MOST, Partial, Trailer};

/// How long a window is unless another is asked for.
const WINDOW: &str = "15m";

/// A time as it is asked for: ago, or a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Ago(SignedDuration),
    At(Timestamp),
}

impl When {
    fn of(flag: &'static str, text: &str) -> Result<Self, Failure> {
        if let Ok(ago) = text.parse() {
            return Ok(Self::Ago(ago));
        }
        text.parse().map(Self::At).map_err(|_neither| Failure::Argument {
            flag,
            value: text.to_owned(),
            remedy: "write a time ago, such as 15m, or a moment, such as 2026-03-01T12:00:00Z",
        })
    }

    /// So much earlier.
    fn earlier(self, shift: SignedDuration) -> Option<Self> {
        match self {
            Self::Ago(ago) => ago.checked_add(shift).map(Self::Ago),
            Self::At(time) => time.checked_sub(shift).ok().map(Self::At),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Ago(ago) => format!("{ago:#}"),
            Self::At(time) => time.to_string(),
        }
    }
}

/// The same question about the window that is compared with.
fn earlier(args: &DiffArgs) -> Result<WhichArgs, Failure> {
    let since_text = args.which.whose.since.as_deref().unwrap_or(WINDOW);
    let since = When::of("--since", since_text)?;
    let until = args.which.until.as_deref().map(|text| When::of("--until", text)).transpose()?;
    let shift = match (&args.earlier, since, until) {
        (Some(text), ..) => match When::of("--earlier", text)? {
            When::Ago(shift) => Some(shift),
            When::At(_) => None,
        },
        (None, When::Ago(since), None) => Some(since),
        (None, When::Ago(since), Some(When::Ago(until))) => since.checked_sub(until),
        (None, When::At(since), Some(When::At(until))) => Some(until.duration_since(since)),
        (None, When::At(since), None) => Some(Timestamp::now().duration_since(since)),
        (None, ..) => None,
    };
    let shifted = shift.filter(SignedDuration::is_positive).and_then(|shift| {
        let until = until.unwrap_or(When::Ago(SignedDuration::ZERO));
        Some((since.earlier(shift)?, until.earlier(shift)?))
    });
    let Some((since, until)) = shifted else {
        return Err(Failure::Argument {
            flag: "--earlier",
            value: args.earlier.clone().unwrap_or_default(),
            remedy: "say how much earlier the other window is, such as 1h or 24h",
        });
    };
    let whose = WhoseArgs { since: Some(since.text()), ..args.which.whose.clone() };
    Ok(WhichArgs { whose, until: Some(until.text()), ..args.which.clone() })
}

/// The same question about whoever else served at that time.
fn peers(args: &DiffArgs) -> Result<WhichArgs, Failure> {
    let own = &args.which.whose;
    if [&own.pod, &own.container, &own.node].into_iter().all(Option::is_none) {
        return Err(Failure::Argument {
            flag: "--peers",
            value: String::new(),
            remedy: "name whom to compare with the others: --pod, --container or --node",
        });
    }
    let whose = WhoseArgs { pod: None, container: None, node: None, ..own.clone() };
    Ok(WhichArgs { whose, ..args.which.clone() })
}

/// Shows how two sets of requests differ on standard output.
///
/// # Errors
///
/// When a flag cannot be used, nobody answers, or the output fails.
pub fn run(args: &DiffArgs) -> Result<(), Failure> {
    show(args, io::stdout().lock(), io::stderr())
}

fn show(args: &DiffArgs, mut output: impl Write, mut remarks: impl Write) -> Result<(), Failure> {
    let mut args = args.clone();
    args.which.whose.since.get_or_insert_with(|| WINDOW.to_owned());
    args.which.whose.limit.get_or_insert_with(|| MOST.to_string());
    let other = if args.peers { peers(&args)? } else { earlier(&args)? };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    Failure::unless_enough(runtime.block_on(async {
        let way = Way::find(&args.reach).await?;
        let (these, mut partial) = records(&way, &args.which.parameters(), &mut remarks).await?;
        let (mut others, lacking) = records(&way, &other.parameters(), &mut remarks).await?;
        partial.extend(lacking.into_iter().filter(|one| !partial.contains(one)).collect::<Vec<_>>());
        lacks(&mut remarks, &partial)?;
        let own: HashSet<(&str, &str)> =
            these.iter().map(|record| (record.node.as_str(), record.id.as_str())).collect();
        others.retain(|record| !own.contains(&(record.node.as_str(), record.id.as_str())));
        for difference in diff(&these, &others) {
            let text = if args.json {
                serde_json::to_string(&difference).map_err(|error| Failure::Output(error.into()))? + "\n"
            } else {
                text(&difference, if args.peers { "peers" } else { "earlier" })
            };
            output.write_all(text.as_bytes()).map_err(Failure::Output)?;
        }
        if these.is_empty() && others.is_empty() {
            remark(&mut remarks, "no request ended in either of them")?;
        }
        Ok(())
    }))
}

async fn records(
    way: &Way,
    parameters: &[Pair],
    remarks: &mut impl Write,
) -> Result<(Vec<RequestRecord>, Vec<Partial>), Failure> {
    let mut answer = way.ask("/api/v1/requests", parameters).await?;
    let mut records = Vec::new();
    loop {
        let line = match answer.line().await {
            Ok(Some(line)) => line,
            Ok(None) => return Err(Failure::Ended { whom: way.whom() }),
            Err(cause) => return Err(Failure::Broken { whom: way.whom(), cause }),
        };
        if let Ok(trailer) = serde_json::from_slice::<Trailer>(&line) {
            if trailer.next.is_some() {
                let count = records.len();
                remark(
                    remarks,
                    &format!("only the newest {count} of one side are compared: ask for a shorter time"),
                )?;
            }
            return Ok((records, trailer.partial));
        }
        let record =
            serde_json::from_slice(&line).map_err(|cause| Failure::NoLine { whom: way.whom(), cause })?;
        records.push(record);
    }
}

/// A difference as lines of text.
fn text(told: &Difference, other: &str) -> String {
    let streamed = if told.stream { ", streamed" } else { "" };
    let model = if told.model.is_empty() { "no model known" } else { &told.model };
    let model = model.replace(char::is_control, "\u{fffd}");
    let mut lines = vec![
        format!("{model}{streamed}: {}", told.summary),
        format!("  {:<18} {:>9} {:>9}   {other:>9}", "", "these", ""),
        format!("  {:<18} {:>9} {:>9}   {:>9} {:>9}", "requests", told.requests[0], "", told.requests[1], ""),
    ];
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let failed = told.failed.map(percent);
    lines.push(format!("  {:<18} {:>9} {:>9}   {:>9} {:>9}", "failed", failed[0], "", failed[1], ""));
    if told.partial != [0, 0] {
        let [these, others] = told.partial;
        lines.push(format!("  {:<18} {these:>9} {:>9}   {others:>9} {:>9}", "partial", "", ""));
    }
    if !told.measures.is_empty() {
        lines.push(format!("  {:<18} {:>9} {:>9}   {:>9} {:>9}", "", "p50", "p95", "p50", "p95"));
    }
    for one in &told.measures {
        let shown = |value: f64| if one.measure.is_time() { duration(value) } else { format!("{value:.0}") };
        let ([p50, p50_other], [p95, p95_other]) = (one.p50.map(shown), one.p95.map(shown));
        let mark = if one.differs { " <" } else { "" };
        lines.push(format!(
            "  {:<18} {p50:>9} {p95:>9}   {p50_other:>9} {p95_other:>9}{mark}",
            one.measure.as_str()
        ));
    }
    lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(since: Option<&str>, until: Option<&str>, earlier: Option<&str>) -> DiffArgs {
        let some = |text: Option<&str>| text.map(str::to_owned);
        let whose = WhoseArgs { since: some(since), pod: some(Some("p")), ..WhoseArgs::default() };
        DiffArgs {
            which: WhichArgs { whose, until: some(until), ..WhichArgs::default() },
            earlier: some(earlier),
            ..DiffArgs::default()
        }
    }

    #[test]
    fn the_other_window_is_right_before_or_as_much_earlier_as_is_said() {
        let other = |since, until, shift| {
            let other = earlier(&args(since, until, shift)).ok()?;
            assert_eq!(other.whose.pod.as_deref(), Some("p"));
            Some((other.whose.since.unwrap(), other.until.unwrap()))
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(other(None, None, None), pair("30m", "15m"));
        assert_eq!(other(Some("20m"), Some("10m"), None), pair("30m", "20m"));
        assert_eq!(other(Some("20m"), Some("10m"), Some("24h")), pair("24h 20m", "24h 10m"));
        assert_eq!(
            other(Some("2026-03-01T12:00:00Z"), Some("2026-03-01T13:00:00Z"), None),
            pair("2026-03-01T11:00:00Z", "2026-03-01T12:00:00Z")
        );
        assert_eq!(other(Some("20m"), Some("2026-03-01T13:00:00Z"), None), None);
        assert_eq!(other(Some("10m"), Some("20m"), None), None, "it ends before it begins");
        assert_eq!(other(Some("x"), None, None), None);
    }

    #[test]
    fn peers_are_all_others() {
        let other = peers(&args(Some("5m"), None, None)).unwrap();
        assert_eq!((other.whose.pod, other.whose.since.as_deref()), (None, Some("5m")));
        let mut nobody = args(None, None, None);
        nobody.which.whose.pod = None;
        assert!(peers(&nobody).unwrap_err().to_string().contains("--pod"));
    }
}
