//! HTTP/1.1 messages around contents, and how they are cut into calls.

use std::fmt::Write as _;

use super::{
    Choices,
    content::{Content, Fact},
};

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    Chunked,
    Close,
}

/// Bytes of one or more messages of one direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Bytes {
    pub(super) bytes: Vec<u8>,
    /// Where servers and clients would start another call.
    pub(super) breaks: Vec<usize>,
}

impl Bytes {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn mark(&mut self) {
        self.breaks.push(self.bytes.len());
    }

    /// Appends a body in its framing; facts come back with offsets in these bytes.
    pub(super) fn body(
        &mut self,
        content: &Content,
        framing: Framing,
        choices: &mut Choices<'_>,
    ) -> Vec<Fact> {
        let mut places = Vec::new();
        let start = self.bytes.len();
        if framing == Framing::Chunked {
            self.chunked(content, choices, &mut places);
        } else {
            self.push(&content.bytes);
            places.extend(start..self.bytes.len());
            self.breaks.extend(content.breaks.iter().map(|at| start + at));
        }
        content.facts.iter().map(|fact| Fact { at: places[fact.at], ..*fact }).collect()
    }

    fn chunked(&mut self, content: &Content, choices: &mut Choices<'_>, places: &mut Vec<usize>) {
        let mut ends = match choices.below(4) {
            // One event, one chunk, one write.
            0 | 1 => content.breaks.clone(),
            2 => Vec::new(),
            _ => (0..choices.below(6)).map(|_| choices.below(content.bytes.len() + 1)).collect(),
        };
        ends.push(content.bytes.len());
        ends.sort_unstable();
        let extension = choices.pick(&["", "", ";a=b;c=\"d\"", " ;x"]);
        let upper = choices.one_in(3);
        let mut from = 0;
        for end in ends {
            if end == from {
                continue;
            }
            let size = if upper { format!("{:04X}", end - from) } else { format!("{:x}", end - from) };
            self.push(format!("{size}{extension}\r\n").as_bytes());
            let at = self.bytes.len();
            self.push(&content.bytes[from..end]);
            places.extend(at..self.bytes.len());
            self.push(b"\r\n");
            self.mark();
            from = end;
        }
        self.push(choices.pick(&[&b"0\r\n\r\n"[..], b"0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", b"000;e\r\n\r\n"]));
    }

    /// Appends a head; `body_length` goes into its framing field.
    pub(super) fn head(&mut self, first: &str, fields: &[&str], framing: Option<(Framing, usize)>) {
        let mut head = format!("{first}\r\n");
        for field in fields {
            let _ = write!(head, "{field}\r\n");
        }
        match framing {
            Some((Framing::Length, length)) => drop(write!(head, "Content-Length: {length}\r\n")),
            Some((Framing::Chunked, _)) => head += "transfer-encoding: chunked\r\n",
            Some((Framing::Close, _)) => head += "Connection: close\r\n",
            None => {}
        }
        self.push(head.as_bytes());
        self.push(b"\r\n");
        self.mark();
    }

    /// Ends of the calls that move these bytes.
    pub(super) fn calls(&self, choices: &mut Choices<'_>) -> Vec<usize> {
        let mut ends: Vec<usize> = match choices.below(5) {
            0 | 1 => self.breaks.clone(),
            2 => Vec::new(),
            3 => self.breaks.iter().copied().filter(|_| choices.below(3) > 0).collect(),
            _ => (0..choices.below(6)).map(|_| choices.below(self.bytes.len() + 1)).collect(),
        };
        ends.push(self.bytes.len());
        ends.sort_unstable();
        ends.dedup();
        ends.retain(|end| *end > 0);
        ends
    }
}
