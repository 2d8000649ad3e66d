//! Process lifecycle: watch bytes follow forks and end with their process.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_probe_read_kernel},
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

/// Fires for each thread. The process is gone when the kernel says so, or when user space has looked. One that was
/// watched until it replaced its program is told of, too: an engine's workers are started so.
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
    // The first argument of the tracepoint is the task.
    let task: u64 = ctx.arg(0);
    let signal = at::<u64>(task, read::TASK_SIGNAL());
    let last = is_last(&ctx, signal);
    if last == Some(false) || last.is_none() && tid != tgid {
        return 0;
    }
    if last == Some(true) {
        // SAFETY: points into a map value.
        unsafe { core::ptr::write_volatile(byte, 0) };
    }
    if value & watch::DENIED != 0 {
        return 0;
    }
    debug!(&ctx, "exit of watched process {}", tgid);
    let mut exit = Exit { header: emit::header::<Exit>(Kind::Exit), ..Exit::default() };
    if last == Some(true) {
        exit.flags = exit_flags::GROUP_DEAD;
        if let Some(status) = status(task, signal, tid == tgid) {
            exit.flags |= exit_flags::STATUS;
            exit.status = status;
        }
    }
    // Set when the process was chosen, and never taken back (mm/oom_kill.c, mark_oom_victim).
    if signal.and_then(|signal| at::<u64>(signal, read::SIGNAL_OOM_MM())).is_some_and(|memory| memory != 0) {
        exit.flags |= exit_flags::OOM;
    }
    emit::lifecycle(&exit);
    0
}

/// Whether this was the last thread of its process: the second argument of the tracepoint, on kernels whose format has
/// the field, else what the argument is made of (kernel/exit.c, do_exit).
#[inline(always)]
fn is_last(ctx: &RawTracePointContext, signal: Option<u64>) -> Option<bool> {
    if read::EXIT_GROUP_DEAD() != ABSENT {
        return Some(ctx.arg::<u64>(1) & 1 != 0);
    }
    Some(at::<i32>(signal?, read::SIGNAL_LIVE())? == 0)
}

/// What the parent of a process will be told, as kernel/exit.c, wait_task_zombie, finds it. Where threads ended one by
/// one, the code is the leader's, which only the leader itself is sure to have written.
#[inline(always)]
fn status(task: u64, signal: Option<u64>, leads: bool) -> Option<u32> {
    // include/linux/sched/signal.h
    const SIGNAL_GROUP_EXIT: u32 = 4;
    let signal = signal?;
    if at::<u32>(signal, read::SIGNAL_FLAGS())? & SIGNAL_GROUP_EXIT != 0 {
        return at(signal, read::SIGNAL_EXIT_CODE());
    }
    if leads { at(task, read::TASK_EXIT_CODE()) } else { None }
}

/// A field of a kernel structure; none if its place is not known.
#[inline(always)]
fn at<T>(base: u64, offset: u32) -> Option<T> {
    if offset == ABSENT {
        return None;
    }
    // SAFETY: read through a helper that checks the address.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const T) }.ok()
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
