//! Per-CPU counters of the kernel side: index, name and meaning in one place.

/// Index into the counter array.
///
/// At quiescence `Seen` equals `Submitted` plus all `Dropped*`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Records that the kernel side wanted to send.
    Seen = 0,
    /// Records that entered the ring.
    Submitted = 1,
    /// Data records refused because the ring was 7/8 full.
    DroppedRingData = 2,
    /// Records refused because the ring was full.
    DroppedRingFull = 3,
    /// Calls that could not be remembered at entry: the table of threads is full.
    StashFull = 4,
    /// Connections or descriptors that could not be remembered: a table is full.
    TableFull = 5,
    /// Calls of watched processes whose entry was not seen; their bytes are gaps.
    Unpaired = 6,
    /// Accepted descriptors that were taken for something else than TCP until the probe that tells was no longer skipped.
    Unresolved = 7,
    /// Payload bytes that could not be read from user memory; they are holes.
    FaultBytes = 8,
    /// Bytes moved without passing through user memory or by calls that are not copied: holes.
    OpaqueBytes = 9,
}

/// Number of counters.
pub const COUNTERS: u32 = 10;

impl Counter {
    /// All counters in index order.
    pub const ALL: [Self; COUNTERS as usize] = [
        Self::Seen,
        Self::Submitted,
        Self::DroppedRingData,
        Self::DroppedRingFull,
        Self::StashFull,
        Self::TableFull,
        Self::Unpaired,
        Self::Unresolved,
        Self::FaultBytes,
        Self::OpaqueBytes,
    ];
}
