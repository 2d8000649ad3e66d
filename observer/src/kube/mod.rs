//! The Kubernetes API: what is watched there becomes snapshots. The only room that speaks to it.
//!
//! In: settings. Out: pods of this node, and how far what is known can be trusted ([`Health`]). Nothing here is
//! waited for: an API server that is away, slow or refuses leaves what was known, and its age.

mod connect;
mod health;
mod node;
mod owners;
mod pods;
pub mod quantity;
mod watch;

pub use connect::{ConnectError, Connection};
pub use health::{Failure, Health, Snapshot};
pub use node::watch_node;
pub use watch::{Keep, keep};
