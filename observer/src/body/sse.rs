//! Event streams, by the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream".
//!
//! In: content bytes. Out: [`SseItem`]s. An event is dispatched by its blank line, in the push that holds
//! that line's first byte. An event that lies within one push is not copied.

use super::{
    Defect, Piece,
    holed::{Holed, ITEM},
};

/// Bytes of an event name that are kept. The longest known one has 44.
const NAME: usize = 256;

/// A byte order mark, which may start a stream.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The longest prefix of a line in which the name of a field that is read ends: `event:`.
const FIELD: usize = 6;

/// What an event stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SseItem<'a> {
    /// An event with data.
    Event {
        /// The last `event` field; empty if there was none.
        event: &'a str,
        /// The `data` fields, joined by line feeds. If it is damaged, parts of other events may be in it.
        data: Piece<'a>,
    },
    /// A comment, as servers send to keep a connection alive.
    Comment,
    /// The stream ended within an event, which the standard does not dispatch.
    Incomplete {
        /// As in an event.
        event: &'a str,
        /// As in an event.
        data: Piece<'a>,
    },
    /// Something was wrong with the stream.
    Defect(Defect),
}

/// What is known of the line that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing was read of it.
    Fresh,
    /// A field name, so far.
    Name,
    /// `data:`, of whose value nothing was read.
    DataStart,
    /// In the value of `data`.
    Data,
    /// In the value of `event`.
    Event,
    /// A comment.
    Comment,
    /// A field that is not of interest.
    Other,
    /// The start of the line was not captured.
    Unknown,
}

/// Decodes an event stream.
#[derive(Debug)]
pub struct SseDecoder {
    line: Line,
    /// Start of the line, or value of the `event` field, that is being read.
    partial: Vec<u8>,
    event: String,
    data: Holed,
    /// True if the event has a data field, be it an empty one.
    has_data: bool,
    /// The last byte was a CR: a LF now belongs to the same line end.
    after_cr: bool,
    /// Bytes of a byte order mark that have been matched; `None` past the start of the stream.
    bom: Option<usize>,
    hole: bool,
}

