//! One file per family of hooks.

pub mod process;
pub mod socket;
pub mod syscall;
