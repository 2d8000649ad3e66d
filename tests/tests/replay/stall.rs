//! A stream stalls by what its records say, whoever looks and when.

use std::collections::HashMap;

use observer::{
    exchange::{Observation, Phase, RequestRecord},
    pipeline::{Limits, Pipeline, STALLS_AFTER},
};
use observer_ebpf::{Close, Data, Direction, Ended, Header, Kind, Open, Record, State, errno};
use observer_tests::script::{Owned, script};
use proptest::{collection::vec, prelude::*};

const MS: u64 = 1_000_000;
const REQUEST: &str = "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"stream\":true}";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";

/// What is told of some records, in the order in which it is told.
#[derive(Default)]
struct Told {
    records: Vec<RequestRecord>,
    /// Stalls as they were told, by exchange.
    stalls: HashMap<String, u64>,
    phases: Vec<Phase>,
}

/// Runs records, with somebody who looks for stalls at the times that `looks` says, or with nobody.
fn run(records: &[Owned], stalls_after: u64, mut looks: impl FnMut(u64, u64) -> Vec<u64>) -> Told {
    let mut pipeline =
        Pipeline::new(Limits { connections: 64, ..Limits::default() }).stalls_after(stalls_after);
    let (mut told, mut time) = (Told::default(), 0);
    for record in records {
        let record = record.record();
        for now in looks(time, record.header().time) {
            while let Some(suspect) = pipeline.poll_suspect(now) {
                pipeline.handle_timeout(suspect.connection, now);
            }
        }
        time = time.max(record.header().time);
        pipeline.handle_record(&record);
        drain(&mut pipeline, &mut told);
    }
    pipeline.finish(time);
    drain(&mut pipeline, &mut told);
    told
}

fn drain(pipeline: &mut Pipeline, told: &mut Told) {
    while let Some(observation) = pipeline.poll_observation() {
        match observation {
            Observation::Phase { id, phase } => {
                *told.stalls.entry(id.to_string()).or_default() += u64::from(phase == Phase::Stalled);
                told.phases.push(phase);
            }
            Observation::Finished { record, .. } => told.records.push(*record),
            _ => {}
        }
    }
}

/// One stream, put down by hand.
struct Stream {
    records: Vec<Owned>,
    sent: u64,
}

impl Stream {
    /// A stream whose first token is delivered at 1 s.
    fn new() -> Self {
        let mut stream = Self { records: Vec::new(), sent: 0 };
        let open =
            Open { header: header(Kind::Open, 1), connection: 1, accepted: 1, fd: 3, ..Open::default() };
        stream.records.push(Owned::Other(Record::Open(open)));
        stream.data(Direction::Received, 2, 0, 0, REQUEST);
        stream.data(Direction::Sent, 990, 990, 0, HEAD);
        stream.token(1000)
    }

    fn data(&mut self, direction: Direction, ms: u64, returned: u64, position: u64, text: &str) {
        let length = text.len() as u32;
        let data = Data {
            header: header(Kind::Data, ms),
            connection: 1,
            position,
            arrived: returned * MS,
            length,
            captured: length,
            fd: 3,
            direction: direction as u8,
            ..Data::default()
        };
        self.records.push(Owned::Data(data, text.as_bytes().to_vec()));
        self.sent += if direction as u8 == Direction::Sent as u8 { u64::from(length) } else { 0 };
    }

    fn write(mut self, ms: u64, returned: u64, text: &str) -> Self {
        self.data(Direction::Sent, ms, returned, self.sent, text);
        self
    }

    fn token(self, ms: u64) -> Self {
        self.write(ms, ms, TOKEN)
    }

    /// A write that took less than it was given, or nothing.
    fn blocked(mut self, ms: u64) -> Self {
        let (header, direction) = (header(Kind::Ended, ms), Direction::Sent as u8);
        let errno = errno::EAGAIN;
        let ended = Ended { header, connection: 1, errno, direction, ..Ended::default() };
        self.records.push(Owned::Other(Record::Ended(ended)));
        self
    }

