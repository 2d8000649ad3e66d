//! One exchange while it goes on.

use std::collections::BTreeSet;

use super::{
    content::{self, Content, Told},
    flow::Flow,
    keys::{Digest, Keys},
    observation::{ExchangeId, Observation},
    outcome::Evidence,
    record::Phase,
    tokens::Counts,
};
use crate::{
    body::{Defect, coding::ContentDecoder, json::Scanner},
    http::{RequestHead, ResponseHead},
    llm::{self, Dialect, Facts, Operation, Request, Terminal, Timings},
};

/// Gaps between deliveries that are kept of one stream; more are counted.
const GAPS: usize = 16_384;

/// Clocks, monotonic nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) arrived: Option<u64>,
    pub(super) request_start: u64,
    pub(super) request_end: Option<u64>,
    pub(super) response_start: Option<u64>,
    pub(super) first_event: Option<u64>,
    pub(super) first_token: Option<u64>,
    pub(super) first_answer: Option<u64>,
    pub(super) last_token: Option<u64>,
    pub(super) response_end: Option<u64>,
}

/// What an exchange tells while a piece is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Phase(Phase),
    Delivered,
}

impl Progress {
    /// As the outside is told.
    pub(super) fn observed(self, id: ExchangeId) -> Observation {
        match self {
            Self::Phase(phase) => Observation::Phase { id, phase },
            Self::Delivered => Observation::Delivered { id },
        }
    }
}

/// One exchange.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    pub(super) tgid: u32,
    pub(super) times: Times,
    pub(super) request_head: Option<Box<RequestHead>>,
    pub(super) llm: Option<(&'static dyn Dialect, Operation)>,
    pub(super) request: Request,
    request_coding: Option<ContentDecoder>,
    request_content: Scanner,
    digest: Digest,
    pub(super) request_bytes: u64,
    pub(super) response_head: Option<Box<ResponseHead>>,
    content: Option<Content>,
    pub(super) response_bytes: u64,
    pub(super) counts: Counts,
    pub(super) deliveries: u64,
    last_delivery: Option<u64>,
    pub(super) gap_micros: Vec<u32>,
    pub(super) gaps: u64,
    pub(super) flow: Flow,
    pub(super) finish_reason: Option<String>,
    pub(super) error: Option<String>,
    pub(super) model: Option<String>,
    pub(super) response_id: Option<String>,
    pub(super) fingerprint: Option<String>,
    pub(super) provider: Option<&'static str>,
    pub(super) timings: Timings,
    /// Nanoseconds until the request that it caused was sent upstream.
    pub(super) dispatch: Option<u64>,
    /// Choices that said that they are over.
    over: u32,
    /// Something in it bore a token, streamed or plain.
    pub(super) bore: bool,
    /// Bytes of the request's content were not captured.
    pub(super) request_holed: bool,
    /// Bytes of the response's content were not captured.
    pub(super) response_holed: bool,
    pub(super) evidence: Evidence,
    pub(super) phase: Phase,
    /// It was reported as an LLM request.
    pub(super) started: bool,
    /// What it asks for was reported.
    pub(super) asked: bool,
    pub(super) partial: BTreeSet<&'static str>,
    pub(super) defects: BTreeSet<&'static str>,
}

impl Exchange {
    pub(super) fn new(id: ExchangeId, tgid: u32, request_start: u64, flow: Flow) -> Self {
        Self {
            id,
            tgid,
            times: Times { request_start, ..Times::default() },
            request_head: None,
            llm: None,
            request: Request::default(),
            request_coding: None,
            request_content: Scanner::new(),
            digest: Digest::default(),
            request_bytes: 0,
            response_head: None,
            content: None,
            response_bytes: 0,
            counts: Counts::default(),
            deliveries: 0,
            last_delivery: None,
            gap_micros: Vec::new(),
            gaps: 0,
            flow,
            finish_reason: None,
            error: None,
            model: None,
            response_id: None,
            fingerprint: None,
            provider: None,
            timings: Timings::default(),
            dispatch: None,
            over: 0,
            bore: false,
            request_holed: false,
            response_holed: false,
            evidence: Evidence::default(),
            phase: Phase::Receiving,
            started: false,
            asked: false,
            partial: BTreeSet::new(),
            defects: BTreeSet::new(),
        }
    }

    /// Bytes of memory that it holds, itself included.
    pub(super) fn held(&self) -> usize {
        size_of::<Self>()
            + self.gap_micros.capacity() * size_of::<u32>()
            + self.content.as_ref().map_or(0, Content::held)
            + self.request_coding.as_ref().map_or(0, ContentDecoder::held)
            + self.request_head.as_ref().map_or(0, |head| head.fields.held())
            + self.response_head.as_ref().map_or(0, |head| head.fields.held())
    }

    /// Whether its response was, or was to be, a stream of events.
    pub(super) fn is_stream(&self) -> bool {
        match &self.content {
            Some(content) if content.is_read() => content.is_stream(),
            _ => self.request.stream.unwrap_or(false),
        }
    }

