//! An entry of a log becomes a row.

use super::header::{Header, request_id, trace_id};
use super::redact::Redactor;
use crate::timeline::{Kind, Row, Stream};

/// What was written: a line, or lines that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Names the file in which it begins: the same however the file is called.
    pub file: u64,
    /// Where it begins there.
    pub at: u64,
    /// When it was written, nanoseconds since 1970; else when it was read.
    pub time: i64,
    /// Where to.
    pub stream: Stream,
    /// Its bytes.
    pub text: Vec<u8>,
    /// Bytes at its end that were left out.
    pub left_out: u64,
    /// Lines that it holds.
    pub lines: u32,
    /// The head of the first.
    pub head: Header,
}

/// Who wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Node.
    pub node: String,
    /// Namespace; empty outside Kubernetes.
    pub namespace: String,
    /// Pod; empty outside Kubernetes.
    pub pod: String,
    /// Container, or what stands for it.
    pub container: String,
    /// What manages the pod.
    pub workload: String,
    /// How often the container had been started again.
    pub restart: Option<u32>,
}

/// The row of an entry, redacted.
pub fn row_of(origin: &Origin, entry: &Entry, redactor: &Redactor) -> Row {
    let text = String::from_utf8_lossy(&entry.text);
    let redacted = redactor.redact(&text);
    let message = redacted.text.into_owned();
    Row {
        time: entry.time,
        node: origin.node.clone(),
        // Ids of one file sort as its lines do.
        id: format!("{:016x}-{:010x}", entry.file, entry.at),
        kind: Kind::Log,
        namespace: origin.namespace.clone(),
        pod: origin.pod.clone(),
        container: origin.container.clone(),
        workload: origin.workload.clone(),
        restart: origin.restart,
        stream: Some(entry.stream),
        level: entry.head.level,
        request_id: request_id(&message),
        trace_id: trace_id(&message),
        message,
        redacted: redacted.places,
        left_out: u32::try_from(entry.left_out).unwrap_or(u32::MAX),
        ..Row::default()
    }
}
