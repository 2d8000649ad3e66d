//! The exchanges of one connection: requests paired with responses in order (RFC 9112 section 9.3).
//!
//! Here the request side and the end; the response side in `response`.

mod response;
mod scope;
mod strangers;
mod tell;

use std::collections::VecDeque;

use observer_ebpf::Verdict;
use scope::{Scope, State};
use tell::{deliver, finish, requested};

use super::{
    context::{Context, End, Undecoded},
    flow::Flow,
    keys::Keys,
    observation::{ExchangeId, Observation},
    one::Exchange,
    pairing::{Pairing, loses_framing},
};
use crate::{
    connection::Piece,
    http::{
        Defect, Input, Part, RequestHead,
        http1::{RequestDecoder, ResponseDecoder},
    },
    llm,
};

/// Requests that may wait for their responses on one connection; more is no HTTP that anyone serves.
const PENDING: usize = 256;

/// One connection's exchanges.
pub struct Conversation {
    requests: RequestDecoder,
    responses: ResponseDecoder,
    open: VecDeque<Exchange>,
    /// Number of the exchange whose request is being received.
    receiving: Option<u32>,
    sequence: u32,
    scope: Scope,
    pairing: Pairing,
    /// Number of the exchange that the response in progress answers.
    responding: Option<u32>,
    /// Start of a response whose head is not complete.
    response_began: Option<u64>,
    interim: bool,
    in_response: bool,
    /// Requests that became complete and were not asked for yet.
    asked: VecDeque<Asked>,
    /// Defects of HTTP messages that were not counted yet, of whatever exchange.
    defects: Vec<Defect>,
}

/// A request that became complete.
pub(crate) struct Asked {
    pub(crate) id: ExchangeId,
    pub(crate) time: u64,
    pub(crate) keys: Keys,
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
            scope: Scope::new(is_whole),
            pairing: Pairing::default(),
            responding: None,
            response_began: None,
            interim: false,
            in_response: false,
            asked: VecDeque::new(),
            defects: Vec::new(),
        }
    }

    /// A verdict that the kernel side should be told, once.
    pub fn poll_verdict(&mut self) -> Option<Verdict> {
        self.scope.poll_verdict()
    }

    /// A request that became complete, which may cause others.
    pub(crate) fn poll_asked(&mut self) -> Option<Asked> {
        self.asked.pop_front()
    }

    /// An exchange caused a request so many nanoseconds after its own was complete.
    pub(crate) fn dispatched(&mut self, sequence: u32, wait: u64) {
        if let Some(exchange) = self.open.iter_mut().find(|exchange| exchange.id.sequence == sequence) {
            exchange.dispatch = Some(wait);
        }
    }

    /// Defects of HTTP messages that were met since the last call.
    pub fn poll_defect(&mut self) -> Option<&'static str> {
        self.defects.pop().map(Defect::as_str)
    }

    /// Whether positions may jump because the kernel side was told to send nothing.
    pub fn is_ignored(&self) -> bool {
        self.scope.is_ignored() || self.scope.opaque().is_some()
    }

    /// Why it is not decoded, if it is not.
    pub fn undecoded(&self) -> Option<Undecoded> {
        self.scope.opaque()
    }

    /// The word for its state in metrics.
    pub fn state(&self) -> &'static str {
        self.scope.as_str()
    }

    fn decide(&mut self, state: State) {
        if self.scope.decide(state) && self.scope.opaque().is_some() {
            self.receiving = None;
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
        if self.scope.opaque().is_some() {
            return;
        }
        let input = match piece {
            Piece::Bytes(bytes) => {
                if let Some(cause) = self.scope.sniff(bytes) {
                    return self.decide(State::Opaque(cause));
                }
                Input::Bytes(bytes)
            }
            Piece::Hole(length) => {
                self.scope.miss_first();
                Input::Gap(length)
            }
            Piece::Lost(length) => {
                self.scope.miss_first();
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
                        if exchange.started
                            && let Some(keys) = exchange.keys()
                        {
                            let id = exchange.id;
                            self.asked.push_back(Asked { id, time, keys });
                        }
                    }
                    restart |= self.asked_for_no_stream();
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

    fn start(&mut self, context: &Context, time: u64, arrived: Option<u64>) {
        if self.open.len() >= PENDING {
            return self.decide(State::Opaque(Undecoded::Other));
        }
        let id = ExchangeId { connection: context.connection, sequence: self.sequence };
        let mut exchange = Exchange::new(id, context.tgid, time, Flow::new(context.stalls_after));
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
        let mut llm = llm::classify(&head.method, &head.path);
        let is_known = llm.is_some();
        if is_known {
            self.decide(State::Observed);
        } else if !self.scope.is_ignored() {
            llm = llm::candidate(&head.method, head.fields.content_type());
        }
        if llm.is_none() && self.stranger(&head) {
            return true;
        }
        if let Some(exchange) = self.receiving() {
            exchange.request_head(head, llm);
            if is_known {
                exchange.started = true;
                out(strangers::started(exchange, context));
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
        if loses_framing(defect) && !self.scope.is_ignored() {
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

    /// Something happened that may have touched every open exchange.
    pub fn mark_open(&mut self, cause: &'static str) {
        for exchange in &mut self.open {
            exchange.partial.insert(cause);
            exchange.evidence.lost = true;
        }
    }

    /// The client closed or reset its side.
    pub fn client_gone(&mut self, time: u64, out: &mut dyn FnMut(Observation)) {
        for exchange in &mut self.open {
            deliver(exchange, out, |exchange, sink| exchange.client_gone(time, sink));
        }
    }

    /// A write that was entered then was not taken, or not whole: the client does not read.
    pub fn blocked(&mut self, time: u64, out: &mut dyn FnMut(Observation)) {
        if let Some(exchange) = self.open.front_mut() {
            deliver(exchange, out, |exchange, sink| exchange.blocked(time, sink));
        }
    }

    /// When to look whether the stream that is open stalls.
    pub fn deadline(&self) -> Option<u64> {
        self.open.front()?.flow.deadline()
    }

    /// Nothing more was written until now, and nobody is writing.
    pub fn quiet_until(&mut self, time: u64, out: &mut dyn FnMut(Observation)) {
        if let Some(exchange) = self.open.front_mut() {
            deliver(exchange, out, |exchange, sink| exchange.quiet_until(time, sink));
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
        // Clients hang up at a stream's own terminator: they have all of it, and only framing is missing.
        let has_all = self.open.front().is_some_and(|exchange| exchange.evidence.terminated);
        for defect in defects.into_iter().filter(|defect| !has_all || *defect != Defect::Truncated) {
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
            if !self.scope.is_observed() {
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