type Sink<'s> = &'s mut dyn FnMut(SseItem<'_>);

impl SseDecoder {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self {
            line: Line::Fresh,
            partial: Vec::new(),
            event: String::new(),
            data: Holed::default(),
            has_data: false,
            after_cr: false,
            bom: Some(0),
            hole: false,
        }
    }

    /// Bytes of memory that are held until more of an event comes.
    pub fn held(&self) -> usize {
        self.partial.capacity() + self.event.capacity() + self.data.held()
    }

    /// Decodes the next bytes.
    pub fn push(&mut self, bytes: &[u8], sink: Sink<'_>) {
        if bytes.is_empty() {
            return;
        }
        self.tell_hole(sink);
        let mut rest = self.skip_bom(bytes);
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        // The first data line of an event, as long as it need not be copied.
        let mut held: Option<&[u8]> = None;
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let line = rest.get(..end).unwrap_or_default();
            if rest.get(end) == Some(&b'\r') {
                self.after_cr = rest.len() == end + 1;
                rest = rest.get(end + 1..).unwrap_or_default();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            } else {
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            if self.line == Line::Fresh {
                if line.is_empty() {
                    self.dispatch(&mut held, sink);
                    continue;
                }
                if !self.has_data
                    && self.data.is_pristine()
                    && line.len() <= ITEM
                    && let Some(value) = line.strip_prefix(b"data:")
                {
                    held = Some(value.strip_prefix(b" ").unwrap_or(value));
                    self.has_data = true;
                    continue;
                }
            }
            self.keep(&mut held);
            self.read(line);
            self.end_line(sink);
        }
        self.keep(&mut held);
        self.read(rest);
    }

    /// That many bytes of the stream were not captured. The event in which they lie is delivered damaged.
    pub fn gap(&mut self, hole: u64) {
        if hole == 0 {
            return;
        }
        self.hole = true;
        self.bom = None;
        self.after_cr = false;
        self.partial.clear();
        self.data.punch();
        self.line = Line::Unknown;
    }

    /// The stream ended.
    pub fn finish(&mut self, sink: Sink<'_>) {
        self.tell_hole(sink);
        let open = matches!(self.line, Line::Name | Line::DataStart | Line::Data | Line::Event);
        if open || self.has_data || !self.event.is_empty() || !self.data.is_empty() {
            self.tell_size(sink);
            sink(SseItem::Incomplete { event: &self.event, data: self.data.piece() });
        }
        *self = Self { bom: None, ..Self::new() };
    }

    fn tell_hole(&mut self, sink: Sink<'_>) {
        if std::mem::take(&mut self.hole) {
            sink(SseItem::Defect(Defect::Hole));
        }
    }

    fn tell_size(&mut self, sink: Sink<'_>) {
        if self.data.is_too_large() {
            sink(SseItem::Defect(Defect::TooLarge));
        }
    }

    fn skip_bom<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let (Some(matched), Some((first, rest))) = (self.bom, bytes.split_first()) {
            if BOM.get(matched) == Some(first) {
                self.bom = (matched + 1 < BOM.len()).then_some(matched + 1);
                bytes = rest;
            } else {
                self.bom = None;
                self.read(BOM.get(..matched).unwrap_or_default());
            }
        }
        bytes
    }

    /// Copies a data line that was held back.
    fn keep(&mut self, held: &mut Option<&[u8]>) {
        if let Some(value) = held.take() {
            self.data.extend(value);
        }
    }

    /// Reads some bytes of a line, without its end.
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.line {
                Line::Fresh => self.line = Line::Name,
                Line::Name => {
                    let room = FIELD.saturating_sub(self.partial.len()).min(bytes.len());
                    let start = bytes.get(..room).unwrap_or_default();
                    let used = start.iter().position(|byte| *byte == b':').map_or(room, |colon| colon + 1);
                    self.partial.extend_from_slice(bytes.get(..used).unwrap_or_default());
                    bytes = bytes.get(used..).unwrap_or_default();
                    self.line = match self.partial.as_slice() {
                        [b':', ..] => Line::Comment,
                        b"data:" => {
                            self.start_data();
                            Line::DataStart
                        }
                        b"event:" => Line::Event,
                        [.., b':'] => Line::Other,
                        partial if partial.len() == FIELD => Line::Other,
                        _ => Line::Name,
                    };
                    if self.line != Line::Name {
                        self.partial.clear();
                    }
                }
                Line::DataStart => {
                    bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
                    self.line = Line::Data;
                }
                Line::Data | Line::Unknown => {
                    self.data.extend(bytes);
                    return;
                }
                Line::Event => {
                    let room = (NAME + 1 - self.partial.len()).min(bytes.len());
                    self.partial.extend_from_slice(bytes.get(..room).unwrap_or_default());
                    return;
                }
                Line::Comment | Line::Other => return,
            }
        }
    }

    fn end_line(&mut self, sink: Sink<'_>) {
        match std::mem::replace(&mut self.line, Line::Fresh) {
            Line::Fresh => self.dispatch(&mut None, sink),
            // A line without a colon is a field with an empty value.
            Line::Name => match self.partial.as_slice() {
                b"data" => self.start_data(),
                b"event" => self.event.clear(),
                _ => {}
            },
            Line::Event => {
                let name = self.partial.strip_prefix(b" ").unwrap_or(&self.partial);
                let name = name.get(..NAME).unwrap_or(name);
                self.event.clear();
                self.event.push_str(&String::from_utf8_lossy(name));
            }
            Line::Comment => sink(SseItem::Comment),
            Line::DataStart | Line::Data | Line::Other | Line::Unknown => {}
        }
        self.partial.clear();
    }

    fn start_data(&mut self) {
        if self.has_data || !self.data.is_empty() {
            self.data.extend(b"\n");
        }
        self.has_data = true;
    }

    /// A blank line ended the event. One without a data field is dropped, as the standard has it.
    fn dispatch(&mut self, held: &mut Option<&[u8]>, sink: Sink<'_>) {
        if let Some(value) = held.take() {
            sink(SseItem::Event { event: &self.event, data: Piece::intact(value) });
        } else if self.has_data || !self.data.is_empty() {
            self.tell_size(sink);
            sink(SseItem::Event { event: &self.event, data: self.data.piece() });
        }
        self.data.clear();
        self.has_data = false;
        self.event.clear();
    }
}

impl Default for SseDecoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
