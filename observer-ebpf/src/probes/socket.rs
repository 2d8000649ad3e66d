//! TCP: when a connection was established, when data arrived, which socket a read delivered from, and how a
//! connection ended.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use observer_ebpf::{Counter, Kind, State, family, watch};

use crate::{
    emit::{self, count},
    maps::{Call, READERS, SOCKETS, STASH, Socket, shape},
    probes::syscall::positions,
    scope::{observes, watched},
    settings::{ABSENT, read},
};

/// Raw, because it needs no field: the socket's address and both states are the tracepoint's arguments, and
/// a raw tracepoint is not skipped when it fires inside another program.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let socket: u64 = ctx.arg(0);
    let (old, new): (u32, u32) = (ctx.arg::<i32>(1) as u32, ctx.arg::<i32>(2) as u32);
    if new == State::ESTABLISHED && old == State::SYN_RECV {
        // SAFETY: a helper without preconditions.
        let connected = unsafe { bpf_ktime_get_ns() };
        // A socket that was read after its end may have left its reader here.
        let _ = READERS.remove(socket);
        if SOCKETS.insert(socket, Socket { connected, arrived: 0, reads: 0 }, 0).is_err() {
            count(Counter::TableFull, 1);
        }
        return 0;
    }
    if let Some(reader) = READERS.get_ptr(socket) {
        // SAFETY: points into a map value.
        let connection = unsafe { (*reader).connection };
        let (received, sent) = positions(connection);
        emit::lifecycle(&State {
            header: emit::header::<State>(Kind::State),
            connection,
            received,
            sent,
            old,
            new,
        });
    }
    if new == State::CLOSE {
        let _ = READERS.remove(socket);
        let _ = SOCKETS.remove(socket);
    }
    0
}

/// Fires in the context of the thread that reads, with the socket's address at offset 8 and its cookie at
/// offset 64 on every kernel from 5.10 on. This is what tells which socket a descriptor is.
#[tracepoint(category = "tcp", name = "tcp_rcv_space_adjust")]
pub fn tcp_rcv_space_adjust(ctx: TracePointContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let byte = watched((id >> 32) as u32);
    if !observes(byte) {
        return 0;
    }
    let adopted = byte & watch::ADOPTED != 0;
    if adopted && STASH.get_ptr(id).is_none() && STASH.insert(id, Call::UNSEEN, 0).is_err() {
        count(Counter::StashFull, 1);
    }
    let Some(call) = STASH.get_ptr_mut(id) else { return 0 };
    // SAFETY: points into a map value that only this thread writes.
    let call = unsafe { &mut *call };
    if call.shape == shape::NONE {
        return 0;
    }
    // SAFETY: both fields lie inside the tracepoint's record.
    let (socket, cookie) = unsafe {
        (
            core::ptr::read_volatile(ctx.as_ptr().cast::<u8>().add(8).cast::<u64>()),
            core::ptr::read_volatile(ctx.as_ptr().cast::<u8>().add(64).cast::<u64>()),
        )
    };
    if call.cookie == cookie {
        return 0;
    }
    call.cookie = cookie;
    call.socket = socket;
    if cookie == call.connection {
        return 0;
    }
    call.local_port = field(&ctx, read::READ_SPORT());
    call.remote_port = field(&ctx, read::READ_DPORT());
    call.family = match read::READ_FAMILY() {
        // Kernels without the field name IPv4 peers in the IPv4 field only.
        ABSENT => {
            if field::<[u8; 4]>(&ctx, read::READ_DADDR()) == [0; 4] {
                family::INET6
            } else {
                family::INET
            }
        }
        offset => field(&ctx, offset),
    };
    if call.family == family::INET6 {
        call.local = field(&ctx, read::READ_SADDR_V6());
        call.remote = field(&ctx, read::READ_DADDR_V6());
    } else {
        let local: [u8; 4] = field(&ctx, read::READ_SADDR());
        let remote: [u8; 4] = field(&ctx, read::READ_DADDR());
        call.local = [local[0], local[1], local[2], local[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        call.remote = [remote[0], remote[1], remote[2], remote[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    }
    0
}

/// A field at an offset that only the loader knows; zeros if it cannot be read.
#[inline(always)]
fn field<T: Default>(ctx: &TracePointContext, offset: u32) -> T {
    // SAFETY: read through a helper that checks the address.
    unsafe { ctx.read_at(offset as usize) }.unwrap_or_default()
}

/// Data reached a socket. Remembers the first arrival since the socket was last read. Raw, because the socket's
/// address is its argument: `tcp:tcp_probe`, which tells the same, fires for every packet, fills a record each
/// time, and names the socket on newer kernels only.
#[raw_tracepoint(tracepoint = "sk_data_ready")]
pub fn sk_data_ready(ctx: RawTracePointContext) -> i32 {
    let key: u64 = ctx.arg(0);
    let Some(socket) = SOCKETS.get_ptr_mut(key) else { return 0 };
    let reads = match READERS.get_ptr(key) {
        // SAFETY: points into a map value.
        Some(reader) => unsafe { core::ptr::read_volatile(&raw const (*reader).reads) },
        None => 0,
    };
    // SAFETY: points into a map value, written under the socket's lock only.
    let socket = unsafe { &mut *socket };
    if socket.arrived == 0 || socket.reads != reads {
        // SAFETY: a helper without preconditions.
        socket.arrived = unsafe { bpf_ktime_get_ns() };
        socket.reads = reads;
    }
    0
}
