//! All system calls, through one raw tracepoint pair.
//!
//! `sys_enter` and `sys_exit` test the watch byte and end there for everyone who is not observed: that is what
//! every system call of the machine pays. For an observed process a program in [`enter`] remembers a call that
//! moves data; one in [`exit`] finds out which connection it moved bytes of and how much of them is wanted, and
//! [`crate::copy`] makes the records.

mod descriptors;
mod enter;
mod exit;
mod sampling;

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_jiffies64},
    macros::raw_tracepoint,
    maps::ProgramArray,
    programs::RawTracePointContext,
};
use observer_ebpf::watch;

pub use self::descriptors::positions;
use crate::{
    maps::{STEPS, step},
    registers::number,
    scope::{self, observes, watched},
};

#[inline(always)]
fn tail_call(ctx: &RawTracePointContext, programs: &ProgramArray, index: u64) {
    // SAFETY: a missing entry returns here, which is what we want.
    unsafe { programs.tail_call(ctx, index as u32) }
}

#[inline(always)]
fn regs(ctx: &RawTracePointContext) -> *const u8 {
    ctx.arg::<*const c_void>(0).cast()
}

/// Ticks of the kernel's clock, in its own unit.
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Without a tail call, which would cost every system call of the machine a longer prologue.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    let byte = watched(tgid);
    let number: u64 = ctx.arg(1);
    let serves = number == number::ACCEPT4 || number == number::ACCEPT || number == number::LISTEN;
    if observes(byte) || serves && byte & watch::DENIED == 0 {
        enter::call(regs(&ctx), number, id, u64::from(byte));
    }
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = scope::current();
    if observes(watched(tgid)) {
        tail_call(&ctx, &STEPS, u64::from(step::EXIT));
    }
    0
}
