//! Ways out for observations: each exporter a folder of its own. Prometheus tells what became of the others.

pub mod otlp;
pub mod prometheus;