    fn client_gone(mut self, ms: u64) -> Self {
        let (old, new) = (State::ESTABLISHED, State::CLOSE_WAIT);
        let state = State {
            header: header(Kind::State, ms),
            connection: 1,
            sent: self.sent,
            old,
            new,
            ..State::default()
        };
        self.records.push(Owned::Other(Record::State(state)));
        self
    }

    /// Stalls and client's stalls.
    fn stalls(self) -> (u64, u64) {
        let record = self.ended();
        (record.stalls.expect("a stream"), record.client_stalls.expect("a stream"))
    }

    /// Milliseconds in which the client did not read.
    fn waited(self) -> u64 {
        (self.ended().client_wait.expect("a stream") * 1e3).round() as u64
    }

    /// What is told when the connection is closed after the last record, whether or not somebody looks every 10 ms.
    fn ended(mut self) -> RequestRecord {
        let last = self.records.last().map_or(0, Owned::time) / MS;
        let (header, sent) = (header(Kind::Close, last), self.sent);
        let received = REQUEST.len() as u64;
        let close = Close { header, connection: 1, received, sent, fd: 3, _pad: 0 };
        self.records.push(Owned::Other(Record::Close(close)));
        let unseen = run(&self.records, STALLS_AFTER, |_, _| Vec::new());
        let seen = run(&self.records, STALLS_AFTER, |from, to| {
            (from / MS..to / MS).step_by(10).map(|ms| ms * MS).collect()
        });
        assert_eq!(unseen.records, seen.records);
        let [record] = &seen.records[..] else { panic!("one record: {:#?}", seen.records) };
        assert_eq!(seen.stalls[&record.id], record.stalls.expect("a stream"));
        assert_eq!(seen.stalls, unseen.stalls);
        assert_eq!(seen.phases, unseen.phases);
        record.clone()
    }
}

fn header(kind: Kind, ms: u64) -> Header {
    Header { kind: kind as u32, length: 0, time: ms * MS, tgid: 7, tid: 7 }
}

#[test]
fn silence_beyond_the_minimum_is_a_stall() {
    assert_eq!(Stream::new().token(3000).stalls(), (0, 0), "exactly the minimum");
    assert_eq!(Stream::new().token(3001).stalls(), (1, 0));
    assert_eq!(Stream::new().token(4000).token(4010).token(4020).token(9000).stalls(), (2, 0));
    let over = Stream::new().write(4000, 4000, "data: [DONE]\n\n");
    assert_eq!(over.write(9000, 9000, "\n").stalls(), (1, 0), "nothing is owed after the terminator");
}

#[test]
fn a_slow_stream_is_measured_by_its_own_median() {
    let mut stream = Stream::new();
    for n in 1..=5 {
        stream = stream.token(1000 + n * 500);
    }
    assert_eq!(stream.token(8500).token(13_501).stalls(), (1, 0), "ten times 500 ms, and 1 ms more");
}

#[test]
fn what_is_no_delivery_ends_no_stall() {
    let stream = Stream::new().write(2500, 2500, ": ping\n\n").write(4000, 4000, ": ping\n\n").token(5000);
    assert_eq!(stream.stalls(), (1, 0));
}

#[test]
fn a_client_that_does_not_read_is_no_stall() {
    assert_eq!(Stream::new().blocked(1010).token(4500).stalls(), (0, 1), "nothing was taken");
    let short = Stream::new().blocked(1010).write(1010, 1010, ": part").write(4500, 4500, "\n\n").token(4510);
    assert_eq!(short.stalls(), (0, 1), "a write was taken in part");
    let again = Stream::new().blocked(1010).blocked(2500).write(2500, 2500, ": part");
    assert_eq!(again.write(5000, 5000, "\n\n").token(5001).stalls(), (0, 1), "one after the other, in part");
    assert_eq!(Stream::new().write(1010, 4500, TOKEN).token(4600).stalls(), (0, 1), "a blocking write");
    assert_eq!(Stream::new().blocked(1010).token(1300).token(1400).stalls(), (0, 0), "not for long");
}

