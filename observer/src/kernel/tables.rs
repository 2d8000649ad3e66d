//! Maps that user space writes: verdicts, and the sweeping of what has ended.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData},
};
use observer_ebpf::{Direction, Verdict, call};

use super::load::{LoadError, take};

/// `Binding` and `Connection` of the kernel side, whose fields are nobody's business here.
type Binding = [u8; 32];
type Sides = [u8; 128];

/// `Call` of the kernel side; [`call`] tells where its fields are.
type Call = [u8; call::SIZE];

/// Connection tables of the kernel side.
pub struct Tables {
    verdicts: HashMap<MapData, u64, u32>,
    descriptors: HashMap<MapData, u64, Binding>,
    connections: HashMap<MapData, u64, Sides>,
    epoch: Array<MapData, u64>,
    /// Verdicts so far: what the kernel side sees in `EPOCH`.
    decided: u64,
    calls: HashMap<MapData, u64, Call>,
}

/// How many entries each table holds: what a leak would show in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Verdicts.
    pub verdicts: usize,
    /// Descriptors.
    pub descriptors: usize,
    /// Connections.
    pub connections: usize,
    /// Threads that have made a call.
    pub calls: usize,
}

impl Tables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        fn table<V: Pod>(ebpf: &mut Ebpf, map: &'static str) -> Result<HashMap<MapData, u64, V>, LoadError> {
            HashMap::try_from(take(ebpf, map)?).map_err(|source| LoadError::Map { map, source })
        }
        Ok(Self {
            verdicts: table(ebpf, "VERDICTS")?,
            descriptors: table(ebpf, "FDS")?,
            connections: table(ebpf, "CONNECTIONS")?,
            epoch: Array::try_from(take(ebpf, "EPOCH")?)
                .map_err(|source| LoadError::Map { map: "EPOCH", source })?,
            decided: 0,
            calls: table(ebpf, "STASH")?,
        })
    }

    /// Tells the kernel side what to do with a connection. False if the table is full.
    pub fn decide(&mut self, connection: u64, verdict: Verdict) -> bool {
        let known = self.verdicts.insert(connection, verdict as u32, 0).is_ok();
        self.decided += 1;
        // The index is within the array: there is nothing else that could be refused.
        known && self.epoch.set(0, self.decided, 0).is_ok()
    }

    /// Forgets a connection that has ended. To be called some time after its end: a probe may still be in it.
    pub fn forget(&mut self, connection: u64) {
        // An entry that is not there was never made, or went before.
        let _ = self.verdicts.remove(&connection);
        let _ = self.connections.remove(&connection);
    }

    /// Forgets the descriptors of processes that are gone; how many there were.
    pub fn sweep(&mut self, is_gone: impl Fn(u32) -> bool) -> usize {
        let stale: Vec<u64> = self
            .descriptors
            .keys()
            .filter_map(Result::ok)
            .filter(|key| is_gone((key >> 32) as u32))
            .collect();
        for key in &stale {
            let _ = self.descriptors.remove(key);
        }
        stale.len()
    }

    /// The connection that a thread is writing to now, if it is inside such a call.
    pub fn writing(&self, tgid: u32, tid: u32) -> Option<u64> {
        let key = u64::from(tgid) << 32 | u64::from(tid);
        written_by(&self.calls.get(&key, 0).ok()?)
    }

    /// Entries in each table. Walks them: for tests and rare looks.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            verdicts: self.verdicts.keys().filter_map(Result::ok).count(),
            descriptors: self.descriptors.keys().filter_map(Result::ok).count(),
            connections: self.connections.keys().filter_map(Result::ok).count(),
            calls: self.calls.keys().filter_map(Result::ok).count(),
        }
    }
}

fn written_by(bytes: &Call) -> Option<u64> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let connection = bytes.get(call::CONNECTION..call::CONNECTION + 8)?.try_into().ok()?;
    let writes = word(call::SHAPE)? != call::NONE && word(call::DIRECTION)? == Direction::Sent as u32;
    writes.then(|| u64::from_ne_bytes(connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_under_way_counts() {
        let call = |shape: u32, direction: Direction| {
            let mut bytes = [0; call::SIZE];
            bytes[call::CONNECTION..][..8].copy_from_slice(&7_u64.to_ne_bytes());
            bytes[call::SHAPE..][..4].copy_from_slice(&shape.to_ne_bytes());
            bytes[call::DIRECTION..][..4].copy_from_slice(&(direction as u32).to_ne_bytes());
            written_by(&bytes)
        };
        assert_eq!(call(0, Direction::Sent), Some(7));
        assert_eq!(call(0, Direction::Received), None);
        assert_eq!(call(call::NONE, Direction::Sent), None);
    }
}
