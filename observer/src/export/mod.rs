//! Ways out for observations: each exporter a file or folder of its own, none knows the others.

pub mod prometheus;
