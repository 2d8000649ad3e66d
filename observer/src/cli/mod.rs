//! What the command shows on a terminal.

pub mod requests;
pub mod table;
