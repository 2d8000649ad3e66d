//! Exits: whose bytes a call moved, and how many of them are copied.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use observer_ebpf::{Counter, Data, Direction, Header, Kind, Verdict, data_flags, errno, limits};

use super::{
    descriptors::{arrival, bind, blocked, duplicated, ended, open},
    now, regs, tail_call,
};
use crate::{
    copy,
    emit::count,
    maps::{
        FDS, NEXT, RECEIVED, SCRATCH, SENT, STASH, Scratch, VERDICTS, binding_flags, call_flags,
        scope as protocol, shape,
    },
    registers::{Arguments, number, returning, returning_arguments},
    scope::{self, binding, descriptor, watched},
};

const EPIPE: i64 = 32;
const ECONNRESET: i64 = 104;
const ETIMEDOUT: i64 = 110;
const EINPROGRESS: i64 = 115;

/// Turns without an HTTP request after which a connection that was not seen from its start is given up.
const MISMATCHES: u16 = 16;

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

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_received(ctx: RawTracePointContext) -> i32 {
    exit_data(&ctx, Direction::Received)
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_sent(ctx: RawTracePointContext) -> i32 {
    exit_data(&ctx, Direction::Sent)
}

#[inline(always)]
fn exit_data(ctx: &RawTracePointContext, direction: Direction) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    let returned: i64 = ctx.arg(1);
    // SAFETY: points into a map value.
    let call = STASH.get_ptr_mut(id).filter(|call| unsafe { (**call).shape } != shape::NONE);
    let Some(call) = call else {
        unpaired(ctx, tgid, direction, returned);
        return 0;
    };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the only reference to this CPU's value: preemption is off and no other program uses it.
    let s = unsafe { &mut *scratch };
    // SAFETY: points into a map value that only this thread writes.
    unsafe {
        s.call = *call;
        (*call).shape = shape::NONE;
    }
    if s.call.shape == shape::UNSEEN && !complete(ctx, tgid, s) {
        return 0;
    }
    let more = match direction {
        Direction::Received => received(tgid, tid, s, returned),
        Direction::Sent => sent(tgid, tid, s, returned),
    };
    if more {
        tail_call(ctx, &NEXT, 0);
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
    let side = match direction {
        Direction::Received => RECEIVED.get_ptr_mut(connection),
        Direction::Sent => SENT.get_ptr_mut(connection),
    };
    if let Some(side) = side {
        count(Counter::Unpaired, 1);
        // SAFETY: points into a map value.
        unsafe {
            (*side).position += returned as u64;
            (*side).calls += 1;
        }
    }
}

/// Makes one record of the call in the scratch value, and comes back for the next one.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn next_part(ctx: RawTracePointContext) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the only reference to this CPU's value.
    if copy::next(unsafe { &mut *scratch }) {
        tail_call(&ctx, &NEXT, 0);
    }
    0
}

