//! Follows the two directions of a connection and says which mask each byte needs.

use super::{
    allow,
    content::ContentMask,
    head::{FramingMask, HeadMask},
};
use crate::http::{
    Defect, Input, Part, Protocol,
    http1::{ExpectedRequest, RequestDecoder, ResponseDecoder},
    sniff,
};

/// The preface of an HTTP/2 client (RFC 9113 section 3.4), which holds no secret.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a record covers of a direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered {
    pub(super) position: u64,
    pub(super) length: u64,
}

/// One connection; its directions are indexed as in records.
#[derive(Debug, Default)]
pub(super) struct Connection {
    directions: [Direction; 2],
}

#[derive(Debug)]
struct Direction {
    speaks: Speaks,
    /// Position of the next byte, once one was seen.
    next: Option<u64>,
    zone: Zone,
    /// Content is handed out although its framing is unknown.
    lost: bool,
    head: HeadMask,
    framing: FramingMask,
    content: ContentMask,
    marks: Vec<(usize, Mark)>,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            speaks: Speaks::Unknown { first: Vec::new() },
            next: None,
            zone: Zone::Hidden,
            lost: false,
            head: HeadMask::new(true),
            framing: FramingMask::default(),
            content: ContentMask::Opaque,
            marks: Vec::new(),
        }
    }
}

/// What a direction speaks.
#[derive(Debug)]
enum Speaks {
    /// Too little was seen; `first` starts a word that starts a protocol.
    Unknown {
        first: Vec<u8>,
    },
    /// Nothing that is known, so far: a later push may start with a message head.
    Other,
    Requests(RequestDecoder),
    Responses(ResponseDecoder),
    /// Nothing that is looked into.
    Hidden,
}

/// What the bytes outside of content are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Head,
    Framing,
    Hidden,
}

/// A part of a message, as far as it concerns masking.
#[derive(Debug)]
enum Mark {
    Start,
    Request(ContentMask, ExpectedRequest),
    Response(ContentMask),
    Body(usize),
    Gap,
    /// Framing was lost within the message.
    Lost,
    Found,
    /// Framing ends here, with the message or by a defect.
    Outside,
    Upgraded,
}

impl Mark {
    fn of(part: &Part<'_>) -> Option<Self> {
        Some(match part {
            Part::Start => Self::Start,
            Part::Request(head) => Self::Request(ContentMask::of(&head.fields), head.as_ref().into()),
            Part::Response(head) => Self::Response(ContentMask::of(&head.fields)),
            Part::Body(bytes) => Self::Body(bytes.len()),
            Part::BodyGap(_) => Self::Gap,
            Part::Upgraded => Self::Upgraded,
            Part::Defect(Defect::FramingFound) => Self::Found,
            Part::Defect(Defect::FramingLost | Defect::ChunkMalformed) => Self::Lost,
            Part::Defect(Defect::LengthAndChunked | Defect::TooManyPending) => return None,
            Part::End | Part::Defect(_) => Self::Outside,
        })
    }
}

impl Connection {
    /// Masks the payload of a record; what the record covers beyond it is a hole.
    pub(super) fn mask(&mut self, direction: usize, covered: Covered, payload: &mut [u8]) {
        let [received, sent] = &mut self.directions;
        let (this, peer) = if direction == 0 { (received, sent) } else { (sent, received) };
        let next = this.next.unwrap_or(covered.position);
        let end = covered.position.saturating_add(covered.length);
        this.next = Some(end.max(next));
        if covered.position < next {
            // Bytes that were there before. What is new after them is a hole to the decoder.
            allow::hide(payload);
            this.gap(end.saturating_sub(next));
            return;
        }
        this.gap(covered.position - next);
        this.bytes(payload, peer);
        this.gap(covered.length - payload.len() as u64);
    }

    /// A direction ended; whatever comes is not understood.
    pub(super) fn finish(&mut self, direction: usize) {
        if let Some(this) = self.directions.get_mut(direction) {
            this.speaks = Speaks::Hidden;
            this.zone = Zone::Hidden;
        }
    }
}

impl Direction {
    fn gap(&mut self, hole: u64) {
        if hole == 0 {
            return;
        }
        match &mut self.speaks {
            Speaks::Unknown { .. } => self.speaks = Speaks::Other,
            Speaks::Requests(_) | Speaks::Responses(_) => {
                self.decode(Input::Gap(hole));
                // A gap asks nothing of the peer: heads are complete only in bytes.
                self.apply(&mut [], &mut Self::default());
            }
            Speaks::Other | Speaks::Hidden => {}
        }
    }

