//! The state machine that both decoders share.

use std::collections::VecDeque;

use super::{
    ExpectedRequest,
    chunked::{Chunks, Step},
    framing::{self, Framing},
    parse::{self, Line},
    resume,
};
use crate::http::{Defect, Input, Part, Protocol, STATUS_LINE, sniff};

/// Bytes of a head. Servers and proxies refuse heads far below that.
const HEAD: usize = 64 << 10;

/// Requests that may wait for a response on one connection; pipelining deeper than this was never seen.
const PENDING: usize = 1024;

/// Bytes within which a request line shows its method.
const METHOD: usize = 32;

/// Which messages the stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

#[derive(Debug)]
enum State {
    /// Between messages.
    Idle,
    /// Framing is unknown: skip until a push starts with a head.
    Skip,
    /// In a head, whose bytes so far are in [`Stream::head`].
    Head(Line),
    /// In content of which that many bytes are to come.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunks),
    /// In a chunked body whose framing was lost.
    Lost,
    /// In content that the end of the stream ends.
    UntilClose,
    /// After an upgrade, or after the end of the stream.
    Opaque,
}

/// Messages of one direction.
#[derive(Debug)]
pub(super) struct Stream {
    side: Side,
    state: State,
    /// A head that is not complete; empty otherwise.
    head: Vec<u8>,
    pending: VecDeque<ExpectedRequest>,
    pending_overflowed: bool,
    /// Messages of this direction may have been lost since the last head.
    missing: bool,
    skipped: u64,
}

