//! Files of logs: which there are, what is written to them, and what was.
//!
//! In: which containers and services are wanted ([`Wanted`]), and their files. Out: rows, in the order of the files, with the
//! places up to which files were read ([`Tail`]); or rows that a question is about, looked for in the files as they are
//! ([`search()`]).
//!
//! A file is known by its device and number, and by the digest of its first line, so that it is the same when it is
//! renamed, compressed, or found again after a restart. Files are polled: what a container writes is seen within a
//! fraction of a second, and no event of a file system is trusted to come.

mod file;
mod folder;
mod journal;
mod log;
mod place;
mod search;
mod source;
mod tail;

pub use journal::Units;
pub use place::{Place, Places};
pub use search::{Searched, search};
pub use source::{Source, Wanted, in_folder};
pub use tail::{Counts, Tail};
