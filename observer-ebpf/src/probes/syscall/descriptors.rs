//! Which socket a descriptor is, from its first read to its close.

use observer_ebpf::{Close, Counter, Direction, Ended, Header, Kind, NAMED, Open, errno, open_flags, watch};

use crate::{
    emit::{self, count},
    maps::{Binding, CONNECTIONS, Connection, FDS, READERS, Reader, SOCKETS, Scratch, binding_flags},
    scope::{self, descriptor, watched},
};

/// Forgets a descriptor, and says so if it was bound.
#[inline(always)]
pub fn unbind(tgid: u32, fd: i32) {
    let key = descriptor(tgid, fd);
    let Some(binding) = FDS.get_ptr(key) else { return };
    // SAFETY: points into a map value.
    let connection = unsafe { (*binding).connection };
    let _ = FDS.remove(key);
    if connection != 0 {
        let (received, sent) = positions(connection);
        emit::lifecycle(&Close {
            header: emit::header::<Close>(Kind::Close),
            connection,
            received,
            sent,
            fd,
            _pad: 0,
        });
    }
}

/// Bytes that moved so far: received, sent.
#[inline(always)]
pub fn positions(connection: u64) -> (u64, u64) {
    let Some(connection) = CONNECTIONS.get_ptr(connection) else { return (0, 0) };
    // SAFETY: points into a map value.
    unsafe { ((*connection).received.position, (*connection).sent.position) }
}

#[inline(always)]
pub fn ended(connection: u64, direction: Direction, errno: i64) {
    let (received, sent) = positions(connection);
    emit::lifecycle(&Ended {
        header: emit::header::<Ended>(Kind::Ended),
        connection,
        position: match direction {
            Direction::Received => received,
            Direction::Sent => sent,
        },
        errno: errno as i32,
        direction: direction as u8,
        _pad: [0; 3],
    });
}

/// A write that was entered at `entered` took less than it was given.
#[inline(always)]
pub fn blocked(connection: u64, entered: u64) {
    let mut header = emit::header::<Ended>(Kind::Ended);
    header.time = entered;
    emit::lifecycle(&Ended {
        header,
        connection,
        position: positions(connection).1,
        errno: errno::EAGAIN,
        direction: Direction::Sent as u8,
        _pad: [0; 3],
    });
}

#[inline(always)]
pub fn bind(tgid: u32, fd: i32, connection: u64, socket: u64, accepted: u64, flags: u32) {
    let exec = u32::from(watched(tgid) & watch::EXEC_MASK);
    let binding = Binding { connection, socket, accepted, flags, exec };
    if FDS.insert(descriptor(tgid, fd), binding, 0).is_err() {
        count(Counter::TableFull, 1);
    }
}

/// Another descriptor of a bound socket: what goes through it belongs to the same connection.
#[inline(always)]
pub fn duplicated(from: i32, returned: i64) {
    let (tgid, _) = scope::current();
    let to = returned as i32;
    if returned < 0 || from == to {
        return;
    }
    let Some(binding) = scope::binding(tgid, from, watched(tgid)) else { return };
    // SAFETY: points into a map value.
    let Binding { connection, socket, accepted, flags, .. } = unsafe { *binding };
    bind(tgid, to, connection, socket, accepted, flags);
    if connection != 0 {
        emit::lifecycle(&Open {
            header: emit::header::<Open>(Kind::Open),
            connection,
            accepted,
            fd: to,
            flags: if flags & binding_flags::OUTBOUND != 0 { open_flags::OUTBOUND } else { 0 },
            ..Open::default()
        });
    }
}

/// A name for a connection whose socket does not tell one: never that of another one, nor a cookie.
#[inline(always)]
pub fn named(id: u64, time: u64) -> u64 {
    // Two threads at the same nanosecond differ in their ids; the time comes round after two and a half hours.
    NAMED | (time & 0x7ff_ffff_ffff) << 20 | id & 0xf_ffff
}

/// Binds the call's descriptor to a connection, and says so. `flags` are those of the binding.
#[inline(always)]
pub fn open(tgid: u32, tid: u32, s: &Scratch, connection: u64, time: u64, flags: u32) -> bool {
    // Data that another process already read keeps its state: EEXIST is fine.
    if CONNECTIONS.get_ptr(connection).is_none()
        && CONNECTIONS.insert(connection, Connection::NEW, 1).is_err()
    {
        count(Counter::TableFull, 1);
        return false;
    }
    let Scratch { call, .. } = s;
    bind(tgid, call.fd, connection, call.socket, call.accepted, flags);
    let mut opened = Open {
        header: Header {
            kind: Kind::Open as u32,
            length: core::mem::size_of::<Open>() as u32,
            time,
            tgid,
            tid,
        },
        connection,
        accepted: call.accepted,
        fd: call.fd,
        flags: if flags & binding_flags::OUTBOUND != 0 { open_flags::OUTBOUND } else { 0 },
        ..Open::default()
    };
    if call.cookie == connection {
        // An address that a closed socket left behind belongs to whoever reads there now.
        let known = match READERS.get_ptr(call.socket) {
            // SAFETY: points into a map value.
            Some(reader) => unsafe { (*reader).connection == connection },
            None => false,
        };
        if !known && READERS.insert(call.socket, Reader { connection, reads: 0 }, 0).is_err() {
            count(Counter::TableFull, 1);
        }
        opened.connected = match SOCKETS.get_ptr(call.socket) {
            // SAFETY: points into a map value.
            Some(socket) => unsafe { (*socket).connected },
            None => 0,
        };
        opened.family = call.family;
        opened.local_port = call.local_port;
        opened.remote_port = call.remote_port;
        opened.local = call.local;
        opened.remote = call.remote;
    }
    emit::lifecycle(&opened);
    true
}

/// When the oldest data of this read arrived; 0 if not known. Counts the read.
#[inline(always)]
pub fn arrival(socket: u64) -> u64 {
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