#[test]
fn the_clients_own_time_is_summed_up() {
    assert_eq!(Stream::new().token(1010).token(9000).waited(), 0, "the server was silent");
    assert_eq!(Stream::new().blocked(1010).token(1300).token(1400).waited(), 290, "nothing was taken");
    let again = Stream::new().blocked(1010).blocked(2500).token(5000).blocked(5010).token(5030);
    assert_eq!(again.waited(), 3990 + 20, "more than once");
    assert_eq!(Stream::new().write(1010, 1500, TOKEN).token(1510).waited(), 490, "a blocking write");
    assert_eq!(Stream::new().write(1010, 1019, TOKEN).token(1030).waited(), 0, "a writer that lost its core");
    assert_eq!(Stream::new().blocked(1010).client_gone(4000).waited(), 2990, "until it left");
    let over = Stream::new().write(1010, 1010, "data: [DONE]\n\n").write(1020, 9000, "\n");
    assert_eq!(over.waited(), 0, "nothing is owed after the terminator");
}

#[test]
fn each_side_answers_for_its_own_silence() {
    assert_eq!(Stream::new().blocked(4000).token(4100).stalls(), (1, 0), "silent before it was blocked");
    let even = || Stream::new().token(1010).token(1020).token(1030);
    assert_eq!(even().blocked(1040).token(4000).token(7000).stalls(), (1, 1), "and after it");
    assert_eq!(even().write(1500, 4000, TOKEN).token(7000).stalls(), (1, 1));
}

#[test]
fn a_client_that_left_waits_for_nothing() {
    assert_eq!(Stream::new().client_gone(2000).token(6000).stalls(), (0, 0));
    assert_eq!(Stream::new().client_gone(3500).stalls(), (1, 0));
    assert_eq!(Stream::new().blocked(1010).client_gone(4000).stalls(), (0, 1));
}

#[test]
fn a_stall_is_told_while_it_lasts() {
    let stream = Stream::new();
    let mut pipeline = Pipeline::new(Limits::default());
    for record in &stream.records {
        pipeline.handle_record(&record.record());
    }
    assert_eq!(pipeline.poll_suspect(3000 * MS), None);
    let suspect = pipeline.poll_suspect(3001 * MS).expect("a suspect");
    assert_eq!((suspect.connection, suspect.tgid), (1, 7));
    assert_eq!(pipeline.poll_suspect(3001 * MS), None, "told once");
    assert_eq!(pipeline.poll_suspect(4001 * MS), Some(suspect), "nothing came of it: told again");
    let mut told = Told::default();
    pipeline.handle_timeout(1, 4001 * MS);
    drain(&mut pipeline, &mut told);
    assert_eq!(told.phases.last(), Some(&Phase::Stalled));
    assert_eq!(pipeline.poll_suspect(9000 * MS), None, "it is known");
}

proptest! {
    #![proptest_config(crate::cases(2_000))]

    #[test]
    fn looking_changes_nothing(
        script in script(),
        looks in vec(any::<u16>(), 1..200),
        stalls_after in prop_oneof![0..2_000_u64, 0..3 * MS],
    ) {
        let unseen = run(&script.records, stalls_after, |_, _| Vec::new());
        let mut next = looks.iter().cycle();
        let seen = run(&script.records, stalls_after, |from, to| match next.next() {
            Some(look) if look % 2 == 1 && to > from => vec![from + u64::from(*look) * (to - from) / (1 << 16)],
            _ => Vec::new(),
        });
        prop_assert_eq!(&unseen.records, &seen.records);
        for record in seen.records.iter().filter(|record| record.stalls.is_some()) {
            let told = |by: &Told| by.stalls.get(&record.id).copied().unwrap_or_default();
            prop_assert_eq!(Some(told(&seen)), record.stalls);
            prop_assert_eq!(Some(told(&unseen)), record.stalls);
        }
    }
}
