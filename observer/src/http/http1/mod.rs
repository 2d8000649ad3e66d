//! HTTP/1.x messages (RFC 9112) out of the bytes of one direction of a connection.
//!
//! In: [`Input`], one push per record. Out: [`Part`]s, through a closure. As long as framing holds, cutting
//! the input differently changes only how `Body` is cut. Once a gap has swallowed framing, the start of a
//! push matters: calls tend to start where messages and chunks start, so that is where framing is sought.

mod chunked;
mod framing;
mod parse;
mod resume;
mod stream;

#[cfg(test)]
mod tests;

use super::{Input, Part, RequestHead};
use stream::{Side, Stream};

/// Decodes the direction that carries requests.
#[derive(Debug)]
pub struct RequestDecoder(Stream);

/// Decodes the direction that carries responses.
#[derive(Debug)]
pub struct ResponseDecoder(Stream);

/// What a response decoder must know of the request that is answered (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectedRequest {
    /// HEAD: the response has no content, whatever its fields say.
    Head,
    /// CONNECT: a 2xx response turns the connection into a tunnel.
    Connect,
    /// Any other method.
    #[default]
    Other,
}

impl From<&RequestHead> for ExpectedRequest {
    fn from(head: &RequestHead) -> Self {
        match head.method.as_str() {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

impl RequestDecoder {
    /// For a connection that is seen from its start.
    pub fn new() -> Self {
        Self(Stream::new(Side::Request))
    }

    /// For a connection that is joined midway: skips bytes until a push starts with a request head.
    pub fn adopt() -> Self {
        Self(Stream::adopt(Side::Request))
    }

    /// Bytes of memory that are held until more of a message comes.
    pub fn held(&self) -> usize {
        self.0.held()
    }

    /// Decodes the next input.
    pub fn push(&mut self, input: Input<'_>, sink: &mut dyn FnMut(Part<'_>)) {
        self.0.push(input, &mut |_, part| sink(part));
    }

    /// As [`Self::push`], and says where in the pushed bytes each part stands: a `Start` and a `Body` at
    /// their first byte, everything else after its last.
    pub fn push_located(&mut self, input: Input<'_>, sink: &mut dyn FnMut(usize, Part<'_>)) {
        self.0.push(input, sink);
    }

    /// The stream ended.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Part<'_>)) {
        self.0.finish(&mut |_, part| sink(part));
    }

    /// Whether it is known where messages start and end.
    pub fn is_synchronised(&self) -> bool {
        self.0.is_synchronised()
    }

    /// The connection was upgraded, as its responses told: the rest of this direction is skipped.
    pub fn upgrade(&mut self) {
        self.0.upgrade();
    }

    /// Bytes that belong to no part: not decodable, before the first message joined, or after an upgrade.
    pub fn skipped(&self) -> u64 {
        self.0.skipped()
    }
}

impl Default for RequestDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseDecoder {
    /// For a connection that is seen from its start.
    pub fn new() -> Self {
        Self(Stream::new(Side::Response))
    }

    /// For a connection that is joined midway: skips bytes until a push starts with a response head.
    pub fn adopt() -> Self {
        Self(Stream::adopt(Side::Response))
    }

    /// As [`Self::expect`], of all that are waiting: whatever was expected before is forgotten. If responses
    /// may be `missing`, the next one answers the latest request.
    pub fn expect_only(&mut self, requests: impl Iterator<Item = ExpectedRequest>, missing: bool) {
        self.0.expect_only(requests, missing);
    }

    /// A request was seen, whose response is still to come. Call it once per request, in order.
    pub fn expect(&mut self, request: ExpectedRequest) {
        self.0.expect(request);
    }

    /// Bytes of memory that are held until more of a message comes.
    pub fn held(&self) -> usize {
        self.0.held()
    }

    /// Decodes the next input.
    pub fn push(&mut self, input: Input<'_>, sink: &mut dyn FnMut(Part<'_>)) {
        self.0.push(input, &mut |_, part| sink(part));
    }

    /// As [`Self::push`], and says where in the pushed bytes each part stands: a `Start` and a `Body` at
    /// their first byte, everything else after its last.
    pub fn push_located(&mut self, input: Input<'_>, sink: &mut dyn FnMut(usize, Part<'_>)) {
        self.0.push(input, sink);
    }

    /// The stream ended: that completes a response which is delimited by the close.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Part<'_>)) {
        self.0.finish(&mut |_, part| sink(part));
    }

    /// Bytes that belong to no part: not decodable, before the first message joined, or after an upgrade.
    pub fn skipped(&self) -> u64 {
        self.0.skipped()
    }
}

impl Default for ResponseDecoder {
    fn default() -> Self {
        Self::new()
    }
}
