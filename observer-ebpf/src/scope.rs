//! Which process and which connection is observed. The cheapest test comes first.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use observer_ebpf::watch;

use crate::maps::{Binding, FDS, WATCH};

/// tgid and tid of the current task.
#[inline(always)]
pub fn current() -> (u32, u32) {
    let id = bpf_get_current_pid_tgid();
    ((id >> 32) as u32, id as u32)
}

/// Where the watch byte of a process is.
#[inline(always)]
pub fn watch_byte(tgid: u32) -> Option<*mut u8> {
    let row = WATCH.get_ptr_mut(tgid / watch::ROW)?;
    // SAFETY: the offset is below the row's length, and the verifier checks it.
    Some(unsafe { row.cast::<u8>().add((tgid % watch::ROW) as usize) })
}

/// The watch byte of a process; 0 for one that cannot exist.
#[inline(always)]
pub fn watched(tgid: u32) -> u8 {
    match watch_byte(tgid) {
        // SAFETY: points into a map value.
        Some(byte) => unsafe { core::ptr::read_volatile(byte) },
        None => 0,
    }
}

/// Whether a watch byte asks for a process's calls.
#[inline(always)]
pub fn observes(byte: u8) -> bool {
    byte & (watch::INBOUND | watch::DENIED) == watch::INBOUND
}

/// Key of a descriptor.
#[inline(always)]
pub fn descriptor(tgid: u32, fd: i32) -> u64 {
    (tgid as u64) << 32 | fd as u32 as u64
}

/// What a descriptor was bound to under the program that runs now.
#[inline(always)]
pub fn binding(tgid: u32, fd: i32, byte: u8) -> Option<*mut Binding> {
    let binding = FDS.get_ptr_mut(descriptor(tgid, fd))?;
    // SAFETY: points into a map value.
    (unsafe { (*binding).exec } == u32::from(byte & watch::EXEC_MASK)).then_some(binding)
}

/// Start of an HTTP request, as the little-endian word of its first bytes and their number.
///
/// Method names of RFC 9110 section 9 and RFC 5789 with the space behind them, and the HTTP/2 preface
/// (RFC 9113 section 3.4).
const METHODS: [(u64, u32); 10] = [
    (word(b"POST "), 5),
    (word(b"GET "), 4),
    (word(b"PUT "), 4),
    (word(b"PATCH "), 6),
    (word(b"HEAD "), 5),
    (word(b"DELETE "), 7),
    (word(b"OPTIONS "), 8),
    (word(b"CONNECT "), 8),
    (word(b"TRACE "), 6),
    (word(b"PRI * HT"), 8),
];

/// The method of every request that asks for a completion.
const POST: (u64, u32) = METHODS[0];

const fn word(bytes: &[u8]) -> u64 {
    let mut word = 0;
    let mut i = 0;
    while i < bytes.len() {
        word |= (bytes[i] as u64) << (8 * i);
        i += 1;
    }
    word
}

#[inline(always)]
fn starts(first: u64, available: u32, (pattern, length): (u64, u32)) -> bool {
    let compared = if available < length { available } else { length };
    let mask = if compared >= 8 { u64::MAX } else { (1u64 << (8 * compared)) - 1 };
    (first ^ pattern) & mask == 0
}

/// Whether the first bytes of a read could be the start of an HTTP request. Fewer bytes than a method has
/// are enough: some servers read a few bytes first.
#[inline(always)]
pub fn is_request(first: u64, available: u32) -> bool {
    available > 0
        && (starts(first, available, METHODS[0])
            || starts(first, available, METHODS[1])
            || starts(first, available, METHODS[2])
            || starts(first, available, METHODS[3])
            || starts(first, available, METHODS[4])
            || starts(first, available, METHODS[5])
            || starts(first, available, METHODS[6])
            || starts(first, available, METHODS[7])
            || starts(first, available, METHODS[8])
            || starts(first, available, METHODS[9]))
}

/// Whether they could be the start of a POST, which is worth a second look on an ignored connection.
#[inline(always)]
pub fn is_post(first: u64, available: u32) -> bool {
    available > 0 && starts(first, available, POST)
}

/// Whether they are the start of a POST to where most LLM APIs are: its response is worth having, too.
#[inline(always)]
pub fn is_post_to_v1(first: u64, available: u32) -> bool {
    available >= 8 && first == word(b"POST /v1")
}

/// Whether they are the start of a TLS handshake record (RFC 8446 section 5.1).
#[inline(always)]
pub fn is_tls(first: u64, available: u32) -> bool {
    available >= 2 && first & 0xffff == 0x0316
}

/// Whether they are the start of an HTTP/1 response: the process is a client here.
#[inline(always)]
pub fn is_response(first: u64, available: u32) -> bool {
    available >= 7 && starts(first, available, (word(b"HTTP/1."), 7))
}
