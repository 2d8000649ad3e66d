//! All system calls, through one raw tracepoint pair.
//!
//! `sys_enter` and `sys_exit` test the watch byte and tail-call a program by system call number. A program in
//! [`enter`] remembers the call; one in [`exit`] finds out which connection it moved bytes of and how much of
//! them is wanted, and [`crate::copy`] makes the records.

mod descriptors;
mod enter;
mod exit;

use aya_ebpf::{
    cty::c_void, helpers::bpf_ktime_get_ns, macros::raw_tracepoint, maps::ProgramArray,
    programs::RawTracePointContext,
};
use observer_ebpf::watch;

pub use self::descriptors::position;
use crate::{
    maps::{ENTER, EXIT},
    registers::{number, returning},
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

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_ktime_get_ns() }
}

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = scope::current();
    let byte = watched(tgid);
    let number: u64 = ctx.arg(1);
    if !observes(byte)
        && (byte & watch::DENIED != 0
            || (number != number::ACCEPT4 && number != number::ACCEPT && number != number::LISTEN))
    {
        return 0;
    }
    tail_call(&ctx, &ENTER, number);
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = scope::current();
    if observes(watched(tgid))
        && let Some((number, _)) = returning(regs(&ctx))
    {
        tail_call(&ctx, &EXIT, number);
    }
    0
}
