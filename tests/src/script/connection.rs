//! One connection: its exchanges, its calls, its end.

use observer_ebpf::{
    Close, Data, Direction, Ended, Exit, Header, Kind, Open, Record, State, data_flags, exit_flags, family,
};

use super::{
    Choices, FIRST_TGID, Owned,
    api::Ask,
    content::{self, Content},
    expected::{Ending, Expected, Moved, Written, expect},
    message::{Bytes, Framing},
};

/// A connection's records and what must be made of them.
pub(super) struct Built {
    pub(super) records: Vec<Owned>,
    pub(super) expected: Vec<(String, Expected)>,
}

/// Bytes that a call moved.
struct Call {
    time: u64,
    sent: bool,
    position: u64,
    bytes: Vec<u8>,
    arrived: u64,
}

struct Builder<'a, 'b> {
    id: u64,
    choices: &'a mut Choices<'b>,
    time: u64,
    calls: Vec<Call>,
    /// Bytes that were scheduled: received, sent.
    positions: [u64; 2],
    exchanges: Vec<Written>,
    names: usize,
}

/// What becomes of a message that is being put together: positions are those of its direction.
struct Asked {
    name: String,
    model: String,
    ask: Ask,
    llm: bool,
    head_only: bool,
    request: std::ops::Range<u64>,
    request_head: u64,
    expects: bool,
}

impl Moved for Vec<Call> {
    fn received(&self, position: u64) -> Option<u64> {
        covering(self, false, position)
    }
    fn sent(&self, position: u64) -> Option<u64> {
        covering(self, true, position)
    }
    fn totals(&self) -> (u64, u64) {
        let total =
            |sent| self.iter().filter(|call| call.sent == sent).map(|call| call.bytes.len() as u64).sum();
        (total(false), total(true))
    }
}

fn covering(calls: &[Call], sent: bool, position: u64) -> Option<u64> {
    calls
        .iter()
        .find(|call| {
            call.sent == sent && (call.position..call.position + call.bytes.len() as u64).contains(&position)
        })
        .map(|call| call.time)
}

/// Builds the connection with a number.
pub(super) fn build(number: u64, choices: &mut Choices<'_>) -> Built {
    let start = 1_000_000_000 + number * 7 + choices.below(40) as u64 * 1_000_000;
    let mut builder = Builder {
        id: 0x1000 + number,
        choices,
        time: start,
        calls: Vec::new(),
        positions: [0; 2],
        exchanges: Vec::new(),
        names: 0,
    };
    let mut by_close = false;
    for _ in 0..=builder.choices.below(4) {
        if by_close {
            break;
        }
        by_close = builder.turn();
    }
    builder.finish(start, by_close)
}

impl Builder<'_, '_> {
    /// One exchange, or several that are pipelined; true if the close must end the last response.
    fn turn(&mut self) -> bool {
        let depth = if self.choices.one_in(4) { 2 + self.choices.below(2) } else { 1 };
        let mut requests = Bytes::default();
        let mut asked = Vec::new();
        for _ in 0..depth {
            asked.push(self.request(&mut requests, depth == 1));
        }
        let mut responses = Bytes::default();
        let mut interim = self.positions[1]..self.positions[1];
        if let [asked] = asked.as_slice()
            && asked.expects
        {
            let head = (asked.request_head - asked.request.start) as usize;
            let body = requests.bytes.split_off(head);
            self.schedule(false, &requests.bytes, &[head]);
            let text = b"HTTP/1.1 100 Continue\r\n\r\n";
            interim.end += text.len() as u64;
            self.schedule(true, text, &[text.len()]);
            self.schedule(false, &body, &[body.len()]);
        } else {
            let ends = requests.calls(self.choices);
            self.schedule(false, &requests.bytes, &ends);
        }
        let mut by_close = false;
        let last = asked.len() - 1;
        for (number, asked) in asked.into_iter().enumerate() {
            by_close = self.response(asked, interim.clone(), &mut responses, number == last);
            interim = self.positions[1]..self.positions[1];
        }
        let ends = responses.calls(self.choices);
        self.schedule(true, &responses.bytes, &ends);
        by_close
    }

