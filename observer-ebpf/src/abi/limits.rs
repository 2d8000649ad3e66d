//! How much is copied. Every bound of the kernel side that user space must know.

/// Payload bytes in one data record. An offset and a length below this fit together into a per-CPU value,
/// which is at most 32 KiB.
pub const PART: u32 = 16_000;

/// Records that one call may be cut into, the last for its tail; what lies between is a hole. The kernel limits
/// tail calls to 33.
pub const PARTS_PER_CALL: u32 = 30;

/// I/O vectors of one call that are read; what lies beyond is a hole.
pub const IOVECS: u32 = 32;

/// Request bytes copied whole after each turn of direction.
pub const REQUEST_WHOLE: u64 = 1 << 20;

/// Head of each response call that is copied.
pub const RESPONSE_HEAD: u32 = 4096;

/// Tail of each sampled call that is copied. A message ends where some call ends, so its tail is in here
/// whatever the framing.
pub const TAIL: u32 = 1024;

/// Bytes per direction that are copied before user space has given its verdict on a connection.
pub const UNDECIDED: u64 = 64 << 10;

/// Bytes of a connection that does not speak HTTP that are copied, once, for its protocol to be named.
pub const SNIFF: u32 = 16;

/// Bytes of a request on an ignored connection that are copied for a second look.
pub const RECHECK: u32 = 4096;
