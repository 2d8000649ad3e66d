//! Synthetic sequences of records, as the kernel side would send them, with what the core must make of them.
//!
//! In: a list of numbers, drawn by `proptest`, from which every choice is taken in turn; when they run out,
//! the simplest choice is made, so that shrinking the list shrinks the sequence. Out: a [`Script`].

mod api;
mod connection;
mod content;
mod dialects;
mod expected;
mod message;
mod wire;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use observer::{
    exchange::{ExchangeId, Observation, RequestRecord},
    pipeline::{Limits, Pipeline, Stats},
};
use observer_ebpf::{Clock, Data, Direction, Header, Kind, Record};
use proptest::{collection::vec, prelude::*};

pub use expected::Expected;
pub use wire::encode;

/// The process of a connection has the connection's number and this.
pub const FIRST_TGID: u32 = 100;

/// A record that owns its payload.
#[derive(Clone)]
pub enum Owned {
    /// Bytes and what was captured of them.
    Data(Data, Vec<u8>),
    /// Any other record.
    Other(Record<'static>),
}

impl fmt::Debug for Owned {
    /// One line, so that a failing sequence can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data, payload) => {
                let direction = if data.direction == Direction::Sent as u8 { "sent" } else { "received" };
                let Data { header, connection, position, length, .. } = data;
                write!(f, "{} {connection:x} {direction} {position}+{length} ", header.time)?;
                write!(f, "\"{}\"", payload.escape_ascii())
            }
            Self::Other(record) => write!(f, "{} {record:?}", self.time()),
        }
    }
}

impl Owned {
    /// The record.
    pub fn record(&self) -> Record<'_> {
        match self {
            Self::Data(data, payload) => Record::Data(*data, payload),
            Self::Other(record) => *record,
        }
    }

    /// Its time.
    pub fn time(&self) -> u64 {
        self.record().header().time
    }

    /// The connection that it is about.
    pub fn connection(&self) -> Option<u64> {
        match self.record() {
            Record::Data(data, _) => Some(data.connection),
            Record::Open(open) => Some(open.connection),
            Record::Close(close) => Some(close.connection),
            Record::State(state) => Some(state.connection),
            Record::Ended(ended) => Some(ended.connection),
            _ => None,
        }
    }
}

/// Choices taken in turn from a list.
pub struct Choices<'a>(std::slice::Iter<'a, u16>);

impl<'a> Choices<'a> {
    /// Takes choices from `list`.
    pub fn new(list: &'a [u16]) -> Self {
        Self(list.iter())
    }

    /// A number below `limit`; 0 when the list is used up.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.next().map_or(0, |number| usize::from(*number) % limit.max(1))
    }

    /// True in one of `among` cases; false when the list is used up.
    pub fn one_in(&mut self, among: usize) -> bool {
        self.below(among) == among - 1
    }

    /// One of `options`; the first when the list is used up.
    pub fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.below(options.len())]
    }
}

/// A sequence of records, and what must be made of it.
pub struct Script {
    /// The records, in the order in which they are sent; each data record is one call.
    pub records: Vec<Owned>,
    /// Each LLM exchange by its `x-request-id`.
    pub expected: BTreeMap<String, Expected>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("script:\n")?;
        self.records.iter().try_for_each(|record| writeln!(f, "  {record:?}"))
    }
}

impl Script {
    /// Makes a sequence out of a list of numbers.
    pub fn new(list: &[u16]) -> Self {
        let mut choices = Choices::new(list);
        let clock = Header { kind: Kind::Clock as u32, length: 32, time: 1, ..Header::default() };
        let mut records =
            vec![Owned::Other(Record::Clock(Clock { header: clock, realtime: 1_700_000_000_000_000_000 }))];
        let mut expected = BTreeMap::new();
        let count = 1 + choices.below(3) as u64;
        for id in 1..=count {
            let connection = connection::build(id, &mut choices);
            records.extend(connection.records);
            expected.extend(connection.expected);
        }
        // Connections interleave by time; the records of one keep their order.
        records.sort_by_key(Owned::time);
        Self { records, expected }
    }
}

