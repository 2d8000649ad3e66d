//! Exits: whose bytes a call moved, and how many of them are copied.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use observer_ebpf::{Counter, Data, Direction, Header, Kind, NAMED, data_flags, errno};

use super::{
    descriptors::{arrival, bind, blocked, duplicated, ended, named, open, unbind},
    now, regs,
    sampling::{self, Moved},
    tail_call, ticks,
};
use crate::{
    copy,
    emit::count,
    maps::{
        CONNECTIONS, EXIT, FDS, SCRATCH, STASH, STEPS, Scratch, Side, binding_flags, call_flags,
        scope as protocol, shape, step,
    },
    registers::{Arguments, number, returning, returning_arguments},
    scope::{self, binding, descriptor, watched},
};

const EPIPE: i64 = 32;
const ECONNRESET: i64 = 104;
const ETIMEDOUT: i64 = 110;
const EINPROGRESS: i64 = 115;

/// The exit of a call of an observed process. If its entry left something, it is a call that moves data: a
/// thread is in one call at a time, and its process was observed all the while.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_call(ctx: RawTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    // SAFETY: points into a map value.
    let call = STASH.get_ptr_mut(id).filter(|call| unsafe { (**call).shape } < shape::UNSEEN);
    let Some(call) = call else {
        if let Some((number, _)) = returning(regs(&ctx)) {
            tail_call(&ctx, &EXIT, number);
        }
        return 0;
    };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the only reference to this CPU's value: preemption is off and no other program uses it.
    let s = unsafe { &mut *scratch };
    copy::take(s, call);
    let returned: i64 = ctx.arg(1);
    let more = if s.call.direction == Direction::Sent as u32 {
        sent(id, s, returned)
    } else {
        received(id, s, returned)
    };
    if more {
        tail_call(&ctx, &STEPS, u64::from(step::PART));
    }
    0
}

/// A read whose entry was not seen.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_received(ctx: RawTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    let returned: i64 = ctx.arg(1);
    // SAFETY: points into a map value.
    let call = STASH.get_ptr_mut(id).filter(|call| unsafe { (**call).shape } == shape::UNSEEN);
    let Some(call) = call else {
        unpaired(&ctx, tgid, Direction::Received, returned);
        return 0;
    };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the only reference to this CPU's value: preemption is off and no other program uses it.
    let s = unsafe { &mut *scratch };
    copy::take(s, call);
    if complete(&ctx, tgid, s) && received(id, s, returned) {
        tail_call(&ctx, &STEPS, u64::from(step::PART));
    }
    0
}

/// A write whose entry was not seen.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_sent(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = scope::current();
    unpaired(&ctx, tgid, Direction::Sent, ctx.arg(1));
    0
}

/// Makes one record of the call in the scratch value, and comes back for the next one.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn next_part(ctx: RawTracePointContext) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the only reference to this CPU's value.
    if copy::next(unsafe { &mut *scratch }) {
        tail_call(&ctx, &STEPS, u64::from(step::PART));
    }
    0
}

/// An accepted descriptor begins a life of its own, whatever its number was bound to before.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_accept(ctx: RawTracePointContext) -> i32 {
    let returned: i64 = ctx.arg(1);
    if returned >= 0 {
        let (tgid, _) = scope::current();
        bind(tgid, returned as i32, 0, 0, now(), 0);
    }
    0
}

/// A failed `connect` leaves a descriptor that may still be used to listen.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_connect(ctx: RawTracePointContext) -> i32 {
    let returned: i64 = ctx.arg(1);
    if returned < 0
        && returned != -EINPROGRESS
        && let Some((_, fd)) = returning(regs(&ctx))
    {
        let (tgid, _) = scope::current();
        let _ = FDS.remove(descriptor(tgid, fd as i32));
    }
    0
}

/// A second descriptor of the same socket, by `dup`, `dup2` or `dup3`.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_dup(ctx: RawTracePointContext) -> i32 {
    if let Some((_, from)) = returning(regs(&ctx)) {
        duplicated(from as i32, ctx.arg(1));
    }
    0
}

