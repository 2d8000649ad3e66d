//! Masks JSON, byte by byte, so that it stays JSON of the same shape and length.

use super::allow::{self, Inside};

/// Bytes of a key that are kept; the rest is masked.
const KEY: usize = 64;

/// Bytes of a string under an allowed key that are kept. Names and identifiers are shorter.
const NAME: usize = 128;

/// An escape sequence or character that starts within that many bytes of a limit is masked whole.
const MARGIN: usize = 8;

/// Depth to which documents are followed; a deeper one is hidden.
const DEPTH: usize = 256;

#[derive(Clone, Copy, Debug)]
enum State {
    Value {
        closable: bool,
    },
    Key {
        closable: bool,
    },
    Colon,
    /// In a string of which that many bytes were read; bytes are kept up to `limit`.
    Text {
        key: bool,
        length: usize,
        limit: usize,
        escape: bool,
    },
    Number {
        kept: bool,
    },
    Literal {
        word: &'static [u8],
        matched: usize,
    },
    Next,
    Done,
    /// Not JSON, or unknown because of a gap.
    Hidden,
}

/// A container, as far as it decides what is kept.
#[derive(Clone, Copy, Debug)]
struct Container {
    array: bool,
    inside: Inside,
}

/// Masks one document.
#[derive(Debug)]
pub(super) struct JsonMask {
    state: State,
    /// Each open container.
    open: Vec<Container>,
    /// The last key, up to its limit; longer than any allowed one if it was cut.
    key: Vec<u8>,
    /// `[DONE]` is allowed, as event streams have it.
    done: bool,
}

impl JsonMask {
    pub(super) fn new(done: bool) -> Self {
        Self { state: State::Value { closable: false }, open: Vec::new(), key: Vec::new(), done }
    }

    /// A new document starts.
    pub(super) fn reset(&mut self) {
        self.state = State::Value { closable: false };
        self.open.clear();
        self.key.clear();
    }

    /// The rest of the document is not understood.
    pub(super) fn lose(&mut self) {
        self.state = State::Hidden;
    }

