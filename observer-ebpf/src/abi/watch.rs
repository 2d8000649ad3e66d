//! The watch byte of a process: row `tgid / 64`, byte `tgid % 64` of an mmapped array.

/// Bytes in a row.
pub const ROW: u32 = 64;
/// Rows: one byte for each possible pid (`PID_MAX_LIMIT` is 2^22).
pub const ROWS: u32 = 65_536;

/// The process's inbound connections are observed.
pub const INBOUND: u8 = 1;
/// The process ran before the probes: its threads may sleep in calls whose entry was not seen.
pub const ADOPTED: u8 = 1 << 1;
/// The process is not watched: out of scope, its system calls are numbered differently, or user space has been
/// asked and has not yet answered.
pub const DENIED: u8 = 1 << 7;
/// Bits that count execs, so that a descriptor bound before an exec is not trusted after it.
pub const EXEC_MASK: u8 = 0b0111_1100;
/// One exec.
pub const EXEC_ONE: u8 = 0b0000_0100;

/// The byte after an exec: the exec count goes up by one, modulo its width.
pub const fn after_exec(byte: u8) -> u8 {
    (byte & !EXEC_MASK) | ((byte & EXEC_MASK).wrapping_add(EXEC_ONE) & EXEC_MASK)
}
