//! An eBPF observer for LLM inference.
//!
//! Rooms in the order of the road; each imports only rooms before it. See ARCHITECTURE.md.

/// What the command shows on a terminal.
pub mod cli;
/// Flags, environment and file become one resolved configuration.
pub mod config;
/// Whose an observation is: a pure look-up from process to identity.
pub mod enrich;
pub mod exchange;
/// Ways out for observations.
pub mod export;
/// The HTTP endpoint of an agent.
pub mod serve;
/// The observer about itself.
pub mod telemetry;
