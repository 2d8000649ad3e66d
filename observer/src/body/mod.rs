//! What is inside message content, by coding and framing only: event streams, lines of JSON, JSON.
//!
//! In: content bytes of one message in order, with explicit gaps. Out: items, through a closure. Nothing in
//! here fails and nothing knows what the items mean; that is for the dialects.

pub mod array;
pub mod coding;
mod holed;
pub mod json;
pub mod ndjson;
pub mod sse;

/// What was wrong with content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Defect {
    /// Bytes of the content were not captured: an unknown number of items is missing, and the item that
    /// comes next is damaged or left out.
    Hole,
    /// An item was larger than the limit; only its start and its end were kept.
    TooLarge,
    /// Coded content does not follow its coding; what follows is not decoded.
    CodingMalformed,
    /// Content is coded in a way that is not known, or in several; it is not decoded.
    CodingUnknown,
    /// Coded content stands for more than is decoded of it; what follows is not decoded.
    ContentTooLarge,
}

impl Defect {
    /// The word for it in records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hole => "body_hole",
            Self::TooLarge => "body_item_too_large",
            Self::CodingMalformed => "content_coding_malformed",
            Self::CodingUnknown => "content_coding_unknown",
            Self::ContentTooLarge => "content_too_large",
        }
    }
}

/// The content of one item, as far as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The offset in `bytes` at which some are missing: `None` if the item is intact. Behind it stands what
    /// was kept of the end, which may be the end of a later item.
    pub hole: Option<usize>,
}

impl<'a> Piece<'a> {
    /// An item that is all there.
    pub const fn intact(bytes: &'a [u8]) -> Self {
        Self { bytes, hole: None }
    }

    /// True if bytes are missing.
    pub const fn is_damaged(&self) -> bool {
        self.hole.is_some()
    }

    /// What stands before the hole, and what stands after it.
    pub fn halves(&self) -> (&'a [u8], &'a [u8]) {
        self.bytes.split_at_checked(self.hole.unwrap_or(self.bytes.len())).unwrap_or((self.bytes, &[]))
    }
}
