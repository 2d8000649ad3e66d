//! Record layouts.
//!
//! Times are `CLOCK_MONOTONIC` nanoseconds taken in the probe. Positions count bytes of one direction of a
//! connection from the moment the kernel side first saw it.

use core::mem::{offset_of, size_of};

/// Version of the layouts below; a recording carries it.
pub const ABI_VERSION: u32 = 1;

/// What a record is about: the value of [`Header::kind`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Data`]: bytes that a call moved.
    Data = 1,
    /// [`Open`]: a descriptor of a process was bound to a socket.
    Open = 2,
    /// [`Close`]: that descriptor was closed.
    Close = 3,
    /// [`State`]: the TCP state of a bound socket changed.
    State = 4,
    /// [`Ended`]: one direction came to an end, in order or by an error.
    Ended = 5,
    /// [`Listen`]: a process listens or accepts, and is watched from now on.
    Listen = 6,
    /// [`Exec`]: a watched process replaced its program.
    Exec = 7,
    /// [`Exit`]: a watched process, or its leader thread, exited.
    Exit = 8,
    /// [`Oom`]: the kernel chose a victim to kill.
    Oom = 9,
    /// [`Clock`]: one moment on two clocks; written by user space.
    Clock = 10,
}

/// Start of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u32,
    /// Length of the whole record in bytes, this header and any payload included.
    pub length: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time: u64,
    /// Process (thread group) that the record is about.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
}

/// Direction of bytes, seen from the process that made the call.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Read from the socket.
    Received = 0,
    /// Written to the socket.
    Sent = 1,
}

/// Bits of [`Data::flags`].
pub mod data_flags {
    /// Not the first record of its call: same call, same time, later bytes.
    pub const CONTINUED: u8 = 1;
    /// First bytes in this direction since the other direction last moved.
    pub const TURN: u8 = 2;
}

/// Address family of [`Open::family`], as `AF_INET` and `AF_INET6`.
pub mod family {
    /// `AF_INET`.
    pub const INET: u16 = 2;
    /// `AF_INET6`.
    pub const INET6: u16 = 10;
}

/// `length` bytes of one direction, the first `captured` of which follow the struct; the rest is a hole.
///
/// One call makes one or more of these: a large call is cut into parts, and a sampled call leaves a hole
/// between its head and its tail.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// Time is the call's entry for sent bytes, its return for received ones.
    pub header: Header,
    /// The connection: its socket cookie, or an id with [`NAMED`] set.
    pub connection: u64,
    /// Position of the first byte in its direction.
    pub position: u64,
    /// Received: when the oldest of these bytes reached the socket. Sent: when the call returned, if
    /// it had to wait. 0 if not known.
    pub arrived: u64,
    /// Bytes of the stream that this record covers.
    pub length: u32,
    /// Bytes of payload that follow.
    pub captured: u32,
    /// Descriptor that the call used.
    pub fd: i32,
    /// A [`Direction`].
    pub direction: u8,
    /// Bits of [`data_flags`].
    pub flags: u8,
    /// Zero.
    pub _pad: u16,
}

/// Bits of [`Open::flags`].
pub mod open_flags {
    /// The process connected it: it sends requests here and receives responses.
    pub const OUTBOUND: u8 = 1;
}

/// Set in the id of a connection that the kernel side named itself: one that is no TCP socket, or whose first
/// request was sent before anything was received.
pub const NAMED: u64 = 1 << 63;

/// A descriptor of a process was bound to a connection: at the first read that delivered data through it, or, of one
/// that the process connected, at the first write of an HTTP request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Common start.
    pub header: Header,
    /// Socket cookie, or an id with [`NAMED`] set.
    pub connection: u64,
    /// When TCP became ESTABLISHED; 0 if that was not seen.
    pub connected: u64,
    /// When `accept` returned the descriptor; 0 if that was not seen (adopted, or inherited by fork).
    pub accepted: u64,
    /// Descriptor.
    pub fd: i32,
    /// A constant of [`family`].
    pub family: u16,
    /// Local port.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// Bits of [`open_flags`].
    pub flags: u8,
    /// Zero.
    pub _pad: [u8; 5],
    /// Local address; an IPv4 address stands in the first four bytes.
    pub local: [u8; 16],
    /// Remote address, likewise.
    pub remote: [u8; 16],
}

/// A bound descriptor is being closed. The socket lives on while another descriptor refers to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Close {
    /// Common start.
    pub header: Header,
    /// Socket cookie.
    pub connection: u64,
    /// Bytes received so far.
    pub received: u64,
    /// Bytes sent so far.
    pub sent: u64,
    /// Descriptor.
    pub fd: i32,
    /// Zero.
    pub _pad: u32,
}

