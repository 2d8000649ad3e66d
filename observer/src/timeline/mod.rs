//! What happened, as rows with one order: requests, lines of logs, events. Pure: no IO, no clock.
//!
//! In: what ended, was written or occurred. Out: [`Row`], which says when, where and what; words and expressions by which
//! rows are found ([`Wanted`]). A row of a request has its record, which bears no text of prompts and completions; a row
//! of a log has what was written, after redaction.

mod kind;
mod row;
mod wanted;

pub use kind::{Kind, Level, Stream};
pub use row::{Row, nanos, time_text};
pub use wanted::{Expression, Wanted, is_word_character, words};
