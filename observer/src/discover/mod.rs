//! Who the processes of this node are, from /proc.
//!
//! In: process ids that the kernel side named. Out: what is known of them, and which processes listened
//! before the probes were there.

mod container;
mod kubelet;
mod listeners;
mod process;
mod usage;

pub use container::Placement;
pub use kubelet::Names;
pub use listeners::{ListenerAt, listener_at, listening};
pub use process::{Process, ancestors, is_gone, threads};
pub use usage::{absolute, usage};
