//! The content of a response: coding and framing by the fields of its head, each event handed to the dialect.

use crate::{
    body::{
        Defect, Piece,
        array::{ArrayDecoder, ArrayItem},
        coding::ContentDecoder,
        json::{Completeness, Scanner},
        ndjson::{NdjsonDecoder, NdjsonItem},
        sse::{SseDecoder, SseItem},
    },
    http::{Fields, ResponseHead},
    llm::{Dialect, Facts, Request},
};

/// Data that ends a stream of events, whatever API it is of.
const DONE: &[u8] = b"[DONE]";

/// Content of a response.
pub(super) struct Content {
    coding: Option<ContentDecoder>,
    framing: Framing,
}

/// By the media type.
enum Framing {
    /// `text/event-stream`.
    Events(SseDecoder, Scanner),
    /// `application/x-ndjson` and its aliases.
    Lines(NdjsonDecoder, Scanner),
    /// `application/json` of a stream that was asked for, of an API that streams arrays.
    Elements(ArrayDecoder, Scanner),
    /// `application/json` and `…+json`.
    Document(Scanner, Box<Facts>),
    /// Anything else: bytes are counted.
    Other,
}

/// What content tells.
pub(super) enum Told {
    /// An event, whole.
    Event(Facts),
    /// An event with bytes missing, or one that is no document, by the defect's name.
    Damaged(&'static str),
    /// Nothing that follows can be decoded.
    Undecodable(Defect),
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

/// The decoder that content with these fields needs, if it needs one.
pub(super) fn decoder(fields: &Fields) -> Result<Option<ContentDecoder>, Defect> {
    let mut codings = fields.content_codings();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(None),
        (Some(coding), None) => ContentDecoder::new(coding).map(Some).ok_or(Defect::CodingUnknown),
        (Some(_), Some(_)) => Err(Defect::CodingUnknown),
    }
}

impl Content {
    /// Chooses by coding and media type; without the latter, by what was asked for. What is coded in an unknown way
    /// is not looked into.
    pub(super) fn new(
        head: &ResponseHead,
        dialect: Option<&dyn Dialect>,
        request: &Request,
    ) -> (Self, Option<Defect>) {
        let (coding, defect) = match decoder(&head.fields) {
            Ok(coding) => (coding, None),
            Err(defect) => (None, Some(defect)),
        };
        let succeeds = (200..300).contains(&head.status);
        let streams = request.stream == Some(true) && succeeds;
        let media_type = head.fields.content_type().map(str::to_ascii_lowercase);
        let framing = match media_type.as_deref() {
            _ if defect.is_some() => Framing::Other,
            Some("text/event-stream") => Framing::Events(SseDecoder::new(), Scanner::new()),
            None if streams => Framing::Events(SseDecoder::new(), Scanner::new()),
            Some(
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/jsonlines",
            ) => Framing::Lines(NdjsonDecoder::new(), Scanner::new()),
            Some("application/json") if streams && dialect.is_some_and(Dialect::streams_arrays) => {
                Framing::Elements(ArrayDecoder::new(), Scanner::new())
            }
            None if succeeds => Framing::Document(Scanner::new(), Box::default()),
            Some(media_type) if media_type == "application/json" || media_type.ends_with("+json") => {
                Framing::Document(Scanner::new(), Box::default())
            }
            _ => Framing::Other,
        };
        (Self { coding, framing }, defect)
    }

    /// Whether it is a stream of events.
    pub(super) const fn is_stream(&self) -> bool {
        matches!(self.framing, Framing::Events(..) | Framing::Lines(..) | Framing::Elements(..))
    }

    /// Whether it is looked into.
    pub(super) const fn is_read(&self) -> bool {
        !matches!(self.framing, Framing::Other)
    }

    /// Bytes of memory that are held until more content comes; a scanner's are few.
    pub(super) fn held(&self) -> usize {
        let framing = match &self.framing {
            Framing::Events(decoder, _) => decoder.held(),
            Framing::Lines(decoder, _) => decoder.held(),
            Framing::Elements(decoder, _) => decoder.held(),
            Framing::Document(..) | Framing::Other => 0,
        };
        framing + self.coding.as_ref().map_or(0, ContentDecoder::held)
    }

