//! Content codings (RFC 9110 section 8.4): gzip (RFC 1952), deflate (RFC 1950), br (RFC 7932), zstd (RFC 8878).
//!
//! In: coded bytes in any pieces. Out: the content, as soon as it can be told, through a closure. What is
//! decoded is bounded, per push and in all, since a few bytes can stand for any number. After a hole nothing
//! can be decoded any more.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation as _};

use super::Defect;

/// Content of one push: a record holds far less than that compressed to a tenth.
const PUSH: usize = 8 << 20;

/// Content of one message.
const MESSAGE: u64 = 1 << 30;

/// Room for what is decoded at once.
const ROOM: usize = 16 << 10;

/// Largest window of a zstd stream, as a power of two: that of HTTP (RFC 9659).
const WINDOW_LOG: u32 = 23;

/// Memory of an inflater: its window, its tables and its buffer.
const INFLATER: usize = 128 << 10;

/// Decodes one message's content.
pub struct ContentDecoder {
    coding: Coding,
    room: Vec<u8>,
    decoded: u64,
}

enum Coding {
    Gzip(Box<MultiGzDecoder<Bounded>>),
    /// Before the first byte: with a zlib header, as the standard has it, or without.
    Deflate,
    Zlib(Box<ZlibDecoder<Bounded>>),
    Raw(Box<DeflateDecoder<Bounded>>),
    Brotli(Box<Brotli>),
    Zstd(Box<ZstdDecoder<'static>>),
    /// Nothing that follows can be decoded.
    Over,
}

struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    /// Size of its window, which its first byte tells.
    window: usize,
    total: usize,
}

impl ContentDecoder {
    /// For a coding by its name; `None` if it is not known.
    pub fn new(coding: &[u8]) -> Option<Self> {
        let coding = match coding.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Coding::Gzip(Box::new(MultiGzDecoder::new(Bounded::default()))),
            b"deflate" => Coding::Deflate,
            b"br" => Coding::Brotli(Box::new(Brotli {
                state: BrotliState::new(
                    StandardAlloc::default(),
                    StandardAlloc::default(),
                    StandardAlloc::default(),
                ),
                window: 0,
                total: 0,
            })),
            b"zstd" => {
                let mut decoder = ZstdDecoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).ok()?;
                Coding::Zstd(Box::new(decoder))
            }
            _ => return None,
        };
        Some(Self { coding, room: vec![0; ROOM], decoded: 0 })
    }

    /// Bytes of memory that are held.
    pub fn held(&self) -> usize {
        let decoder = match &self.coding {
            Coding::Gzip(_) | Coding::Zlib(_) | Coding::Raw(_) => INFLATER,
            Coding::Brotli(brotli) => brotli.window,
            Coding::Zstd(_) => 1 << WINDOW_LOG,
            Coding::Deflate | Coding::Over => 0,
        };
        self.room.capacity() + decoder
    }

    /// Whether nothing that follows can be decoded.
    pub const fn is_over(&self) -> bool {
        matches!(self.coding, Coding::Over)
    }

    /// Decodes the next bytes. A defect ends decoding: it is told once, and what follows is passed over.
    pub fn push(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> Option<Defect> {
        if let (Coding::Deflate, Some(first)) = (&self.coding, bytes.first()) {
            // The low digit of a zlib header is its method, deflate; a block that starts like that is none.
            self.coding = if first & 0x0f == 8 {
                Coding::Zlib(Box::new(ZlibDecoder::new(Bounded::default())))
            } else {
                Coding::Raw(Box::new(DeflateDecoder::new(Bounded::default())))
            };
        }
        let before = self.decoded;
        let defect = self.decode(bytes, &mut |decoded, content| {
            *decoded += content.len() as u64;
            sink(content);
            *decoded - before <= PUSH as u64 && *decoded <= MESSAGE
        });
        if defect.is_some() {
            self.coding = Coding::Over;
            self.room = Vec::new();
        }
        defect
    }

    /// Bytes are missing: nothing that follows can be decoded.
    pub fn gap(&mut self) {
        self.coding = Coding::Over;
        self.room = Vec::new();
    }

    /// `take` is false once enough was decoded.
    fn decode(&mut self, bytes: &[u8], take: Take<'_>) -> Option<Defect> {
        let Self { coding, room, decoded } = self;
        let mut sink = |content: &[u8]| content.is_empty() || take(decoded, content);
        match coding {
            Coding::Gzip(inflater) => inflate(inflater.as_mut(), MultiGzDecoder::get_mut, bytes, &mut sink),
            Coding::Zlib(inflater) => inflate(inflater.as_mut(), ZlibDecoder::get_mut, bytes, &mut sink),
            Coding::Raw(inflater) => inflate(inflater.as_mut(), DeflateDecoder::get_mut, bytes, &mut sink),
            Coding::Brotli(brotli) => brotli.decode(bytes, room, &mut sink),
            Coding::Zstd(decoder) => unzstd(decoder, bytes, room, &mut sink),
            Coding::Deflate | Coding::Over => None,
        }
    }
}