    /// Masks the next bytes.
    pub(super) fn mask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: &mut u8) {
        match self.state {
            State::Text { key, length, limit, escape } => self.text(byte, key, length, limit, escape),
            State::Number { kept } => {
                if matches!(*byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') {
                    if !kept && byte.is_ascii_digit() {
                        *byte = b'1';
                    }
                } else {
                    self.after_value();
                    self.byte(byte);
                }
            }
            State::Literal { word, matched } if word.get(matched) == Some(byte) => {
                if matched + 1 == word.len() {
                    self.after_value();
                } else {
                    self.state = State::Literal { word, matched: matched + 1 };
                }
            }
            State::Hidden => allow::hide(std::slice::from_mut(byte)),
            _ if matches!(*byte, b' ' | b'\n' | b'\r' | b'\t')
                && !matches!(self.state, State::Literal { .. }) => {}
            state => self.token(state, byte),
        }
    }

    fn token(&mut self, state: State, byte: &mut u8) {
        let in_array = self.open.last().map(|container| container.array);
        let inside = self.open.last().map_or(Inside::Document, |container| container.inside);
        match (state, *byte) {
            (State::Value { .. }, b'"') => {
                let kept = in_array == Some(false) && allow::string(inside, &self.key);
                let limit = if kept { NAME } else { 0 };
                self.state = State::Text { key: false, length: 0, limit, escape: false };
            }
            (State::Key { .. }, b'"') => {
                self.key.clear();
                self.state = State::Text { key: true, length: 0, limit: KEY, escape: false };
            }
            (State::Value { .. }, b'-' | b'0'..=b'9') => {
                let kept = in_array == Some(false) && allow::number(inside, &self.key);
                self.state = State::Number { kept };
                if !kept && byte.is_ascii_digit() {
                    *byte = b'1';
                }
            }
            (State::Value { .. }, b'{' | b'[') if self.open.len() < DEPTH => {
                let array = *byte == b'[';
                // An element of an array is where the array is.
                let inside = if in_array == Some(false) { inside.member(&self.key) } else { inside };
                self.open.push(Container { array, inside });
                self.state =
                    if array { State::Value { closable: true } } else { State::Key { closable: true } };
            }
            (State::Value { closable: true }, b'D') if self.done && self.open.len() == 1 => {
                self.state = State::Literal { word: b"DONE", matched: 1 };
            }
            (State::Value { .. }, b't') => self.state = State::Literal { word: b"true", matched: 1 },
            (State::Value { .. }, b'f') => self.state = State::Literal { word: b"false", matched: 1 },
            (State::Value { .. }, b'n') => self.state = State::Literal { word: b"null", matched: 1 },
            (State::Colon, b':') => self.state = State::Value { closable: false },
            (State::Next, b',') if in_array == Some(true) => self.state = State::Value { closable: false },
            (State::Next, b',') => self.state = State::Key { closable: false },
            (State::Next | State::Value { closable: true }, b']') if in_array == Some(true) => self.close(),
            (State::Next | State::Key { closable: true }, b'}') if in_array == Some(false) => self.close(),
            _ => {
                self.state = State::Hidden;
                allow::hide(std::slice::from_mut(byte));
            }
        }
    }

    fn text(&mut self, byte: &mut u8, key: bool, length: usize, mut limit: usize, escape: bool) {
        if *byte == b'"' && !escape {
            if key {
                self.state = State::Colon;
            } else {
                self.after_value();
            }
            return;
        }
        let backslash = *byte == b'\\' && !escape;
        if length + MARGIN > limit && (backslash || *byte >= 0xC0) {
            limit = limit.min(length);
        }
        if length >= limit {
            *byte = b'x';
        }
        if key && self.key.len() <= KEY {
            self.key.push(*byte);
        }
        self.state = State::Text { key, length: length + 1, limit, escape: backslash };
    }

    fn close(&mut self) {
        self.open.pop();
        self.after_value();
    }

    fn after_value(&mut self) {
        self.state = if self.open.is_empty() { State::Done } else { State::Next };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let mut whole = text.as_bytes().to_vec();
        JsonMask::new(true).mask(&mut whole);
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn documents() {
        for (text, expected) in [
            (
                r#"{"model":"m-1","messages":[{"role":"user","content":"a \"b\" é"}],"n":2,"stop":["x"]}"#,
                r#"{"model":"m-1","messages":[{"role":"user","content":"xxxxxxxxxx"}],"n":2,"stop":["x"]}"#,
            ),
            (r#"{"tokens":[10,-2.5e7],"id":17,"index":3}"#, r#"{"tokens":[11,-1.1e1],"id":11,"index":3}"#),
            (r#"{"a":"","b":null,"c":[true,{}]}"#, r#"{"a":"","b":null,"c":[true,{}]}"#),
            // Names that a tool or a user gave are theirs, whatever they are.
            (
                r#"{"type":"tool_use","input":{"type":"QZ","n":17,"a":[{"code":"QZ"}]},"id":"c"}"#,
                r#"{"type":"tool_use","input":{"type":"xx","n":11,"a":[{"code":"xx"}]},"id":"c"}"#,
            ),
            (
                r#"{"incomplete_details":{"reason":"max","x":"QZ"},"reason":"QZ"}"#,
                r#"{"incomplete_details":{"reason":"max","x":"xx"},"reason":"xx"}"#,
            ),
            ("[DONE]", "[DONE]"),
            ("[DOES]", "[DOxx]"),
            ("{\"a\":secret}", "{\"a\":xxxxxx}"),
            ("{\"a\":1} secret", "{\"a\":1} xxxxxx"),
            ("plain", "xxxxx"),
            ("true", "true"),
            ("trust", "truxx"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn long_keys_and_names_are_cut_at_whole_characters() {
        let text = format!(
            "{{\"{}\\n€tail\":1,\"model\":\"{}é{}\"}}",
            "k".repeat(62),
            "m".repeat(123),
            "y".repeat(9)
        );
        let expected = format!(
            "{{\"{}xxxxxxxxx\":1,\"model\":\"{}xx{}\"}}",
            "k".repeat(62),
            "m".repeat(123),
            "x".repeat(9)
        );
        assert_eq!(masked(&text), expected);
    }
}
