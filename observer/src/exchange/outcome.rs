//! How an exchange ended, independent of its HTTP status.

use super::record::Outcome;

/// What is known when an exchange ends.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and they combine freely")]
pub(super) struct Evidence {
    /// Status of the final response.
    pub(super) status: Option<u16>,
    /// The response was a stream of events.
    pub(super) streamed: bool,
    /// Its framing came to its end: length, last chunk, or an orderly close where the close is the end.
    pub(super) framing_ended: bool,
    /// The server's close ended a response that only a close could end.
    pub(super) ended_by_close: bool,
    /// The stream's own terminator came, or the whole of a plain document.
    pub(super) terminated: bool,
    /// The stream has no terminator of its own: its framing's end is its end.
    pub(super) unmarked: bool,
    /// A plain document, or an event of a stream, broke off, and not for want of bytes that were not captured.
    pub(super) broke_off: bool,
    /// An error object was in the body.
    pub(super) error: bool,
    /// The engine said that it aborted.
    pub(super) abort: bool,
    /// The client had closed or reset its side.
    pub(super) client_gone: bool,
    /// The connection is over.
    pub(super) connection_over: bool,
    /// Bytes that would have told are missing.
    pub(super) lost: bool,
}

pub(super) fn judge(evidence: &Evidence) -> Outcome {
    let Evidence {
        status,
        streamed,
        framing_ended,
        ended_by_close,
        terminated,
        unmarked,
        broke_off,
        error,
        abort,
        client_gone,
        connection_over,
        lost,
    } = *evidence;
    let cut = || {
        if lost {
            Outcome::Unknown
        } else if client_gone {
            Outcome::AbortedByClient
        } else if connection_over {
            Outcome::AbortedByServer
        } else {
            Outcome::Unknown
        }
    };
    // A close may also be how a response was cut off.
    let framing_ended = framing_ended || ended_by_close && !client_gone && !broke_off;
    match status {
        None => cut(),
        // 503 with its status line is the answer of a server without capacity (RFC 9110 section 15.6.4).
        Some(429 | 503) => Outcome::Rejected,
        Some(400..=499) => Outcome::ClientError,
        Some(500..) => Outcome::ServerError,
        Some(_) if error && streamed => Outcome::StreamError,
        Some(_) if error => Outcome::ServerError,
        Some(_) if abort => Outcome::AbortedByServer,
        // Clients hang up at the terminator, before the last chunk of the framing: they have it all.
        Some(_) if terminated => Outcome::Ok,
        Some(_) if !framing_ended => cut(),
        Some(_) if streamed && lost => Outcome::Unknown,
        Some(_) if unmarked && !broke_off => Outcome::Ok,
        Some(_) if streamed => Outcome::Unterminated,
        Some(_) => Outcome::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_end() {
        let whole = Evidence {
            status: Some(200),
            streamed: true,
            framing_ended: true,
            terminated: true,
            ..Evidence::default()
        };
        let cases = [
            (whole, Outcome::Ok),
            (Evidence { framing_ended: false, client_gone: true, ..whole }, Outcome::Ok),
            (Evidence { terminated: false, ..whole }, Outcome::Unterminated),
            (Evidence { terminated: false, lost: true, ..whole }, Outcome::Unknown),
            (Evidence { terminated: false, unmarked: true, ..whole }, Outcome::Ok),
            (Evidence { terminated: false, unmarked: true, broke_off: true, ..whole }, Outcome::Unterminated),
            (Evidence { terminated: false, unmarked: true, lost: true, ..whole }, Outcome::Unknown),
            (Evidence { error: true, ..whole }, Outcome::StreamError),
            (Evidence { error: true, streamed: false, ..whole }, Outcome::ServerError),
            (Evidence { abort: true, ..whole }, Outcome::AbortedByServer),
            (
                Evidence { terminated: false, framing_ended: false, client_gone: true, ..whole },
                Outcome::AbortedByClient,
            ),
            (
                Evidence { terminated: false, framing_ended: false, connection_over: true, ..whole },
                Outcome::AbortedByServer,
            ),
            (
                Evidence {
                    terminated: false,
                    framing_ended: false,
                    connection_over: true,
                    lost: true,
                    ..whole
                },
                Outcome::Unknown,
            ),
            (Evidence { status: Some(429), ..whole }, Outcome::Rejected),
            (Evidence { status: Some(503), ..whole }, Outcome::Rejected),
            (Evidence { status: Some(400), ..whole }, Outcome::ClientError),
            (Evidence { status: Some(500), ..whole }, Outcome::ServerError),
            (
                Evidence { status: None, client_gone: true, connection_over: true, ..whole },
                Outcome::AbortedByClient,
            ),
            (Evidence { status: None, framing_ended: false, ..whole }, Outcome::Unknown),
        ];
        for (evidence, outcome) in cases {
            assert_eq!(judge(&evidence), outcome, "{evidence:?}");
        }
    }
}
