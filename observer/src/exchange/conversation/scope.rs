//! Whether a connection is decoded: by its first bytes, and by what is asked for on it.

use observer_ebpf::Verdict;

use crate::{
    exchange::context::Undecoded,
    http::{Protocol, sniff},
    llm,
};

/// Requests for something else after which a connection is ignored: one if it was seen from its start.
const STRANGERS_IF_ADOPTED: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not decided.
    Open,
    Observed,
    Ignored,
    Opaque(Undecoded),
}

/// What is decided of one connection, and what the kernel side has not been told of that.
pub(super) struct Scope {
    state: State,
    /// The connection was seen from its first byte.
    is_whole: bool,
    /// Requests for something else.
    strangers: u32,
    /// First bytes, as long as they do not tell the protocol; `None` once they did.
    first: Option<Vec<u8>>,
    /// Verdict that the kernel side has not been told.
    verdict: Option<Verdict>,
}

impl Scope {
    pub(super) fn new(is_whole: bool) -> Self {
        Self { state: State::Open, is_whole, strangers: 0, first: Some(Vec::new()), verdict: None }
    }

    pub(super) fn poll_verdict(&mut self) -> Option<Verdict> {
        self.verdict.take()
    }

    pub(super) fn is_observed(&self) -> bool {
        self.state == State::Observed
    }

    pub(super) fn is_ignored(&self) -> bool {
        self.state == State::Ignored
    }

    /// Why it is not decoded, if it is not.
    pub(super) fn opaque(&self) -> Option<Undecoded> {
        match self.state {
            State::Opaque(cause) => Some(cause),
            State::Open | State::Observed | State::Ignored => None,
        }
    }

    /// The word for its state in metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self.state {
            State::Open => "undecided",
            State::Observed => "observed",
            State::Ignored => "ignored",
            State::Opaque(_) => "opaque",
        }
    }

    /// True if that is news.
    pub(super) fn decide(&mut self, state: State) -> bool {
        // What cannot be decoded stays so: the kernel side is told to send no more of it.
        if self.state == state || self.opaque().is_some() {
            return false;
        }
        self.state = state;
        self.verdict = match state {
            State::Observed => Some(Verdict::Observe),
            State::Ignored => Some(Verdict::Ignore),
            State::Opaque(_) => Some(Verdict::Opaque),
            State::Open => self.verdict,
        };
        true
    }

    /// Bytes are missing: what follows is not the start of the stream.
    pub(super) fn miss_first(&mut self) {
        self.first = None;
    }

    /// Looks at the first bytes of the connection, however they are cut: why it is not decoded, if it is not.
    pub(super) fn sniff(&mut self, bytes: &[u8]) -> Option<Undecoded> {
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

    /// A request for something else than an LLM. True if the connection is to be ignored.
    pub(super) fn is_stranger(&mut self, method: &str, path: &str) -> bool {
        if self.is_observed() {
            return false;
        }
        self.strangers += u32::from(!llm::is_beside(method, path));
        self.strangers >= if self.is_whole { 1 } else { STRANGERS_IF_ADOPTED }
    }
}
