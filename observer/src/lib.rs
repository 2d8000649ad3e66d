//! An eBPF observer for LLM inference.
//!
//! Rooms in the order of the road; each imports only rooms before it. See ARCHITECTURE.md.

pub mod body;
pub mod exchange;
pub mod http;
pub mod recording;
