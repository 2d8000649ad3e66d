//! Masks message heads and chunk framing, byte by byte.

use super::allow;

/// Bytes of a field name that are kept and compared.
const NAME: usize = 64;

/// The methods of RFC 9110 and RFC 5789, in lower case.
const METHODS: [&[u8]; 9] =
    [b"get", b"head", b"post", b"put", b"delete", b"connect", b"options", b"trace", b"patch"];

const VERSIONS: [&[u8]; 2] = [b"http/1.0", b"http/1.1"];

/// A chunk size has at most that many digits.
const SIZE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a word of the first line; `space` if it has not begun.
    Word { number: u8, space: bool },
    /// In the query of the target.
    Query,
    /// In a field name.
    Name,
    /// In spaces between a name and its colon.
    NameEnd,
    /// In a value that is kept.
    Kept,
    /// In a value that is not.
    Masked,
    /// In a line that is not understood.
    Hidden,
}

/// Masks one head.
#[derive(Debug)]
pub(super) struct HeadMask {
    at: At,
    request: bool,
    /// The word of the first line, then the field name, in lower case.
    name: Vec<u8>,
    /// False once the first line turned out not to be one of HTTP/1: then nothing in the head is believed.
    believed: bool,
}

impl HeadMask {
    pub(super) fn new(request: bool) -> Self {
        Self { at: At::Word { number: 0, space: true }, request, name: Vec::new(), believed: true }
    }

    /// Masks the next bytes of the head.
    pub(super) fn mask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            match *byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ => *byte = self.byte(*byte),
            }
        }
    }

    fn end_line(&mut self) {
        if let At::Word { .. } | At::Query = self.at {
            self.believed &= match (self.request, self.at) {
                (true, At::Word { number: 3, .. }) => VERSIONS.contains(&self.name.as_slice()),
                (false, At::Word { number: 2.., .. }) => true,
                _ => false,
            };
        }
        self.at = if self.believed { At::Name } else { At::Hidden };
        self.name.clear();
    }

    fn byte(&mut self, byte: u8) -> u8 {
        match self.at {
            At::Word { number, space } => self.word(byte, number, space),
            At::Query if byte == b' ' => {
                self.at = At::Word { number: 2, space: true };
                byte
            }
            At::Name => match byte {
                b':' => self.colon(byte),
                // A folded line goes on with the value of the line before, whichever that was.
                b' ' | b'\t' if self.name.is_empty() => self.enter(At::Masked, byte),
                b' ' | b'\t' => self.enter(At::NameEnd, byte),
                _ if self.name.len() == NAME || !(byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) => {
                    self.enter(At::Hidden, hidden(byte))
                }
                _ => {
                    self.name.push(byte.to_ascii_lowercase());
                    byte
                }
            },
            At::NameEnd => match byte {
                b':' => self.colon(byte),
                b' ' | b'\t' => byte,
                _ => self.enter(At::Hidden, hidden(byte)),
            },
            At::Kept => byte,
            At::Masked if matches!(byte, b' ' | b'\t') => byte,
            At::Masked => b'x',
            At::Query | At::Hidden => hidden(byte),
        }
    }

    /// A byte of the first line: method, target, version; or version, status, reason.
    fn word(&mut self, byte: u8, number: u8, space: bool) -> u8 {
        if byte == b' ' {
            self.at = At::Word { number, space: true };
            return byte;
        }
        let number = number + u8::from(space);
        self.at = At::Word { number, space: false };
        if space {
            self.believed &= self.request || number != 2 || VERSIONS.contains(&self.name.as_slice());
            self.name.clear();
        }
        if self.name.len() < NAME {
            self.name.push(byte.to_ascii_lowercase());
        }
        // Without looking ahead, a word is kept as long as it starts one that may stand there.
        let starts = |words: &[&[u8]]| words.iter().any(|word| word.starts_with(&self.name));
        let kept = match (self.request, number) {
            (true, 2) if matches!(byte, b'?' | b'#') => return self.enter(At::Query, byte),
            (true, 1) => starts(&METHODS),
            // Only an origin-form target is kept: others hold an authority, which may hold credentials.
            (true, 2) => self.name.starts_with(b"/"),
            (true, 3) | (false, 1) => starts(&VERSIONS),
            (false, 2) => self.name.len() <= 3 && byte.is_ascii_digit(),
            _ => false,
        };
        if kept { byte } else { hidden(byte) }
    }

    fn colon(&mut self, byte: u8) -> u8 {
        self.enter(if allow::header(&self.name) { At::Kept } else { At::Masked }, byte)
    }

    fn enter(&mut self, at: At, byte: u8) -> u8 {
        self.at = at;
        byte
    }
}

