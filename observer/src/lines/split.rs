//! Bytes of a file become lines, however they are cut.

use memchr::memchr;

/// Longest line that is kept whole, in bytes. A runtime's line is 16 KiB and its escapes.
const LONGEST: usize = 1 << 20;

/// One line, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where it begins in the file.
    pub at: u64,
    /// Where the next one begins.
    pub end: u64,
    /// Its bytes, from its beginning.
    pub text: &'a [u8],
    /// Bytes at its end that are left out.
    pub left_out: u64,
}

/// Splits bytes that come in a row.
#[derive(Clone, Debug)]
pub struct Splitter {
    /// Where the line that is not whole yet begins.
    at: u64,
    /// Its bytes so far.
    begun: Vec<u8>,
    /// Bytes of it that were left out.
    left_out: u64,
}

impl Splitter {
    /// Of bytes that begin here in the file.
    pub fn new(at: u64) -> Self {
        Self { at, begun: Vec::new(), left_out: 0 }
    }

    /// Where the first line that is not whole yet begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes the next bytes.
    pub fn take(&mut self, mut bytes: &[u8], mut line: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (text, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.begun.is_empty() && self.left_out == 0 {
                let kept = &text[..text.len().min(LONGEST)];
                let next = self.at + text.len() as u64 + 1;
                line(Line {
                    at: self.at,
                    end: next,
                    text: ended(kept),
                    left_out: (text.len() - kept.len()) as u64,
                });
                self.at = next;
            } else {
                self.add(text);
                self.whole(1, &mut line);
            }
        }
        self.add(bytes);
    }

    /// What is left of a file that nobody writes any more: a line without an end.
    pub fn rest(&mut self, mut line: impl FnMut(Line<'_>)) {
        if !self.begun.is_empty() {
            self.whole(0, &mut line);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.begun.len());
        let kept = bytes.len().min(room);
        self.begun.extend_from_slice(&bytes[..kept]);
        self.left_out += (bytes.len() - kept) as u64;
    }

    fn whole(&mut self, ending: u64, line: &mut impl FnMut(Line<'_>)) {
        let end = self.at + self.begun.len() as u64 + self.left_out + ending;
        line(Line { at: self.at, end, text: ended(&self.begun), left_out: self.left_out });
        (self.at, self.left_out) = (end, 0);
        self.begun.clear();
        self.begun.shrink_to(64 << 10);
    }
}

/// Without the carriage return that may stand before the end.
fn ended(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &[u8], cut: usize) -> Vec<(u64, u64, Vec<u8>, u64)> {
        let (mut splitter, mut lines) = (Splitter::new(100), Vec::new());
        let mut push = |line: Line<'_>| lines.push((line.at, line.end, line.text.to_vec(), line.left_out));
        text.chunks(cut).for_each(|bytes| splitter.take(bytes, &mut push));
        splitter.rest(&mut push);
        lines
    }

    #[test]
    fn lines_do_not_depend_on_cuts() {
        let text = b"one\n\ntwo\r\nthree";
        for cut in 1..=text.len() {
            assert_eq!(
                split(text, cut),
                [
                    (100, 104, b"one".to_vec(), 0),
                    (104, 105, Vec::new(), 0),
                    (105, 110, b"two".to_vec(), 0),
                    (110, 115, b"three".to_vec(), 0)
                ],
                "{cut}"
            );
        }
    }

    #[test]
    fn long_lines_are_cut_and_counted() {
        let mut text = vec![b'x'; 10 << 20];
        text.extend(b"\nnext\n");
        for cut in [1000, 64 << 10, usize::MAX] {
            let lines = split(&text, cut.min(text.len()));
            assert_eq!((lines[0].2.len(), lines[0].3), (LONGEST, 9 << 20));
            assert_eq!(lines[1], (100 + (10 << 20) + 1, 100 + (10 << 20) + 6, b"next".to_vec(), 0));
        }
    }
}
