//! Recordings: the records that the kernel side sent, in a file, with content masked.
//!
//! [`mod@file`] writes and reads them and is the only part that does IO. [`mask`] changes records before they
//! are written; it follows the protocols with the decoders of `http`, so it stands after them on the road.

pub mod file;
pub mod mask;

#[cfg(test)]
mod fixture;
