//! All system calls, through one raw tracepoint pair.
//!
//! `sys_enter` and `sys_exit` test the watch byte and tail-call a program by system call number. An entry
//! program remembers the call; `exit_data` finds out which connection it moved bytes of and how much of them
//! is wanted, and [`copy`] makes the records.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::raw_tracepoint,
    maps::ProgramArray,
    programs::RawTracePointContext,
};
use observer_ebpf::{
    Close, Counter, Data, Direction, Ended, Header, Kind, Listen, Open, Verdict, data_flags, limits, watch,
};

use crate::{
    copy,
    emit::{self, count},
    maps::{
        Binding, Call, ENTER, EXIT, FDS, NEXT, READERS, RECEIVED, Reader, SCRATCH, SENT, SOCKETS, STASH,
        Scratch, Side, VERDICTS, binding_flags, call_flags, scope as protocol, shape,
    },
    registers::{Arguments, arguments, number, returning},
    scope::{self, binding, descriptor, observes, watch_byte, watched},
};

const MSG_PEEK: u64 = 0x02;
const MSG_TRUNC: u64 = 0x20;
const MSG_ERRQUEUE: u64 = 0x2000;
const EPIPE: i64 = 32;
const ECONNRESET: i64 = 104;
const ETIMEDOUT: i64 = 110;
const EINPROGRESS: i64 = 115;

/// Turns without an HTTP request after which a connection that was not seen from its start is given up.
const MISMATCHES: u32 = 16;

#[inline(always)]
fn tail_call(ctx: &RawTracePointContext, programs: &ProgramArray, index: u64) {
    // SAFETY: a missing entry returns here, which is what we want.
    unsafe { programs.tail_call(ctx, index as u32) }
}

#[inline(always)]
fn regs(ctx: &RawTracePointContext) -> *const u8 {
    ctx.arg::<*const c_void>(0).cast()
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_ktime_get_ns() }
}

// === entries

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = scope::current();
    let byte = watched(tgid);
    let number: u64 = ctx.arg(1);
    if !observes(byte)
        && (byte & watch::DENIED != 0
            || (number != number::ACCEPT4 && number != number::ACCEPT && number != number::LISTEN))
    {
        return 0;
    }
    tail_call(&ctx, &ENTER, number);
    0
}

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
        // SAFETY: points into a map value.
        Some(binding) => {
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
    let mut flags = 0;
    if direction as u8 == Direction::Received as u8 {
        if message_flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
            flags |= call_flags::NO_DATA;
        }
        if message_flags & MSG_TRUNC != 0 {
            flags |= call_flags::NO_COPY;
        }
    }
    let call = Call {
        time: now(),
        connection,
        socket,
        accepted,
        cookie: 0,
        pointer,
        count: length,
        fd,
        shape,
        flags,
        direction: direction as u32,
        family: 0,
        local_port: 0,
        remote_port: 0,
        _pad: 0,
        local: [0; 16],
        remote: [0; 16],
    };
    if STASH.insert(id, call, 0).is_err() {
        count(Counter::StashFull, 1);
    }
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

/// Forgets a descriptor, and says so if it was bound.
#[inline(always)]
fn unbind(tgid: u32, fd: i32) {
    let key = descriptor(tgid, fd);
    let Some(binding) = FDS.get_ptr(key) else { return };
    // SAFETY: points into a map value.
    let connection = unsafe { (*binding).connection };
    let _ = FDS.remove(key);
    if connection != 0 {
        emit::lifecycle(&Close {
            header: emit::header::<Close>(Kind::Close),
            connection,
            received: position(connection, Direction::Received),
            sent: position(connection, Direction::Sent),
            fd,
            _pad: 0,
        });
    }
}

/// Bytes that moved so far.
#[inline(always)]
pub fn position(connection: u64, direction: Direction) -> u64 {
    let side = match direction {
        Direction::Received => RECEIVED.get_ptr(connection),
        Direction::Sent => SENT.get_ptr(connection),
    };
    // SAFETY: points into a map value.
    side.map_or(0, |side| unsafe { (*side).position })
}

#[inline(always)]
fn ended(connection: u64, direction: Direction, errno: i64) {
    emit::lifecycle(&Ended {
        header: emit::header::<Ended>(Kind::Ended),
        connection,
        position: position(connection, direction),
        errno: errno as i32,
        direction: direction as u8,
        _pad: [0; 3],
    });
}

#[inline(always)]
fn bind(tgid: u32, fd: i32, connection: u64, socket: u64, accepted: u64, flags: u32) {
    let exec = u32::from(watched(tgid) & watch::EXEC_MASK);
    let binding = Binding { connection, socket, accepted, flags, exec };
    if FDS.insert(descriptor(tgid, fd), binding, 0).is_err() {
        count(Counter::TableFull, 1);
    }
}