    /// Whether an answer that bore no token had none: all of it was read.
    pub(super) fn is_empty(&self) -> bool {
        let is_read = self.content.as_ref().is_some_and(Content::is_read) && !self.response_holed;
        let generates = self.llm.is_some_and(|(_, operation)| operation.generates());
        is_read && generates && self.partial.is_empty() && !self.bore
    }

    /// Choices asked for, if that is known.
    pub(super) fn choices(&self) -> Option<u32> {
        let is_read = self.times.request_end.is_some() && !self.request_holed;
        self.request.choices.or(is_read.then_some(1)).map(|choices| choices.max(1))
    }

    /// The head of the request, and the API that it is of.
    pub(super) fn request_head(
        &mut self,
        head: Box<RequestHead>,
        llm: Option<(&'static dyn Dialect, Operation)>,
    ) {
        if let Some((dialect, _)) = llm {
            dialect.path(head.path.trim_end_matches('/'), &mut self.request);
            match content::decoder(&head.fields) {
                Ok(coding) => self.request_coding = coding,
                Err(defect) => self.request_undecodable(defect),
            }
        }
        self.llm = llm;
        self.request_head = Some(head);
    }

    /// What it asks for is not known, beside what was read of it.
    fn request_undecodable(&mut self, defect: Defect) {
        self.defects.insert(defect.as_str());
        self.request_gap(1);
    }

    pub(super) fn request_body(&mut self, bytes: &[u8]) {
        let Some((dialect, _)) = self.llm else { return };
        let Self { request, request_content, request_coding, digest, .. } = self;
        let mut note = |bytes: &[u8]| {
            request_content.push(bytes, &mut |field| {
                digest.add(&field);
                dialect.request(&field, request);
            });
        };
        match request_coding {
            None => note(bytes),
            Some(coding) => {
                if let Some(defect) = coding.push(bytes, &mut note) {
                    self.request_undecodable(defect);
                }
            }
        }
    }

    pub(super) fn request_gap(&mut self, length: u64) {
        self.request_holed = true;
        if let Some(coding) = &mut self.request_coding {
            coding.gap();
        }
        self.request_content.gap(length);
    }

    pub(super) fn request_over(&mut self, time: u64, sink: &mut dyn FnMut(Progress)) {
        self.times.request_end = Some(time);
        self.request_coding = None;
        if let Some((dialect, _)) = self.llm {
            let (request, digest) = (&mut self.request, &mut self.digest);
            self.request_content.finish(&mut |field| {
                digest.add(&field);
                dialect.request(&field, request);
            });
            // Of a request with a hole in it, it is not known that it does not say.
            if request.stream.is_none() && dialect.streams_by_default() && !self.request_holed {
                request.stream = Some(true);
            }
        }
        // A server may answer before it has read all of the request.
        if self.phase == Phase::Receiving {
            self.enter(Phase::Waiting, sink);
        }
    }

    /// What tells which request it causes, once its own is complete.
    pub(super) fn keys(&self) -> Option<Keys> {
        let head = self.request_head.as_ref()?;
        Some(Keys::new(&head.fields, self.digest.finish().filter(|_| !self.request_holed)))
    }

    pub(super) fn enter(&mut self, phase: Phase, sink: &mut dyn FnMut(Progress)) {
        self.phase = phase;
        sink(Progress::Phase(phase));
    }

    pub(super) fn response_head(&mut self, head: Box<ResponseHead>) {
        self.evidence.status = Some(head.status);
        let dialect = self.llm.map(|(dialect, _)| dialect);
        let (content, defect) = Content::new(&head, dialect, &self.request);
        self.evidence.streamed = content.is_stream();
        self.evidence.unmarked =
            content.is_stream() && dialect.is_some_and(|dialect| !dialect.has_terminator());
        self.content = Some(content);
        if let Some(defect) = defect {
            self.defects.insert(defect.as_str());
            self.partial.insert(defect.as_str());
        }
        let told = llm::head(head.fields.iter());
        self.counts.add_head(&told);
        self.note(told);
        self.response_head = Some(head);
    }

    pub(super) fn response_body(&mut self, bytes: &[u8], time: u64, sink: &mut dyn FnMut(Progress)) {
        if let (Some(mut content), Some((dialect, _))) = (self.content.take(), self.llm) {
            content.push(dialect, bytes, &mut |told| self.told(told, time, sink));
            self.content = Some(content);
        }
        if !self.evidence.streamed && self.phase != Phase::Generating {
            self.enter(Phase::Generating, sink);
        }
    }

    pub(super) fn response_gap(&mut self, length: u64) {
        if let Some(mut content) = self.content.take() {
            // What it tells of a gap is not about time.
            content.gap(length, &mut |told| self.told(told, 0, &mut |_| {}));
            self.content = Some(content);
        }
        self.missed("response_hole");
    }

    /// Bytes of the response's content are not known.
    fn missed(&mut self, cause: &'static str) {
        self.response_holed = true;
        if self.evidence.streamed {
            self.partial.insert(cause);
            self.evidence.lost = true;
        }
    }

    /// The content is over, in order or not.
    pub(super) fn response_over(&mut self, time: u64, sink: &mut dyn FnMut(Progress)) {
        if let (Some(mut content), Some((dialect, _))) = (self.content.take(), self.llm) {
            content.finish(dialect, &mut |told| self.told(told, time, sink));
            self.content = Some(content);
        }
        // Some choice is over, and how many there are was in a hole: only framing tells of the others.
        if self.over > 0 && self.choices().is_none() && !self.evidence.terminated {
            self.evidence.terminated = self.evidence.framing_ended;
            if !self.evidence.terminated {
                self.evidence.lost = true;
                self.partial.insert("choices_unknown");
            }
        }
        self.flow_over(time, sink);
    }

    fn told(&mut self, told: Told, time: u64, sink: &mut dyn FnMut(Progress)) {
        match told {
            Told::Event(facts) => {
                self.times.first_event.get_or_insert(time);
                self.bore |= facts.bears_token();
                if self.counts.add(&facts) {
                    self.token(time, facts.answer, sink);
                }
                match facts.terminal {
                    Terminal::No => {}
                    Terminal::Stream => self.evidence.terminated = true,
                    Terminal::Choice => {
                        self.over = self.over.saturating_add(1);
                        self.evidence.terminated |=
                            self.choices().is_some_and(|choices| self.over >= choices);
                    }
                }
                self.note(facts);
            }
            Told::Terminator => {
                self.times.first_event.get_or_insert(time);
                self.evidence.terminated = true;
                self.flow_over(time, sink);
            }
            Told::Damaged(defect) => {
                self.defects.insert(defect);
                self.partial.insert(defect);
            }
            Told::Undecodable(defect) => {
                self.defects.insert(defect.as_str());
                self.missed(defect.as_str());
            }
            Told::Incomplete => {
                self.defects.insert("event_incomplete");
                self.evidence.broke_off |= self.evidence.unmarked;
            }
            Told::Document { mut facts, complete } => {
                self.evidence.terminated = complete;
                self.evidence.broke_off = !complete && !self.response_holed;
                if !complete {
                    // Counts that broke off are parts of counts.
                    if self.evidence.broke_off {
                        (facts.usage, facts.engine) = Default::default();
                    }
                    (facts.logprobs, facts.token_ids) = (0, 0);
                    // With a hole in it, only framing can tell whether it came to its end.
                    if self.response_holed && !self.evidence.framing_ended {
                        self.partial.insert("response_hole");
                        self.evidence.lost = true;
                        self.evidence.broke_off = true;
                    }
                    // Of several choices, the last one's may be missing.
                    if self.choices().is_none_or(|choices| choices > 1) {
                        facts.finish_reason = None;
                    }
                    if self.response_bytes > 0 {
                        let is_ours = self.response_holed;
                        self.defects.insert(if is_ours { "document_hole" } else { "document_incomplete" });
                    }
                }
                self.bore |= facts.bears_token() || facts.ids() > 0;
                self.counts.add_plain(&facts);
                self.note(facts);
            }
        }
    }

    /// A token-bearing event. Events of one call are one delivery.
    fn token(&mut self, time: u64, is_answer: bool, sink: &mut dyn FnMut(Progress)) {
        self.times.first_token.get_or_insert(time);
        if is_answer {
            self.times.first_answer.get_or_insert(time);
        }
        self.times.last_token = Some(time);
        if self.last_delivery != Some(time) {
            if let Some(last) = self.last_delivery {
                self.gaps += 1;
                if self.gap_micros.len() < GAPS {
                    let micros = time.saturating_sub(last).saturating_add(500) / 1000;
                    self.gap_micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
                }
            }
            self.last_delivery = Some(time);
            self.deliveries += 1;
            self.flow.delivered();
            sink(Progress::Delivered);
        }
        if self.phase != Phase::Generating {
            self.enter(Phase::Generating, sink);
        }
    }

    fn note(&mut self, facts: Facts) {
        let mut error = facts.error;
        if let Some(reason) = facts.finish_reason {
            self.evidence.abort |= matches!(reason.as_str(), "abort" | "aborted" | "cancelled");
            if reason == "error" {
                error = error.or_else(|| self.error.take()).or_else(|| Some(reason.clone()));
            }
            self.finish_reason = Some(reason);
        }
        if let Some(error) = error {
            self.evidence.error = true;
            self.error = Some(error);
        }
        self.model = facts.model.or(self.model.take());
        self.response_id = self.response_id.take().or(facts.id);
        self.fingerprint = self.fingerprint.take().or(facts.fingerprint);
        self.provider = self.provider.or(facts.provider);
        self.timings.update(&facts.timings);
    }
}