    fn schedule(&mut self, sent: bool, bytes: &[u8], ends: &[usize]) {
        let mut from = 0;
        for end in ends {
            let before = self.time;
            self.time += 20_000 + self.choices.below(65_536) as u64 * 997;
            let position = self.positions[usize::from(sent)];
            let arrived = if !sent && self.choices.one_in(2) { before + 5_000 } else { 0 };
            self.calls.push(Call {
                time: self.time,
                sent,
                position,
                bytes: bytes[from..*end].to_vec(),
                arrived,
            });
            self.positions[usize::from(sent)] += (end - from) as u64;
            from = *end;
        }
    }

    fn request(&mut self, to: &mut Bytes, alone: bool) -> Asked {
        let at = self.positions[0] + to.bytes.len() as u64;
        let name = format!("r-{:x}-{}", self.id, self.names);
        self.names += 1;
        let mut model = self.choices.pick(&["m", "org/model-7b", "llama"]).to_owned();
        let id = format!("X-Request-Id: {name}");
        let mut ask = Ask::default();
        let kind = self.choices.below(8);
        if kind >= 6 {
            let first = if kind == 6 { "GET /v1/models HTTP/1.1" } else { "HEAD /health HTTP/1.1" };
            to.head(first, &["Host: a", &id], None);
            let end = self.positions[0] + to.bytes.len() as u64;
            let head_only = kind == 7;
            return Asked {
                name,
                model,
                ask,
                llm: false,
                head_only,
                request: at..end,
                request_head: end,
                expects: false,
            };
        }
        ask = Ask::any(kind, self.choices);
        if ask.api.is_path_model() {
            model = model.replace('/', "-");
        }
        let (path, text) = ask.request(&model, self.choices);
        let framing = self.choices.pick(&[Framing::Length, Framing::Length, Framing::Chunked]);
        let expects = alone && self.choices.one_in(6);
        let mut fields = vec!["host: a:8000", &id, "Content-Type: application/json"];
        if expects {
            fields.push("Expect: 100-continue");
        }
        to.head(&format!("POST {path} HTTP/1.1"), &fields, Some((framing, text.len())));
        let request_head = self.positions[0] + to.bytes.len() as u64;
        let content = Content { bytes: text.into_bytes(), ..Content::default() };
        to.body(&content, framing, self.choices);
        to.breaks.push(to.bytes.len());
        let request = at..self.positions[0] + to.bytes.len() as u64;
        Asked { name, model, ask, llm: true, head_only: false, request, request_head, expects }
    }

