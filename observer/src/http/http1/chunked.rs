//! The chunked transfer coding (RFC 9112 section 7.1).

use super::parse::Line;

/// Digits of a chunk size, leading zeros included: some servers pad the size to a fixed width.
const DIGITS: u8 = 32;

/// Bytes of a chunk extension, and of all trailers together, before they count as garbage.
const EXTRA: usize = 64 << 10;

/// Where in the coding the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In the size of a chunk.
    Size { size: u64, digits: u8 },
    /// In what follows the size on its line.
    Extension { size: u64, length: usize },
    /// After the CR of a size line.
    SizeEnd { size: u64 },
    /// In data of which that many bytes are to come.
    Data(u64),
    /// After data, before its line end.
    DataEnd { cr: bool },
    /// After the last chunk.
    Trailers { line: Line, length: usize },
}

/// What a step found in the bytes that it consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Framing.
    Framing,
    /// Content: all bytes that were consumed.
    Content,
    /// Framing, and the end of the message.
    End,
    /// The byte after those consumed, of which there is one, is not the chunked coding.
    Malformed,
}

impl Chunks {
    /// Before a size line.
    pub(super) const START: Self = Self::Size { size: 0, digits: 0 };

    /// Consumes some of `bytes`, which must not be empty; says how many and what they were.
    pub(super) fn step(&mut self, bytes: &[u8]) -> (usize, Step) {
        match *self {
            Self::Size { size, digits } => self.size(bytes, size, digits),
            Self::Extension { size, length } => {
                let line = memchr::memchr(b'\n', bytes);
                let used = line.map_or(bytes.len(), |end| end + 1);
                if length + used > EXTRA {
                    return (0, Step::Malformed);
                }
                match line {
                    Some(_) => *self = Self::after_size(size),
                    None => *self = Self::Extension { size, length: length + used },
                }
                (used, Step::Framing)
            }
            Self::SizeEnd { size } => {
                if bytes.first() != Some(&b'\n') {
                    return (0, Step::Malformed);
                }
                *self = Self::after_size(size);
                (1, Step::Framing)
            }
            Self::Data(left) => {
                let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.content(left, used as u64);
                (used, Step::Content)
            }
            Self::DataEnd { cr } => match (bytes.first(), cr) {
                (Some(b'\n'), _) => {
                    *self = Self::START;
                    (1, Step::Framing)
                }
                (Some(b'\r'), false) => {
                    *self = Self::DataEnd { cr: true };
                    (1, Step::Framing)
                }
                _ => (0, Step::Malformed),
            },
            Self::Trailers { mut line, length } => match line.find_empty(bytes) {
                Some(used) => (used, Step::End),
                None if length + bytes.len() > EXTRA => (0, Step::Malformed),
                None => {
                    *self = Self::Trailers { line, length: length + bytes.len() };
                    (bytes.len(), Step::Framing)
                }
            },
        }
    }

    /// Passes over a hole. Returns how much of it surely is content, and whether framing survived.
    pub(super) fn gap(&mut self, hole: u64) -> (u64, bool) {
        match *self {
            Self::Data(left) if hole <= left => {
                self.content(left, hole);
                (hole, true)
            }
            Self::Data(left) => (left, false),
            _ => (0, false),
        }
    }

    fn size(&mut self, bytes: &[u8], mut size: u64, mut digits: u8) -> (usize, Step) {
        for (at, byte) in bytes.iter().enumerate() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                b'A'..=b'F' => byte - b'A' + 10,
                b'\r' if digits > 0 => {
                    *self = Self::SizeEnd { size };
                    return (at + 1, Step::Framing);
                }
                b'\n' if digits > 0 => {
                    *self = Self::after_size(size);
                    return (at + 1, Step::Framing);
                }
                b';' | b' ' | b'\t' if digits > 0 => {
                    *self = Self::Extension { size, length: 0 };
                    return (at + 1, Step::Framing);
                }
                _ => return (at, Step::Malformed),
            };
            if digits == DIGITS || size >> 60 != 0 {
                return (at, Step::Malformed);
            }
            size = size << 4 | u64::from(digit);
            digits += 1;
        }
        *self = Self::Size { size, digits };
        (bytes.len(), Step::Framing)
    }

    fn after_size(size: u64) -> Self {
        if size == 0 { Self::Trailers { line: Line::Empty, length: 0 } } else { Self::Data(size) }
    }

    fn content(&mut self, left: u64, used: u64) {
        *self = if used == left { Self::DataEnd { cr: false } } else { Self::Data(left - used) };
    }
}
