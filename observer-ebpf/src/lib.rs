//! The record ABI: what the kernel side writes into the ring and the user side reads out of it.
//!
//! Depends on nothing, allocates nothing, and builds for the host and for BPF. Layouts are fixed: every
//! record starts with a [`Header`], all fields are fixed-width integers in native byte order, padding is
//! explicit, and sizes are asserted at compile time. [`Record::parse`] is the only reader.

#![no_std]

mod abi;

pub use abi::{
    call,
    counter::{COUNTERS, Counter},
    layout::{
        ABI_VERSION, Clock, Close, Data, Direction, Ended, Exec, Exit, Header, Kind, Listen, NAMED, Oom,
        Open, State, data_flags, errno, exit_flags, family, open_flags,
    },
    limits,
    parse::{Malformed, Record},
    verdict::Verdict,
    watch,
};
