//! HTTP as seen on the wire: which protocol a connection speaks, and its messages.
//!
//! In: the bytes of one direction of a connection, in order, with explicit gaps. Out: [`Part`]s of messages.
//! Nothing in here fails: what cannot be decoded becomes a [`Defect`] and decoding goes on. Nothing in here
//! knows time: the caller pushes the bytes of one record and knows when they moved.

mod head;
pub mod http1;
mod sniff;

pub use head::{Fields, RequestHead, ResponseHead};
use sniff::STATUS_LINE;
pub use sniff::{Protocol, sniff};

/// What is pushed into a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The next bytes of the stream.
    Bytes(&'a [u8]),
    /// That many next bytes of the stream were not captured.
    Gap(u64),
}

/// A part of the message that a direction carries.
///
/// A message is `Start`, its head, any number of `Body` and `BodyGap`, then `End` or `Upgraded`. A `Start`
/// that follows no `End` means that the end of the message before it was lost; a [`Defect`] has said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The first byte of a message head is in this push. Comes once per message, before anything else of it.
    Start,
    /// The head of a request is complete.
    Request(Box<RequestHead>),
    /// The head of a response is complete. After an interim one (1xx except 101) `End` follows at once and
    /// the final response is still to come.
    Response(Box<ResponseHead>),
    /// Content without its transfer coding, never empty, borrowed from the bytes pushed.
    Body(&'a [u8]),
    /// Content that was not captured. Where chunk sizes are unknown too, framing is counted with it.
    BodyGap(u64),
    /// The message is complete: its last byte, last-chunk and trailers included, is in this push.
    End,
    /// The rest of this direction is not HTTP/1 (101, or 2xx to CONNECT).
    Upgraded,
    /// Something was wrong with the stream.
    Defect(Defect),
}

/// What was wrong with a stream of HTTP messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Defect {
    /// The bytes where a message must start are not a message head.
    HeadMalformed,
    /// A head did not end within the limit.
    HeadTooLarge,
    /// A head has more fields than are read.
    TooManyFields,
    /// Bytes of a head were not captured.
    HeadHole,
    /// Both Transfer-Encoding and Content-Length were given; the former wins.
    LengthAndChunked,
    /// Content-Length is not a number, or its values differ.
    LengthInvalid,
    /// The last transfer coding is not `chunked`.
    TransferCodingUnknown,
    /// A chunk does not follow the chunked coding.
    ChunkMalformed,
    /// A gap swallowed framing, so the ends of messages are unknown until a later push starts with one.
    FramingLost,
    /// Framing was found again within the same message.
    FramingFound,
    /// The stream ended inside a message.
    Truncated,
    /// More requests are waiting for a response than are remembered.
    TooManyPending,
}

impl Defect {
    /// The word for it in records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeadMalformed => "head_malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::HeadHole => "head_hole",
            Self::LengthAndChunked => "length_and_chunked",
            Self::LengthInvalid => "length_invalid",
            Self::TransferCodingUnknown => "transfer_coding_unknown",
            Self::ChunkMalformed => "chunk_malformed",
            Self::FramingLost => "framing_lost",
            Self::FramingFound => "framing_found",
            Self::Truncated => "truncated",
            Self::TooManyPending => "too_many_pending",
        }
    }
}
