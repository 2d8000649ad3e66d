//! One file per subject of the ABI.

pub mod call;
pub mod counter;
pub mod layout;
pub mod limits;
pub mod parse;
pub mod verdict;
pub mod watch;
