//! Records as bytes, in the layout of the ring and of recordings.

use observer_ebpf::{Header, Record};

struct Bytes(Vec<u8>);

impl Bytes {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> &mut Self {
        self.0.extend(bytes);
        self
    }
    fn u64s(&mut self, words: &[u64]) -> &mut Self {
        self.0.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        self
    }
    fn u32s(&mut self, words: &[u32]) -> &mut Self {
        self.0.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        self
    }
    fn u16s(&mut self, words: &[u16]) -> &mut Self {
        self.0.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        self
    }
}

/// The record as it stands in the ring.
pub fn encode(record: &Record<'_>) -> Vec<u8> {
    let Header { kind, time, tgid, tid, .. } = *record.header();
    let mut bytes = Bytes(Vec::new());
    bytes.u32s(&[kind, 0]).u64s(&[time]).u32s(&[tgid, tid]);
    match record {
        Record::Data(data, payload) => {
            bytes.u64s(&[data.connection, data.position, data.arrived]);
            bytes.u32s(&[data.length, data.captured, data.fd.cast_unsigned()]);
            bytes.put([data.direction, data.flags, 0, 0]);
            bytes.0.extend_from_slice(payload);
        }
        Record::Open(open) => {
            bytes.u64s(&[open.connection, open.connected, open.accepted]);
            bytes.u32s(&[open.fd.cast_unsigned()]);
            bytes.u16s(&[open.family, open.local_port, open.remote_port, 0, 0, 0]);
            bytes.put(open.local).put(open.remote);
        }
        Record::Close(close) => {
            bytes.u64s(&[close.connection, close.received, close.sent]).u32s(&[close.fd.cast_unsigned(), 0]);
        }
        Record::State(state) => {
            bytes.u64s(&[state.connection, state.received, state.sent]).u32s(&[state.old, state.new]);
        }
        Record::Ended(ended) => {
            bytes.u64s(&[ended.connection, ended.position]).u32s(&[ended.errno.cast_unsigned()]);
            bytes.put([ended.direction, 0, 0, 0]);
        }
        Record::Listen(listen) => {
            bytes.u32s(&[listen.fd.cast_unsigned(), 0]).put(listen.comm);
        }
        Record::Exec(exec) => {
            bytes.put(exec.comm);
        }
        Record::Exit(exit) => {
            bytes.u32s(&[exit.flags, exit.status]);
        }
        Record::Oom(_) => {}
        Record::Clock(clock) => {
            bytes.u64s(&[clock.realtime]);
        }
    }
    let length = bytes.0.len() as u32;
    bytes.0[4..8].copy_from_slice(&length.to_ne_bytes());
    bytes.0
}
