//! Every map of the kernel side: key, value, bound, who writes, who reads.
//!
//! No map evicts: a full table refuses the insert and the refusal is counted. Each value has one writer,
//! because two would undo each other's updates. Bounds are defaults that the loader may change.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, ProgramArray, RingBuf},
};
use observer_ebpf::{COUNTERS, Data, limits, watch};

const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Watch bytes by tgid. Written here at accept, listen, fork, exec and exit, and by user space (mmapped) at
/// start and for scope; read first by every probe.
#[map]
pub static WATCH: Array<[u8; watch::ROW as usize]> = Array::with_max_entries(watch::ROWS, BPF_F_MMAPABLE);

/// System call number → program for its exit, where the entry left nothing to find. Filled by the loader.
#[map]
pub static EXIT: ProgramArray = ProgramArray::with_max_entries(512, 0);

/// A constant of `step` → its program. Filled by the loader. The kernel turns a tail call whose index it knows
/// into a jump; one by system call number is an indirect branch, which mitigations make slow.
#[map]
pub static STEPS: ProgramArray = ProgramArray::with_max_entries(step::COUNT, 0);

/// pid_tgid → the call that this thread is in, or was in last: the entry stays with the thread, because making
/// and deleting one costs more than all that is done with it. Written and read in the thread's own context;
/// deleted when the thread exits.
#[map]
pub static STASH: HashMap<u64, Call> = HashMap::with_max_entries(16_384, 0);

/// tgid and descriptor → the socket behind it. Written in the process's own context; swept by user space
/// when the process is gone.
#[map]
pub static FDS: HashMap<u64, Binding> = HashMap::with_max_entries(65_536, 0);

/// Connection → its two directions, each written by its own readers or writers. Deleted by user space after the
/// connection's end.
#[map]
pub static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(65_536, 0);

/// Connection → `Verdict`. Written and deleted by user space only.
#[map]
pub static VERDICTS: HashMap<u64, u32> = HashMap::with_max_entries(65_536, 0);

/// Number of verdicts so far. Written by user space after each verdict, so that one need not be looked up again
/// until another was given.
#[map]
pub static EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// Socket address → when it was connected and when data last arrived. Written under the socket's lock by the
/// TCP probes, which also delete it.
#[map]
pub static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(65_536, 0);

/// Socket address → the connection bound to it and how often it was read. Written by its readers, deleted
/// when TCP closes the socket.
#[map]
pub static READERS: HashMap<u64, Reader> = HashMap::with_max_entries(65_536, 0);

/// The one road to user space. Data may fill 7/8 of it, the rest is kept for lifecycle records.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// `Counter`s of each CPU. Written by every probe with atomic adds, read by user space.
#[map]
pub static COUNTS: PerCpuArray<[u64; COUNTERS as usize]> = PerCpuArray::with_max_entries(1, 0);

/// Working memory of the system call programs alone: preemption is off while they run.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Programs that are tail-called whatever the system call.
pub mod step {
    /// The exit of a call of an observed process.
    pub const EXIT: u32 = 0;
    /// Copying the next part of a call.
    pub const PART: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// How a call names its memory. What a thread is in is below [`shape::UNSEEN`].
pub mod shape {
    /// A buffer and its length.
    pub const BUFFER: u32 = 0;
    /// An array of `struct iovec` and its length.
    pub const IOVEC: u32 = 1;
    /// A `struct msghdr`.
    pub const MESSAGE: u32 = 2;
    /// An array of `struct mmsghdr`.
    pub const MESSAGES: u32 = 3;
    /// Nothing that can be read: `sendfile`, `splice`.
    pub const OPAQUE: u32 = 4;
    /// The entry was not seen; the exit finds out what the call is.
    pub const UNSEEN: u32 = 5;
    /// No call is under way.
    pub const NONE: u32 = observer_ebpf::call::NONE;
}

/// Bits of [`Call::flags`].
pub mod call_flags {
    /// The call does not consume: `MSG_PEEK`, `MSG_ERRQUEUE`.
    pub const NO_DATA: u32 = 1;
    /// The call consumes without copying: `MSG_TRUNC`.
    pub const NO_COPY: u32 = 2;
    /// The process connected this descriptor.
    pub const OUTBOUND: u32 = 4;

    const MSG_PEEK: u64 = 0x02;
    const MSG_TRUNC: u64 = 0x20;
    const MSG_ERRQUEUE: u64 = 0x2000;

    /// What the flags of a receiving call mean for its bytes.
    #[inline(always)]
    pub fn of(message_flags: u64) -> u32 {
        let mut flags = 0;
        if message_flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
            flags |= NO_DATA;
        }
        if message_flags & MSG_TRUNC != 0 {
            flags |= NO_COPY;
        }
        flags
    }
}

/// A call between its entry and its exit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// Time of entry; of sending calls only.
    pub time: u64,
    /// Connection bound to the descriptor at entry; 0 for none.
    pub connection: u64,
    /// Socket that the connection is bound to, replaced by the socket that this call really read.
    pub socket: u64,
    /// When the descriptor was accepted; 0 if that was not seen.
    pub accepted: u64,
    /// Cookie of the socket that this call read, told by `tcp_rcv_space_adjust`; 0 if it did not fire.
    pub cookie: u64,
    /// First argument about memory, by shape.
    pub pointer: u64,
    /// Second argument about memory, by shape.
    pub count: u64,
    /// Descriptor.
    pub fd: i32,
    /// A constant of [`shape`].
    pub shape: u32,
    /// Bits of [`call_flags`].
    pub flags: u32,
    /// A `Direction`.
    pub direction: u32,
    /// Address family of the socket that this call read.
    pub family: u16,
    /// Its local port.
    pub local_port: u16,
    /// Its remote port.
    pub remote_port: u16,
    /// Zero.
    pub _pad: u16,
    /// Its local address.
    pub local: [u8; 16],
    /// Its remote address.
    pub remote: [u8; 16],
    /// The kernel's clock ticks at entry; of sending calls only.
    pub ticks: u64,
}

