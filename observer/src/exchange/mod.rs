//! One request and its response: clocks, tokens, outcome and defects become an observation.
//!
//! In: pieces of both directions of a connection, with the time and the call that moved them. Out:
//! [`Observation`]s, and what the kernel side should do with the connection.

mod content;
mod context;
mod conversation;
mod dispatch;
mod flow;
mod gpu;
mod judged;
mod keys;
mod observation;
mod one;
mod outcome;
mod pairing;
mod record;
mod summary;
mod tokens;
mod upstream;

pub use context::{Context, End, Undecoded};
pub use conversation::Conversation;
pub(crate) use dispatch::Dispatch;
pub use dispatch::DispatchStats;
pub use gpu::{GpuUse, GpuWindow, Spread, UsedBy};
pub use judged::Judged;
pub use observation::{ExchangeId, Observation};
pub use record::{Clocks, Gaps, Outcome, Phase, Queue, RequestRecord, Role, Silence, TokenSource, Tokens};

pub(crate) use upstream::Upstream;

pub use crate::llm::Operation;
