//! Questions to other nodes: one over a connection ([`ask`]), and the same to all agents of a cluster ([`Fleet`]).
//!
//! In: where agents are, from whoever knows ([`Directory`]). Out: the answer of all of them as if one node had given it,
//! in the same order, with what is missing named in its trailer. Bounded: agents that are asked at a time, the time
//! that each has, lines that are held.

mod answers;
mod ask;
mod directory;
mod follow;
mod gather;

pub use answers::Fleet;
pub use ask::{Answer, AskError, Call, Io, ask};
pub use directory::Directory;

#[cfg(test)]
mod tests;