    fn bytes(&mut self, payload: &mut [u8], peer: &mut Self) {
        match &mut self.speaks {
            Speaks::Unknown { first } => {
                let before = first.len();
                first.extend_from_slice(payload.get(..PREFACE.len()).unwrap_or(payload));
                match sniff(first) {
                    // All of it is the start of a well-known word.
                    Protocol::NeedMore => {}
                    Protocol::Http2Preface => {
                        let shown =
                            first.iter().zip(PREFACE).take_while(|(byte, known)| byte == known).count();
                        let shown = shown.saturating_sub(before).min(payload.len());
                        allow::hide(payload.get_mut(shown..).unwrap_or_default());
                        self.speaks = Speaks::Hidden;
                        peer.speaks = Speaks::Hidden;
                    }
                    Protocol::Tls => {
                        allow::hide(payload);
                        self.speaks = Speaks::Hidden;
                    }
                    Protocol::Other => {
                        allow::hide(payload);
                        self.speaks = Speaks::Other;
                    }
                    protocol @ (Protocol::Http1Request | Protocol::Http1Response) => {
                        let mut shown = first.get(..before).unwrap_or_default().to_vec();
                        self.speak(protocol, peer);
                        self.message(&mut shown, peer);
                        self.message(payload, peer);
                    }
                }
            }
            Speaks::Other => {
                let blank = payload.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                let start = payload.get(blank..).unwrap_or_default();
                let protocol = sniff(start);
                // The end of a request line looks like the start of a status line, but for the space.
                let response = protocol == Protocol::Http1Response && start.get(8) == Some(&b' ');
                if protocol == Protocol::Http1Request || response {
                    self.speak(protocol, peer);
                    self.message(payload, peer);
                } else {
                    allow::hide(payload);
                }
            }
            Speaks::Requests(_) | Speaks::Responses(_) => self.message(payload, peer),
            Speaks::Hidden => allow::hide(payload),
        }
    }

    /// The protocol is known; so is that of the other direction then.
    fn speak(&mut self, protocol: Protocol, peer: &mut Self) {
        let requests = protocol == Protocol::Http1Request;
        self.speaks = if requests {
            Speaks::Requests(RequestDecoder::new())
        } else {
            Speaks::Responses(ResponseDecoder::new())
        };
        match (&peer.speaks, requests) {
            (Speaks::Unknown { first }, true) if first.is_empty() => {
                peer.speaks = Speaks::Responses(ResponseDecoder::new());
            }
            (Speaks::Unknown { .. } | Speaks::Other, true) => {
                peer.speaks = Speaks::Responses(ResponseDecoder::adopt());
            }
            (Speaks::Unknown { .. } | Speaks::Other, false) => {
                peer.speaks = Speaks::Requests(RequestDecoder::adopt());
            }
            (Speaks::Requests(_) | Speaks::Responses(_) | Speaks::Hidden, _) => {}
        }
    }

    fn message(&mut self, payload: &mut [u8], peer: &mut Self) {
        self.decode(Input::Bytes(payload));
        self.apply(payload, peer);
    }

    fn decode(&mut self, input: Input<'_>) {
        let marks = &mut self.marks;
        let mut sink = |at: usize, part: Part<'_>| marks.extend(Mark::of(&part).map(|mark| (at, mark)));
        match &mut self.speaks {
            Speaks::Requests(decoder) => decoder.push_located(input, &mut sink),
            Speaks::Responses(decoder) => decoder.push_located(input, &mut sink),
            Speaks::Unknown { .. } | Speaks::Other | Speaks::Hidden => {}
        }
    }

    /// Masks a push by the marks that its decoding left.
    fn apply(&mut self, payload: &mut [u8], peer: &mut Self) {
        let mut done = 0;
        let mut marks = std::mem::take(&mut self.marks);
        for (at, mark) in marks.drain(..) {
            self.outside(payload.get_mut(done..at).unwrap_or_default());
            done = at;
            match mark {
                Mark::Start => {
                    self.zone = Zone::Head;
                    self.head = HeadMask::new(matches!(self.speaks, Speaks::Requests(_)));
                }
                Mark::Request(content, expected) => {
                    self.body(content);
                    if let Speaks::Responses(decoder) = &mut peer.speaks {
                        decoder.expect(expected);
                    }
                }
                Mark::Response(content) => self.body(content),
                Mark::Body(length) => {
                    let content = payload.get_mut(at..at + length).unwrap_or_default();
                    if self.lost {
                        // Whose content it is, is a guess.
                        allow::hide(content);
                        self.content.gap();
                    } else {
                        self.content.mask(content);
                    }
                    done = at + length;
                }
                Mark::Gap => self.content.gap(),
                Mark::Lost => {
                    self.zone = Zone::Hidden;
                    self.lost = true;
                    self.content.gap();
                }
                Mark::Found => {
                    self.lost = false;
                    self.zone = Zone::Framing;
                    self.framing = FramingMask::default();
                }
                Mark::Outside => self.zone = Zone::Hidden,
                Mark::Upgraded => {
                    self.zone = Zone::Hidden;
                    if let Speaks::Requests(decoder) = &mut peer.speaks {
                        decoder.upgrade();
                        peer.zone = Zone::Hidden;
                    }
                }
            }
        }
        self.outside(payload.get_mut(done..).unwrap_or_default());
        self.marks = marks;
    }

    fn body(&mut self, content: ContentMask) {
        self.lost = false;
        self.zone = Zone::Framing;
        self.framing = FramingMask::default();
        self.content = content;
    }

    /// Masks bytes that are not content.
    fn outside(&mut self, bytes: &mut [u8]) {
        match self.zone {
            Zone::Head => self.head.mask(bytes),
            Zone::Framing => self.framing.mask(bytes),
            Zone::Hidden => allow::hide(bytes),
        }
    }
}
