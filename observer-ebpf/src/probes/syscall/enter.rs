//! Entries: what must be remembered of a call, and what happens as soon as it is entered.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use observer_ebpf::{Counter, Direction, Kind, Listen, watch};

use super::{
    descriptors::{bind, ended, unbind},
    now, regs,
};
use crate::{
    emit::{self, count},
    maps::{Call, STASH, binding_flags, call_flags, shape},
    registers::{Arguments, arguments},
    scope::{self, binding, watch_byte, watched},
};

/// Remembers a call that moves data.
#[inline(always)]
fn enter_data(ctx: &RawTracePointContext, direction: Direction, shape: u32) -> i32 {
    let Some(Arguments { first, second, third, fourth }) = arguments(regs(ctx)) else { return 0 };
    let message_flags = match shape {
        shape::MESSAGE => third,
        shape::BUFFER | shape::MESSAGES => fourth,
        _ => 0,
    };
    enter(direction, shape, first as i32, second, third, message_flags)
}

/// Remembers a call without message flags.
#[inline(always)]
fn enter_plain(ctx: &RawTracePointContext, direction: Direction, shape: u32) -> i32 {
    let Some(Arguments { first, second, third, .. }) = arguments(regs(ctx)) else { return 0 };
    enter(direction, shape, first as i32, second, third, 0)
}

#[inline(always)]
fn enter(direction: Direction, shape: u32, fd: i32, pointer: u64, length: u64, message_flags: u64) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    let (connection, socket, accepted) = match binding(tgid, fd, watched(tgid)) {
        Some(binding) => {
            // SAFETY: points into a map value.
            let binding = unsafe { &*binding };
            if binding.flags & (binding_flags::OUTBOUND | binding_flags::NOT_HTTP) != 0 {
                return 0;
            }
            (binding.connection, binding.socket, binding.accepted)
        }
        // A read may tell which socket this is; a write cannot.
        None if direction as u8 == Direction::Received as u8 => (0, 0, 0),
        None => return 0,
    };
    let flags = if direction as u8 == Direction::Received as u8 { call_flags::of(message_flags) } else { 0 };
    let Some(call) = STASH.get_ptr_mut(id) else {
        let call = Call {
            time: now(),
            connection,
            socket,
            accepted,
            pointer,
            count: length,
            fd,
            shape,
            flags,
            direction: direction as u32,
            ..Call::UNSEEN
        };
        if STASH.insert(id, call, 0).is_err() {
            count(Counter::StashFull, 1);
        }
        return 0;
    };
    // SAFETY: points into a map value that only this thread writes.
    let call = unsafe { &mut *call };
    call.time = now();
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
    0
}

macro_rules! entry {
    ($($name:ident: $body:expr;)*) => {
        $(
            #[raw_tracepoint(tracepoint = "sys_enter")]
            pub fn $name(ctx: RawTracePointContext) -> i32 {
                let body: fn(&RawTracePointContext) -> i32 = $body;
                body(&ctx)
            }
        )*
    };
}

entry! {
    enter_read: |ctx| enter_plain(ctx, Direction::Received, shape::BUFFER);
    enter_recvfrom: |ctx| enter_data(ctx, Direction::Received, shape::BUFFER);
    enter_readv: |ctx| enter_plain(ctx, Direction::Received, shape::IOVEC);
    enter_recvmsg: |ctx| enter_data(ctx, Direction::Received, shape::MESSAGE);
    enter_recvmmsg: |ctx| enter_data(ctx, Direction::Received, shape::MESSAGES);
    enter_write: |ctx| enter_plain(ctx, Direction::Sent, shape::BUFFER);
    enter_sendto: |ctx| enter_data(ctx, Direction::Sent, shape::BUFFER);
    enter_writev: |ctx| enter_plain(ctx, Direction::Sent, shape::IOVEC);
    enter_sendmsg: |ctx| enter_data(ctx, Direction::Sent, shape::MESSAGE);
    enter_sendmmsg: |ctx| enter_data(ctx, Direction::Sent, shape::MESSAGES);
    enter_sendfile: |ctx| enter_plain(ctx, Direction::Sent, shape::OPAQUE);
    enter_splice: enter_splice_call;
    enter_accept: |ctx| { enter_listening(ctx); 0 };
    enter_listen: |ctx| { enter_listening(ctx); 0 };
    enter_connect: enter_connect_call;
    enter_close: enter_close_call;
    enter_shutdown: enter_shutdown_call;
    enter_dup: enter_dup_call;
    enter_close_range: |_| { enter_close_range_call(); 0 };
}

