//! What user space reads of a thread's call: where it stands in the map value.

/// Bytes of the value.
pub const SIZE: usize = 120;

/// Offset of the connection, a `u64`.
pub const CONNECTION: usize = 8;

/// Offset of the shape, a `u32`.
pub const SHAPE: usize = 60;

/// Offset of the [`Direction`](super::layout::Direction), a `u32`.
pub const DIRECTION: usize = 68;

/// Shape of a thread's value while it is in no call.
pub const NONE: u32 = 6;