/// The same by `fcntl`.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_fcntl(ctx: RawTracePointContext) -> i32 {
    const F_DUPFD: u64 = 0;
    const F_DUPFD_CLOEXEC: u64 = 1030;
    if let Some(Arguments { first, second, .. }) = returning_arguments(regs(&ctx))
        && (second == F_DUPFD || second == F_DUPFD_CLOEXEC)
    {
        duplicated(first as i32, ctx.arg(1));
    }
    0
}

/// Finds out what a call is whose entry came before the probes, and whose socket the read has told. False if
/// it is none that is followed.
#[inline(always)]
fn complete(ctx: &RawTracePointContext, tgid: u32, s: &mut Scratch) -> bool {
    let Some((number, _)) = returning(regs(ctx)) else { return false };
    let Some(Arguments { first, second, third, fourth }) = returning_arguments(regs(ctx)) else {
        return false;
    };
    let (shape, message_flags) = match number {
        number::READ => (shape::BUFFER, 0),
        number::READV => (shape::IOVEC, 0),
        number::RECVFROM => (shape::BUFFER, fourth),
        number::RECVMSG => (shape::MESSAGE, third),
        _ => return false,
    };
    s.call.fd = first as i32;
    s.call.pointer = second;
    s.call.count = third;
    s.call.shape = shape;
    s.call.flags = call_flags::of(message_flags);
    if let Some(binding) = binding(tgid, s.call.fd, watched(tgid)) {
        // SAFETY: points into a map value.
        let binding = unsafe { &*binding };
        if binding.flags & (binding_flags::OUTBOUND | binding_flags::NOT_HTTP) != 0 {
            return false;
        }
        s.call.connection = binding.connection;
        s.call.accepted = binding.accepted;
    }
    true
}

/// The entry was not seen: it came before the probes, or the table of running calls was full. The bytes are
/// counted into the position, so that the next record shows the gap.
#[inline(always)]
fn unpaired(ctx: &RawTracePointContext, tgid: u32, direction: Direction, returned: i64) {
    if returned <= 0 {
        return;
    }
    let Some((number, fd)) = returning(regs(ctx)) else { return };
    // These return a number of messages, or name the socket elsewhere.
    if number == number::SENDMMSG || number == number::RECVMMSG || number == number::SPLICE {
        return;
    }
    let Some(binding) = binding(tgid, fd as i32, watched(tgid)) else { return };
    // SAFETY: points into a map value.
    let (connection, flags) = unsafe { ((*binding).connection, (*binding).flags) };
    if connection == 0 || flags != 0 {
        return;
    }
    if let Some(connection) = CONNECTIONS.get_ptr_mut(connection) {
        count(Counter::Unpaired, 1);
        // SAFETY: points into a map value.
        unsafe {
            let side = match direction {
                Direction::Received => &raw mut (*connection).received,
                Direction::Sent => &raw mut (*connection).sent,
            };
            (*side).position += returned as u64;
            (*side).calls += 1;
        }
    }
}

/// Reports the end of a direction; true if there is data.
#[inline(always)]
fn has_data(s: &Scratch, direction: Direction, returned: i64) -> bool {
    if returned > 0 {
        return true;
    }
    if s.call.connection == 0 || s.call.flags & call_flags::NO_DATA != 0 {
        return false;
    }
    let received = direction as u8 == Direction::Received as u8;
    // A buffer of no bytes is filled at once; a message's length is not at hand.
    let at_end = returned == 0 && received && (s.call.shape == shape::MESSAGE || s.call.count > 0);
    if at_end || returned == -ECONNRESET || returned == -EPIPE || returned == -ETIMEDOUT {
        ended(s.call.connection, direction, -returned);
    }
    false
}

/// Bytes that a call moved. `sendmmsg` and `recvmmsg` return a number of messages.
#[inline(always)]
fn moved(s: &mut Scratch, returned: i64) -> u64 {
    if s.call.shape == shape::MESSAGES { copy::messages(s, returned as u64) } else { returned as u64 }
}

