//! The response side: pieces of what the server wrote become responses to open requests.

use super::{
    Conversation, input_length,
    scope::State,
    tell::{deliver, finish, requested},
};
use crate::{
    connection::Piece,
    exchange::{
        context::{Context, Undecoded},
        observation::Observation,
        one::Exchange,
        pairing::loses_framing,
    },
    http::{
        Defect, Input, Part,
        http1::{ExpectedRequest, ResponseDecoder},
    },
};

impl Conversation {
    /// A piece of what the server wrote, by a call from its entry at `time` to its return.
    pub fn sent(
        &mut self,
        context: &Context,
        time: u64,
        returned: u64,
        piece: Piece<'_>,
        out: &mut dyn FnMut(Observation),
    ) {
        if self.is_ignored() {
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
        if let Some(exchange) = self.open.front_mut() {
            deliver(exchange, out, |exchange, sink| exchange.written(time, returned, sink));
        }
        let (length, mut from) = (input_length(input), 0);
        let skipped = self.responses.skipped();
        let unanswered = self.open.iter().filter(|exchange| exchange.response_head.is_none());
        let expected = unanswered
            .map(|exchange| exchange.request_head.as_deref().map(ExpectedRequest::from).unwrap_or_default());
        self.responses.expect_only(expected, self.pairing.may_skip());
        let mut decoder = std::mem::replace(&mut self.responses, ResponseDecoder::adopt());
        decoder.push_located(input, &mut |at, part| {
            if self.scope.is_ignored() {
                return;
            }
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
                        self.token_of_a_stranger(context, out);
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
                    self.decide(State::Opaque(Undecoded::Upgraded));
                }
                Part::Defect(defect) => self.response_defect(defect),
                Part::Request(_) => {}
            }
        });
        if decoder.skipped() > skipped && !self.open.is_empty() {
            self.miss_response();
        }
        // A candidate that bore no token was the last that the connection was decoded for.
        if self.scope.is_ignored() {
            return;
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

    pub(super) fn responding(&mut self) -> Option<&mut Exchange> {
        let sequence = self.responding?;
        self.open.front_mut().filter(|exchange| exchange.id.sequence == sequence)
    }

    pub(super) fn response_defect(&mut self, defect: Defect) {
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
        self.answered_a_stranger(&exchange);
        finish(exchange, context, time, out);
    }
}
