//! Each API with lines as its servers send them: values are invented, shapes are those of the sources that the
//! dialects name. Each table covers a stream, a plain answer, an error before the first byte of an answer, an
//! error inside a stream, and an abort, as far as the API knows the case.

mod anthropic;
mod gemini;
mod llamacpp;
mod ollama;
mod openai;
mod pooling;
mod responses;
mod sglang;
mod tgi;
mod triton;

use std::fmt::Write as _;

use observer::exchange::{Outcome, RequestRecord, TokenSource};
use observer_ebpf::State;

use crate::wire::Wire;

pub(crate) const SSE: &str = "Content-Type: text/event-stream\r\n";
pub(crate) const JSON: &str = "Content-Type: application/json\r\n";
pub(crate) const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

/// A request on a connection of its own.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) body: &'a str,
}

impl Asked<'_> {
    fn wire(self) -> Wire {
        let Self { path, body } = self;
        let mut wire = Wire::new();
        wire.read(format!("POST {path} HTTP/1.1\r\n{JSON}Content-Length: {}\r\n\r\n{body}", body.len()));
        wire
    }

    fn chunks(self, head: &str, chunks: &[String]) -> Wire {
        let mut wire = self.wire();
        wire.write(format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n"));
        for chunk in chunks {
            wire.write(format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        }
        wire
    }

    /// A stream that ends in order; each event is a chunk and a write.
    pub(crate) fn streamed(self, head: &str, chunks: &[String]) -> RequestRecord {
        let mut wire = self.chunks(head, chunks);
        wire.write("0\r\n\r\n").state(State::ESTABLISHED, State::CLOSE_WAIT).close();
        only(&wire)
    }

    /// The client hangs up within a stream.
    pub(crate) fn aborted(self, head: &str, chunks: &[String]) -> RequestRecord {
        let mut wire = self.chunks(head, chunks);
        wire.state(State::ESTABLISHED, State::CLOSE_WAIT).close();
        only(&wire)
    }

    /// A plain answer.
    pub(crate) fn plain(self, status: u16, head: &str, text: &str) -> RequestRecord {
        let mut wire = self.wire();
        wire.write(format!("HTTP/1.1 {status} X\r\n{head}Content-Length: {}\r\n\r\n{text}", text.len()));
        wire.state(State::ESTABLISHED, State::CLOSE_WAIT).close();
        only(&wire)
    }
}

/// The one record of a connection, whose numbers can be trusted.
pub(crate) fn only(wire: &Wire) -> RequestRecord {
    let mut records = wire.seen().records;
    assert_eq!(records.len(), 1, "{records:#?}");
    let record = records.remove(0);
    assert!(record.is_complete(), "{record:#?}");
    record
}

/// Documents as events.
pub(crate) fn events(documents: &[&str]) -> Vec<String> {
    documents.iter().map(|document| format!("data: {document}\n\n")).collect()
}

/// Documents as events that are named by the word behind their first `type`.
pub(crate) fn named(documents: &[&str]) -> Vec<String> {
    let name = |document: &str| document.split(r#""type":""#).nth(1)?.split('"').next().map(str::to_owned);
    documents
        .iter()
        .map(|document| {
            format!("event: {}\ndata: {document}\n\n", name(document).expect("an event with a type"))
        })
        .collect()
}

/// Documents as lines.
pub(crate) fn lines(documents: &[&str]) -> Vec<String> {
    documents.iter().map(|document| format!("{document}\n")).collect()
}

/// What an API tells of an exchange, in one line: outcome, model, finish reason, error, tokens by type (input, input
/// from a cache, output, reasoning) and source, token-bearing events; `-` for what is absent.
pub(crate) fn told(record: &RequestRecord) -> String {
    let word = |word: Option<&str>| word.unwrap_or("-").to_owned();
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let tokens = &record.tokens;
    let mut line = format!(
        "{} {} {} {} {}+{} {}+{} {} {}",
        word(record.outcome.map(Outcome::as_str)),
        word(record.model.as_deref()),
        word(record.finish_reason.as_deref()),
        word(record.error_type.as_deref()),
        count(tokens.input),
        count(tokens.input_cached),
        count(tokens.output),
        count(tokens.output_reasoning),
        word(tokens.source.map(TokenSource::as_str)),
        record.token_events,
    );
    if record.empty {
        let _ = write!(line, " empty");
    }
    line
}

/// Checks lines of a table, all before it fails.
pub(crate) fn check(cases: &[(RequestRecord, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter(|(record, expected)| told(record) != *expected)
        .map(|(record, expected)| format!("{}\n{expected} was expected", told(record)))
        .collect();
    assert!(
        wrong.is_empty(),
        "outcome model finish error in+cached out+reasoning source events\n{}",
        wrong.join("\n")
    );
}
