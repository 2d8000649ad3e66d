//! What containers and services write, from bytes of files to rows. Pure: no IO, no clock.
//!
//! bytes → lines ([`Splitter`]) → pieces, by the format of the file ([`Format`]) → entries, put together from pieces
//! that a runtime split and from lines that belong together ([`Assembler`]) → rows, redacted ([`row_of`]).
//!
//! Everything is bounded; what is left out is counted in the row. Bytes that are not UTF-8 become U+FFFD.

mod assemble;
mod entry;
mod format;
mod header;
mod redact;
mod split;
mod trace;

pub use assemble::{APART, Assembler};
pub use entry::{Entry, Origin, row_of};
pub use format::{Format, Piece, starts_with_time};
pub use header::Header;
pub use redact::{RULES, Redacted, Redactor};
pub use split::{Line, Splitter};

/// Longest message that is kept, in bytes; the rest of it is counted.
pub const LONGEST: usize = 256 << 10;