    pub(super) fn push(&mut self, dialect: &dyn Dialect, bytes: &[u8], sink: &mut dyn FnMut(Told)) {
        let Self { coding, framing } = self;
        let Some(coding) = coding else { return framing.push(dialect, bytes, sink) };
        if let Some(defect) = coding.push(bytes, &mut |content| framing.push(dialect, content, sink)) {
            framing.undecodable();
            sink(Told::Undecodable(defect));
        }
    }

    pub(super) fn gap(&mut self, length: u64, sink: &mut dyn FnMut(Told)) {
        match &mut self.coding {
            None => self.framing.gap(length, sink),
            Some(coding) => {
                coding.gap();
                self.framing.undecodable();
            }
        }
    }

    /// The content is over.
    pub(super) fn finish(&mut self, dialect: &dyn Dialect, sink: &mut dyn FnMut(Told)) {
        // Where decoding ended, a stream did not.
        if self.is_stream() && self.coding.as_ref().is_some_and(ContentDecoder::is_over) {
            return;
        }
        match &mut self.framing {
            Framing::Events(decoder, scanner) => {
                decoder.finish(&mut |item| event(dialect, scanner, &item, sink));
            }
            Framing::Lines(decoder, scanner) => {
                decoder.finish(&mut |item| line(dialect, scanner, &item, sink));
            }
            Framing::Elements(decoder, scanner) => {
                decoder.finish(&mut |item| element(dialect, scanner, &item, sink));
            }
            Framing::Document(scanner, facts) => {
                let complete =
                    scanner.finish(&mut |field| dialect.response(&field, facts)) == Completeness::Complete;
                let mut facts = std::mem::take(&mut **facts);
                dialect.concluded(&mut facts);
                sink(Told::Document { facts, complete });
            }
            Framing::Other => {}
        }
    }
}

impl Framing {
    fn push(&mut self, dialect: &dyn Dialect, bytes: &[u8], sink: &mut dyn FnMut(Told)) {
        match self {
            Self::Events(decoder, scanner) => {
                decoder.push(bytes, &mut |item| event(dialect, scanner, &item, sink));
            }
            Self::Lines(decoder, scanner) => {
                decoder.push(bytes, &mut |item| line(dialect, scanner, &item, sink));
            }
            Self::Elements(decoder, scanner) => {
                decoder.push(bytes, &mut |item| element(dialect, scanner, &item, sink));
            }
            Self::Document(scanner, facts) => {
                scanner.push(bytes, &mut |field| dialect.response(&field, facts));
            }
            Self::Other => {}
        }
    }

    /// No more of it can be had: a plain document has told a part of what it holds.
    fn undecodable(&mut self) {
        if let Self::Document(..) = self {
            self.gap(1, &mut |_| {});
        }
    }

    fn gap(&mut self, length: u64, sink: &mut dyn FnMut(Told)) {
        match self {
            Self::Events(decoder, _) => decoder.gap(length),
            Self::Lines(decoder, _) => decoder.gap(length),
            Self::Elements(decoder, _) => decoder.gap(length, &mut |item| {
                if let ArrayItem::Defect(defect) = item {
                    sink(Told::Damaged(defect.as_str()));
                }
            }),
            Self::Document(scanner, facts) => {
                // What was read of counts may be a part of them: only what comes whole after this is kept.
                (facts.usage, facts.engine, facts.logprobs, facts.token_ids) = Default::default();
                scanner.gap(length);
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

fn element(dialect: &dyn Dialect, scanner: &mut Scanner, item: &ArrayItem<'_>, sink: &mut dyn FnMut(Told)) {
    match item {
        ArrayItem::Element(data) => document(dialect, scanner, *data, sink),
        ArrayItem::Incomplete => sink(Told::Incomplete),
        ArrayItem::Defect(defect) => sink(Told::Damaged(defect.as_str())),
    }
}

/// One small document per event.
fn document(dialect: &dyn Dialect, scanner: &mut Scanner, data: Piece<'_>, sink: &mut dyn FnMut(Told)) {
    if data.is_damaged() {
        return sink(Told::Damaged("event_damaged"));
    }
    if data.bytes.trim_ascii() == DONE {
        return sink(Told::Terminator);
    }
    scanner.reset();
    let mut facts = Facts::default();
    scanner.push(data.bytes, &mut |field| dialect.response(&field, &mut facts));
    let complete =
        scanner.finish(&mut |field| dialect.response(&field, &mut facts)) == Completeness::Complete;
    dialect.concluded(&mut facts);
    sink(if complete { Told::Event(facts) } else { Told::Damaged("event_malformed") });
}
