//! What the commands show on a terminal.

mod columns;
pub mod diff;
pub mod doctor;
pub mod explain;
mod failure;
mod reach;
pub mod requests;
pub mod rows;
mod shown;
pub mod table;
pub mod top;

use std::io::Write;

pub use failure::Failure;

use crate::recent::Partial;

/// Whether output is coloured: on a terminal, unless its user does not want it (<https://no-color.org>).
pub fn colours(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Most nodes that are named one by one.
const NAMED: usize = 10;

/// Writes what an answer lacks.
fn lacks(remarks: &mut impl Write, partial: &[Partial]) -> Result<(), Failure> {
    for partial in partial.iter().take(NAMED) {
        remark(remarks, &format!("partial: {partial}"))?;
    }
    match partial.len().saturating_sub(NAMED) {
        0 => Ok(()),
        more => remark(remarks, &format!("partial: and {more} more, which --json names")),
    }
}

/// Writes a remark, harmless to a terminal.
fn remark(remarks: &mut impl Write, text: &str) -> Result<(), Failure> {
    let text = text.replace(char::is_control, "\u{fffd}");
    writeln!(remarks, "{text}").map_err(Failure::Output)
}
