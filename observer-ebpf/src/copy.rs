//! Cuts a call into records and copies its memory into them.
//!
//! A call's bytes are covered by records without overlap: whole parts of the head, a hole, the tail. Each
//! record is made by one run of the `next_part` program, which tail-calls itself: the verifier then sees a
//! single part.

use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
use observer_ebpf::{Counter, Data, data_flags, limits};

use crate::{
    emit::{self, count},
    maps::{Call, Scratch, shape},
};

/// Turns of the gathering loop: each loads an I/O vector if need be, then passes over it, copies of it, or
/// both in two turns.
const TURNS: u32 = limits::IOVECS + 8;

/// Reads `N` words of user memory.
#[inline(always)]
fn words<const N: usize>(address: u64) -> Option<[u64; N]> {
    let mut words = core::mem::MaybeUninit::<[u64; N]>::uninit();
    // SAFETY: the helper checks the user address; the destination is on the stack, and it fills all of it.
    let failed = unsafe { read_user(words.as_mut_ptr().cast(), (N * 8) as u32, address as *const _) };
    // SAFETY: initialised above, with zeros where the helper failed.
    (failed == 0).then(|| unsafe { words.assume_init() })
}

/// Takes a call over for copying, and its thread is in none any more.
///
/// Word by word, like the stores of [`begin`]: gathered by the compiler, they become calls of functions that go byte
/// by byte, and cost more than all else that is done with a call.
#[inline(always)]
pub fn take(s: &mut Scratch, call: *mut Call) {
    const WORDS: usize = core::mem::size_of::<Call>() / 8;
    let (from, to) = (call.cast::<u64>(), (&raw mut s.call).cast::<u64>());
    let mut word = 0;
    while word < WORDS {
        // SAFETY: both values are this long and aligned; the map value is written by this thread only.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
        word += 1;
    }
    // SAFETY: as above.
    unsafe { (*call).shape = shape::NONE };
}

/// Points the scratch value at the first memory of its call. `msghdr` becomes its I/O vectors.
#[inline(always)]
pub fn begin(s: &mut Scratch) {
    for field in [&raw mut s.parts, &raw mut s.skip, &raw mut s.done, &raw mut s.index, &raw mut s.base] {
        // SAFETY: a field of a live value.
        unsafe { field.write_volatile(0) };
    }
    s.length = 0;
    match s.call.shape {
        shape::BUFFER => {
            s.base = s.call.pointer;
            s.length = s.call.count;
            s.call.count = 0;
        }
        shape::IOVEC => {}
        shape::MESSAGE => {
            // struct msghdr: name, namelen, iov, iovlen.
            let [_, _, iov, iovlen] = words::<4>(s.call.pointer).unwrap_or_default();
            s.call.pointer = iov;
            s.call.count = iovlen;
        }
        _ => s.call.count = 0,
    }
}

/// The first bytes of the call, as a little-endian word, and how many of its eight are there.
#[inline(always)]
pub fn first_word(s: &Scratch, available: u64) -> (u64, u32) {
    let (base, length) = if s.length > 0 {
        (s.base, s.length)
    } else if s.call.count > 0 {
        match words::<2>(s.call.pointer) {
            Some([base, length]) => (base, length),
            None => return (0, 0),
        }
    } else {
        return (0, 0);
    };
    let length = if length < available { length } else { available };
    let mut word = [0u64; 1];
    let size = if length >= 8 { 8 } else { (length & 7) as u32 };
    if size == 0 {
        return (0, 0);
    }
    // SAFETY: at most eight bytes go to a word on the stack.
    let failed = unsafe { read_user(word.as_mut_ptr().cast(), size, base as *const _) };
    if failed == 0 { (word[0], size) } else { (0, 0) }
}

