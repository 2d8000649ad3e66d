//! Whether it is known which response answers which request, once some of them may be missing.
//!
//! Responses come in the order of their requests (RFC 9112 section 9.3.2), so pairing is exact as long as
//! every message is seen. After a loss it is in doubt until the connection is quiet: the response to the only
//! open request has ended. A client that is known to pipeline may have more on the way even then.

use crate::http::Defect;

/// Doubts about one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pairing {
    /// Requests may be missing: a response may answer one that was not seen.
    requests_missing: bool,
    /// Responses may be missing: the next one need not answer the oldest request.
    responses_missing: bool,
    /// The client sends requests before those that it sent are answered.
    pipelined: bool,
}

impl Pairing {
    /// Whether an exchange may be paired wrongly from here on.
    pub(super) fn is_in_doubt(self) -> bool {
        self.requests_missing || self.responses_missing
    }

    /// Whether the next response need not answer the oldest request.
    pub(super) fn may_skip(self) -> bool {
        self.responses_missing
    }

    /// Requests may have been missed.
    pub(super) fn miss_request(&mut self) {
        self.requests_missing = true;
    }

    /// Responses may have been missed.
    pub(super) fn miss_response(&mut self) {
        self.responses_missing = true;
    }

    /// A response ended in order at `time`; `next` is when the next request that is open started. As long as
    /// requests are not `synchronised`, there may be others.
    pub(super) fn answered(&mut self, time: u64, next: Option<u64>, synchronised: bool) {
        match next {
            // With responses missing, an open request tells nothing: its answer may have been lost.
            Some(start) => self.pipelined |= start < time && !self.responses_missing,
            None if !self.pipelined && synchronised => *self = Self::default(),
            None => {}
        }
    }
}

/// Whether a defect leaves unknown where messages end, or swallows one.
pub(super) fn loses_framing(defect: Defect) -> bool {
    match defect {
        Defect::FramingLost
        | Defect::HeadHole
        | Defect::HeadMalformed
        | Defect::HeadTooLarge
        | Defect::ChunkMalformed
        | Defect::TooManyPending => true,
        Defect::TooManyFields
        | Defect::LengthAndChunked
        | Defect::LengthInvalid
        | Defect::TransferCodingUnknown
        | Defect::FramingFound
        | Defect::Truncated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_ends_when_the_connection_is_quiet() {
        let mut pairing = Pairing::default();
        pairing.miss_request();
        assert!(pairing.is_in_doubt() && !pairing.may_skip());
        pairing.answered(10, None, true);
        assert!(!pairing.is_in_doubt());
    }

    #[test]
    fn doubt_stays_with_a_client_that_pipelines() {
        let mut pairing = Pairing::default();
        pairing.answered(10, Some(9), true);
        pairing.miss_response();
        pairing.answered(20, None, true);
        assert!(pairing.is_in_doubt());
    }

    #[test]
    fn a_lost_answer_is_not_taken_for_pipelining() {
        let mut pairing = Pairing::default();
        pairing.miss_response();
        pairing.answered(10, Some(9), true);
        pairing.answered(20, None, true);
        assert!(!pairing.is_in_doubt());
    }
}
