//! An eBPF observer for LLM inference.
//!
//! Rooms in the order of the road; each imports only rooms before it. See ARCHITECTURE.md.

pub mod kernel;

pub mod connection;

pub mod http;

pub mod recording;

pub mod body;

pub mod llm;

pub mod exchange;

pub mod pipeline;

pub mod discover;

pub mod capture;
