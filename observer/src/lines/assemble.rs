//! Pieces become entries: what a runtime split is joined, and lines that belong together.

use super::LONGEST;
use super::entry::Entry;
use super::format::Piece;
use super::header::Header;
use super::trace::Trace;
use crate::timeline::Stream;

/// Most lines of one entry.
const LINES: u32 = 1000;

/// Lines further apart do not belong together, nanoseconds.
pub const APART: i64 = 5_000_000_000;

/// Joins the pieces of one container, or of one service. Files follow each other: what one begins the next may end.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    streams: [Open; 2],
}

/// What one stream has begun.
#[derive(Clone, Debug, Default)]
struct Open {
    /// A line that the runtime split, and that is not whole yet.
    piece: Option<Entry>,
    /// An entry to which more lines may belong.
    held: Option<(Entry, Trace)>,
}

impl Assembler {
    /// Takes a piece of the line at this place of this file. `read` is when, for formats that do not say when it was
    /// written.
    pub fn take(
        &mut self,
        (file, at): (u64, u64),
        piece: &Piece<'_>,
        left_out: u64,
        read: i64,
        mut emit: impl FnMut(Entry),
    ) {
        let open = &mut self.streams[piece.stream as usize];
        let entry = open.piece.get_or_insert_with(|| Entry {
            file,
            at,
            time: piece.time.unwrap_or(read),
            stream: piece.stream,
            lines: 1,
            ..Entry::default()
        });
        entry.add(&piece.text, left_out);
        if !piece.goes_on
            && let Some(entry) = open.piece.take()
        {
            open.line(entry, &mut emit);
        }
    }

    /// Nobody wrote for a while: entries that more lines could have belonged to are whole.
    pub fn rest(&mut self, mut emit: impl FnMut(Entry)) {
        for open in &mut self.streams {
            open.held.take().into_iter().for_each(|(entry, _)| emit(entry));
        }
    }

    /// Nobody will write any more: a line that was split is as whole as it gets, too.
    pub fn end(&mut self, mut emit: impl FnMut(Entry)) {
        for open in &mut self.streams {
            if let Some(entry) = open.piece.take() {
                open.line(entry, &mut emit);
            }
        }
        self.rest(emit);
    }

    /// Where the first line stands that is in no entry yet: its file and the place there.
    pub fn begun(&self, stream: Stream) -> Option<(u64, u64)> {
        let open = &self.streams[stream as usize];
        let held = open.held.as_ref().map(|(entry, _)| entry);
        held.or(open.piece.as_ref()).map(|entry| (entry.file, entry.at))
    }

    /// Whether an entry waits for more lines.
    pub fn holds(&self) -> bool {
        self.streams.iter().any(|open| open.held.is_some())
    }
}

impl Open {
    /// Takes a whole line.
    fn line(&mut self, mut line: Entry, emit: &mut impl FnMut(Entry)) {
        let text = String::from_utf8_lossy(&line.text);
        let head = Header::of(&text);
        if let Some((mut held, trace)) = self.held.take() {
            let near = line.time.saturating_sub(held.time) <= APART;
            let whole = held.lines >= LINES || !near;
            let more = if whole { None } else { trace.go_on(held.head, head, &text) };
            if let Some((more, trace)) = more {
                held.add(b"\n", 0);
                held.add(more.as_bytes(), line.left_out);
                held.lines += 1;
                self.held = Some((held, trace));
                return;
            }
            emit(held);
        }
        let trace = Trace::begun_by(head, &text);
        line.head = head;
        self.held = Some((line, trace));
    }
}

