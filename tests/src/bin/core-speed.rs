//! How fast the core decodes: replays streams of small events from memory for some seconds, on one core.
//!
//! `cargo run --release -p observer-tests --bin core-speed [STREAMS [EVENTS [SECONDS]]]`

use std::time::Duration;

use observer::{
    capture::monotonic,
    exchange::Observation,
    pipeline::{Limits, Pipeline},
};
use observer_ebpf::{Close, Data, Direction, Header, Kind, Open, Record};
use observer_tests::script::encode;

fn header(kind: Kind, time: u64) -> Header {
    Header { kind: kind as u32, length: 0, time, tgid: 1, tid: 1 }
}

/// Encoded records of some streams that run at the same time.
struct Recording {
    records: Vec<Vec<u8>>,
    time: u64,
}

impl Recording {
    fn push(&mut self, record: &Record<'_>) {
        self.records.push(encode(record));
    }

    fn data(&mut self, connection: u64, direction: Direction, position: &mut u64, payload: &[u8]) {
        self.time += 1_000;
        let length = payload.len() as u32;
        let data = Data {
            header: header(Kind::Data, self.time),
            connection,
            position: *position,
            length,
            captured: length,
            fd: 5,
            direction: direction as u8,
            ..Data::default()
        };
        *position += u64::from(length);
        self.push(&Record::Data(data, payload));
    }
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).into_bytes()
}

fn event(choices: &str, rest: &str) -> Vec<u8> {
    chunk(&format!(
        r#"{{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"org/model-7b","choices":[{choices}]{rest}}}"#
    ))
}

fn recording(streams: u64, events: u64) -> Recording {
    let mut recording = Recording { records: Vec::new(), time: 1_000_000 };
    let body = r#"{"model":"org/model-7b","messages":[{"role":"user","content":"Hello"}],"stream":true}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let head = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
        transfer-encoding: chunked\r\n\r\n";
    let role = event(
        r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#,
        "",
    );
    let token = event(r#"{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}"#, "");
    let finish = event(
        r#"{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null}"#,
        "",
    );
    let counts = format!(
        r#","usage":{{"prompt_tokens":12,"total_tokens":{},"completion_tokens":{events}}}"#,
        12 + events
    );
    let usage = event("", &counts);
    let mut sent = vec![0; streams as usize];
    let mut write = |recording: &mut Recording, payload: &[u8]| {
        for (stream, position) in sent.iter_mut().enumerate() {
            recording.data(stream as u64 + 1, Direction::Sent, position, payload);
        }
    };
    for connection in 1..=streams {
        let header = header(Kind::Open, recording.time);
        recording.push(&Record::Open(Open { header, connection, accepted: 1, fd: 5, ..Open::default() }));
        recording.data(connection, Direction::Received, &mut 0, request.as_bytes());
    }
    write(&mut recording, head);
    write(&mut recording, &role);
    for _ in 0..events {
        write(&mut recording, &token);
    }
    for payload in [&finish, &usage, &chunk("[DONE]"), &b"0\r\n\r\n".to_vec()] {
        write(&mut recording, payload);
    }
    for (stream, sent) in sent.iter().enumerate() {
        let header = header(Kind::Close, recording.time);
        let (connection, received) = (stream as u64 + 1, request.len() as u64);
        recording.push(&Record::Close(Close { header, connection, received, sent: *sent, fd: 5, _pad: 0 }));
    }
    recording
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut next = |default| arguments.next().transpose().map(|given| given.unwrap_or(default));
    let (streams, tokens, seconds) = (next(64)?, next(256)?, next(3)?);
    let recording = recording(streams, tokens);
    let bytes: usize = recording.records.iter().map(Vec::len).sum();
    let per_run = streams * (tokens + 4);
    let start = monotonic();
    let limit = Duration::from_secs(seconds).as_nanos() as u64;
    let mut runs = 0;
    while monotonic() - start < limit {
        let mut pipeline = Pipeline::new(Limits::default());
        let mut finished = 0;
        for bytes in &recording.records {
            pipeline.handle_record(&Record::parse(bytes)?);
            while pipeline.poll_verdict().is_some() || pipeline.poll_ended().is_some() {}
            while let Some(observation) = pipeline.poll_observation() {
                if let Observation::Finished { record, .. } = observation {
                    anyhow::ensure!(record.token_events == tokens && record.is_complete(), "{record:?}");
                    finished += 1;
                }
            }
        }
        anyhow::ensure!(finished == streams, "{finished} of {streams} streams finished");
        runs += 1;
    }
    let nanos = monotonic() - start;
    let events = runs * per_run;
    println!(
        "{streams} streams of {} events, {} records, {} KiB: {runs} runs in {:.2} s",
        tokens + 4,
        recording.records.len(),
        bytes >> 10,
        nanos as f64 / 1e9
    );
    println!(
        "{:.0} events per second, {:.0} ns per event",
        events as f64 * 1e9 / nanos as f64,
        nanos as f64 / events as f64
    );
    Ok(())
}
