//! An eBPF observer for LLM inference.
//!
//! Rooms in the order of the road; each imports only rooms before it. See ARCHITECTURE.md.

/// Flags, environment and file become one resolved configuration.
pub mod config;
pub mod exchange;
