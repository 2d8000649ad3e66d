//! One file per family of hooks.

pub mod baseline;
pub mod process;
pub mod socket;
pub mod syscall;