/// Any sequence.
pub fn script() -> impl Strategy<Value = Script> {
    vec(any::<u16>(), 0..220).prop_map(|list| Script::new(&list))
}

/// What a pipeline made of records.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    /// Finished exchanges, in the order in which they ended.
    pub records: Vec<RequestRecord>,
    /// What each finished exchange was said to ask for: stream, model.
    pub requested: BTreeMap<String, (bool, Option<String>)>,
    /// The same of those that are open.
    asking: BTreeMap<ExchangeId, (bool, Option<String>)>,
    /// Exchanges that started and have not finished.
    pub unfinished: i64,
    /// Verdicts.
    pub verdicts: Vec<(u64, observer_ebpf::Verdict)>,
    /// Counters.
    pub stats: Stats,
    /// The most connections that were remembered at once.
    pub connections: u64,
}

/// Runs records through a pipeline of at most `limit` connections.
pub fn observe<'a>(records: impl IntoIterator<Item = Record<'a>>, limit: usize) -> Seen {
    let mut pipeline = Pipeline::new(Limits { connections: limit, ..Limits::default() });
    let mut seen = Seen::default();
    let mut time = 0;
    for record in records {
        time = record.header().time.max(time);
        pipeline.handle_record(&record);
        drain(&mut pipeline, &mut seen);
        seen.connections = seen.connections.max(pipeline.connections().values().sum());
    }
    pipeline.finish(time);
    drain(&mut pipeline, &mut seen);
    seen.stats = pipeline.stats();
    seen
}

fn drain(pipeline: &mut Pipeline, seen: &mut Seen) {
    while let Some(verdict) = pipeline.poll_verdict() {
        seen.verdicts.push(verdict);
    }
    while pipeline.poll_ended().is_some() {}
    while pipeline.poll_undecoded().is_some() {}
    while let Some(observation) = pipeline.poll_observation() {
        match observation {
            Observation::Started { .. } => seen.unfinished += 1,
            Observation::Requested { id, stream, model } => {
                let before = seen.asking.insert(id, (stream, model));
                assert!(before.is_none(), "{id} was said twice to ask for something");
            }
            Observation::Finished { id, record } => {
                seen.unfinished -= 1;
                let asked = seen.asking.remove(&id).expect("every exchange says what it asks for");
                seen.requested.insert(record.id.clone(), asked);
                seen.records.push(*record);
            }
            Observation::Phase { .. } | Observation::Delivered { .. } => {}
        }
    }
}

/// Cuts data records into pieces of the same call, and joins pieces of the same call again.
pub fn recut(records: &[Owned], list: &[u16]) -> Vec<Owned> {
    let mut choices = Choices::new(list);
    let mut out: Vec<Owned> = Vec::new();
    for record in records {
        let Owned::Data(data, payload) = record else {
            out.push(record.clone());
            continue;
        };
        let mut ends: VecDeque<usize> = match choices.below(4) {
            0 => VecDeque::new(),
            // Byte by byte at the start, where protocols are told apart.
            1 => (1..=choices.below(40)).collect(),
            _ => (0..=choices.below(5)).map(|_| choices.below(65_536) % (payload.len() + 1)).collect(),
        };
        ends.push_back(payload.len());
        ends.make_contiguous().sort_unstable();
        let mut from = 0;
        for end in ends {
            if end <= from || end > payload.len() {
                continue;
            }
            let continued = u8::from(from > 0) * observer_ebpf::data_flags::CONTINUED;
            out.push(Owned::Data(
                Data {
                    position: data.position + from as u64,
                    length: (end - from) as u32,
                    captured: (end - from) as u32,
                    flags: if from > 0 { continued } else { data.flags },
                    ..*data
                },
                payload[from..end].to_vec(),
            ));
            from = end;
        }
    }
    out
}
