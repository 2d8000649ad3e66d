//! The rim towards the kernel: checks what this machine allows, loads and attaches the probes, reads the
//! ring, and writes the few maps that user space owns.
//!
//! In: the embedded object and a [`Options`]. Out: raw records ([`Kernel::poll`]), a report line per probe,
//! counters. This is the only room besides `observer-ebpf` that may use `unsafe`.

mod baseline;
mod btf;
mod counters;
mod formats;
mod load;
mod programs;
mod requirements;
mod ring;
mod tables;
mod watch;

pub use baseline::EmptyPair;
pub use counters::Counts;
pub use load::{Kernel, LoadError, Options};
pub use programs::{Probe, ProbeMode};
pub use requirements::{Capability, Requirement, capabilities, check, requirements};
pub use tables::{Sizes, Tables};
pub use watch::WatchBytes;