/// Bytes were read. Decides whose they are and how many are copied; true if records are to be made.
#[inline(always)]
fn received(id: u64, s: &mut Scratch, returned: i64) -> bool {
    if !has_data(s, Direction::Received, returned) {
        return false;
    }
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    if s.call.flags & call_flags::OUTBOUND != 0 {
        answered(tgid, s, returned);
        return false;
    }
    let time = now();
    if s.call.cookie == 0 {
        if s.call.connection == 0 {
            if s.call.accepted == 0 {
                return false;
            }
            // Accepted, and no TCP: a Unix socket.
            s.call.connection = named(id, time);
            if !open(tgid, tid, s, s.call.connection, time, 0) {
                return false;
            }
        }
        s.call.cookie = s.call.connection;
    } else if s.call.cookie != s.call.connection {
        if s.call.connection & NAMED != 0 {
            count(Counter::Unresolved, 1);
            unbind(tgid, s.call.fd);
        }
        open(tgid, tid, s, s.call.cookie, time, 0);
    }
    if s.call.flags & call_flags::NO_DATA != 0 {
        return false;
    }
    let connection = s.call.cookie;
    let Some(sides) = CONNECTIONS.get_ptr_mut(connection) else { return false };
    // SAFETY: points into a map value; readers of one socket take turns.
    let (side, sent_calls) =
        unsafe { (&mut (*sides).received, core::ptr::read_volatile(&raw const (*sides).sent.calls)) };
    let bytes = moved(s, returned);
    let moved = sampling::advance(side, sent_calls, bytes);
    let arrived = arrival(s.call.socket);

    copy::begin(s);
    let (first, available) =
        if s.call.flags & call_flags::NO_COPY != 0 { (0, 0) } else { copy::first_word(s, bytes) };
    if side.scope == protocol::UNKNOWN && moved.turned && scope::is_response(first, available) {
        // The process is a client here.
        bind(tgid, s.call.fd, connection, s.call.socket, s.call.accepted, binding_flags::OUTBOUND);
        return false;
    }
    let was = side.scope;
    let wanted = sampling::request(s, side, connection, &moved, first, available);
    // The bytes of TLS are counted, because they may be what this is about; others are not.
    if was != side.scope && side.scope == protocol::NOT_HTTP && !scope::is_tls(first, available) {
        let (socket, accepted) = (s.call.socket, s.call.accepted);
        bind(tgid, s.call.fd, connection, socket, accepted, binding_flags::NOT_HTTP);
    }
    if !wanted {
        return false;
    }
    if s.call.flags & call_flags::NO_COPY != 0 || s.call.shape == shape::MESSAGES {
        sampling::nothing(s, bytes);
    }
    sampling::copied(s, side, bytes);
    record(s, id, connection, Direction::Received, &moved, time, arrived);
    true
}

/// Bytes were read where the process is the client. Nobody wants them; they tell that its next write is a request.
#[inline(always)]
fn answered(tgid: u32, s: &mut Scratch, returned: i64) {
    if s.call.flags & call_flags::NO_DATA != 0 {
        return;
    }
    let Some(sides) = CONNECTIONS.get_ptr_mut(s.call.connection) else {
        // Whoever connects and is spoken to first speaks no HTTP.
        return bind(tgid, s.call.fd, 0, 0, 0, binding_flags::OUTBOUND | binding_flags::NOT_HTTP);
    };
    let bytes = moved(s, returned);
    // SAFETY: points into a map value; readers of one socket take turns.
    unsafe {
        (*sides).received.calls += 1;
        (*sides).received.position += bytes;
    }
}