/// Reports the end of a direction; true if there is data.
#[inline(always)]
fn has_data(s: &Scratch, direction: Direction, returned: i64) -> bool {
    if returned > 0 {
        return true;
    }
    if s.call.connection != 0 && s.call.flags & call_flags::NO_DATA == 0 {
        // A buffer of no bytes is filled at once; a message's length is not at hand.
        let asked = s.call.shape == shape::MESSAGE || s.call.count > 0;
        let at_end = returned == 0 && direction as u8 == Direction::Received as u8 && asked;
        if at_end || returned == -ECONNRESET || returned == -EPIPE || returned == -ETIMEDOUT {
            ended(s.call.connection, direction, -returned);
        }
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
fn received(tgid: u32, tid: u32, s: &mut Scratch, returned: i64) -> bool {
    if !has_data(s, Direction::Received, returned) {
        return false;
    }
    let time = now();
    if s.call.cookie == 0 {
        if s.call.connection == 0 {
            // Told once. What comes next may begin anywhere: it is treated as of a connection joined midway.
            if s.call.accepted != 0 {
                count(Counter::Unresolved, 1);
                bind(tgid, s.call.fd, 0, 0, 0, 0);
            }
            return false;
        }
        s.call.cookie = s.call.connection;
    } else if s.call.cookie != s.call.connection {
        open(tgid, tid, s, time);
    }
    if s.call.flags & call_flags::NO_DATA != 0 {
        return false;
    }
    let connection = s.call.cookie;
    let Some(side) = RECEIVED.get_ptr_mut(connection) else { return false };
    // SAFETY: points into a map value; readers of one socket take turns.
    let side = unsafe { &mut *side };
    let bytes = moved(s, returned);
    count(Counter::Calls, 1);

    let sent_calls = match SENT.get_ptr(connection) {
        // SAFETY: points into a map value.
        Some(sent) => unsafe { core::ptr::read_volatile(&raw const (*sent).calls) },
        None => 0,
    };
    let turned = side.calls == 0 || sent_calls != side.other_calls;
    if turned {
        side.other_calls = sent_calls;
        side.since_turn = 0;
    }
    side.calls += 1;
    let position = side.position;
    side.position = position + bytes;
    let before = side.since_turn;
    side.since_turn = before + bytes;
    let arrived = arrival(s.call.socket);

    copy::begin(s);
    let (first, available) =
        if s.call.flags & call_flags::NO_COPY != 0 { (0, 0) } else { copy::first_word(s, bytes) };
    s.head = 0;
    s.tail = 0;
    if side.scope == protocol::UNKNOWN && turned {
        if scope::is_request(first, available) {
            side.scope = protocol::HTTP;
        } else if scope::is_response(first, available) {
            bind(tgid, s.call.fd, connection, s.call.socket, s.call.accepted, binding_flags::OUTBOUND);
            return false;
        } else {
            side.mismatches += 1;
            if s.call.accepted != 0 || side.mismatches >= MISMATCHES {
                side.scope = protocol::NOT_HTTP;
                s.head = u64::from(limits::SNIFF);
                // The bytes of TLS are counted, because they may be what this is about; others are not.
                if !scope::is_tls(first, available) {
                    let (socket, accepted) = (s.call.socket, s.call.accepted);
                    bind(tgid, s.call.fd, connection, socket, accepted, binding_flags::NOT_HTTP);
                }
            } else {
                return false;
            }
        }
    }
    let mut urgent = false;
    let verdict = verdict(connection);
    if turned && verdict == IGNORE && side.scope != protocol::NOT_HTTP {
        let again = scope::is_post_to_v1(first, available);
        side.scope = if again { protocol::AGAIN } else { protocol::HTTP };
        if again {
            side.copied = 0;
        }
    }
    match (side.scope, verdict) {
        (protocol::NOT_HTTP, _) => {
            if s.head == 0 {
                return false;
            }
        }
        (protocol::UNKNOWN, _) | (_, OPAQUE) => return false,
        (protocol::HTTP, IGNORE) => {
            if !turned || !scope::is_post(first, available) {
                return false;
            }
            s.head = u64::from(limits::RECHECK);
            urgent = true;
        }
        (_, OBSERVE) => {
            s.head = limits::REQUEST_WHOLE.saturating_sub(before);
            s.tail = u64::from(limits::TAIL);
        }
        _ => {
            // The limit is for what lies between two turns: a pooled client may ask for other things first.
            if turned {
                side.copied = 0;
            }
            s.head = limits::UNDECIDED.saturating_sub(side.copied);
            s.tail = u64::from(limits::TAIL);
            // The verdict decides how much of a large request is copied.
            urgent = side.copied + bytes > limits::UNDECIDED / 2;
        }
    }
    if s.call.flags & call_flags::NO_COPY != 0 || s.call.shape == shape::MESSAGES {
        count(Counter::OpaqueBytes, bytes);
        s.head = 0;
        s.tail = 0;
    }
    side.copied += if s.head + s.tail < bytes { s.head + s.tail } else { bytes };
    s.urgent = urgent as u64;
    s.remaining = bytes;
    s.record = Data {
        header: Header { kind: Kind::Data as u32, length: 0, time, tgid, tid },
        connection,
        position,
        arrived,
        length: 0,
        captured: 0,
        fd: s.call.fd,
        direction: Direction::Received as u8,
        flags: if turned { data_flags::TURN } else { 0 },
        _pad: 0,
    };
    true
}

/// Bytes were written. Decides how many are copied; true if records are to be made.
#[inline(always)]
fn sent(tgid: u32, tid: u32, s: &mut Scratch, returned: i64) -> bool {
    if s.call.connection == 0 {
        return false;
    }
    let connection = s.call.connection;
    if returned == -i64::from(errno::EAGAIN) {
        nothing_taken(connection, s.call.time);
        return false;
    }
    if !has_data(s, Direction::Sent, returned) {
        return false;
    }
    let Some(side) = SENT.get_ptr_mut(connection) else { return false };
    // SAFETY: points into a map value; writers of one socket take turns.
    let side = unsafe { &mut *side };
    let bytes = moved(s, returned);
    count(Counter::Calls, 1);
    let (scope, received_calls) = match RECEIVED.get_ptr(connection) {
        // SAFETY: points into a map value.
        Some(received) => unsafe {
            ((*received).scope, core::ptr::read_volatile(&raw const (*received).calls))
        },
        None => return false,
    };
    let turned = received_calls != side.other_calls;
    if turned {
        side.other_calls = received_calls;
        side.since_turn = 0;
    }
    side.calls += 1;
    let position = side.position;
    side.position = position + bytes;
    side.since_turn += bytes;
    if scope != protocol::HTTP && scope != protocol::AGAIN {
        return false;
    }
    copy::begin(s);
    match (scope, verdict(connection)) {
        (_, OBSERVE) => {
            s.head = u64::from(limits::RESPONSE_HEAD);
            s.tail = u64::from(limits::TAIL);
            let short = copy::given_more(s, bytes);
            side.blocked = short as u16;
            if short {
                blocked(connection, s.call.time);
            }
        }
        (protocol::HTTP, IGNORE) | (_, OPAQUE) => return false,
        _ => {
            if turned {
                side.copied = 0;
            }
            let left = limits::UNDECIDED.saturating_sub(side.copied);
            s.head =
                if left < u64::from(limits::RESPONSE_HEAD) { left } else { u64::from(limits::RESPONSE_HEAD) };
            s.tail = if left == 0 { 0 } else { u64::from(limits::TAIL) };
        }
    }
    if s.call.shape >= shape::MESSAGES {
        count(Counter::OpaqueBytes, bytes);
        s.head = 0;
        s.tail = 0;
    }
    side.copied += if s.head + s.tail < bytes { s.head + s.tail } else { bytes };
    s.urgent = 0;
    s.remaining = bytes;
    s.record = Data {
        header: Header { kind: Kind::Data as u32, length: 0, time: s.call.time, tgid, tid },
        connection,
        position,
        arrived: now(),
        length: 0,
        captured: 0,
        fd: s.call.fd,
        direction: Direction::Sent as u8,
        flags: if turned { data_flags::TURN } else { 0 },
        _pad: 0,
    };
    true
}

/// The socket was full. Said once until something is taken: a server may try in a loop.
#[inline(always)]
fn nothing_taken(connection: u64, entered: u64) {
    let Some(side) = SENT.get_ptr_mut(connection) else { return };
    // SAFETY: points into a map value; writers of one socket take turns.
    let side = unsafe { &mut *side };
    if side.blocked == 0 && verdict(connection) == OBSERVE {
        side.blocked = 1;
        blocked(connection, entered);
    }
}

const OBSERVE: u32 = Verdict::Observe as u32;
const IGNORE: u32 = Verdict::Ignore as u32;
const OPAQUE: u32 = Verdict::Opaque as u32;

#[inline(always)]
fn verdict(connection: u64) -> u32 {
    // SAFETY: points into a map value.
    unsafe { VERDICTS.get(connection) }.copied().unwrap_or(0)
}
