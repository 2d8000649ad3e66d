//! Requests that ended lately, and questions about them and about other rows. Pure: no IO, no clock.
//!
//! In: finished requests ([`Recent::remember`]), and questions as parameters of a URL ([`Query::parse`]). Out: the
//! requests that a question is about, in the order of their ends ([`select`]); who is served how, in rows ([`top()`]).
//! Bounded in bytes: the oldest go first and are counted, and an answer says since when it is complete.
//!
//! The same question is asked of one agent and of a fleet of them: requests of all nodes have one order ([`Position`]).

mod answer;
mod memory;
mod parameters;
mod pattern;
mod position;
mod query;
mod size;
mod top;
mod usual;

pub use answer::{Hits, Partial, Selected, Trailer, select};
pub use memory::{Finished, Recent};
pub use parameters::BadParameter;
pub use position::Position;
pub use query::{Asked, Exact, MOST, Moment, Order, PATIENCE, Query};
pub use top::{Row, Running, top};
pub use usual::Usual;
