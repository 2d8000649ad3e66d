//! Masks message content by its media type.

use super::{allow, json::JsonMask};
use crate::http::Fields;

/// Bytes of an event name that are kept.
const EVENT: usize = 64;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Fields of an event stream, whose names are kept.
const FIELDS: [&[u8]; 4] = [b"data", b"event", b"id", b"retry"];

/// Masks the content of one message.
#[derive(Debug)]
pub(super) enum ContentMask {
    /// One document.
    Json(JsonMask),
    /// A document per line.
    Lines(JsonMask),
    /// A document per event.
    Events(EventMask),
    /// JSON if it starts like an object or array, whatever it was declared to be.
    Undecided,
    /// Anything else.
    Opaque,
}

impl ContentMask {
    /// Chooses by the fields of the message.
    pub(super) fn of(fields: &Fields) -> Self {
        if fields.list("content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
            return Self::Opaque;
        }
        let Some(media_type) = fields.content_type().map(str::to_ascii_lowercase) else {
            return Self::Undecided;
        };
        match media_type.as_str() {
            "text/event-stream" => Self::Events(EventMask::new()),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/jsonlines" => {
                Self::Lines(JsonMask::new(false))
            }
            "application/json" => Self::Json(JsonMask::new(false)),
            media_type if media_type.ends_with("+json") => Self::Json(JsonMask::new(false)),
            // What command-line clients declare when they are not told otherwise.
            "application/x-www-form-urlencoded" | "application/octet-stream" | "text/plain" => {
                Self::Undecided
            }
            _ => Self::Opaque,
        }
    }

    /// Masks the next bytes.
    pub(super) fn mask(&mut self, bytes: &mut [u8]) {
        if let Self::Undecided = self {
            match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{' | b'[') => *self = Self::Json(JsonMask::new(false)),
                Some(_) => *self = Self::Opaque,
                None => return,
            }
        }
        match self {
            Self::Json(json) => json.mask(bytes),
            Self::Lines(json) => {
                for line in bytes.split_inclusive_mut(|byte| *byte == b'\n') {
                    json.mask(line);
                    if line.ends_with(b"\n") {
                        json.reset();
                    }
                }
            }
            Self::Events(events) => events.mask(bytes),
            Self::Undecided | Self::Opaque => allow::hide(bytes),
        }
    }

    /// Some content was not captured: what follows is not understood up to the next boundary, if there is one.
    pub(super) fn gap(&mut self) {
        match self {
            Self::Json(json) | Self::Lines(json) => json.lose(),
            Self::Events(events) => events.gap(),
            Self::Undecided | Self::Opaque => *self = Self::Opaque,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// In the name of a field.
    Name,
    /// Right after `data:`.
    DataStart,
    Data,
    Event,
    Hidden,
}

/// Masks an event stream.
#[derive(Debug)]
pub(super) struct EventMask {
    line: Line,
    /// The field name so far, a prefix of a known one.
    name: Vec<u8>,
    /// Bytes of the event name that were kept.
    event: usize,
    json: JsonMask,
    after_cr: bool,
    bom: Option<usize>,
}

impl EventMask {
    fn new() -> Self {
        let json = JsonMask::new(true);
        Self { line: Line::Name, name: Vec::new(), event: 0, json, after_cr: false, bom: Some(0) }
    }

    fn gap(&mut self) {
        self.line = Line::Hidden;
        self.json.lose();
        self.after_cr = false;
        self.bom = None;
    }

    fn mask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if let Some(matched) = self.bom {
                if BOM.get(matched) == Some(byte) {
                    self.bom = (matched + 1 < BOM.len()).then_some(matched + 1);
                    continue;
                }
                self.bom = None;
                if matched > 0 {
                    self.line = Line::Hidden;
                }
            }
            match *byte {
                b'\n' if std::mem::take(&mut self.after_cr) => {}
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    self.end_line();
                }
                _ => {
                    self.after_cr = false;
                    self.byte(byte);
                }
            }
        }
    }

    fn end_line(&mut self) {
        if self.line == Line::Name && self.name.is_empty() {
            self.json.reset();
        } else if self.line != Line::Hidden {
            // Data lines are joined by line feeds.
            self.json.mask(&mut [b'\n']);
        }
        self.line = Line::Name;
        self.name.clear();
        self.event = 0;
    }

    fn byte(&mut self, byte: &mut u8) {
        match self.line {
            Line::Name if *byte == b':' => {
                self.line = match self.name.as_slice() {
                    b"data" => Line::DataStart,
                    b"event" => Line::Event,
                    _ => Line::Hidden,
                };
            }
            Line::Name => {
                self.name.push(*byte);
                if !FIELDS.iter().any(|field| field.starts_with(&self.name)) {
                    self.line = Line::Hidden;
                    allow::hide(std::slice::from_mut(byte));
                }
            }
            Line::DataStart => {
                self.line = Line::Data;
                if *byte != b' ' {
                    self.json.mask(std::slice::from_mut(byte));
                }
            }
            Line::Data => self.json.mask(std::slice::from_mut(byte)),
            Line::Event
                if self.event < EVENT
                    && (byte.is_ascii_alphanumeric()
                        || b"_-.".contains(byte)
                        || self.event == 0 && *byte == b' ') =>
            {
                self.event += 1;
            }
            Line::Event | Line::Hidden => {
                self.line = Line::Hidden;
                allow::hide(std::slice::from_mut(byte));
            }
        }
    }
}
