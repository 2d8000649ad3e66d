//! The content of a response: framing by its media type, each event handed to the dialect.

use crate::{
    body::{
        Piece,
        json::{Completeness, Scanner},
        ndjson::{NdjsonDecoder, NdjsonItem},
        sse::{SseDecoder, SseItem},
    },
    llm::{Dialect, Facts},
};

/// Content of a response, by its media type.
pub(super) enum Content {
    /// `text/event-stream`.
    Events(SseDecoder, Scanner),
    /// `application/x-ndjson` and its aliases.
    Lines(NdjsonDecoder, Scanner),
    /// `application/json` and `…+json`.
    Document(Scanner, Facts),
    /// Anything else: bytes are counted.
    Other,
}

/// What content tells.
pub(super) enum Told {
    /// An event, whole.
    Event(Facts),
    /// An event with bytes missing, or one that is no document, by the defect's name.
    Damaged(&'static str),
    /// The stream ended within an event.
    Incomplete,
    /// The stream's terminator.
    Terminator,
    /// The plain document is over.
    Document {
        /// What it told.
        facts: Facts,
        /// Whether all of it was there.
        complete: bool,
    },
}

impl Content {
    /// Chooses by media type; without one, a stream that was asked for is one of events.
    pub(super) fn new(media_type: Option<&str>) -> Self {
        match media_type {
            Some("text/event-stream") => Self::Events(SseDecoder::new(), Scanner::new()),
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonlines") => {
                Self::Lines(NdjsonDecoder::new(), Scanner::new())
            }
            Some(media_type) if media_type == "application/json" || media_type.ends_with("+json") => {
                Self::Document(Scanner::new(), Facts::default())
            }
            _ => Self::Other,
        }
    }

    /// Whether it is a stream of events.
    pub(super) const fn is_stream(&self) -> bool {
        matches!(self, Self::Events(..) | Self::Lines(..))
    }

    /// Bytes of memory that are held until more content comes; a scanner's are few.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Events(decoder, _) => decoder.held(),
            Self::Lines(decoder, _) => decoder.held(),
            Self::Document(..) | Self::Other => 0,
        }
    }

    pub(super) fn push(&mut self, dialect: &dyn Dialect, bytes: &[u8], sink: &mut dyn FnMut(Told)) {
        match self {
            Self::Events(decoder, scanner) => decoder.push(bytes, &mut |item| {
                event(dialect, scanner, &item, sink);
            }),
            Self::Lines(decoder, scanner) => decoder.push(bytes, &mut |item| {
                line(dialect, scanner, &item, sink);
            }),
            Self::Document(scanner, facts) => {
                scanner.push(bytes, &mut |field| dialect.response(&field, facts));
            }
            Self::Other => {}
        }
    }

    pub(super) fn gap(&mut self, length: u64) {
        match self {
            Self::Events(decoder, _) => decoder.gap(length),
            Self::Lines(decoder, _) => decoder.gap(length),
            Self::Document(scanner, facts) => {
                // What was read of counts may be a part of them: only what comes whole after this is kept.
                (facts.usage, facts.engine, facts.logprobs, facts.token_ids) = Default::default();
                scanner.gap(length);
            }
            Self::Other => {}
        }
    }

    /// The content is over.
    pub(super) fn finish(&mut self, dialect: &dyn Dialect, sink: &mut dyn FnMut(Told)) {
        match self {
            Self::Events(decoder, scanner) => {
                decoder.finish(&mut |item| event(dialect, scanner, &item, sink));
            }
            Self::Lines(decoder, scanner) => decoder.finish(&mut |item| line(dialect, scanner, &item, sink)),
            Self::Document(scanner, facts) => {
                let complete =
                    scanner.finish(&mut |field| dialect.response(&field, facts)) == Completeness::Complete;
                sink(Told::Document { facts: std::mem::take(facts), complete });
            }
            Self::Other => {}
        }
    }
}

fn event(dialect: &dyn Dialect, scanner: &mut Scanner, item: &SseItem<'_>, sink: &mut dyn FnMut(Told)) {
    match item {
        SseItem::Event { data, .. } => document(dialect, scanner, *data, sink),
        SseItem::Incomplete { .. } => sink(Told::Incomplete),
        SseItem::Defect(defect) => sink(Told::Damaged(defect.as_str())),
        // A comment keeps the connection alive and tells nothing.
        SseItem::Comment => {}
    }
}

fn line(dialect: &dyn Dialect, scanner: &mut Scanner, item: &NdjsonItem<'_>, sink: &mut dyn FnMut(Told)) {
    match item {
        NdjsonItem::Line(data) => document(dialect, scanner, *data, sink),
        NdjsonItem::Incomplete(_) => sink(Told::Incomplete),
        NdjsonItem::Defect(defect) => sink(Told::Damaged(defect.as_str())),
    }
}

/// One small document per event.
fn document(dialect: &dyn Dialect, scanner: &mut Scanner, data: Piece<'_>, sink: &mut dyn FnMut(Told)) {
    if data.is_damaged() {
        return sink(Told::Damaged("event_damaged"));
    }
    if dialect.is_terminator(data.bytes) {
        return sink(Told::Terminator);
    }
    scanner.reset();
    let mut facts = Facts::default();
    scanner.push(data.bytes, &mut |field| dialect.response(&field, &mut facts));
    let complete =
        scanner.finish(&mut |field| dialect.response(&field, &mut facts)) == Completeness::Complete;
    sink(if complete { Told::Event(facts) } else { Told::Damaged("event_malformed") });
}