impl Entry {
    fn add(&mut self, bytes: &[u8], left_out: u64) {
        let kept = bytes.len().min(LONGEST.saturating_sub(self.text.len()));
        self.text.extend_from_slice(&bytes[..kept]);
        self.left_out += left_out + (bytes.len() - kept) as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn assemble(pieces: &[(Stream, bool, &str)]) -> Vec<(u64, String, u64)> {
        let (mut assembler, mut entries) = (Assembler::default(), Vec::new());
        let mut push =
            |entry: Entry| entries.push((entry.at, String::from_utf8(entry.text).unwrap(), entry.left_out));
        for (at, (stream, goes_on, text)) in pieces.iter().enumerate() {
            let text = Cow::Borrowed(text.as_bytes());
            let piece = Piece { time: Some(at as i64), stream: *stream, goes_on: *goes_on, text };
            assembler.take((7, at as u64), &piece, 0, 0, &mut push);
        }
        assembler.end(push);
        entries
    }

    fn lines(text: &str) -> Vec<String> {
        let pieces: Vec<_> = text.lines().map(|line| (Stream::Stdout, false, line)).collect();
        assemble(&pieces).into_iter().map(|(_, text, _)| text).collect()
    }

    #[test]
    fn split_lines_are_joined_on_each_stream() {
        use Stream::{Stderr, Stdout};
        let joined = assemble(&[
            (Stdout, true, "a"),
            (Stderr, true, "x"),
            (Stdout, true, "b"),
            (Stderr, false, "y"),
            (Stdout, false, "c"),
            (Stdout, false, "d"),
            (Stderr, true, "never ends"),
        ]);
        let text = |at: u64, text: &str| (at, text.to_owned(), 0);
        assert_eq!(joined, [text(0, "abc"), text(1, "xy"), text(5, "d"), text(6, "never ends")]);
    }

    #[test]
    fn where_the_first_line_stands_that_is_in_no_entry() {
        let mut assembler = Assembler::default();
        let piece = |goes_on| Piece {
            time: Some(0),
            stream: Stream::Stdout,
            goes_on,
            text: Cow::Borrowed(&b"x"[..]),
        };
        let mut entries = Vec::new();
        assert_eq!(assembler.begun(Stream::Stdout), None);
        assembler.take((1, 10), &piece(false), 0, 0, |entry| entries.push(entry.at));
        assembler.take((2, 0), &piece(true), 0, 0, |entry| entries.push(entry.at));
        assert_eq!((assembler.begun(Stream::Stdout), entries.len()), (Some((1, 10)), 0));
        assembler.rest(|entry| entries.push(entry.at));
        assert_eq!((assembler.begun(Stream::Stdout), entries.len()), (Some((2, 0)), 1));
        assert_eq!(assembler.begun(Stream::Stderr), None);
    }

    #[test]
    fn what_is_long_is_cut_and_counted() {
        let part = "x".repeat(100 << 10);
        let joined = assemble(&[
            (Stream::Stdout, true, &part),
            (Stream::Stdout, true, &part),
            (Stream::Stdout, false, &part),
        ]);
        assert_eq!((joined[0].1.len(), joined[0].2), (LONGEST, 300 * 1024 - LONGEST as u64));
    }

    #[test]
    fn tracebacks_are_one_entry() {
        let bare = "ERROR:    Exception in ASGI application\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\n\
                    ValueError: no\n\nDuring handling of the above exception, another exception occurred:\n\n\
                    Traceback (most recent call last):\n  File \"b.py\", line 2\nKeyError: 'x'";
        assert_eq!(
            lines(&format!("INFO:     before\n{bare}\nINFO:     after")),
            ["INFO:     before", bare, "INFO:     after"]
        );
        let head = "(EngineCore_DP0 pid=7) ERROR 11-24 16:00:00 [core.py:842] ";
        let text = [
            "failed.",
            "Traceback (most recent call last):",
            "  File \"a.py\", line 1",
            "    f()",
            "RuntimeError: no",
            "other",
        ];
        let with_heads: Vec<String> = text.iter().map(|line| format!("{head}{line}")).collect();
        assert_eq!(
            lines(&with_heads.join("\n")),
            [format!("{head}{}", text[..5].join("\n")), format!("{head}other")]
        );
    }

    #[test]
    fn other_traces_and_what_is_indented() {
        let java = "java.lang.X: no\n\tat a.b(C.java:1)\nCaused by: java.lang.Y\n\t... 3 more";
        assert_eq!(lines(java).len(), 1);
        let rust =
            "thread 'main' panicked at a.rs:1:\nno\nstack backtrace:\n   0: f\n             at ./a.rs:1";
        assert_eq!(lines(rust), ["thread 'main' panicked at a.rs:1:", &rust[rust.find("no\n").unwrap()..]]);
        assert_eq!(lines("INFO a\nINFO b\n\nplain\nplain").len(), 5);
    }
}