/// Bytes were written. Decides how many are copied; true if records are to be made.
#[inline(always)]
fn sent(id: u64, s: &mut Scratch, returned: i64) -> bool {
    if s.call.flags & call_flags::OUTBOUND != 0 {
        return asked(id, s, returned);
    }
    let connection = s.call.connection;
    let full = returned == -i64::from(errno::EAGAIN);
    if connection == 0 || !full && !has_data(s, Direction::Sent, returned) {
        return false;
    }
    let Some(sides) = CONNECTIONS.get_ptr_mut(connection) else { return false };
    // SAFETY: points into a map value; writers of one socket take turns.
    let (side, scope, received_calls) = unsafe {
        (
            &mut (*sides).sent,
            core::ptr::read_volatile(&raw const (*sides).received.scope),
            core::ptr::read_volatile(&raw const (*sides).received.calls),
        )
    };
    if full {
        // Said once until something is taken: a server may try in a loop.
        if side.blocked == 0 && sampling::is_observed(side, connection) {
            side.blocked = 1;
            blocked(connection, s.call.time);
        }
        return false;
    }
    let bytes = moved(s, returned);
    let moved = sampling::advance(side, received_calls, bytes);
    if scope != protocol::HTTP && scope != protocol::AGAIN {
        return false;
    }
    copy::begin(s);
    if !sampling::response(s, side, scope, connection, moved.turned) {
        return false;
    }
    if sampling::is_observed(side, connection) {
        let short = copy::given_more(s, bytes);
        side.blocked = u32::from(short);
        if short {
            blocked(connection, s.call.time);
        }
    }
    let returned = if lasted(s) { now() } else { 0 };
    written(id, s, side, connection, &moved, returned);
    true
}

/// Bytes were written where the process is the client: a request, if anything is known of it.
#[inline(always)]
fn asked(id: u64, s: &mut Scratch, returned: i64) -> bool {
    if returned <= 0 {
        return false;
    }
    let bytes = moved(s, returned);
    copy::begin(s);
    let (first, available) = copy::first_word(s, bytes);
    let is_request = scope::is_request(first, available);
    if s.call.connection == 0 {
        // Whoever says something else first goes on with that.
        if !is_request {
            let flags = binding_flags::OUTBOUND | binding_flags::NOT_HTTP;
            bind((id >> 32) as u32, s.call.fd, 0, 0, 0, flags);
            return false;
        }
        s.call.connection = named(id, s.call.time);
        if !client(id, s) {
            return false;
        }
    }
    let connection = s.call.connection;
    let Some(sides) = CONNECTIONS.get_ptr_mut(connection) else { return false };
    // SAFETY: points into a map value; writers of one socket take turns.
    let (side, received_calls) =
        unsafe { (&mut (*sides).sent, core::ptr::read_volatile(&raw const (*sides).received.calls)) };
    let moved = sampling::advance(side, received_calls, bytes);
    // A connection from before the probes is told when it sends its next request.
    let from_before = side.scope == protocol::UNKNOWN && connection & NAMED == 0;
    if from_before && !(is_request && moved.turned && client(id, s)) {
        return false;
    }
    if !sampling::request(s, side, connection, &moved, first, available) {
        return false;
    }
    written(id, s, side, connection, &moved, 0);
    true
}

/// Begins the record of a write.
#[inline(always)]
fn written(id: u64, s: &mut Scratch, side: &mut Side, connection: u64, moved: &Moved, returned: u64) {
    if s.call.shape >= shape::MESSAGES {
        sampling::nothing(s, moved.bytes);
    }
    sampling::copied(s, side, moved.bytes);
    let time = s.call.time;
    record(s, id, connection, Direction::Sent, moved, time, returned);
}

/// Says that a connection is one where the process is the client.
#[inline(always)]
fn client(id: u64, s: &mut Scratch) -> bool {
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    open(tgid, tid, s, s.call.connection, s.call.time, binding_flags::OUTBOUND)
}

/// Whether a call took so long that it must have waited: the clock's ticks tell, which cost a load.
#[inline(always)]
fn lasted(s: &Scratch) -> bool {
    ticks().wrapping_sub(s.call.ticks) > 1
}

/// Begins the record of a call, which its parts go on with.
#[inline(always)]
fn record(
    s: &mut Scratch,
    id: u64,
    connection: u64,
    direction: Direction,
    moved: &Moved,
    time: u64,
    arrived: u64,
) {
    s.remaining = moved.bytes;
    s.record = Data {
        header: Header { kind: Kind::Data as u32, length: 0, time, tgid: (id >> 32) as u32, tid: id as u32 },
        connection,
        position: moved.position,
        arrived,
        length: 0,
        captured: 0,
        fd: s.call.fd,
        direction: direction as u8,
        flags: if moved.turned { data_flags::TURN } else { 0 },
        _pad: 0,
    };
}