type Take<'t> = &'t mut dyn FnMut(&mut u64, &[u8]) -> bool;
type Sink<'s> = &'s mut dyn FnMut(&[u8]) -> bool;

/// Takes what an inflater writes, up to a bound.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An inflater writes at most its buffer before it returns, so what it wrote is taken after each step.
fn inflate<I: std::io::Write>(
    inflater: &mut I,
    output: fn(&mut I) -> &mut Bounded,
    mut bytes: &[u8],
    sink: Sink<'_>,
) -> Option<Defect> {
    while !bytes.is_empty() {
        let used = match inflater.write(bytes) {
            // After the end of the coded content: padding, or something that is not content.
            Ok(0) => break,
            Ok(used) => used,
            Err(_) => return Some(Defect::CodingMalformed),
        };
        bytes = bytes.get(used..).unwrap_or_default();
        if !drain(output(inflater), sink) {
            return Some(Defect::ContentTooLarge);
        }
    }
    // What was read may be held back until the next call.
    if inflater.flush().is_err() {
        return Some(Defect::CodingMalformed);
    }
    (!drain(output(inflater), sink)).then_some(Defect::ContentTooLarge)
}

fn drain(output: &mut Bounded, sink: Sink<'_>) -> bool {
    let goes_on = sink(&output.0);
    output.0.clear();
    goes_on
}

impl Brotli {
    fn decode(&mut self, bytes: &[u8], room: &mut [u8], sink: Sink<'_>) -> Option<Defect> {
        if let (0, Some(first)) = (self.window, bytes.first()) {
            self.window = 1 << window_bits(*first);
        }
        let (mut available, mut at) = (bytes.len(), 0);
        loop {
            let (mut free, mut written) = (room.len(), 0);
            let result = BrotliDecompressStream(
                &mut available,
                &mut at,
                bytes,
                &mut free,
                &mut written,
                room,
                &mut self.total,
                &mut self.state,
            );
            if !sink(room.get(..written).unwrap_or_default()) {
                return Some(Defect::ContentTooLarge);
            }
            match result {
                BrotliResult::NeedsMoreOutput => {}
                // Room that was filled may not have been enough.
                BrotliResult::NeedsMoreInput if free == 0 => {}
                BrotliResult::NeedsMoreInput | BrotliResult::ResultSuccess => return None,
                BrotliResult::ResultFailure => return Some(Defect::CodingMalformed),
            }
        }
    }
}

/// WBITS of a stream's first byte (RFC 7932 section 9.1); the largest if it is reserved.
fn window_bits(first: u8) -> u32 {
    match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, ..) => 16,
        (_, n @ 1.., _) => 17 + u32::from(n),
        (_, 0, 0) => 17,
        (_, 0, n) => (8 + u32::from(n)).min(24),
    }
}

fn unzstd(
    decoder: &mut ZstdDecoder<'static>,
    bytes: &[u8],
    room: &mut [u8],
    sink: Sink<'_>,
) -> Option<Defect> {
    let mut rest = bytes;
    loop {
        let Ok(status) = decoder.run_on_buffers(rest, room) else {
            return Some(Defect::CodingMalformed);
        };
        if !sink(room.get(..status.bytes_written).unwrap_or_default()) {
            return Some(Defect::ContentTooLarge);
        }
        rest = rest.get(status.bytes_read..).unwrap_or_default();
        // Room that was filled may not have been enough.
        let is_full = status.bytes_written == room.len();
        if !is_full && (rest.is_empty() || status.bytes_read == 0) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
