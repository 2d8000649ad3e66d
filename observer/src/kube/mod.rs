//! The Kubernetes API: what is watched there becomes snapshots. The only room that speaks to it.
//!
//! In: settings. Out: pods of this node ([`watch_node`]), what is told once for the whole cluster ([`cluster`]) by whoever
//! leads ([`Candidate`]), and how far what is known can be trusted ([`Health`]). Nothing here is waited for: an API server that is away, slow or refuses leaves what was known, and its age.

mod agents;
pub mod cluster;
mod connect;
mod forward;
mod health;
mod lease;
mod node;
mod owners;
mod pods;
pub mod quantity;
mod reviews;
mod rights;
mod scrapes;
mod watch;

/// Clocks, in nanoseconds.
#[derive(Clone, Copy)]
pub struct Clocks {
    /// One that nobody sets.
    pub monotonic: fn() -> u64,
    /// The wall clock, since 1970.
    pub wall: fn() -> u64,
}

pub use agents::{AgentAt, Agents};
pub use connect::{ConnectError, Connection};
pub use forward::{ClusterPod, ForwardError, Forwarded};
pub use health::{Failure, Health, Snapshot};
pub use lease::{Candidate, Leadership, Term};
pub use node::{TellChange, watch_node};
pub use reviews::{Doing, Reviews, User};
pub use rights::{Right, missing, of_agent, of_cluster, of_reviews};
pub use scrapes::pod_monitors;
pub use watch::{Keep, keep};
