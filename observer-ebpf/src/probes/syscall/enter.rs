//! Entries: what must be remembered of a call, and what happens as soon as it is entered.

use aya_ebpf::helpers::bpf_get_current_comm;
use observer_ebpf::{Counter, Direction, Kind, Listen, watch};

use super::{
    descriptors::{bind, ended, unbind},
    now, ticks,
};
use crate::{
    emit::{self, count},
    maps::{Call, STASH, binding_flags, call_flags, shape},
    registers::{Arguments, arguments, number},
    scope::{binding, watch_byte},
    settings::read,
};

/// The entry of a call of an observed process. A function of its own, so that all others do not pay for the
/// registers and the stack that it needs.
#[inline(never)]
pub fn call(regs: *const u8, number: u64, id: u64, byte: u64) {
    use Direction::{Received, Sent};
    let Some(Arguments { first, second, third, fourth }) = arguments(regs) else { return };
    let tgid = (id >> 32) as u32;
    let fd = first as i32;
    // Shape and message flags, as user ABI has them.
    let (direction, fd, shape, flags) = match number {
        number::WRITE => (Sent, fd, shape::BUFFER, 0),
        number::SENDTO => (Sent, fd, shape::BUFFER, 0),
        number::WRITEV => (Sent, fd, shape::IOVEC, 0),
        number::SENDMSG => (Sent, fd, shape::MESSAGE, 0),
        number::SENDMMSG => (Sent, fd, shape::MESSAGES, 0),
        number::SENDFILE => (Sent, fd, shape::OPAQUE, 0),
        // splice(fd_in, off_in, fd_out, …): the socket is the one written to.
        number::SPLICE => (Sent, third as i32, shape::OPAQUE, 0),
        number::READ => (Received, fd, shape::BUFFER, 0),
        number::RECVFROM => (Received, fd, shape::BUFFER, fourth),
        number::READV => (Received, fd, shape::IOVEC, 0),
        number::RECVMSG => (Received, fd, shape::MESSAGE, third),
        number::RECVMMSG => (Received, fd, shape::MESSAGES, fourth),
        number::ACCEPT | number::ACCEPT4 | number::LISTEN => return listening(tgid, fd),
        number::CONNECT => return bind(tgid, fd, 0, 0, 0, binding_flags::OUTBOUND),
        // A descriptor's number may be used again as soon as `close` has been entered.
        number::CLOSE => return unbind(tgid, fd),
        // `dup2` and `dup3` close the descriptor that they replace.
        number::DUP2 | number::DUP3 if fd != second as i32 => return unbind(tgid, second as i32),
        number::CLOSE_RANGE => return close_range(tgid),
        number::SHUTDOWN if second != 0 => return shutdown(tgid, fd, byte as u8),
        _ => return,
    };
    moving(id, byte as u8, direction, fd, shape, second, third, flags);
}

/// Remembers a call that moves data.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a system call's own")]
fn moving(
    id: u64,
    byte: u8,
    direction: Direction,
    fd: i32,
    shape: u32,
    pointer: u64,
    length: u64,
    message_flags: u64,
) {
    let tgid = (id >> 32) as u32;
    let mut outbound = 0;
    let (connection, socket, accepted) = match binding(tgid, fd, byte) {
        Some(binding) => {
            // SAFETY: points into a map value.
            let binding = unsafe { &*binding };
            if binding.flags & binding_flags::NOT_HTTP != 0 {
                return;
            }
            outbound = if binding.flags & binding_flags::OUTBOUND != 0 { call_flags::OUTBOUND } else { 0 };
            (binding.connection, binding.socket, binding.accepted)
        }
        // A read may tell which socket this is; a write cannot.
        None if direction as u8 == Direction::Received as u8 => (0, 0, 0),
        None => return,
    };
    // A write's time is its entry, a read's its exit.
    let (time, ticks, flags) = match direction {
        Direction::Received => (0, 0, outbound | call_flags::of(message_flags)),
        Direction::Sent => (now(), ticks(), outbound),
    };
    let Some(call) = STASH.get_ptr_mut(id) else {
        let call = Call {
            time,
            connection,
            socket,
            accepted,
            pointer,
            count: length,
            fd,
            shape,
            flags,
            direction: direction as u32,
            ticks,
            ..Call::UNSEEN
        };
        if STASH.insert(id, call, 0).is_err() {
            count(Counter::StashFull, 1);
        }
        return;
    };
    // SAFETY: points into a map value that only this thread writes.
    let call = unsafe { &mut *call };
    call.time = time;
    call.connection = connection;
    call.socket = socket;
    call.accepted = accepted;
    // Addresses of an earlier call may stay: they are read only where this call's cookie wrote them.
    call.cookie = 0;
    call.pointer = pointer;
    call.count = length;
    call.fd = fd;
    call.shape = shape;
    call.flags = flags;
    call.direction = direction as u32;
    call.ticks = ticks;
}

/// `accept` and `listen`: whoever calls them serves something, and is watched from here on, before its first
/// connection and early enough for its exit to be seen. Where a scope is set, user space is asked instead, once: the
/// process is denied until it says otherwise.
#[inline(always)]
pub fn listening(tgid: u32, fd: i32) {
    let Some(byte) = watch_byte(tgid) else { return };
    // SAFETY: points into a map value.
    let value = unsafe { core::ptr::read_volatile(byte) };
    if value & watch::INBOUND == 0 {
        let decided = if read::ASK_FIRST() == 0 { watch::INBOUND } else { watch::DENIED };
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(byte, value | decided) };
        emit::lifecycle(&Listen {
            header: emit::header::<Listen>(Kind::Listen),
            fd,
            _pad: 0,
            comm: bpf_get_current_comm().unwrap_or_default(),
        });
    }
}

/// `close_range` may drop any of them: none that was bound before is trusted after.
#[inline(always)]
fn close_range(tgid: u32) {
    let Some(byte) = watch_byte(tgid) else { return };
    // SAFETY: points into a map value.
    unsafe { core::ptr::write_volatile(byte, watch::after_exec(core::ptr::read_volatile(byte))) };
}

/// `shutdown` of the sending side ends the response; the descriptor stays.
#[inline(always)]
fn shutdown(tgid: u32, fd: i32, byte: u8) {
    let Some(binding) = binding(tgid, fd, byte) else { return };
    // SAFETY: points into a map value.
    let connection = unsafe { (*binding).connection };
    if connection != 0 {
        ended(connection, Direction::Sent, 0);
    }
}
