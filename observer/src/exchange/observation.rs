//! What the core tells the outside while exchanges go on and when they end.

use super::record::{Phase, RequestRecord};
use crate::llm::Operation;

/// Names an exchange while it runs: connection and number of the exchange on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId {
    /// Socket cookie.
    pub connection: u64,
    /// Counts from 0 on each connection.
    pub sequence: u32,
}

impl std::fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.connection, self.sequence)
    }
}

/// One thing that the core reports.
///
/// For each exchange: one `Started`, one `Requested`, any number of `Phase` and `Delivered`, one `Finished`.
#[derive(Clone, Debug)]
pub enum Observation {
    /// An exchange is known to be an LLM request.
    Started {
        /// Which.
        id: ExchangeId,
        /// Process that serves it.
        pid: u32,
        /// Monotonic nanoseconds of `request_start`.
        time: u64,
        /// Operation.
        operation: Option<Operation>,
    },
    /// What an exchange asks for is known: its request is complete, or was answered before it was.
    Requested {
        /// Which.
        id: ExchangeId,
        /// Whether it asks for a stream.
        stream: bool,
        /// Model that it asks for.
        model: Option<String>,
    },
    /// An exchange moved to another phase.
    Phase {
        /// Which.
        id: ExchangeId,
        /// Where it stands now.
        phase: Phase,
    },
    /// A stream delivered token-bearing events with one write.
    Delivered {
        /// Which.
        id: ExchangeId,
    },
    /// An exchange ended.
    Finished {
        /// Which.
        id: ExchangeId,
        /// All that is known of it.
        record: Box<RequestRecord>,
    },
}
