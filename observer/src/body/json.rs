//! Reads JSON as it comes: every scalar with its path, without building a document.
//!
//! In: the bytes of one document in any pieces, with explicit gaps. Out: [`Field`]s in document order.
//! Nothing is allocated per document, and long strings cost one search for their end.
//!
//! After a gap a forward reader knows neither the depth nor whether it is inside a string, so it reports
//! nothing more. The end of a document has a known depth, though: [`Scanner::finish`] reads what was kept of
//! it backwards and reports the members of the top-level object that lie wholly in there.

mod field;
mod tail;
mod text;

#[cfg(test)]
mod tests;

use super::Piece;
pub use field::{Completeness, Field, Value};
use text::Text;

/// Depth to which containers are followed; what lies deeper is passed over.
const DEPTH: usize = 32;

/// Bytes of a key. A longer one is replaced by `?`, which no key of interest is.
const KEY: usize = 64;

/// Bytes of a number. A longer one is not reported.
const NUMBER: usize = 64;

/// Bytes kept after a gap. What a damaged document is read for, usage and timings, stands at its end.
const TAIL: usize = 2 << 10;

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before a value; `closable` right after `[`.
    Value { closable: bool },
    /// Before a key; `closable` right after `{`.
    Key { closable: bool },
    /// Before the colon after a key.
    Colon,
    /// In a string that began in an earlier push or has escapes.
    Text { key: bool },
    /// In a number that began in an earlier push.
    Number,
    /// In a literal, of which that many bytes were matched.
    Literal(Literal, usize),
    /// After a value within a container.
    Next,
    /// In a container below [`DEPTH`].
    Deep { depth: u64, string: bool, escape: bool },
    /// After the document.
    Done,
    /// After a gap.
    Lost,
    /// After something that is not JSON.
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum Literal {
    True,
    False,
    Null,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    array: bool,
    /// Length of the path of the container.
    start: usize,
    /// Length of the path that its members share.
    base: usize,
    /// Elements of the array before the current one.
    index: u32,
}

/// Reads one document after another, each ended by [`Self::finish`].
#[derive(Debug)]
pub struct Scanner {
    state: State,
    frames: Vec<Frame>,
    path: String,
    text: Text,
    number: Vec<u8>,
    /// The last bytes since the last gap.
    tail: Vec<u8>,
}