/// Makes the next record of the call; true if more must follow.
#[inline(always)]
pub fn next(s: &mut Scratch) -> bool {
    let remaining = s.remaining;
    if remaining == 0 {
        return false;
    }
    let parts = s.parts + 1;
    let last = parts >= u64::from(limits::PARTS_PER_CALL);
    let mut want = s.head;
    if want > u64::from(limits::PART) {
        want = u64::from(limits::PART);
    }
    if want > remaining {
        want = remaining;
    }
    s.head -= want;
    if parts + 1 >= u64::from(limits::PARTS_PER_CALL) {
        // The last part is for the tail.
        s.head = 0;
    }
    let mut covers = want;
    if last {
        covers = remaining;
    } else if s.head == 0 && remaining > want {
        let rest = remaining - want;
        let tail = if s.tail < rest { s.tail } else { rest };
        covers = remaining - tail;
        s.head = tail;
        s.tail = 0;
    }

    s.filled = 0;
    gather(s, want);
    let filled = s.filled & 0x3fff;
    s.skip += covers - filled;

    s.remaining = remaining - covers;
    s.parts = parts;
    s.record.length = covers as u32;
    s.record.captured = filled as u32;
    let length = core::mem::size_of::<Data>() as u64 + filled;
    s.record.header.length = length as u32;
    // SAFETY: the record and its payload are consecutive fields of a map value, `filled` is below 2^14.
    unsafe { emit::data((&raw const s.record).cast(), length, s.urgent != 0) };
    s.record.position += covers;
    s.record.flags = data_flags::CONTINUED;
    s.remaining > 0
}

/// Copies `want` bytes of the call's memory into the payload, after passing over `skip`.
///
/// All state lives in the scratch value and is loaded anew in each turn: the verifier then sees the same
/// state each time and walks the body once. Kept in registers, the turns multiply past its limit.
#[inline(always)]
fn gather(s: &mut Scratch, want: u64) {
    let mut turn = 0;
    while turn < TURNS {
        turn += 1;
        let scratch = core::ptr::from_mut(s);
        // SAFETY: one live reference; volatile so that the state is loaded and stored in each turn.
        let v = |field: *mut u64| unsafe { core::ptr::read_volatile(field) };
        // SAFETY: as above.
        let set = |field: *mut u64, value: u64| unsafe { core::ptr::write_volatile(field, value) };
        // SAFETY: fields of a live value.
        let (filled_at, done_at, length_at, skip_at, base_at, index_at) = unsafe {
            (
                &raw mut (*scratch).filled,
                &raw mut (*scratch).done,
                &raw mut (*scratch).length,
                &raw mut (*scratch).skip,
                &raw mut (*scratch).base,
                &raw mut (*scratch).index,
            )
        };
        let filled = v(filled_at);
        if filled >= want || filled >= u64::from(limits::PART) {
            return;
        }
        if v(done_at) >= v(length_at) {
            let index = v(index_at);
            if index >= s.call.count || index >= u64::from(limits::IOVECS) {
                return;
            }
            let Some([base, length]) = words::<2>(s.call.pointer + index * 16) else {
                return;
            };
            set(index_at, index + 1);
            set(base_at, base);
            set(length_at, length);
            set(done_at, 0);
        }
        let done = v(done_at);
        let available = v(length_at).saturating_sub(done);
        if available == 0 {
            continue;
        }
        let skip = v(skip_at);
        if skip > 0 {
            let passed = if skip < available { skip } else { available };
            set(skip_at, skip - passed);
            set(done_at, done + passed);
            continue;
        }
        let mut size = want - filled;
        if size > available {
            size = available;
        }
        if size == 0 || size > u64::from(limits::PART) {
            return;
        }
        let offset = (filled & 0x3fff) as usize;
        // SAFETY: offset and size are each bounded by what the payload has room for, and the verifier checks.
        let failed = unsafe {
            read_user(s.payload.as_mut_ptr().add(offset).cast(), size as u32, (v(base_at) + done) as *const _)
        };
        if failed != 0 {
            count(Counter::FaultBytes, size);
            return;
        }
        set(filled_at, filled + size);
        set(done_at, done + size);
    }
}

/// Whether the call, which [`begin`] has looked at, was given more than the bytes that it took.
#[inline(always)]
pub fn given_more(s: &Scratch, taken: u64) -> bool {
    let mut given = s.length;
    let mut i = 0;
    while i < u64::from(limits::IOVECS) && i < s.call.count && given <= taken {
        if let Some([_, length]) = words::<2>(s.call.pointer + i * 16) {
            given += length;
        }
        i += 1;
    }
    given > taken
}

/// Total of the first `messages` lengths of an array of `struct mmsghdr`.
#[inline(always)]
pub fn messages(s: &mut Scratch, messages: u64) -> u64 {
    // struct mmsghdr: a struct msghdr of 56 bytes, msg_len, padding.
    const STRIDE: u64 = 64;
    let mut total = 0;
    let mut i = 0;
    while i < u64::from(limits::IOVECS) && i < messages {
        if let Some([word]) = words::<1>(s.call.pointer + i * STRIDE + 56) {
            total += word & 0xffff_ffff;
        }
        i += 1;
    }
    total
}
