//! One request and its response: clocks, tokens, outcome and defects become an observation.

mod observation;
mod record;

pub use observation::{ExchangeId, Observation};
pub use record::{Clocks, Gaps, Operation, Outcome, Phase, Queue, RequestRecord, Role, TokenSource, Tokens};
