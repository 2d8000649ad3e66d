//! `error.type`: a fixed set of words, whatever servers and clients wrote.

use crate::exchange::{Outcome, RequestRecord};

/// What went wrong, if something did: an HTTP status that tells it, as HTTP spans have it, else a word for how the
/// exchange ended. An end that was not seen is no error.
pub(super) fn error_type(record: &RequestRecord) -> Option<&'static str> {
    match record.outcome? {
        Outcome::Ok | Outcome::Unknown => None,
        Outcome::ClientError => Some("client_error"),
        Outcome::Rejected => Some("rejected"),
        Outcome::ServerError => Some("server_error"),
        Outcome::StreamError => Some("stream_error"),
        Outcome::AbortedByClient => Some("aborted_by_client"),
        Outcome::AbortedByServer => Some("aborted_by_server"),
        Outcome::Unterminated => Some("unterminated"),
    }
}

/// Whether that is the server's: only then is a span of a server in error (OpenTelemetry: HTTP spans, status).
pub(super) fn is_of_server(record: &RequestRecord) -> bool {
    record.outcome.is_some_and(Outcome::is_failure)
}
