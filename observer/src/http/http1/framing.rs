//! How long is the body? RFC 9112 section 6.3, whose numbered rules are cited.

use super::ExpectedRequest;
use crate::http::{Defect, Fields, ResponseHead};

/// How the end of a message is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After that many bytes of content.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the stream.
    UntilClose,
    /// Not at all: the connection is a tunnel or another protocol from here on.
    Upgrade,
    /// It cannot be known.
    Unknown,
}

/// Framing of a request, and what is wrong with it.
pub(super) fn of_request(fields: &Fields) -> (Framing, Option<Defect>) {
    match coded(fields) {
        Some((Framing::UntilClose, defect)) => (Framing::Unknown, defect), // rule 4: reliable only in responses
        Some(framing) => framing,
        None => match fields.content_length() {
            Some(Some(length)) => (Framing::Length(length), None), // rule 6
            Some(None) => (Framing::Unknown, Some(Defect::LengthInvalid)), // rule 5
            None => (Framing::Length(0), None),                    // rule 7
        },
    }
}

/// Framing of a final response, and what is wrong with it.
pub(super) fn of_response(head: &ResponseHead, request: ExpectedRequest) -> (Framing, Option<Defect>) {
    match (head.status, request) {
        (101, _) => (Framing::Upgrade, None), // RFC 9110 section 15.2.2
        (100..=199 | 204 | 304, _) | (_, ExpectedRequest::Head) => (Framing::Length(0), None), // rule 1
        (200..=299, ExpectedRequest::Connect) => (Framing::Upgrade, None), // rule 2
        _ => match coded(&head.fields) {
            Some(framing) => framing,
            None => match head.fields.content_length() {
                Some(Some(length)) => (Framing::Length(length), None), // rule 6
                // Rule 5 lets a recipient give up. The close is the only end that is left.
                Some(None) => (Framing::UntilClose, Some(Defect::LengthInvalid)),
                None => (Framing::UntilClose, None), // rule 8
            },
        },
    }
}

/// Rules 3 and 4: Transfer-Encoding overrides Content-Length.
fn coded(fields: &Fields) -> Option<(Framing, Option<Defect>)> {
    fields.get("transfer-encoding")?;
    if !fields.is_chunked() {
        return Some((Framing::UntilClose, Some(Defect::TransferCodingUnknown)));
    }
    let both = fields.content_length().is_some().then_some(Defect::LengthAndChunked);
    Some((Framing::Chunked, both))
}
