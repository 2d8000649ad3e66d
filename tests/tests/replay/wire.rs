//! Records that are put down by hand.

use observer_ebpf::{Close, Data, Direction, Header, Kind, Open, Record, State};
use observer_tests::script::{Owned, Seen};

use crate::run;

/// One connection whose records are put down by hand; a record can be left out.
pub(crate) struct Wire {
    pub(crate) records: Vec<Owned>,
    pub(crate) positions: [u64; 2],
    time: u64,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let mut wire = Self { records: Vec::new(), positions: [0; 2], time: 0 };
        let header = wire.header(Kind::Open);
        wire.other(Record::Open(Open { header, connection: 1, accepted: 1, fd: 3, ..Open::default() }));
        wire
    }

    pub(crate) fn header(&mut self, kind: Kind) -> Header {
        self.time += 1_000_000;
        Header { kind: kind as u32, length: 0, time: self.time, tgid: 7, tid: 7 }
    }

    pub(crate) fn other(&mut self, record: Record<'static>) -> &mut Self {
        self.records.push(Owned::Other(record));
        self
    }

    fn data(&mut self, direction: Direction, text: impl AsRef<[u8]>) -> &mut Self {
        let header = self.header(Kind::Data);
        let position = self.positions[direction as usize];
        let bytes = text.as_ref();
        let length = bytes.len() as u32;
        self.positions[direction as usize] = position.saturating_add(length.into());
        let direction = direction as u8;
        let data = Data {
            header,
            connection: 1,
            position,
            length,
            captured: length,
            fd: 3,
            direction,
            ..Data::default()
        };
        self.records.push(Owned::Data(data, bytes.to_vec()));
        self
    }

    pub(crate) fn read(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.data(Direction::Received, text)
    }

    pub(crate) fn write(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.data(Direction::Sent, text)
    }

    /// The last record never comes.
    pub(crate) fn lose(&mut self) -> &mut Self {
        self.records.pop();
        self
    }

    /// Of the last record only its first `captured` bytes were copied.
    pub(crate) fn hole(&mut self, captured: usize) -> &mut Self {
        if let Some(Owned::Data(data, payload)) = self.records.last_mut() {
            data.captured = captured as u32;
            payload.truncate(captured);
        }
        self
    }

    pub(crate) fn state(&mut self, old: u32, new: u32) -> &mut Self {
        let header = self.header(Kind::State);
        let [received, sent] = self.positions;
        self.other(Record::State(State { header, connection: 1, received, sent, old, new }))
    }

    pub(crate) fn close(&mut self) -> &mut Self {
        let header = self.header(Kind::Close);
        let [received, sent] = self.positions;
        self.other(Record::Close(Close { header, connection: 1, received, sent, fd: 3, _pad: 0 }))
    }

    pub(crate) fn seen(&self) -> Seen {
        run(&self.records)
    }
}
