//! `observer explain`: why requests took as long as they did, or failed.
//!
//! In: lines of JSON. Out: paragraphs, or the lines as they are.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use super::colours;
use super::columns::duration;
use super::failure::Failure;
use super::reach::Way;
use super::remark;
use super::shown::{Shape, Shown};
use crate::config::cli::ExplainArgs;
use crate::exchange::{Outcome, RequestRecord};
use crate::explain::{Confidence, Explanation, Layer};

const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// Shows explanations on standard output. Returns when all are shown, or whoever reads the output has had enough.
///
/// # Errors
///
/// When nobody answers, a stream ends, or the output fails.
pub fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let output = io::stdout().lock();
    let colour = colours(output.is_terminal());
    show(args, colour, output, io::stderr())
}

fn show(args: &ExplainArgs, colour: bool, output: impl Write, remarks: impl Write) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    let mut shown = Shown { json: args.json, shape: Text { colour }, output, remarks };
    Failure::unless_enough(runtime.block_on(async {
        let way = Way::find(&args.reach).await?;
        let answer = way.ask("/api/v1/explain", &args.parameters()).await?;
        if shown.past(&way, true, answer).await? == 0 && !args.json {
            remark(&mut shown.remarks, "no request that is remembered or stored is meant by this")?;
        }
        Ok(())
    }))
}

/// Explanations as text.
struct Text {
    colour: bool,
}

impl Shape for Text {
    const NAME: &str = "explanations";

    fn header(&self) -> Option<String> {
        None
    }

    fn line(&self, line: &[u8]) -> Result<String, serde_json::Error> {
        let told: Explanation = serde_json::from_slice(line)?;
        let mut text = String::new();
        // Writing to a string does not fail.
        let _written = self.write(&mut text, &told);
        // What came from the wire or a log cannot move the cursor; the bold face is this side's own.
        Ok(text.replace(|c: char| c.is_control() && c != '\n' && c != '\x1b', "\u{fffd}"))
    }
}

impl Text {
    fn write(&self, text: &mut String, told: &Explanation) -> std::fmt::Result {
        let harmless = |text: &str| text.replace(char::is_control, "\u{fffd}");
        let (before, after) = if self.colour { (BOLD, RESET) } else { ("", "") };
        writeln!(text, "{}", harmless(&about(&told.record)))?;
        let (verdict, sure) = (&told.verdict, told.verdict.confidence.map_or("", sure));
        let layer = verdict.layer.as_str();
        writeln!(text, "  {before}{layer}{after}{sure}: {}", harmless(&verdict.summary))?;
        for evidence in &verdict.evidence {
            writeln!(text, "    - {}", harmless(evidence))?;
        }
        let beside = match (told.beside, told.beside_on_gpu) {
            (beside, 0) => format!("{beside} in flight beside it"),
            (beside, on_gpu) => format!("{beside} in flight beside it, {on_gpu} of others on its GPU"),
        };
        writeln!(text, "  where the time went, and what is usual of {} others; {beside}", told.compared)?;
        for part in &told.parts {
            let usual = part.usual.map_or_else(|| "-".to_owned(), duration);
            let mark = if part.unusual >= 0.05 && verdict.layer != Layer::Usual { " <" } else { "" };
            writeln!(
                text,
                "    {:<18} {:>8} {:>8}{mark}",
                part.span.as_str(),
                duration(part.seconds),
                usual
            )?;
        }
        if !told.happenings.is_empty() {
            writeln!(text, "  what happened around it, in seconds after its start")?;
        }
        for one in &told.happenings {
            let until = one.until.map_or_else(String::new, |until| format!(" until {until:+.2}"));
            writeln!(text, "    {:+9.2}{until} {}: {}", one.at, one.what.as_str(), harmless(&one.text))?;
        }
        Ok(())
    }
}

const fn sure(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Low => " (confidence low)",
        Confidence::Medium => " (confidence medium)",
        Confidence::High => " (confidence high)",
    }
}

/// A request in one line.
fn about(record: &RequestRecord) -> String {
    let place: Vec<&str> = [&record.namespace, &record.pod, &record.container]
        .into_iter()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
    let mut text = format!("{} of {} on {}", record.id, place.join("/"), record.node);
    let mut add = |part: String| {
        text.push_str(", ");
        text.push_str(&part);
    };
    record.request_id.iter().for_each(|id| add(format!("x-request-id {id}")));
    record.started_at.iter().for_each(|time| add(time.clone()));
    record.model.iter().for_each(|model| add(model.clone()));
    let outcome = record.outcome.unwrap_or(Outcome::Unknown).as_str();
    add(record.status.map_or_else(|| outcome.to_owned(), |status| format!("{outcome} {status}")));
    record.ttft.iter().for_each(|ttft| add(format!("first token after {}", duration(*ttft))));
    record.duration.iter().for_each(|whole| add(format!("{} in all", duration(*whole))));
    let tokens = [(record.tokens.input_total(), "in"), (record.tokens.output_total(), "out")];
    for (count, way) in tokens {
        if let Some(count) = count {
            add(format!("{count} tokens {way}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{Happening, Part, Span, Verdict, What};

    #[test]
    fn an_explanation_is_a_paragraph() {
        let told = Explanation {
            id: "1f-0".into(),
            node: "n1".into(),
            namespace: "ml".into(),
            ended_at: None,
            verdict: Verdict {
                layer: Layer::EngineQueue,
                confidence: Some(Confidence::Medium),
                summary: "it waited while its engine served others".into(),
                evidence: vec!["6 others were in flight, usually 0".into()],
            },
            parts: vec![
                Part { span: Span::Upload, seconds: 0.001, usual: Some(0.001), unusual: 0.0 },
                Part { span: Span::BeforeFirstToken, seconds: 4.1, usual: None, unusual: 4.0 },
            ],
            compared: 30,
            beside: 6,
            beside_on_gpu: 0,
            happenings: vec![Happening {
                at: -1.5,
                until: Some(2.0),
                what: What::Log,
                text: "bad\x1b[2J".into(),
            }],
            record: RequestRecord {
                id: "1f-0".into(),
                node: "n1".into(),
                container: "server".into(),
                model: Some("m".into()),
                outcome: Some(Outcome::Ok),
                status: Some(200),
                ..RequestRecord::default()
            },
        };
        let text = Text { colour: false }.line(&serde_json::to_vec(&told).unwrap()).unwrap();
        assert_eq!(
            text,
            "1f-0 of server on n1, m, ok 200\n  \
               engine_queue (confidence medium): it waited while its engine served others\n    \
                 - 6 others were in flight, usually 0\n  \
               where the time went, and what is usual of 30 others; 6 in flight beside it\n    \
                 upload                1.0ms    1.0ms\n    \
                 before_first_token   4.100s        - <\n  \
               what happened around it, in seconds after its start\n        \
                     -1.50 until +2.00 log: bad\u{fffd}[2J\n"
        );
        assert!(Text { colour: true }.line(&serde_json::to_vec(&told).unwrap()).unwrap().contains(BOLD));
    }
}
