//! Numbers and parts, for people.

use super::parts::{Part, Span};

/// A time with three digits that matter: `4.2 ms`, `1.35 s`.
pub(super) fn time(seconds: f64) -> String {
    let milliseconds = seconds * 1e3;
    if milliseconds < 9.95 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 999.5 {
        format!("{milliseconds:.0} ms")
    } else if seconds < 99.5 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// What a part is, as the beginning of a sentence.
pub(super) const fn span(span: Span) -> &'static str {
    match span {
        Span::Accept => "waiting in the listener's backlog",
        Span::Socket => "waiting in the socket for the server to read",
        Span::Upload => "sending the request",
        Span::Dispatch => "waiting at the gateway for a replica",
        Span::EngineQueue => "waiting in the engine's queue, as it reports",
        Span::Prefill => "processing the prompt, as the engine reports",
        Span::BeforeFirstToken => "from the end of the request to the first token",
        Span::Answer => "from the end of the request to the answer",
        Span::Decode => "generating tokens",
        Span::ClientReading => "waiting for the client to read",
        Span::Tail => "ending the answer after the last token",
    }
}

/// A part beside what is usual.
pub(super) fn part(part: &Part) -> String {
    let beside = match part.usual {
        Some(usual) => format!(", usually {}", time(usual)),
        None => String::new(),
    };
    format!("{} took {}{beside}", span(part.span), time(part.seconds))
}
