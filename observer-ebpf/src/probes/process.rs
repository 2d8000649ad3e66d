//! Process lifecycle: watch bytes follow forks and end with their process.

use aya_ebpf::{
    helpers::bpf_get_current_comm,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::debug;
use observer_ebpf::{Exec, Exit, Kind, Oom, exit_flags, watch};

use crate::{
    emit,
    maps::STASH,
    scope::{self, observes, watch_byte, watched},
    settings::{ABSENT, read},
};

#[inline(always)]
fn field<T: Default>(ctx: &TracePointContext, offset: u32) -> T {
    // SAFETY: read through a helper that checks the address.
    unsafe { ctx.read_at(offset as usize) }.unwrap_or_default()
}

/// A child of a watched process may serve connections that its parent accepted. The id is that of a thread
/// when the "child" is one; its byte then goes with the thread.
#[tracepoint(category = "sched", name = "sched_process_fork")]
pub fn sched_process_fork(ctx: TracePointContext) -> u32 {
    let (tgid, _) = scope::current();
    let byte = watched(tgid);
    if observes(byte)
        && let Some(child) = watch_byte(field(&ctx, read::FORK_CHILD()))
    {
        // SAFETY: points into a map value.
        unsafe { core::ptr::write_volatile(child, byte) };
    }
    0
}

/// A new program is watched once it accepts or listens itself: otherwise everything that a login or a
/// container runtime ever starts would be. Descriptors marked close-on-exec go without a `close`: what was
/// bound before is not trusted after.
///
/// Raw, as the next one, because no field is needed: both fire in the context of the process they are about.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = scope::current();
    let Some(byte) = watch_byte(tgid) else { return 0 };
    // SAFETY: points into a map value.
    let value = unsafe { core::ptr::read_volatile(byte) };
    if value != 0 {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(byte, watch::after_exec(value) & watch::EXEC_MASK) };
    }
    if observes(value) {
        debug!(&ctx, "exec of watched process {}", tgid);
        emit::lifecycle(&Exec {
            header: emit::header::<Exec>(Kind::Exec),
            comm: bpf_get_current_comm().unwrap_or_default(),
        });
    }
    0
}

/// Fires for each thread. The process is gone when the kernel says so, or when user space has looked.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(ctx: RawTracePointContext) -> i32 {
    let (tgid, tid) = scope::current();
    let Some(byte) = watch_byte(tgid) else { return 0 };
    // SAFETY: points into a map value.
    let value = unsafe { core::ptr::read_volatile(byte) };
    if value == 0 {
        return 0;
    }
    // The thread's last call.
    let _ = STASH.remove((tgid as u64) << 32 | tid as u64);
    if tid != tgid
        && let Some(thread) = watch_byte(tid)
    {
        // SAFETY: points into a map value. The id was this thread's; its byte came with the fork.
        unsafe { core::ptr::write_volatile(thread, 0) };
    }
    // The second argument of the tracepoint, on kernels whose format has the field.
    let told = read::EXIT_GROUP_DEAD() != ABSENT;
    let group_dead = if told { ctx.arg::<u64>(1) & 1 } else { 0 };
    if group_dead == 0 && (told || tid != tgid) {
        return 0;
    }
    if group_dead != 0 {
        // SAFETY: points into a map value.
        unsafe { core::ptr::write_volatile(byte, 0) };
    }
    if !observes(value) {
        return 0;
    }
    debug!(&ctx, "exit of watched process {}", tgid);
    emit::lifecycle(&Exit {
        header: emit::header::<Exit>(Kind::Exit),
        flags: if group_dead != 0 { exit_flags::GROUP_DEAD } else { 0 },
        _pad: 0,
    });
    0
}

/// The victim is named by a field; the current task is whoever asked for memory.
#[tracepoint(category = "oom", name = "mark_victim")]
pub fn mark_victim(ctx: TracePointContext) -> u32 {
    let mut header = emit::header::<Oom>(Kind::Oom);
    let victim: u32 = field(&ctx, read::OOM_PID());
    header.tgid = victim;
    header.tid = victim;
    emit::lifecycle(&Oom { header });
    0
}