/// Masks the framing of chunks: sizes and line ends are kept, extensions and trailers are not.
#[derive(Debug, Default)]
pub(super) struct FramingMask {
    /// Bytes of the line so far.
    line: usize,
    /// True once something else than a size was in it.
    other: bool,
}

impl FramingMask {
    pub(super) fn mask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            match *byte {
                b'\n' => *self = Self::default(),
                b'\r' => {}
                digit if digit.is_ascii_hexdigit() && !self.other && self.line < SIZE => self.line += 1,
                other => {
                    self.other = true;
                    *byte = hidden(other);
                }
            }
        }
    }
}

fn hidden(byte: u8) -> u8 {
    let mut one = [byte];
    allow::hide(&mut one);
    one[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(request: bool, head: &str) -> String {
        let mut whole = head.as_bytes().to_vec();
        HeadMask::new(request).mask(&mut whole);
        let mut cut = head.as_bytes().to_vec();
        let mut mask = HeadMask::new(request);
        cut.chunks_mut(1).for_each(|byte| mask.mask(byte));
        assert_eq!(cut, whole);
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn heads() {
        assert_eq!(
            masked(
                true,
                "POST /v1/x?key=s3 HTTP/1.1\r\nAuthorization: Bearer s3\r\nContent-Length: 12\r\nX-Y:s\r\n f\r\n\r\n"
            ),
            "POST /v1/x?xxx=xx HTTP/1.1\r\nAuthorization: xxxxxx xx\r\nContent-Length: 12\r\nX-Y:x\r\n x\r\n\r\n"
        );
        assert_eq!(
            masked(false, "HTTP/1.1 200 Very OK\nset-cookie: a\nContent-Type : text/html\n\n"),
            "HTTP/1.1 200 xxxx xx\nset-cookie: x\nContent-Type : text/html\n\n"
        );
        // Not HTTP/1: nothing is kept.
        assert_eq!(masked(false, "HTTSECRET 200 s\r\nsecret: 1\r\n"), "HTTxxxxxx 200 x\r\nxxxxxx: x\r\n");
        assert_eq!(masked(false, "HTTP/1.1\nsecret: 1\n"), "HTTP/1.1\nxxxxxx: x\n");
        assert_eq!(masked(true, "GET secret\r\nsecret: 1\r\n"), "GET xxxxxx\r\nxxxxxx: x\r\n");
        assert_eq!(masked(true, "GET http://u:p@h/ HTTP/1.1\r\n"), "GET xxxx://x:x@x/ HTTP/1.1\r\n");
        assert_eq!(masked(true, "GET / HTTP/1.1\r\nno colon\r\n\r\n"), "GET / HTTP/1.1\r\nno xxxxx\r\n\r\n");
    }

    #[test]
    fn framing() {
        let mut bytes = b"\r\n1fA;ext=s\r\n0\r\nSecret: abc\r\n\r\n".to_vec();
        FramingMask::default().mask(&mut bytes);
        assert_eq!(bytes, b"\r\n1fA;xxx=x\r\n0\r\nxxxxxx: xxx\r\n\r\n");
    }
}
