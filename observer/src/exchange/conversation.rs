//! The exchanges of one connection: requests paired with responses in order (RFC 9112 section 9.3).

use std::collections::VecDeque;

use observer_ebpf::Verdict;

use super::{
    context::{Context, End, Undecoded},
    observation::{ExchangeId, Observation},
    one::{Exchange, Progress},
    pairing::{Pairing, loses_framing},
    summary,
};
use crate::{
    connection::Piece,
    http::{
        Defect, Input, Part, Protocol, RequestHead,
        http1::{ExpectedRequest, RequestDecoder, ResponseDecoder},
        sniff,
    },
    llm,
};

/// Requests that may wait for their responses on one connection; more is no HTTP that anyone serves.
const PENDING: usize = 256;

/// Requests for something else after which a connection is ignored: one if it was seen from its start.
const STRANGERS_IF_ADOPTED: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Not decided.
    Open,
    Observed,
    Ignored,
    Opaque(Undecoded),
}

/// One connection's exchanges.
pub struct Conversation {
    requests: RequestDecoder,
    responses: ResponseDecoder,
    open: VecDeque<Exchange>,
    /// Number of the exchange whose request is being received.
    receiving: Option<u32>,
    sequence: u32,
    scope: Scope,
    is_whole: bool,
    strangers: u32,
    /// First bytes, as long as they do not tell the protocol; `None` once they did.
    first: Option<Vec<u8>>,
    pairing: Pairing,
    /// Number of the exchange that the response in progress answers.
    responding: Option<u32>,
    /// Start of a response whose head is not complete.
    response_began: Option<u64>,
    interim: bool,
    in_response: bool,
    /// Verdict that the kernel side has not been told.
    verdict: Option<Verdict>,
    /// Defects of HTTP messages that were not counted yet, of whatever exchange.
    defects: Vec<Defect>,
}

impl Conversation {
    /// A conversation on a connection seen from its first byte, or joined later.
    pub fn new(is_whole: bool) -> Self {
        Self {
            requests: if is_whole { RequestDecoder::new() } else { RequestDecoder::adopt() },
            responses: if is_whole { ResponseDecoder::new() } else { ResponseDecoder::adopt() },
            open: VecDeque::new(),
            receiving: None,
            sequence: 0,
            scope: Scope::Open,
            is_whole,
            strangers: 0,
            first: Some(Vec::new()),
            pairing: Pairing::default(),
            responding: None,
            response_began: None,
            interim: false,
            in_response: false,
            verdict: None,
            defects: Vec::new(),
        }
    }

    /// A verdict that the kernel side should be told, once.
    pub fn poll_verdict(&mut self) -> Option<Verdict> {
        self.verdict.take()
    }

