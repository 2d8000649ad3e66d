//! Sends records, and counts what it cannot send.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
};
use observer_ebpf::{Counter, Header, Kind};

use crate::{
    maps::{COUNTS, RING},
    scope,
    settings::read,
};

/// Adds to a counter of this CPU.
///
/// Atomic, because a probe in a softirq may interrupt another one on the same CPU. A plain add without
/// fetch: 5.10 knows no other.
#[inline(always)]
pub fn count(counter: Counter, by: u64) {
    let Some(counts) = COUNTS.get_ptr_mut(0) else { return };
    // SAFETY: the index is below the array's length.
    let slot = unsafe { counts.cast::<u64>().add(counter as usize) };
    // SAFETY: an atomic add to a map value.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) slot, in(reg) by);
    }
}

/// Header of a lifecycle record about the current task, now.
#[inline(always)]
pub fn header<T>(kind: Kind) -> Header {
    let (tgid, tid) = scope::current();
    // SAFETY: a helper without preconditions.
    let time = unsafe { bpf_ktime_get_ns() };
    Header { kind: kind as u32, length: core::mem::size_of::<T>() as u32, time, tgid, tid }
}

/// Wake-ups cost more than records, and timestamps are the kernel's: the reader comes by on a timer, and is
/// woken only when a record carries the ring past a quarter.
#[inline(always)]
fn flags(used: u64, size: u64, length: u64, urgent: bool) -> u64 {
    let quarter = size / 4;
    if urgent || used < quarter && used + length >= quarter {
        BPF_RB_FORCE_WAKEUP as u64
    } else {
        BPF_RB_NO_WAKEUP as u64
    }
}

/// Sends a lifecycle record; it may use the whole ring.
#[inline(always)]
pub fn lifecycle<T>(record: &T) {
    count(Counter::Seen, 1);
    let length = core::mem::size_of::<T>() as u64;
    let used = RING.query(BPF_RB_AVAIL_DATA as u64);
    let size = u64::from(read::RING_BYTES());
    if RING.output::<T>(record, flags(used, size, length, false)).is_ok() {
        count(Counter::Submitted, 1);
    } else {
        count(Counter::DroppedRingFull, 1);
    }
}

/// Sends `length` bytes from `record` on as a data record, unless the ring is 7/8 full: the rest is kept for
/// lifecycle records, so that one ring gives one total order. An urgent one wakes the reader.
///
/// # Safety
/// `record` must point to at least `length` readable bytes of a map value.
#[inline(always)]
pub unsafe fn data(record: *const u8, length: u64, urgent: bool) {
    count(Counter::Seen, 1);
    let used = RING.query(BPF_RB_AVAIL_DATA as u64);
    let size = u64::from(read::RING_BYTES());
    if used + length > size - size / 8 {
        count(Counter::DroppedRingData, 1);
        return;
    }
    // SAFETY: as the caller promises; the verifier checks it.
    let bytes = unsafe { core::slice::from_raw_parts(record, length as usize) };
    let sent = RING.output::<[u8]>(bytes, flags(used, size, length, urgent));
    if sent.is_ok() {
        count(Counter::Submitted, 1);
    } else {
        count(Counter::DroppedRingFull, 1);
    }
}