/// `splice(fd_in, off_in, fd_out, …)`: the socket is the one written to.
#[inline(always)]
fn enter_splice_call(ctx: &RawTracePointContext) -> i32 {
    let Some(Arguments { third, .. }) = arguments(regs(ctx)) else { return 0 };
    enter(Direction::Sent, shape::OPAQUE, third as i32, 0, 0, 0)
}

/// `accept` and `listen`: whoever calls them serves something, and is watched from here on, before its first
/// connection and early enough for its exit to be seen.
#[inline(always)]
fn enter_listening(ctx: &RawTracePointContext) {
    let (tgid, _) = scope::current();
    let Some(byte) = watch_byte(tgid) else { return };
    // SAFETY: points into a map value.
    let value = unsafe { core::ptr::read_volatile(byte) };
    if value & watch::INBOUND == 0 {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(byte, value | watch::INBOUND) };
        let Some(Arguments { first, .. }) = arguments(regs(ctx)) else { return };
        emit::lifecycle(&Listen {
            header: emit::header::<Listen>(Kind::Listen),
            fd: first as i32,
            _pad: 0,
            comm: bpf_get_current_comm().unwrap_or_default(),
        });
    }
}

#[inline(always)]
fn enter_connect_call(ctx: &RawTracePointContext) -> i32 {
    let Some(Arguments { first, .. }) = arguments(regs(ctx)) else { return 0 };
    let (tgid, _) = scope::current();
    bind(tgid, first as i32, 0, 0, 0, binding_flags::OUTBOUND);
    0
}

/// A descriptor's number may be used again as soon as `close` has been entered.
#[inline(always)]
fn enter_close_call(ctx: &RawTracePointContext) -> i32 {
    let Some(Arguments { first, .. }) = arguments(regs(ctx)) else { return 0 };
    let (tgid, _) = scope::current();
    unbind(tgid, first as i32);
    0
}

/// `dup2` and `dup3` close the descriptor that they replace.
#[inline(always)]
fn enter_dup_call(ctx: &RawTracePointContext) -> i32 {
    let Some(Arguments { first, second, .. }) = arguments(regs(ctx)) else { return 0 };
    if first as i32 != second as i32 {
        let (tgid, _) = scope::current();
        unbind(tgid, second as i32);
    }
    0
}

/// `close_range` may drop any of them: none that was bound before is trusted after.
#[inline(always)]
fn enter_close_range_call() {
    let (tgid, _) = scope::current();
    let Some(byte) = watch_byte(tgid) else { return };
    // SAFETY: points into a map value.
    unsafe { core::ptr::write_volatile(byte, watch::after_exec(core::ptr::read_volatile(byte))) };
}

/// `shutdown` of the sending side ends the response; the descriptor stays.
#[inline(always)]
fn enter_shutdown_call(ctx: &RawTracePointContext) -> i32 {
    let Some(Arguments { first, second, .. }) = arguments(regs(ctx)) else { return 0 };
    let (tgid, _) = scope::current();
    let Some(binding) = binding(tgid, first as i32, watched(tgid)) else { return 0 };
    // SAFETY: points into a map value.
    let connection = unsafe { (*binding).connection };
    if connection != 0 && second != 0 {
        ended(connection, Direction::Sent, 0);
    }
    0
}