    /// Defects of HTTP messages that were met since the last call.
    pub fn poll_defect(&mut self) -> Option<&'static str> {
        self.defects.pop().map(Defect::as_str)
    }

    /// Whether positions may jump because the kernel side was told to send nothing.
    pub fn is_ignored(&self) -> bool {
        matches!(self.scope, Scope::Ignored | Scope::Opaque(_))
    }

    /// Why it is not decoded, if it is not.
    pub fn undecoded(&self) -> Option<Undecoded> {
        match self.scope {
            Scope::Opaque(cause) => Some(cause),
            Scope::Open | Scope::Observed | Scope::Ignored => None,
        }
    }

    /// The word for its state in metrics.
    pub fn state(&self) -> &'static str {
        match self.scope {
            Scope::Open => "undecided",
            Scope::Observed => "observed",
            Scope::Ignored => "ignored",
            Scope::Opaque(_) => "opaque",
        }
    }

    fn decide(&mut self, scope: Scope) {
        // What cannot be decoded stays so: the kernel side is told to send no more of it.
        if self.scope == scope || matches!(self.scope, Scope::Opaque(_)) {
            return;
        }
        self.scope = scope;
        match scope {
            Scope::Observed => self.verdict = Some(Verdict::Observe),
            Scope::Ignored => self.verdict = Some(Verdict::Ignore),
            Scope::Opaque(_) => {
                self.verdict = Some(Verdict::Opaque);
                self.receiving = None;
            }
            Scope::Open => {}
        }
    }

    /// A piece of what the server read.
    pub fn received(
        &mut self,
        context: &Context,
        time: u64,
        arrived: Option<u64>,
        piece: Piece<'_>,
        out: &mut dyn FnMut(Observation),
    ) {
        if matches!(self.scope, Scope::Opaque(_)) {
            return;
        }
        let input = match piece {
            Piece::Bytes(bytes) => {
                if let Some(cause) = self.sniff(bytes) {
                    return self.decide(Scope::Opaque(cause));
                }
                Input::Bytes(bytes)
            }
            Piece::Hole(length) => {
                self.first = None;
                Input::Gap(length)
            }
            Piece::Lost(length) => {
                // What follows is not the start of the stream.
                self.first = None;
                self.lost(false);
                Input::Gap(length)
            }
        };
        let skipped = self.requests.skipped();
        let (length, mut from) = (input_length(input), 0);
        let mut decoder = std::mem::replace(&mut self.requests, RequestDecoder::adopt());
        let mut restart = false;
        decoder.push_located(input, &mut |at, part| {
            let at = at as u64;
            match part {
                Part::Start => {
                    from = at;
                    // The end of the request before it was not found, so there may be others between them.
                    if self.receiving.is_some() {
                        self.pairing.miss_request();
                    }
                    self.start(context, time, arrived);
                }
                Part::Request(head) => restart |= self.request_head(context, head, out),
                Part::Body(bytes) => {
                    if let Some(exchange) = self.receiving() {
                        exchange.request_body(bytes);
                    }
                }
                Part::BodyGap(length) => {
                    if let Some(exchange) = self.receiving() {
                        exchange.request_gap(length);
                    }
                }
                Part::End => {
                    if let Some(exchange) = self.receiving() {
                        exchange.request_bytes =
                            exchange.request_bytes.saturating_add(at.saturating_sub(from));
                        from = at;
                        deliver(exchange, out, |exchange, sink| exchange.request_over(time, sink));
                        requested(exchange, out);
                    }
                    self.receiving = None;
                }
                Part::Defect(defect) => self.request_defect(defect),
                // The response decides about upgrades; a request never does.
                Part::Response(_) | Part::Upgraded => {}
            }
        });
        if let Some(exchange) = self.receiving() {
            exchange.request_bytes = exchange.request_bytes.saturating_add(length.saturating_sub(from));
        }
        if !restart {
            if decoder.skipped() > skipped {
                self.pairing.miss_request();
            }
            self.requests = decoder;
        }
    }

    /// Looks at the first bytes of the connection, however they are cut: why it is not decoded, if it is not.
    fn sniff(&mut self, bytes: &[u8]) -> Option<Undecoded> {
        let mut first = self.first.take()?;
        let whole = if first.is_empty() {
            bytes
        } else {
            first.extend_from_slice(bytes);
            &first
        };
        match sniff(whole) {
            Protocol::Tls => return Some(Undecoded::Tls),
            Protocol::Http2Preface => return Some(Undecoded::Http2),
            Protocol::Other if self.is_whole => return Some(Undecoded::Other),
            // Bytes that do not tell are few: they are the start of a known word.
            Protocol::NeedMore => self.first = Some(whole.to_vec()),
            Protocol::Http1Request | Protocol::Http1Response | Protocol::Other => {}
        }
        None
    }

    fn start(&mut self, context: &Context, time: u64, arrived: Option<u64>) {
        if self.open.len() >= PENDING {
            return self.decide(Scope::Opaque(Undecoded::Other));
        }
        let id = ExchangeId { connection: context.connection, sequence: self.sequence };
        let mut exchange = Exchange::new(id, context.tgid, time);
        // A request that was pipelined behind another one waited for it, not for the event loop.
        exchange.times.arrived = arrived.filter(|_| self.open.is_empty());
        if self.pairing.is_in_doubt() {
            exchange.partial.insert("pairing");
        }
        self.open.push_back(exchange);
        self.receiving = Some(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// True if decoding must begin anew: the connection is ignored from here on.
    fn request_head(
        &mut self,
        context: &Context,
        head: Box<RequestHead>,
        out: &mut dyn FnMut(Observation),
    ) -> bool {
        let llm = llm::classify(&head.method, &head.path);
        if llm.is_some() {
            self.decide(Scope::Observed);
        } else if self.scope != Scope::Observed {
            self.strangers += u32::from(!llm::is_beside(&head.path));
            let limit = if self.is_whole { 1 } else { STRANGERS_IF_ADOPTED };
            // On an ignored connection the response to this one does not come either.
            if self.strangers >= limit {
                self.decide(Scope::Ignored);
                // Whole messages will be missing: join again at the next one that comes.
                self.responses = ResponseDecoder::adopt();
                self.open.clear();
                self.receiving = None;
                return true;
            }
        }
        if let Some(exchange) = self.receiving() {
            exchange.llm = llm;
            exchange.request_head = Some(head);
            if let Some((_, operation)) = llm {
                exchange.started = true;
                out(Observation::Started {
                    id: exchange.id,
                    pid: context.tgid,
                    time: exchange.times.request_start,
                    operation: Some(operation),
                });
            }
        }
        false
    }

    fn receiving(&mut self) -> Option<&mut Exchange> {
        let sequence = self.receiving?;
        self.open.back_mut().filter(|exchange| exchange.id.sequence == sequence)
    }

    fn request_defect(&mut self, defect: Defect) {
        self.defects.push(defect);
        if loses_framing(defect) && self.scope != Scope::Ignored {
            self.pairing.miss_request();
        }
        let Some(exchange) = self.open.back_mut() else { return };
        exchange.defects.insert(defect.as_str());
        if loses_framing(defect) {
            exchange.partial.insert("request_framing");
        }
    }

    /// Records of a direction never came.
    fn lost(&mut self, sent: bool) {
        let touched = if sent { self.open.front_mut() } else { self.open.back_mut() };
        if let Some(exchange) = touched {
            exchange.partial.insert("lost");
            exchange.evidence.lost = true;
        }
    }

    /// A direction began before it was joined: what lies before that is not known.
    pub fn joined_late(&mut self, sent: bool) {
        if sent && !self.open.is_empty() {
            self.miss_response();
        } else if !sent {
            self.pairing.miss_request();
        }
    }

    /// The first record of what the server wrote since the connection was ignored. There should be one
    /// request that it answers; with more, the answer to the first may be missing.
    pub fn responses_resumed(&mut self) {
        if self.open.len() > 1 {
            self.miss_response();
        }
    }

    /// Responses may be missing: none of what is open can be trusted.
    fn miss_response(&mut self) {
        self.pairing.miss_response();
        for exchange in &mut self.open {
            exchange.partial.insert("response_framing");
            exchange.evidence.lost = true;
        }
    }

    /// A piece of what the server wrote.
    pub fn sent(&mut self, context: &Context, time: u64, piece: Piece<'_>, out: &mut dyn FnMut(Observation)) {
        if matches!(self.scope, Scope::Opaque(_) | Scope::Ignored) {
            return;
        }
        let input = match piece {
            Piece::Bytes(bytes) => Input::Bytes(bytes),
            Piece::Hole(length) => Input::Gap(length),
            Piece::Lost(length) => {
                self.lost(true);
                Input::Gap(length)
            }
        };
        let (length, mut from) = (input_length(input), 0);
        let skipped = self.responses.skipped();
        let unanswered = self.open.iter().filter(|exchange| exchange.response_head.is_none());
        let expected = unanswered
            .map(|exchange| exchange.request_head.as_deref().map(ExpectedRequest::from).unwrap_or_default());
        self.responses.expect_only(expected, self.pairing.may_skip());
        let mut decoder = std::mem::replace(&mut self.responses, ResponseDecoder::adopt());
        decoder.push_located(input, &mut |at, part| {
            let at = at as u64;
            match part {
                Part::Start => {
                    from = at;
                    self.response_start(context, time, out);
                }
                Part::Response(head) => {
                    self.interim = (100..200).contains(&head.status) && head.status != 101;
                    let began = self.response_began.take();
                    if !self.interim
                        && let Some(exchange) = self.responding()
                    {
                        exchange.times.response_start = began;
                        exchange.response_head(head);
                        requested(exchange, out);
                    }
                }
                Part::Body(bytes) => {
                    if let Some(exchange) = self.responding() {
                        deliver(exchange, out, |exchange, sink| exchange.response_body(bytes, time, sink));
                    }
                }
                Part::BodyGap(length) => {
                    if let Some(exchange) = self.responding() {
                        exchange.response_gap(length);
                    }
                }
                Part::End => {
                    let interim = std::mem::take(&mut self.interim);
                    if let Some(exchange) = self.responding() {
                        exchange.response_bytes =
                            exchange.response_bytes.saturating_add(at.saturating_sub(from));
                        if interim {
                            exchange.times.response_end = None;
                        }
                    }
                    from = at;
                    self.in_response = false;
                    if !interim {
                        self.response_over(context, time, true, out);
                    }
                }
                Part::Upgraded => {
                    self.response_over(context, time, true, out);
                    self.decide(Scope::Opaque(Undecoded::Upgraded));
                }
                Part::Defect(defect) => self.response_defect(defect),
                Part::Request(_) => {}
            }
        });
        if decoder.skipped() > skipped && !self.open.is_empty() {
            self.miss_response();
        }
        self.responses = decoder;
        if self.in_response
            && let Some(exchange) = self.responding()
        {
            exchange.response_bytes = exchange.response_bytes.saturating_add(length.saturating_sub(from));
            exchange.times.response_end = Some(time);
        }
    }

    fn response_start(&mut self, context: &Context, time: u64, out: &mut dyn FnMut(Observation)) {
        // A head in the middle of a response: the end of the one before it was lost.
        if self.in_response && !self.interim && self.responding().is_some_and(|e| e.response_head.is_some()) {
            self.response_over(context, time, false, out);
        }
        // Answers are missing: only the latest request can be the one that this one answers.
        while self.pairing.may_skip() && self.open.len() > 1 {
            self.responding = self.open.front().map(|exchange| exchange.id.sequence);
            self.response_over(context, time, false, out);
        }
        self.in_response = true;
        self.response_began = Some(time);
        self.responding = self.open.front().map(|exchange| exchange.id.sequence);
        if self.responding.is_none() {
            self.pairing.miss_request();
        }
    }

    fn responding(&mut self) -> Option<&mut Exchange> {
        let sequence = self.responding?;
        self.open.front_mut().filter(|exchange| exchange.id.sequence == sequence)
    }

    fn response_defect(&mut self, defect: Defect) {
        self.defects.push(defect);
        if loses_framing(defect) {
            self.miss_response();
        }
        if let Some(exchange) = self.open.front_mut() {
            exchange.defects.insert(defect.as_str());
        }
    }

    /// The response in progress is over.
    fn response_over(
        &mut self,
        context: &Context,
        time: u64,
        framing_ended: bool,
        out: &mut dyn FnMut(Observation),
    ) {
        let is_known = self.responding().is_some();
        self.responding = None;
        let Some(mut exchange) = self.open.pop_front_if(|_| is_known) else { return };
        if framing_ended {
            exchange.times.response_end = Some(time);
            let next = self.open.front().map(|next| next.times.request_start);
            self.pairing.answered(time, next, self.requests.is_synchronised());
        }
        exchange.evidence.framing_ended = framing_ended;
        finish(exchange, context, time, out);
    }

    /// Something happened that may have touched every open exchange.
    pub fn mark_open(&mut self, cause: &'static str) {
        for exchange in &mut self.open {
            exchange.partial.insert(cause);
            exchange.evidence.lost = true;
        }
    }

    /// The client closed or reset its side.
    pub fn client_gone(&mut self) {
        for exchange in &mut self.open {
            exchange.evidence.client_gone = true;
        }
    }

    /// The connection is over: what is open ends here.
    pub fn end(&mut self, context: &Context, time: u64, end: End, out: &mut dyn FnMut(Observation)) {
        let mut ended = false;
        let mut defects = Vec::new();
        // A response without a length ends with its connection (RFC 9112 section 6.3).
        let mut decoder = std::mem::replace(&mut self.responses, ResponseDecoder::adopt());
        decoder.finish(&mut |part| match part {
            Part::End => ended = true,
            Part::Defect(defect) => defects.push(defect),
            Part::Start
            | Part::Request(_)
            | Part::Response(_)
            | Part::Body(_)
            | Part::BodyGap(_)
            | Part::Upgraded => {}
        });
        for defect in defects {
            self.response_defect(defect);
        }
        while let Some(mut exchange) = self.open.pop_front() {
            let is_responding = self.responding.take() == Some(exchange.id.sequence);
            let evidence = &mut exchange.evidence;
            evidence.connection_over = end != End::Dropped;
            evidence.ended_by_close = std::mem::take(&mut ended) && is_responding && end == End::Closed;
            // Neither tells how far its directions came.
            if matches!(end, End::Dropped | End::Exited) {
                exchange.partial.insert("end_not_seen");
            }
            if end == End::Dropped {
                evidence.lost = true;
            }
            if self.scope != Scope::Observed {
                evidence.lost = true;
                exchange.partial.insert("undecoded");
            }
            finish(exchange, context, time, out);
        }
    }

    /// Bytes of memory that it holds, itself included.
    pub fn held(&self) -> usize {
        let open: usize = self.open.iter().map(Exchange::held).sum();
        size_of::<Self>() + self.requests.held() + self.responses.held() + open
    }

    /// Exchanges that are open and known to be LLM requests.
    pub fn in_flight(&self) -> usize {
        self.open.iter().filter(|exchange| exchange.started).count()
    }
}

fn input_length(input: Input<'_>) -> u64 {
    match input {
        Input::Bytes(bytes) => bytes.len() as u64,
        Input::Gap(length) => length,
    }
}

/// Tells, once, what the exchange asks for.
fn requested(exchange: &mut Exchange, out: &mut dyn FnMut(Observation)) {
    if exchange.started && !std::mem::replace(&mut exchange.asked, true) {
        out(Observation::Requested {
            id: exchange.id,
            stream: exchange.request.stream.unwrap_or(false),
            model: exchange.request.model.clone(),
        });
    }
}

/// Lets the exchange take something in and passes on what it tells.
fn deliver(
    exchange: &mut Exchange,
    out: &mut dyn FnMut(Observation),
    take: impl FnOnce(&mut Exchange, &mut dyn FnMut(Progress)),
) {
    let (id, started) = (exchange.id, exchange.started);
    take(exchange, &mut |progress| {
        if started {
            out(match progress {
                Progress::Phase(phase) => Observation::Phase { id, phase },
                Progress::Delivered => Observation::Delivered { id },
            });
        }
    });
}

fn finish(mut exchange: Exchange, context: &Context, time: u64, out: &mut dyn FnMut(Observation)) {
    deliver(&mut exchange, out, |exchange, sink| exchange.response_over(time, sink));
    if exchange.started {
        requested(&mut exchange, out);
        let id = exchange.id;
        out(Observation::Finished { id, record: Box::new(summary::record(exchange, context)) });
    }
}