type Sink<'s> = &'s mut dyn FnMut(Field<'_>);

impl Scanner {
    /// Before a document.
    pub fn new() -> Self {
        Self {
            state: State::Value { closable: false },
            frames: Vec::new(),
            path: String::new(),
            text: Text::default(),
            number: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// Forgets the document, and keeps the memory.
    pub fn reset(&mut self) {
        self.state = State::Value { closable: false };
        self.frames.clear();
        self.path.clear();
        self.text.clear();
        self.number.clear();
        self.tail.clear();
    }

    /// Reads a whole document, or what there is of a damaged one.
    pub fn scan(&mut self, piece: Piece<'_>, sink: Sink<'_>) -> Completeness {
        self.reset();
        let (before, after) = piece.halves();
        self.push(before, sink);
        if piece.is_damaged() {
            self.gap(1);
            self.push(after, sink);
        }
        self.finish(sink)
    }

    /// Reads the next bytes.
    pub fn push(&mut self, bytes: &[u8], sink: Sink<'_>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.step(rest, sink);
            rest = rest.get(used..).unwrap_or_default();
        }
    }

    /// That many bytes of the document were not captured.
    pub fn gap(&mut self, hole: u64) {
        if hole > 0 {
            self.tail.clear();
            if !matches!(self.state, State::Broken) {
                self.state = State::Lost;
            }
        }
    }

    /// The document ended; the next push starts another one.
    ///
    /// If its end was not seen, because the stream broke off, call [`Self::gap`] first: the bytes before
    /// would be taken for the end of the document.
    pub fn finish(&mut self, sink: Sink<'_>) -> Completeness {
        let completeness = match self.state {
            State::Done => Completeness::Complete,
            State::Number if self.frames.is_empty() => {
                self.end_number(sink);
                Completeness::Complete
            }
            State::Lost => {
                self.read_tail(sink);
                Completeness::Holed
            }
            State::Broken => Completeness::NotJson,
            State::Value { .. } if self.frames.is_empty() => Completeness::NotJson,
            _ => Completeness::Truncated,
        };
        self.reset();
        completeness
    }

    /// Consumes some bytes; consumes none only when it changes the state.
    fn step(&mut self, rest: &[u8], sink: Sink<'_>) -> usize {
        match self.state {
            State::Text { key } => {
                let (used, closed) = self.text.extend(rest);
                if closed {
                    self.end_text(key, sink);
                }
                return used;
            }
            State::Number => {
                let used = number_length(rest);
                let room = (NUMBER + 1).saturating_sub(self.number.len()).min(used);
                self.number.extend_from_slice(rest.get(..room).unwrap_or_default());
                if used < rest.len() {
                    self.end_number(sink);
                }
                return used;
            }
            State::Literal(literal, matched) => return self.literal(literal, matched, rest, sink),
            State::Deep { depth, string, escape } => return self.deep(rest, depth, string, escape),
            State::Lost => {
                self.tail.extend_from_slice(rest.get(rest.len().saturating_sub(TAIL)..).unwrap_or(rest));
                if self.tail.len() > 2 * TAIL {
                    self.tail.drain(..self.tail.len() - TAIL);
                }
                return rest.len();
            }
            State::Broken => return rest.len(),
            _ => {}
        }
        let space = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
        let Some((byte, after)) = rest.get(space..).and_then(<[u8]>::split_first) else {
            return space;
        };
        space + 1 + self.token(*byte, after, sink)
    }

    /// Reads a token that starts with `byte`; returns how many bytes of `after` belong to it.
    fn token(&mut self, byte: u8, after: &[u8], sink: Sink<'_>) -> usize {
        match (self.state, byte) {
            (State::Value { .. }, b'"') => return self.string(false, after, sink),
            (State::Key { .. }, b'"') => return self.string(true, after, sink),
            (State::Value { .. }, b'-' | b'0'..=b'9') => return self.start_number(byte, after, sink),
            (State::Value { .. }, b'{') => self.open(false),
            (State::Value { .. }, b'[') => self.open(true),
            (State::Value { closable: true }, b']') => self.close(true, Some(Value::EmptyArray), sink),
            (State::Key { closable: true }, b'}') => self.close(false, Some(Value::EmptyObject), sink),
            (State::Value { .. }, b't') => self.state = State::Literal(Literal::True, 1),
            (State::Value { .. }, b'f') => self.state = State::Literal(Literal::False, 1),
            (State::Value { .. }, b'n') => self.state = State::Literal(Literal::Null, 1),
            (State::Colon, b':') => self.state = State::Value { closable: false },
            (State::Next, b',') => match self.frames.last_mut() {
                Some(frame) if frame.array => {
                    frame.index = frame.index.saturating_add(1);
                    self.state = State::Value { closable: false };
                }
                _ => self.state = State::Key { closable: false },
            },
            (State::Next, b']') => self.close(true, None, sink),
            (State::Next, b'}') => self.close(false, None, sink),
            _ => self.state = State::Broken,
        }
        0
    }

    /// A string whose opening quote has been read.
    fn string(&mut self, key: bool, after: &[u8], sink: Sink<'_>) -> usize {
        if let Some(end) = memchr::memchr2(b'"', b'\\', after)
            && after.get(end) == Some(&b'"')
        {
            let raw = after.get(..end).unwrap_or_default();
            if key {
                self.set_key(raw);
            } else {
                text::with_clipped(raw, |text| {
                    self.emit(Value::String { text, length: raw.len() as u64 }, sink);
                });
                self.after_value();
            }
            return end + 1;
        }
        self.text.clear();
        self.state = State::Text { key };
        0
    }

    fn end_text(&mut self, key: bool, sink: Sink<'_>) {
        let text = std::mem::take(&mut self.text);
        if key {
            self.set_key(text.bytes());
        } else {
            text::with_clipped(text.bytes(), |start| {
                self.emit(Value::String { text: start, length: text.length() }, sink);
            });
            self.after_value();
        }
        self.text = text;
    }

    fn set_key(&mut self, key: &[u8]) {
        self.path.truncate(self.frames.last().map_or(0, |frame| frame.base));
        if !self.path.is_empty() {
            self.path.push('.');
        }
        match str::from_utf8(key) {
            Ok(text) if (1..=KEY).contains(&key.len()) => {
                if key.iter().any(|byte| matches!(byte, b'.' | b'[' | b']')) {
                    self.path
                        .extend(text.chars().map(|c| if matches!(c, '.' | '[' | ']') { '?' } else { c }));
                } else {
                    self.path.push_str(text);
                }
            }
            _ => self.path.push('?'),
        }
        self.state = State::Colon;
    }

    fn start_number(&mut self, byte: u8, after: &[u8], sink: Sink<'_>) -> usize {
        self.number.clear();
        self.number.push(byte);
        self.state = State::Number;
        let used = number_length(after);
        let room = NUMBER.min(used);
        self.number.extend_from_slice(after.get(..room).unwrap_or_default());
        if used < after.len() {
            self.end_number(sink);
        }
        used
    }

    fn end_number(&mut self, sink: Sink<'_>) {
        let number = std::mem::take(&mut self.number);
        if number.len() <= NUMBER {
            self.emit(Value::Number(str::from_utf8(&number).unwrap_or_default()), sink);
        }
        self.number = number;
        self.after_value();
    }

    fn literal(&mut self, literal: Literal, mut matched: usize, rest: &[u8], sink: Sink<'_>) -> usize {
        let (word, value): (&[u8], _) = match literal {
            Literal::True => (b"true", Value::Bool(true)),
            Literal::False => (b"false", Value::Bool(false)),
            Literal::Null => (b"null", Value::Null),
        };
        for (used, byte) in rest.iter().enumerate() {
            if word.get(matched) != Some(byte) {
                self.state = State::Broken;
                return used;
            }
            matched += 1;
            if matched == word.len() {
                self.emit(value, sink);
                self.after_value();
                return used + 1;
            }
        }
        self.state = State::Literal(literal, matched);
        rest.len()
    }

    fn open(&mut self, array: bool) {
        if self.frames.len() == DEPTH {
            self.state = State::Deep { depth: 1, string: false, escape: false };
            return;
        }
        let start = self.path.len();
        if array {
            self.path.push_str("[]");
        }
        self.frames.push(Frame { array, start, base: self.path.len(), index: 0 });
        self.state = if array { State::Value { closable: true } } else { State::Key { closable: true } };
    }

    fn close(&mut self, array: bool, empty: Option<Value<'_>>, sink: Sink<'_>) {
        match self.frames.pop() {
            Some(frame) if frame.array == array => {
                self.path.truncate(frame.start);
                if let Some(value) = empty {
                    self.emit(value, sink);
                }
                self.after_value();
            }
            _ => self.state = State::Broken,
        }
    }

    /// Passes over a container that is nested too deeply to be followed.
    fn deep(&mut self, rest: &[u8], mut depth: u64, mut string: bool, mut escape: bool) -> usize {
        for (used, byte) in rest.iter().enumerate() {
            match byte {
                _ if escape => escape = false,
                b'\\' if string => escape = true,
                b'"' => string = !string,
                b'{' | b'[' if !string => depth += 1,
                b'}' | b']' if !string => {
                    depth -= 1;
                    if depth == 0 {
                        self.after_value();
                        return used + 1;
                    }
                }
                _ => {}
            }
        }
        self.state = State::Deep { depth, string, escape };
        rest.len()
    }

    fn after_value(&mut self) {
        self.state = if self.frames.is_empty() { State::Done } else { State::Next };
    }

    fn emit(&self, value: Value<'_>, sink: Sink<'_>) {
        let index = self.frames.iter().find(|frame| frame.array).map_or(0, |frame| frame.index);
        sink(Field { path: &self.path, index, value });
    }

    /// Reports the whole members at the end of a document with a hole.
    fn read_tail(&mut self, sink: Sink<'_>) {
        let kept = std::mem::take(&mut self.tail);
        let last = kept.get(kept.len().saturating_sub(TAIL)..).unwrap_or(&kept);
        let opened = !self.frames.is_empty();
        if let Some(members) = tail::whole_members(last, opened) {
            // What does not read as members to the very end is not the end of a JSON document.
            self.read_members(members, &mut |_| {});
            if matches!(self.state, State::Done) {
                self.read_members(members, sink);
            }
        }
        self.tail = kept;
    }

    fn read_members(&mut self, members: &[u8], sink: Sink<'_>) {
        self.reset();
        self.open(false);
        self.push(members, sink);
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

/// Length of the run of bytes that may stand in a number.
fn number_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count()
}