const _: () = {
    use core::mem::{offset_of, size_of};

    use observer_ebpf::call;

    assert!(size_of::<Call>() == call::SIZE);
    assert!(offset_of!(Call, connection) == call::CONNECTION);
    assert!(offset_of!(Call, shape) == call::SHAPE);
    assert!(offset_of!(Call, direction) == call::DIRECTION);
};

/// Bits of [`Binding::flags`].
pub mod binding_flags {
    /// The process connected it: it is a client here.
    pub const OUTBOUND: u32 = 1;
    /// It does not speak HTTP.
    pub const NOT_HTTP: u32 = 2;
}

impl Call {
    /// A call of which nothing is known.
    pub const UNSEEN: Self = Self {
        time: 0,
        connection: 0,
        socket: 0,
        accepted: 0,
        cookie: 0,
        pointer: 0,
        count: 0,
        fd: -1,
        shape: shape::UNSEEN,
        flags: 0,
        direction: 0,
        family: 0,
        local_port: 0,
        remote_port: 0,
        _pad: 0,
        local: [0; 16],
        remote: [0; 16],
        ticks: 0,
    };
}

/// The socket behind a descriptor.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Binding {
    /// Socket cookie; 0 until a read has told it.
    pub connection: u64,
    /// Socket address; 0 until a read has told it.
    pub socket: u64,
    /// When `accept` returned it.
    pub accepted: u64,
    /// Bits of [`binding_flags`].
    pub flags: u32,
    /// The process's exec count when this was bound.
    pub exec: u32,
}

/// What is known of a connection's protocol.
pub mod scope {
    /// No bytes were looked at yet, or none that settle it.
    pub const UNKNOWN: u32 = 0;
    /// Its first bytes were an HTTP request.
    pub const HTTP: u32 = 1;
    /// They were not.
    pub const NOT_HTTP: u32 = 2;
    /// HTTP on an ignored connection, in a turn that may be of interest after all.
    pub const AGAIN: u32 = 3;
}

/// A connection's directions.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connection {
    /// What the process read.
    pub received: Side,
    /// What it wrote.
    pub sent: Side,
}

/// One direction of a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Side {
    /// Bytes so far.
    pub position: u64,
    /// Bytes since the other direction last moved.
    pub since_turn: u64,
    /// Bytes copied so far.
    pub copied: u64,
    /// Calls so far; the other side compares it to notice a turn.
    pub calls: u64,
    /// The other side's calls at the last turn.
    pub other_calls: u64,
    /// [`EPOCH`] when the verdict was looked up; 0 for never.
    pub epoch: u64,
    /// The verdict at that moment; 0 for none.
    pub verdict: u32,
    /// A constant of [`scope`]; of the side that carries requests.
    pub scope: u32,
    /// Turns whose first bytes were no HTTP request; of that side.
    pub mismatches: u32,
    /// 1 while nothing was taken since a write that took less than it was given; sent side only.
    pub blocked: u32,
}

impl Connection {
    /// A connection that moved nothing yet.
    pub const NEW: Self = Self { received: Side::NEW, sent: Side::NEW };
}

impl Side {
    const NEW: Self = Self {
        position: 0,
        since_turn: 0,
        copied: 0,
        calls: 0,
        other_calls: 0,
        epoch: 0,
        verdict: 0,
        scope: 0,
        mismatches: 0,
        blocked: 0,
    };
}

/// TCP's own times of a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Socket {
    /// When the state became ESTABLISHED.
    pub connected: u64,
    /// When the oldest data since the last read arrived.
    pub arrived: u64,
    /// The reader's count of reads at that moment.
    pub reads: u64,
}

/// The reader of a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reader {
    /// Socket cookie.
    pub connection: u64,
    /// Reads that delivered data.
    pub reads: u64,
}

/// The call that is being copied, and the record that is being built.
#[repr(C)]
pub struct Scratch {
    /// The call.
    pub call: Call,
    /// Bytes of the call that no record covers yet.
    pub remaining: u64,
    /// Bytes to copy from here on, before the hole.
    pub head: u64,
    /// Bytes to copy after the hole.
    pub tail: u64,
    /// Bytes to pass over before copying goes on.
    pub skip: u64,
    /// Records made of this call.
    pub parts: u64,
    /// The reader should be woken: its verdict decides how much of the answer is copied.
    pub urgent: u64,
    /// Current I/O vector: its address.
    pub base: u64,
    /// Its length.
    pub length: u64,
    /// How much of it is done.
    pub done: u64,
    /// Index of the next one.
    pub index: u64,
    /// Bytes in `payload`.
    pub filled: u64,
    /// The record; its payload follows it directly.
    pub record: Data,
    /// Payload: an offset below and a length up to [`limits::PART`] fit.
    pub payload: [u8; limits::PART as usize * 2],
}
