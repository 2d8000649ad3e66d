//! Where the time of a request went.

use serde::{Deserialize, Serialize};

use super::peers::Compared;
use crate::exchange::{Outcome, RequestRecord, Role};

/// A part of the time of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// In the listener's backlog; before the request began.
    Accept,
    /// In the socket of a connection that was accepted, unread; before the request began.
    Socket,
    /// From the first to the last byte of the request.
    Upload,
    /// At a gateway, until it asked an engine.
    Dispatch,
    /// In the engine's queue, as the engine reports it.
    EngineQueue,
    /// The prompt was processed, as the engine reports it.
    Prefill,
    /// From the end of the request to the first token, less what is told of it above.
    BeforeFirstToken,
    /// From the first to the last token, less the time in which the client did not read; of a plain answer, as the engine
    /// reports it.
    Decode,
    /// Writes waited for the client to read.
    ClientReading,
    /// From the last token to the end; of a plain answer, what is written of it.
    Tail,
    /// A plain answer: from the end of the request to the start of the answer, less what is told of it above.
    Answer,
}

impl Span {
    /// All parts, in the order of time.
    pub const ALL: [Self; 11] = [
        Self::Accept,
        Self::Socket,
        Self::Upload,
        Self::Dispatch,
        Self::EngineQueue,
        Self::Prefill,
        Self::BeforeFirstToken,
        Self::Answer,
        Self::Decode,
        Self::ClientReading,
        Self::Tail,
    ];

    /// The word used in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Socket => "socket",
            Self::Upload => "upload",
            Self::Dispatch => "dispatch",
            Self::EngineQueue => "engine_queue",
            Self::Prefill => "prefill",
            Self::BeforeFirstToken => "before_first_token",
            Self::Decode => "decode",
            Self::ClientReading => "client_reading",
            Self::Tail => "tail",
            Self::Answer => "answer",
        }
    }

    /// Whether it comes before the first token, or before the answer.
    pub(super) const fn is_early(self) -> bool {
        !matches!(self, Self::Decode | Self::ClientReading | Self::Tail)
    }

    /// Whether none of it is needed: what is usual of it is no excuse.
    const fn is_waiting(self) -> bool {
        matches!(self, Self::Accept | Self::Socket | Self::Dispatch | Self::EngineQueue | Self::ClientReading)
    }
}

/// A part of the time of a request, beside what is usual.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub span: Span,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What is usual for its kind; absent where there is too little to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual: Option<f64>,
    /// How much of it was unusual. Of waiting all is, whatever is usual.
    pub unusual: f64,
}

/// How long a part of a request took; none if that is not known.
pub(super) fn seconds(record: &RequestRecord, span: Span) -> Option<f64> {
    let (clocks, queue, timings) = (&record.clocks, &record.queue, &record.timings);
    let dispatch = queue.dispatch.filter(|_| record.role == Role::Gateway);
    let told = [dispatch, queue.engine, timings.prefill].into_iter().flatten().sum::<f64>();
    let reading = record.client_wait.unwrap_or(0.0);
    // Whoever left had waited until then for what did not come.
    let left = record.client_left.filter(|_| record.outcome == Some(Outcome::AbortedByClient));
    let value = match span {
        Span::Accept => queue.accept,
        // Until its connection was accepted it waited in the backlog, and not yet here.
        Span::Socket => {
            queue.socket.map(|socket| clocks.accepted.map_or(socket, |accepted| socket.min(-accepted)))
        }
        Span::Upload => clocks.request_end,
        Span::Dispatch => dispatch,
        Span::EngineQueue => queue.engine,
        Span::Prefill => timings.prefill,
        Span::BeforeFirstToken if record.stream => {
            Some(clocks.first_token.or(left)? - clocks.request_end? - told)
        }
        Span::BeforeFirstToken => None,
        Span::Answer if !record.stream => {
            let decode = timings.decode.unwrap_or(0.0);
            Some(clocks.response_start.or(left)? - clocks.request_end? - told - decode)
        }
        Span::Answer => None,
        Span::Decode if !record.stream => timings.decode,
        Span::Decode => Some(clocks.last_token? - clocks.first_token? - reading),
        Span::ClientReading => record.client_wait,
        Span::Tail => Some(
            clocks.response_end.or(left)?
                - clocks.last_token.or(clocks.response_start.filter(|_| !record.stream))?,
        ),
    };
    value.map(|seconds| seconds.max(0.0))
}

/// From when to when the GPU worked on a part, as far as is known: seconds after the start of the request.
pub(super) fn window(record: &RequestRecord, span: Span) -> Option<(f64, f64)> {
    let clocks = &record.clocks;
    let end = clocks.response_end.or(record.client_left)?;
    let first = if record.stream { clocks.first_token } else { clocks.response_start }.unwrap_or(end);
    match span {
        Span::Decode if record.stream => Some((first, clocks.last_token.unwrap_or(end))),
        Span::Prefill | Span::BeforeFirstToken | Span::Answer | Span::Decode => {
            Some((clocks.request_end.unwrap_or(0.0), first))
        }
        _ => None,
    }
}

/// All parts that are known, beside what is usual.
pub(super) fn compared(record: &RequestRecord, compared: &Compared<'_>) -> Vec<Part> {
    let part = |span| {
        let seconds = seconds(record, span)?;
        let usual = compared.usual(span);
        // Without anything to compare with, what is needed anyway is not judged.
        let needed = match span {
            _ if span.is_waiting() => 0.0,
            Span::Upload => usual.unwrap_or(0.0),
            _ => compared.expected(record, span).or(usual).unwrap_or(seconds),
        };
        Some(Part { span, seconds, usual, unusual: (seconds - needed).max(0.0) })
    };
    Span::ALL.into_iter().filter_map(part).collect()
}
