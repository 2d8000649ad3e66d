//! Records for tests, in wire layout.

use observer_ebpf::{Header, Kind};

fn header(kind: Kind, length: usize) -> Vec<u8> {
    let mut record = Vec::new();
    for word in [kind as u32, (size_of::<Header>() + length) as u32, 1, 0, 7, 8] {
        record.extend(word.to_ne_bytes());
    }
    record
}

/// A data record; what `length` covers beyond the payload is a hole.
pub(super) fn data(connection: u64, direction: u8, position: u64, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut record = header(Kind::Data, 40 + payload.len());
    for word in [connection, position, 0] {
        record.extend(word.to_ne_bytes());
    }
    for word in [length, payload.len() as u32, 3] {
        record.extend(word.to_ne_bytes());
    }
    record.extend([direction, 0, 0, 0]);
    record.extend(payload);
    record
}

/// The close of a connection.
pub(super) fn close(connection: u64) -> Vec<u8> {
    let mut record = header(Kind::Close, 32);
    for word in [connection, 0, 0, 3] {
        record.extend(word.to_ne_bytes());
    }
    record
}
