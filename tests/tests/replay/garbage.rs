//! Whatever comes, nothing panics, nothing grows, and every record is accounted for.

use observer_ebpf::{
    Close, Data, Ended, Exec, Exit, Header, Kind, Listen, Oom, Open, Record, State, data_flags, exit_flags,
};
use observer_tests::script::{Owned, observe, script};
use proptest::{collection::vec, prelude::*};

/// Connections that the pipeline of these tests remembers.
const LIMIT: usize = 3;

fn header(kind: Kind) -> impl Strategy<Value = Header> {
    (0..400_u64, 100..103_u32).prop_map(move |(time, tgid)| Header {
        kind: kind as u32,
        length: 0,
        time: if time == 399 { u64::MAX } else { time * 1000 },
        tgid,
        tid: tgid,
    })
}

/// Positions that follow one another, that jump, and that stand at the end of numbers.
fn position() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..600_u64, 1 => any::<u64>(), 1 => (0..700_u64).prop_map(|n| u64::MAX - n)]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HEAD /v1/models HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18446744073709551615\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n",
        b"data: [DONE]\n\n",
        b"{\"model\":\"m\",\"n\":",
        b"ffffffffffffffff\r\n",
        b"10000000000000000\r\n",
        b"0\r\n\r\n",
        b"\r\n",
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        b"1e999,\"\\ud800\xff",
    ];
    let word = prop_oneof![
        6 => proptest::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..40),
    ];
    vec(word, 0..5).prop_map(|words| words.concat())
}

fn record() -> impl Strategy<Value = Owned> {
    let connection = || 1..6_u64;
    let data =
        (header(Kind::Data), connection(), position(), any::<bool>(), payload(), any::<u8>(), 0..3_u32)
            .prop_map(|(header, connection, position, sent, payload, flags, more)| {
                let captured = payload.len() as u32;
                let length = captured + more * more * 40_000;
                let direction = u8::from(sent);
                let flags = flags & (data_flags::TURN | data_flags::CONTINUED);
                let data = Data {
                    header,
                    connection,
                    position,
                    length,
                    captured,
                    fd: 3,
                    direction,
                    flags,
                    ..Data::default()
                };
                Owned::Data(data, payload)
            });
    let open = (header(Kind::Open), connection(), 0..3_u64, 0..3_u64, 3..5, any::<u16>()).prop_map(
        |(header, connection, connected, accepted, fd, family)| {
            Record::Open(Open {
                header,
                connection,
                connected,
                accepted,
                fd,
                family: family % 12,
                ..Open::default()
            })
        },
    );
    let close = (header(Kind::Close), connection(), position(), position(), 3..5).prop_map(
        |(header, connection, received, sent, fd)| {
            Record::Close(Close { header, connection, received, sent, fd, _pad: 0 })
        },
    );
    let state = (header(Kind::State), connection(), position(), position(), 0..13_u32, 0..13_u32).prop_map(
        |(header, connection, received, sent, old, new)| {
            Record::State(State { header, connection, received, sent, old, new })
        },
    );
    let ended = (header(Kind::Ended), connection(), position(), -1..105, any::<bool>()).prop_map(
        |(header, connection, position, errno, sent)| {
            let direction = u8::from(sent);
            Record::Ended(Ended { header, connection, position, errno, direction, ..Ended::default() })
        },
    );
    let exit = (header(Kind::Exit), any::<bool>()).prop_map(|(header, dead)| {
        Record::Exit(Exit { header, flags: u32::from(dead) * exit_flags::GROUP_DEAD, status: 0 })
    });
    let rest = header(Kind::Exec).prop_flat_map(|header| {
        proptest::sample::select(vec![
            Record::Exec(Exec { header, ..Exec::default() }),
            Record::Listen(Listen { header, ..Listen::default() }),
            Record::Oom(Oom { header }),
            Record::Clock(observer_ebpf::Clock { header, realtime: u64::MAX }),
        ])
    });
    let lifecycle = prop_oneof![3 => open, 2 => close, 1 => state, 1 => ended, 1 => exit, 1 => rest];
    prop_oneof![5 => data, 1 => lifecycle.prop_map(Owned::Other)]
}

fn check(records: &[Owned]) -> Result<(), TestCaseError> {
    let seen = observe(records.iter().map(Owned::record), LIMIT);
    prop_assert_eq!(seen.stats.received, records.len() as u64);
    prop_assert_eq!(seen.stats.received, seen.stats.decoded + seen.stats.dropped_table_full);
    prop_assert!(seen.connections <= LIMIT as u64, "{} connections are remembered", seen.connections);
    prop_assert_eq!(seen.unfinished, 0, "each exchange that starts finishes");
    Ok(())
}

proptest! {
    #![proptest_config(crate::cases(4_000))]

    #[test]
    fn garbage_is_taken_in(records in vec(record(), 0..60)) {
        check(&records)?;
    }

    #[test]
    fn any_order_is_taken_in(script in script(), order in vec(any::<u16>(), 0..200)) {
        let mut records = script.records;
        for (at, with) in order.iter().enumerate() {
            let (at, with) = (at % records.len(), usize::from(*with) % records.len());
            records.swap(at, with);
        }
        check(&records)?;
    }
}