// === exits

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = scope::current();
    if observes(watched(tgid))
        && let Some((number, _)) = returning(regs(&ctx))
    {
        tail_call(&ctx, &EXIT, number);
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
    let Some(call) = STASH.get_ptr(id) else {
        unpaired(ctx, tgid, direction, returned);
        return 0;
    };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the only reference to this CPU's value: preemption is off and no other program uses it.
    let s = unsafe { &mut *scratch };
    // SAFETY: points into a map value that only this thread writes.
    s.call = unsafe { *call };
    let _ = STASH.remove(id);
    let more = match direction {
        Direction::Received => received(tgid, tid, s, returned),
        Direction::Sent => sent(tgid, tid, s, returned),
    };
    if more {
        tail_call(ctx, &NEXT, 0);
    }
    0
}

/// The entry was not seen: it came before the probes, or the table of running calls was full. The bytes are
/// counted into the position, so that the next record shows the gap.
#[inline(always)]
fn unpaired(ctx: &RawTracePointContext, tgid: u32, direction: Direction, returned: i64) {
    if returned <= 0 {
        return;
    }
    let Some((_, fd)) = returning(regs(ctx)) else { return };
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
        let at_end = returned == 0 && direction as u8 == Direction::Received as u8 && s.call.count > 0;
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

const NEW: Side =
    Side { position: 0, since_turn: 0, copied: 0, calls: 0, other_calls: 0, scope: 0, mismatches: 0 };

/// Bytes were read. Decides whose they are and how many are copied; true if records are to be made.
#[inline(always)]
fn received(tgid: u32, tid: u32, s: &mut Scratch, returned: i64) -> bool {
    if !has_data(s, Direction::Received, returned) {
        return false;
    }
    let time = now();
    if s.call.cookie == 0 {
        if s.call.connection == 0 {
            if s.call.accepted != 0 {
                count(Counter::Unresolved, 1);
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
                bind(tgid, s.call.fd, connection, s.call.socket, s.call.accepted, binding_flags::NOT_HTTP);
                s.head = u64::from(limits::SNIFF);
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
        _ => s.head = limits::UNDECIDED.saturating_sub(side.copied),
    }
    if s.call.flags & call_flags::NO_COPY != 0 || s.call.shape == shape::MESSAGES {
        count(Counter::OpaqueBytes, bytes);
        s.head = 0;
        s.tail = 0;
    }
    side.copied += if s.head < bytes { s.head } else { bytes };
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
    if s.call.connection == 0 || !has_data(s, Direction::Sent, returned) {
        return false;
    }
    let connection = s.call.connection;
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
        }
        (protocol::HTTP, IGNORE) | (_, OPAQUE) => return false,
        _ => {
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
        arrived: 0,
        length: 0,
        captured: 0,
        fd: s.call.fd,
        direction: Direction::Sent as u8,
        flags: if turned { data_flags::TURN } else { 0 },
        _pad: 0,
    };
    true
}

const OBSERVE: u32 = Verdict::Observe as u32;
const IGNORE: u32 = Verdict::Ignore as u32;
const OPAQUE: u32 = Verdict::Opaque as u32;

#[inline(always)]
fn verdict(connection: u64) -> u32 {
    // SAFETY: points into a map value.
    unsafe { VERDICTS.get(connection) }.copied().unwrap_or(0)
}

/// Binds the descriptor to the socket that this read delivered from, and says so.
#[inline(always)]
fn open(tgid: u32, tid: u32, s: &mut Scratch, time: u64) {
    let connection = s.call.cookie;
    // Data that another process already read keeps its state: EEXIST is fine.
    if RECEIVED.get_ptr(connection).is_none() && RECEIVED.insert(connection, NEW, 1).is_err()
        || SENT.get_ptr(connection).is_none() && SENT.insert(connection, NEW, 1).is_err()
    {
        count(Counter::TableFull, 1);
    }
    let reader = Reader { connection, reads: 0 };
    if READERS.get_ptr(s.call.socket).is_none() && READERS.insert(s.call.socket, reader, 0).is_err() {
        count(Counter::TableFull, 1);
    }
    bind(tgid, s.call.fd, connection, s.call.socket, s.call.accepted, 0);
    // SAFETY: points into a map value.
    let connected = match SOCKETS.get_ptr(s.call.socket) {
        Some(socket) => unsafe { (*socket).connected },
        None => 0,
    };
    emit::lifecycle(&Open {
        header: Header {
            kind: Kind::Open as u32,
            length: core::mem::size_of::<Open>() as u32,
            time,
            tgid,
            tid,
        },
        connection,
        connected,
        accepted: s.call.accepted,
        fd: s.call.fd,
        family: s.call.family,
        local_port: s.call.local_port,
        remote_port: s.call.remote_port,
        _pad: [0; 6],
        local: s.call.local,
        remote: s.call.remote,
    });
}

/// When the oldest data of this read arrived; 0 if not known. Counts the read.
#[inline(always)]
fn arrival(socket: u64) -> u64 {
    let Some(reader) = READERS.get_ptr_mut(socket) else { return 0 };
    // SAFETY: points into a map value; readers of one socket take turns.
    let reads = unsafe { (*reader).reads };
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(&raw mut (*reader).reads, reads + 1) };
    match SOCKETS.get_ptr(socket) {
        // SAFETY: points into a map value.
        Some(socket) if unsafe { (*socket).reads } == reads => unsafe { (*socket).arrived },
        _ => 0,
    }
}