type Sink<'s> = &'s mut dyn FnMut(usize, Part<'_>);

impl Stream {
    /// Bytes that are held until more of their message comes.
    pub(super) fn held(&self) -> usize {
        self.head.capacity()
    }

    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            state: State::Idle,
            head: Vec::new(),
            pending: VecDeque::new(),
            pending_overflowed: false,
            missing: false,
            skipped: 0,
        }
    }

    pub(super) fn adopt(side: Side) -> Self {
        Self { state: State::Skip, ..Self::new(side) }
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(super) fn is_synchronised(&self) -> bool {
        !matches!(self.state, State::Skip | State::Lost)
    }

    pub(super) fn upgrade(&mut self) {
        self.skipped = self.skipped.saturating_add(self.head.len() as u64);
        self.head = Vec::new();
        self.state = State::Opaque;
    }

    pub(super) fn expect(&mut self, request: ExpectedRequest) {
        if self.pending.len() == PENDING {
            self.pending.pop_front();
            self.pending_overflowed = true;
        }
        self.pending.push_back(request);
    }

    pub(super) fn expect_only(&mut self, requests: impl Iterator<Item = ExpectedRequest>, missing: bool) {
        self.missing = missing;
        self.pending.clear();
        self.pending.extend(requests.take(PENDING));
    }

    pub(super) fn push(&mut self, input: Input<'_>, sink: Sink<'_>) {
        if std::mem::take(&mut self.pending_overflowed) {
            sink(0, Part::Defect(Defect::TooManyPending));
        }
        match input {
            Input::Bytes([]) | Input::Gap(0) => {}
            Input::Bytes(bytes) => self.bytes(bytes, sink),
            Input::Gap(hole) => self.gap(hole, sink),
        }
    }

    pub(super) fn finish(&mut self, sink: Sink<'_>) {
        match std::mem::replace(&mut self.state, State::Opaque) {
            State::Idle | State::Skip | State::Opaque => {}
            State::UntilClose => sink(0, Part::End),
            State::Head(_) | State::Length(_) | State::Chunked(_) | State::Lost => {
                sink(0, Part::Defect(Defect::Truncated));
            }
        }
        self.head = Vec::new();
    }

    fn bytes(&mut self, bytes: &[u8], sink: Sink<'_>) {
        let mut at = match self.state {
            State::Skip => self.join(bytes),
            State::Lost => self.resume(bytes, sink),
            _ => 0,
        };
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match &mut self.state {
                State::Idle => self.idle(rest, at, sink),
                State::Head(_) => self.head(rest, at, sink),
                State::Length(left) => {
                    let used = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= used as u64;
                    let done = *left == 0;
                    sink(at, Part::Body(rest.get(..used).unwrap_or(rest)));
                    if done {
                        self.end(at + used, sink);
                    }
                    used
                }
                State::Chunked(chunks) => {
                    let (used, step) = chunks.step(rest);
                    match step {
                        Step::Framing => {}
                        Step::Content => sink(at, Part::Body(rest.get(..used).unwrap_or(rest))),
                        Step::End => self.end(at + used, sink),
                        Step::Malformed => {
                            sink(at + used, Part::Defect(Defect::ChunkMalformed));
                            self.state = State::Lost;
                            self.missing = true;
                        }
                    }
                    used
                }
                State::Lost => {
                    sink(at, Part::BodyGap(rest.len() as u64));
                    rest.len()
                }
                State::UntilClose => {
                    sink(at, Part::Body(rest));
                    rest.len()
                }
                State::Skip | State::Opaque => {
                    self.skipped = self.skipped.saturating_add(rest.len() as u64);
                    rest.len()
                }
            };
        }
    }

    fn gap(&mut self, hole: u64, sink: Sink<'_>) {
        match &mut self.state {
            State::Idle => self.lose(Defect::FramingLost, hole, 0, sink),
            State::Head(_) => self.lose(Defect::HeadHole, hole, 0, sink),
            State::Skip | State::Opaque => {
                self.missing |= !self.pending.is_empty();
                self.skipped = self.skipped.saturating_add(hole);
            }
            State::UntilClose | State::Lost => sink(0, Part::BodyGap(hole)),
            State::Length(left) if hole < *left => {
                *left -= hole;
                sink(0, Part::BodyGap(hole));
            }
            State::Length(left) => {
                let left = *left;
                sink(0, Part::BodyGap(left));
                self.end(0, sink);
                if hole > left {
                    self.lose(Defect::FramingLost, hole - left, 0, sink);
                }
            }
            State::Chunked(chunks) => {
                let (content, survived) = chunks.gap(hole);
                if content > 0 {
                    sink(0, Part::BodyGap(content));
                }
                if !survived {
                    sink(0, Part::Defect(Defect::FramingLost));
                    sink(0, Part::BodyGap(hole - content));
                    self.state = State::Lost;
                    self.missing = true;
                }
            }
        }
    }

    /// Joins at a head that starts this push: the offset at which to go on.
    fn join(&mut self, bytes: &[u8]) -> usize {
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let used = if is_head(self.side, bytes.get(blank..).unwrap_or_default()) {
            self.state = State::Idle;
            blank
        } else {
            self.missing |= !self.pending.is_empty();
            bytes.len()
        };
        self.skipped = self.skipped.saturating_add(used as u64);
        used
    }

    /// Finds the framing of a chunked body again: the offset at which to go on.
    fn resume(&mut self, bytes: &[u8], sink: Sink<'_>) -> usize {
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let side = self.side;
        if is_head(side, bytes.get(blank..).unwrap_or_default()) {
            self.state = State::Idle;
            return blank;
        }
        let found = resume::find(bytes, |rest| is_head(side, rest));
        // Without any framing in it, the push lies in one chunk, and most likely ends with it.
        let content = match found {
            Some(found) => found.content,
            None => bytes.strip_suffix(b"\r\n").unwrap_or(bytes).len(),
        };
        if content > 0 {
            sink(0, Part::Body(bytes.get(..content).unwrap_or(bytes)));
        }
        let Some(found) = found else { return bytes.len() };
        sink(found.line, Part::Defect(Defect::FramingFound));
        self.state = State::Chunked(Chunks::START);
        found.line
    }

    /// A head starts here. If something was lost, responses before it may have been lost as well, so only the
    /// latest request can be the one that it answers (exact unless requests were pipelined).
    fn start(&mut self) {
        if std::mem::take(&mut self.missing) {
            let excess = self.pending.len().saturating_sub(1);
            self.pending.drain(..excess);
        }
        self.state = State::Head(Line::Empty);
    }

    fn idle(&mut self, rest: &[u8], at: usize, sink: Sink<'_>) -> usize {
        // RFC 9112 section 2.2: empty lines before a message are ignored.
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let Some(start) = rest.get(blank..).filter(|start| !start.is_empty()) else { return blank };
        if plausible(self.side, start.get(..1).unwrap_or_default()) {
            sink(at + blank, Part::Start);
            self.start();
        } else {
            self.lose(Defect::HeadMalformed, 0, at + blank, sink);
        }
        blank
    }

    fn head(&mut self, rest: &[u8], at: usize, sink: Sink<'_>) -> usize {
        let State::Head(line) = &mut self.state else { return 0 };
        let room = rest.get(..HEAD - self.head.len()).unwrap_or(rest);
        let end = line.find_empty(room);
        let used = end.unwrap_or(room.len());
        let taken = room.get(..used).unwrap_or(room);
        let mut head = std::mem::take(&mut self.head);
        let whole = if head.is_empty() {
            taken
        } else {
            head.extend_from_slice(taken);
            &head
        };
        if !plausible(self.side, whole) {
            self.lose(Defect::HeadMalformed, whole.len() as u64, at + used, sink);
        } else if end.is_some() {
            self.complete(whole, at + used, sink);
        } else if whole.len() == HEAD {
            self.lose(Defect::HeadTooLarge, whole.len() as u64, at + used, sink);
        } else if head.is_empty() {
            self.head = taken.to_vec();
        } else {
            self.head = head;
        }
        used
    }

    /// A head is complete; `at` is the offset after it.
    fn complete(&mut self, head: &[u8], at: usize, sink: Sink<'_>) {
        let framing = match self.side {
            Side::Request => parse::request(head).map(|head| {
                let framing = framing::of_request(&head.fields);
                sink(at, Part::Request(Box::new(head)));
                framing
            }),
            Side::Response => parse::response(head).map(|head| {
                // An interim response does not answer the request yet (RFC 9110 section 15.2).
                let interim = (100..200).contains(&head.status) && head.status != 101;
                let request = if interim { None } else { self.pending.pop_front() };
                let framing = framing::of_response(&head, request.unwrap_or_default());
                sink(at, Part::Response(Box::new(head)));
                framing
            }),
        };
        match framing {
            Ok((framing, defect)) => {
                if let Some(defect) = defect {
                    sink(at, Part::Defect(defect));
                }
                match framing {
                    Framing::Length(0) => self.end(at, sink),
                    Framing::Length(length) => self.state = State::Length(length),
                    Framing::Chunked => self.state = State::Chunked(Chunks::START),
                    Framing::UntilClose => self.state = State::UntilClose,
                    Framing::Upgrade => {
                        self.state = State::Opaque;
                        sink(at, Part::Upgraded);
                    }
                    // The defect has been told.
                    Framing::Unknown => self.state = State::Skip,
                }
            }
            Err(defect) => self.lose(defect, head.len() as u64, at, sink),
        }
    }

    fn end(&mut self, at: usize, sink: Sink<'_>) {
        self.state = State::Idle;
        sink(at, Part::End);
    }

    /// Nothing is known about what follows.
    fn lose(&mut self, defect: Defect, skipped: u64, at: usize, sink: Sink<'_>) {
        self.skipped = self.skipped.saturating_add(skipped + self.head.len() as u64);
        self.head = Vec::new();
        self.state = State::Skip;
        self.missing = true;
        sink(at, Part::Defect(defect));
    }
}

/// True if bytes surely start a head.
fn is_head(side: Side, bytes: &[u8]) -> bool {
    match side {
        Side::Request => sniff(bytes) == Protocol::Http1Request,
        Side::Response => sniff(bytes) == Protocol::Http1Response,
    }
}

/// False if bytes surely do not start a head, so that garbage is not collected up to the limit.
fn plausible(side: Side, bytes: &[u8]) -> bool {
    match side {
        // RFC 9110 section 9.1: a method is a token, and any token may be one.
        Side::Request => {
            let start = bytes.get(..METHOD).unwrap_or(bytes);
            let method = start.iter().take_while(|byte| is_token(**byte)).count();
            match start.get(method) {
                Some(byte) => method > 0 && *byte == b' ',
                None => method < METHOD,
            }
        }
        Side::Response => bytes.starts_with(STATUS_LINE) || STATUS_LINE.starts_with(bytes),
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