/// The TCP state of a bound socket changed. States are the kernel's `TCP_*` numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Time of the change; process and thread are whoever ran at that moment.
    pub header: Header,
    /// Socket cookie.
    pub connection: u64,
    /// Bytes received so far.
    pub received: u64,
    /// Bytes sent so far.
    pub sent: u64,
    /// State before.
    pub old: u32,
    /// State after.
    pub new: u32,
}

impl State {
    /// `TCP_ESTABLISHED`.
    pub const ESTABLISHED: u32 = 1;
    /// `TCP_SYN_RECV`.
    pub const SYN_RECV: u32 = 3;
    /// `TCP_CLOSE`.
    pub const CLOSE: u32 = 7;
    /// `TCP_CLOSE_WAIT`: the peer has sent its FIN.
    pub const CLOSE_WAIT: u32 = 8;
}

/// Values of [`Ended::errno`] that are told apart; the same on all of Linux's architectures that are observed.
pub mod errno {
    /// `EAGAIN`.
    pub const EAGAIN: i32 = 11;
}

/// One direction ended: a read returned 0, a call failed with a final error, or the process shut it down. Or
/// it ends for now: with `EAGAIN`, a write took less than it was given, because the other end does not read.
/// Of writes that took nothing in a row, the first is told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Time of the call's return; of its entry for a shutdown and for `EAGAIN`.
    pub header: Header,
    /// Socket cookie.
    pub connection: u64,
    /// Position at which the direction ended.
    pub position: u64,
    /// `errno`, or 0 for an orderly end.
    pub errno: i32,
    /// A [`Direction`].
    pub direction: u8,
    /// Zero.
    pub _pad: [u8; 3],
}

/// A process called `listen` or `accept` for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// Common start.
    pub header: Header,
    /// Descriptor of the listening socket.
    pub fd: i32,
    /// Zero.
    pub _pad: u32,
    /// Command name (`comm`) of the calling thread.
    pub comm: [u8; 16],
}

/// A watched process replaced its program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// Common start.
    pub header: Header,
    /// Command name after the exec.
    pub comm: [u8; 16],
}

/// Bits of [`Exit::flags`].
pub mod exit_flags {
    /// The kernel said that the whole thread group is gone. Without it only the leader thread is known to be.
    pub const GROUP_DEAD: u32 = 1;
    /// `Exit::status` is what the process ended with.
    pub const STATUS: u32 = 1 << 1;
    /// The kernel had chosen the process to be killed because memory was out.
    pub const OOM: u32 = 1 << 2;
}

/// A watched process exited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Common start.
    pub header: Header,
    /// Bits of [`exit_flags`].
    pub flags: u32,
    /// With [`exit_flags::STATUS`] what its parent is told by `wait(2)`; otherwise zero.
    pub status: u32,
}

/// The kernel ran out of memory and chose a victim.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oom {
    /// Time; the process and thread are the *victim's* where the kernel names them.
    pub header: Header,
}

/// One moment read on two clocks. Written by user space into the same road as kernel records.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The moment on `CLOCK_MONOTONIC`.
    pub header: Header,
    /// The same moment on `CLOCK_REALTIME`, nanoseconds since the Unix epoch.
    pub realtime: u64,
}

const _: () = {
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Data>() == 64 && offset_of!(Data, length) == 48);
    assert!(size_of::<Open>() == 96 && offset_of!(Open, local) == 64);
    assert!(size_of::<Close>() == 56);
    assert!(size_of::<State>() == 56);
    assert!(size_of::<Ended>() == 48);
    assert!(size_of::<Listen>() == 48);
    assert!(size_of::<Exec>() == 40);
    assert!(size_of::<Exit>() == 32);
    assert!(size_of::<Oom>() == 24);
    assert!(size_of::<Clock>() == 32);
};

/// Writes the records that user space makes.
macro_rules! to_bytes {
    ($($record:ident { $($field:ident),* };)*) => {
        $(
            impl $record {
                /// The record as it stands in the ring or a recording.
                pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
                    let mut bytes = [0; size_of::<Self>()];
                    let header = self.header;
                    put(&mut bytes, 0, &header.kind.to_ne_bytes());
                    put(&mut bytes, offset_of!(Header, length), &header.length.to_ne_bytes());
                    put(&mut bytes, offset_of!(Header, time), &header.time.to_ne_bytes());
                    put(&mut bytes, offset_of!(Header, tgid), &header.tgid.to_ne_bytes());
                    put(&mut bytes, offset_of!(Header, tid), &header.tid.to_ne_bytes());
                    $(put(&mut bytes, offset_of!(Self, $field), &self.$field.to_ne_bytes());)*
                    bytes
                }
            }
        )*
    };
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

to_bytes! {
    Clock { realtime };
    Exit { flags, status };
}