    fn response(
        &mut self,
        asked: Asked,
        interim: std::ops::Range<u64>,
        to: &mut Bytes,
        is_last: bool,
    ) -> bool {
        let Asked { name, model, ask, llm, head_only, request, request_head, .. } = asked;
        let start = self.positions[1] + to.bytes.len() as u64;
        let fails = llm && self.choices.one_in(5);
        let mut status = 200;
        let mut streamed = false;
        let content = if fails {
            status = self.choices.pick(&[400, 429, 500, 503, 404]);
            content::error(self.choices)
        } else if llm && ask.stream {
            streamed = true;
            content::stream(&model, ask, self.choices)
        } else if llm {
            content::plain(&model, ask, self.choices)
        } else {
            Content { bytes: br#"{"object":"list","data":[{"id":"m"}]}"#.to_vec(), ..Content::default() }
        };
        // Whether a close cut a stream off that says nothing of its end, nobody knows.
        let framings = if is_last && !head_only && !(streamed && ask.api.is_unmarked()) {
            &[Framing::Chunked, Framing::Length, Framing::Chunked, Framing::Close][..]
        } else {
            &[Framing::Chunked, Framing::Length]
        };
        let framing = if head_only { Framing::Length } else { self.choices.pick(framings) };
        let media = if streamed { ask.api.media_type() } else { "content-type: application/json" };
        let mut fields = vec!["server: uvicorn", media];
        fields.extend(content.fields.iter().map(String::as_str));
        to.head(&format!("HTTP/1.1 {status} X Y"), &fields, Some((framing, content.bytes.len())));
        let response_head = self.positions[1] + to.bytes.len() as u64;
        let mut facts = if head_only { Vec::new() } else { to.body(&content, framing, self.choices) };
        to.breaks.push(to.bytes.len());
        for fact in &mut facts {
            fact.at += self.positions[1] as usize;
            if fact.kind == content::Kind::Head {
                fact.at = response_head as usize - 1;
            }
        }
        if llm {
            self.exchanges.push(Written {
                name,
                model,
                ask,
                status,
                streamed,
                by_close: framing == Framing::Close,
                request,
                request_head,
                response: start..self.positions[1] + to.bytes.len() as u64,
                interim,
                response_head,
                facts,
            });
        }
        framing == Framing::Close
    }

    fn header(&self, kind: Kind, length: usize, time: u64) -> Header {
        let tgid = FIRST_TGID + self.id as u32;
        Header { kind: kind as u32, length: length as u32, time, tgid, tid: tgid }
    }

    fn finish(mut self, start: u64, by_close: bool) -> Built {
        if self.choices.one_in(3) {
            let kept = self.choices.below(self.calls.len());
            self.calls.truncate(kept.max(1));
        }
        let endings = [
            Ending::ClientClosed,
            Ending::ServerClosed,
            Ending::ClientReset,
            Ending::ServerClosed,
            Ending::Died,
            Ending::Open,
        ];
        // Most responses that the close ends are ended by the server's close.
        let ending = if by_close && !self.choices.one_in(3) {
            Ending::ServerClosed
        } else {
            self.choices.pick(&endings)
        };
        let expected = self
            .exchanges
            .iter()
            .filter_map(|written| Some((written.name.clone(), expect(written, &self.calls, ending)?)))
            .collect();
        let (received, sent) = self.calls.totals();
        let mut records = vec![self.open(start)];
        let mut last_sent = true;
        let mut time = start;
        for call in &self.calls {
            time = call.time;
            let turn = call.sent != last_sent;
            last_sent = call.sent;
            records.push(Owned::Data(
                Data {
                    header: self.header(Kind::Data, 64 + call.bytes.len(), call.time),
                    connection: self.id,
                    position: call.position,
                    arrived: call.arrived,
                    length: call.bytes.len() as u32,
                    captured: call.bytes.len() as u32,
                    fd: 7,
                    direction: if call.sent { Direction::Sent } else { Direction::Received } as u8,
                    flags: u8::from(turn) * data_flags::TURN,
                    _pad: 0,
                },
                call.bytes.clone(),
            ));
        }
        self.end(ending, time, [received, sent], &mut records);
        Built { records, expected }
    }

    fn open(&self, start: u64) -> Owned {
        let mut remote = [0; 16];
        remote[..4].copy_from_slice(&[10, 0, 0, 9]);
        Owned::Other(Record::Open(Open {
            header: self.header(Kind::Open, 96, start + 15_000),
            connection: self.id,
            connected: start,
            accepted: start + 10_000,
            fd: 7,
            family: family::INET,
            local_port: 8000,
            remote_port: 40_000,
            remote,
            ..Open::default()
        }))
    }

    /// The records that follow the last call.
    fn end(&self, ending: Ending, mut time: u64, positions: [u64; 2], records: &mut Vec<Owned>) {
        let [received, sent] = positions;
        let state = |old, new, time| {
            let header = self.header(Kind::State, 56, time);
            Owned::Other(Record::State(State { header, connection: self.id, received, sent, old, new }))
        };
        let ended = |direction, errno, time| {
            Owned::Other(Record::Ended(Ended {
                header: self.header(Kind::Ended, 48, time),
                connection: self.id,
                position: positions[direction as usize],
                errno,
                direction: direction as u8,
                ..Ended::default()
            }))
        };
        let close = |time| {
            let header = self.header(Kind::Close, 56, time);
            Owned::Other(Record::Close(Close { header, connection: self.id, received, sent, fd: 7, _pad: 0 }))
        };
        let mut next = || {
            time += 1_000_000;
            time
        };
        match ending {
            Ending::ClientClosed => records.extend([
                state(State::ESTABLISHED, State::CLOSE_WAIT, next()),
                ended(Direction::Received, 0, next()),
                close(next()),
                state(9, State::CLOSE, next()),
            ]),
            Ending::ClientReset => records.extend([
                state(State::ESTABLISHED, State::CLOSE, next()),
                ended(Direction::Sent, 104, next()),
                close(next()),
            ]),
            Ending::ServerClosed => {
                records.extend([close(next()), state(5, State::CLOSE, next())]);
            }
            Ending::Died => {
                let header = self.header(Kind::Exit, 32, next());
                records.push(Owned::Other(Record::Exit(Exit {
                    header,
                    flags: exit_flags::GROUP_DEAD,
                    status: 0,
                })));
                records.push(state(State::ESTABLISHED, State::CLOSE, next()));
            }
            Ending::Open => {}
        }
    }
}
