//! Which lines belong to the one before: stack traces and what is indented below a line.

use super::header::Header;

/// What is known of the lines of an entry so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trace {
    /// No trace has begun.
    #[default]
    None,
    /// Frames of a Python traceback come; a line that is not indented names the exception, and ends it.
    Frames,
    /// One ended. Another may follow it.
    Ended,
}

/// Python writes these between tracebacks (`CPython`'s `Lib/traceback.py`).
const BETWEEN: [&str; 2] =
    ["During handling of the above exception", "The above exception was the direct cause"];

/// Begin lines that go on with what another one began: Java, Rust, Go.
const GO_ON: [&str; 6] =
    ["Caused by:", "... ", "stack backtrace:", "note: run with `RUST_BACKTRACE", "goroutine ", "created by "];

const TRACEBACK: &str = "Traceback (most recent call last)";

impl Trace {
    /// What an entry knows after its first line, which has this head.
    pub(super) fn begun_by(head: Header, text: &str) -> Self {
        if head.rest(text).trim_start().starts_with(TRACEBACK) { Self::Frames } else { Self::None }
    }

    /// Whether a line belongs to an entry whose first line has the head `first`: what is to be added of it, and what is
    /// known then.
    pub(super) fn go_on(self, first: Header, head: Header, line: &str) -> Option<(&str, Self)> {
        // Loggers that write a trace line by line put the same head before each.
        let rest = if head.length == 0 {
            line
        } else if head == first {
            head.rest(line)
        } else {
            return None;
        };
        let bare = rest.trim_start();
        let has_head = head.length > 0;
        let is_error = first.level.is_some_and(|level| level >= crate::timeline::Level::Error);
        let next = match self {
            _ if bare.starts_with(TRACEBACK) && (!has_head || self != Self::None || is_error) => Self::Frames,
            Self::Frames if bare.is_empty() || rest.starts_with([' ', '\t']) => Self::Frames,
            Self::Frames => Self::Ended,
            Self::Ended if bare.is_empty() || BETWEEN.iter().any(|text| bare.starts_with(text)) => {
                Self::Ended
            }
            _ if has_head => return None,
            state if rest.starts_with([' ', '\t']) && !bare.is_empty() => state,
            state if GO_ON.iter().any(|text| rest.starts_with(text)) => state,
            _ => return None,
        };
        Some((rest, next))
    }
}
