//! Requests that a process sends on a connection that it made itself: when, and what tells who caused them.

use observer_ebpf::{Data, Verdict};

use super::keys::{Digest, Keys};
use crate::{
    body::json::Scanner,
    connection::{Piece, Stream},
    http::{Defect, Input, Part, RequestHead, http1::RequestDecoder},
    llm,
};

/// An LLM request that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Dispatched {
    /// When its first byte was written.
    pub(crate) time: u64,
    pub(super) keys: Keys,
}

/// One connection that a process made.
pub(crate) struct Upstream {
    /// The process.
    pub(crate) tgid: u32,
    stream: Stream,
    requests: RequestDecoder,
    current: Option<Current>,
    observed: bool,
    verdict: Option<Verdict>,
    /// Bytes whose records never came.
    lost: u64,
    /// Defects of its requests that were not counted yet.
    defects: Vec<Defect>,
}

/// The request that is being written.
struct Current {
    time: u64,
    head: Option<Box<RequestHead>>,
    content: Scanner,
    digest: Digest,
    /// Bytes of it are missing: its digest would be that of another request.
    holed: bool,
}

impl Upstream {
    /// A connection that this process made.
    pub(crate) fn new(tgid: u32) -> Self {
        Self {
            tgid,
            stream: Stream::default(),
            requests: RequestDecoder::adopt(),
            current: None,
            observed: false,
            verdict: None,
            lost: 0,
            defects: Vec::new(),
        }
    }

    /// Bytes whose records never came, since the last call.
    pub(crate) fn poll_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Defects of its requests that were met since the last call.
    pub(crate) fn poll_defect(&mut self) -> Option<&'static str> {
        self.defects.pop().map(Defect::as_str)
    }

    /// A verdict that the kernel side should be told, once.
    pub(crate) fn poll_verdict(&mut self) -> Option<Verdict> {
        self.verdict.take()
    }

    /// Bytes that the process wrote.
    pub(crate) fn take(&mut self, data: &Data, payload: &[u8], out: &mut dyn FnMut(Dispatched)) {
        if !self.observed {
            // Positions jump where nothing was asked for.
            self.stream.start_at(data.position);
        }
        let time = data.header.time;
        let Self { stream, requests, current, observed, verdict, lost, defects, .. } = self;
        stream.push(data, payload, &mut |piece| {
            let input = match piece {
                Piece::Bytes(bytes) => Input::Bytes(bytes),
                Piece::Hole(length) => Input::Gap(length),
                Piece::Lost(length) => {
                    *lost = lost.saturating_add(length);
                    Input::Gap(length)
                }
            };
            requests.push(input, &mut |part| match part {
                Part::Start => *current = Some(Current::new(time)),
                Part::Request(head) => {
                    let decided = if llm::classify(&head.method, &head.path).is_some() {
                        Some(Verdict::Observe)
                    } else {
                        (!*observed && !llm::is_beside(&head.method, &head.path)).then_some(Verdict::Ignore)
                    };
                    *observed |= decided == Some(Verdict::Observe);
                    *verdict = decided.or(*verdict);
                    if let Some(current) = current {
                        current.head = Some(head);
                    }
                }
                Part::Body(bytes) => {
                    if let Some(Current { content, digest, .. }) = current {
                        content.push(bytes, &mut |field| digest.add(&field));
                    }
                }
                Part::BodyGap(length) => {
                    if let Some(current) = current {
                        current.content.gap(length);
                        current.holed = true;
                    }
                }
                Part::End => {
                    if let Some(sent) = current.take().and_then(Current::finish) {
                        out(sent);
                    }
                }
                Part::Defect(defect) => defects.push(defect),
                Part::Response(_) | Part::Upgraded => {}
            });
        });
    }
}

impl Current {
    fn new(time: u64) -> Self {
        Self { time, head: None, content: Scanner::new(), digest: Digest::default(), holed: false }
    }

    /// What was sent, if it is an LLM request.
    fn finish(mut self) -> Option<Dispatched> {
        let head = self.head?;
        llm::classify(&head.method, &head.path)?;
        let digest = &mut self.digest;
        self.content.finish(&mut |field| digest.add(&field));
        let content = self.digest.finish().filter(|_| !self.holed);
        Some(Dispatched { time: self.time, keys: Keys::new(&head.fields, content) })
    }
}
