//! Requests whose path is of no known API: how long their connection is looked at, and which of them turn out
//! to ask for tokens.
//!
//! A POST of JSON that asks for a stream is a candidate: it becomes an exchange with an LLM at the first event
//! with a token in it. On a connection that is ignored there are none, since their content does not come.

use super::{Conversation, scope::State, tell::requested};
use crate::{
    exchange::{
        context::Context,
        observation::Observation,
        one::{Exchange, Progress},
        record::Phase,
    },
    http::{
        RequestHead,
        http1::{RequestDecoder, ResponseDecoder},
    },
    llm::Operation,
};

/// An exchange is known to be an LLM request.
pub(super) fn started(exchange: &Exchange, context: &Context) -> Observation {
    Observation::Started {
        id: exchange.id,
        pid: context.tgid,
        time: exchange.times.request_start,
        operation: exchange.llm.map(|(_, operation)| operation),
    }
}

fn is_candidate(exchange: &Exchange) -> bool {
    !exchange.started && matches!(exchange.llm, Some((_, Operation::Unknown)))
}

impl Conversation {
    /// A request turned out to be for something else. True if decoding must begin anew: the connection is
    /// ignored from here on.
    pub(super) fn stranger(&mut self, head: &RequestHead) -> bool {
        if !self.scope.is_stranger(&head.method, &head.path) {
            return false;
        }
        // On an ignored connection the response to this one does not come either.
        self.decide(State::Ignored);
        // Whole messages will be missing: join again at the next one that comes.
        self.requests = RequestDecoder::adopt();
        self.responses = ResponseDecoder::adopt();
        self.open.clear();
        self.receiving = None;
        self.responding = None;
        true
    }

    /// The request that is being received is over: a candidate that asks for no stream is none. True if
    /// decoding must begin anew.
    pub(super) fn asked_for_no_stream(&mut self) -> bool {
        let Some(exchange) = self.receiving() else { return false };
        if !is_candidate(exchange) || exchange.request.stream == Some(true) {
            return false;
        }
        exchange.llm = None;
        let head = exchange.request_head.take();
        let is_ignored = head.as_deref().is_some_and(|head| self.stranger(head));
        if let Some(exchange) = self.receiving() {
            exchange.request_head = head;
        }
        is_ignored
    }

    /// Content of a response was read: a candidate that bears a token is an LLM request from here on.
    pub(super) fn token_of_a_stranger(&mut self, context: &Context, out: &mut dyn FnMut(Observation)) {
        let Some(exchange) = self.responding() else { return };
        if !is_candidate(exchange) || exchange.counts.events == 0 {
            return;
        }
        exchange.started = true;
        out(started(exchange, context));
        requested(exchange, out);
        let id = exchange.id;
        for progress in [Progress::Phase(Phase::Generating), Progress::Delivered] {
            out(progress.observed(id));
        }
        self.decide(State::Observed);
    }

    /// A response is over: a candidate that bore no token was none.
    pub(super) fn answered_a_stranger(&mut self, exchange: &Exchange) {
        if let (true, Some(head)) = (is_candidate(exchange), &exchange.request_head) {
            self.stranger(head);
        }
    }
}
