//! Strings: their start without escapes, and their length.

/// Bytes of a string that are kept.
const TEXT: usize = 256;

/// Room beyond [`TEXT`], so that it can be told whether a string was longer.
const SPARE: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    /// After a backslash.
    Start,
    /// In the four hex digits after `\u`.
    Unicode { digits: u8, unit: u16 },
}

/// A string that is being read.
#[derive(Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
    length: u64,
    escape: Escape,
    /// A high surrogate that waits for its low one.
    high: Option<u16>,
}

impl Text {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.length = 0;
        self.escape = Escape::None;
        self.high = None;
    }

    /// What was kept of the string: all of it, or more than [`TEXT`] bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes between the quotes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads on. Returns how many bytes belong to the string, and whether the closing quote is among them.
    pub(super) fn extend(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.escape {
                Escape::None => {
                    let found = memchr::memchr2(b'"', b'\\', rest);
                    let plain = rest.get(..found.unwrap_or(rest.len())).unwrap_or(rest);
                    if !plain.is_empty() {
                        self.end_surrogate();
                        self.keep(plain);
                        self.length += plain.len() as u64;
                    }
                    at += plain.len() + 1;
                    match rest.get(plain.len()) {
                        Some(b'"') => {
                            self.end_surrogate();
                            return (at, true);
                        }
                        Some(_) => {
                            self.length += 1;
                            self.escape = Escape::Start;
                        }
                        None => break,
                    }
                }
                Escape::Start => {
                    at += 1;
                    self.length += 1;
                    self.start_escape(rest.first().copied().unwrap_or_default());
                }
                Escape::Unicode { digits, unit } => {
                    let digit = rest.first().and_then(|byte| char::from(*byte).to_digit(16));
                    let Some(digit) = digit else {
                        // Not an escape after all; the byte is read again.
                        self.escape = Escape::None;
                        self.end_surrogate();
                        self.keep_char(char::REPLACEMENT_CHARACTER);
                        continue;
                    };
                    at += 1;
                    self.length += 1;
                    let unit = unit << 4 | digit as u16;
                    self.escape = if digits == 3 {
                        self.unit(unit);
                        Escape::None
                    } else {
                        Escape::Unicode { digits: digits + 1, unit }
                    };
                }
            }
        }
        (bytes.len(), false)
    }

    fn start_escape(&mut self, byte: u8) {
        self.escape = Escape::None;
        if byte == b'u' {
            self.escape = Escape::Unicode { digits: 0, unit: 0 };
            return;
        }
        self.end_surrogate();
        let plain = match byte {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            byte => byte,
        };
        self.keep(&[plain]);
    }

    /// A UTF-16 code unit (RFC 8259 section 7).
    fn unit(&mut self, unit: u16) {
        match (self.high.take(), unit) {
            (Some(high), 0xDC00..=0xDFFF) => {
                let both = char::decode_utf16([high, unit]).next().and_then(Result::ok);
                self.keep_char(both.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (earlier, _) => {
                if earlier.is_some() {
                    self.keep_char(char::REPLACEMENT_CHARACTER);
                }
                if (0xD800..=0xDBFF).contains(&unit) {
                    self.high = Some(unit);
                } else {
                    self.keep_char(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
        }
    }

    /// A high surrogate that no low one follows is no character.
    fn end_surrogate(&mut self) {
        if self.high.take().is_some() {
            self.keep_char(char::REPLACEMENT_CHARACTER);
        }
    }

    fn keep_char(&mut self, c: char) {
        self.keep(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = (TEXT + SPARE).saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}

/// Calls `with` with the first [`TEXT`] bytes as text; a character that the limit cuts is left out.
pub(super) fn with_clipped(bytes: &[u8], with: impl FnOnce(&str)) {
    let start = bytes.get(..TEXT).unwrap_or(bytes);
    match str::from_utf8(start) {
        Ok(text) => with(text),
        Err(error) if error.error_len().is_none() && bytes.len() > TEXT => {
            with(str::from_utf8(start.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default());
        }
        Err(_) => with(&String::from_utf8_lossy(start)),
    }
}
