//! Requests, events, and lines of logs, as log records.

use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::attribute::{Attributes, text};
use super::resource::About;
use super::span::{self, Ids, Times};
use crate::exchange::{Outcome, RequestRecord};
use crate::kube::cluster::events::Occurrence;
use crate::timeline::Level;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    /// Not told.
    #[default]
    Unknown,
    /// Of interest to whoever looks for a mistake, in the finest detail.
    Trace,
    /// Of interest to whoever looks for a mistake.
    Debug,
    /// In the ordinary course.
    Info,
    /// May become bad.
    Warn,
    /// Bad.
    Error,
    /// The end of something.
    Fatal,
}

impl Severity {
    /// That of a level.
    pub(super) const fn of(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
            Level::Fatal => Self::Fatal,
        }
    }

    pub(super) const fn number(self) -> SeverityNumber {
        match self {
            Self::Unknown => SeverityNumber::Unspecified,
            Self::Trace => SeverityNumber::Trace,
            Self::Debug => SeverityNumber::Debug,
            Self::Info => SeverityNumber::Info,
            Self::Warn => SeverityNumber::Warn,
            Self::Error => SeverityNumber::Error,
            Self::Fatal => SeverityNumber::Fatal,
        }
    }
}

/// One event, or one line of a log.
#[derive(Debug, Default)]
pub struct Row {
    /// When it occurred, in nanoseconds since 1970; not always told.
    pub time: Option<u64>,
    /// When this observer learnt of it, on the same clock.
    pub observed: u64,
    /// How bad it is.
    pub severity: Severity,
    /// How bad it is in the words of who wrote it.
    pub level: String,
    /// What kind of event it is; empty for a line of a log.
    pub event: String,
    /// Text for people.
    pub body: String,
    /// What else is known.
    pub attributes: Attributes,
    /// What it is about.
    pub about: About,
    /// The trace and the span that it belongs to; empty: none.
    pub trace: (Vec<u8>, Vec<u8>),
}

impl Row {
    /// A request that ended; none if its times are not known.
    pub fn of_request(record: &RequestRecord, about: About) -> Option<Self> {
        let (times, ids) = (Times::of(record)?, Ids::of(record));
        let outcome = record.outcome.unwrap_or(Outcome::Unknown);
        let severity = if outcome.is_failure() { Severity::Error } else { Severity::Info };
        let status = record.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let body = format!("{} {status} {}", record.path, outcome.as_str());
        Some(Self {
            time: Some(times.end),
            observed: times.end,
            severity,
            event: "llm.request.end".to_owned(),
            body,
            attributes: span::attributes(record),
            about,
            trace: (ids.trace, ids.span),
            ..Self::default()
        })
    }

    /// An event of Kubernetes that was learnt of at this time.
    pub fn of_kubernetes(event: &Occurrence<'_>, observed: u64) -> Self {
        let mut attributes = Attributes::default();
        attributes.text("k8s.event.reason", event.reason);
        attributes.text("k8s.event.name", event.uid);
        attributes.count("k8s.event.count", Some(event.count));
        attributes.text("llm.event.category", event.category.as_str());
        attributes.text("k8s.object.kind", event.kind);
        attributes.text("k8s.object.name", event.name);
        attributes.text("k8s.object.uid", event.uid);
        let is_warning = event.severity == "Warning";
        Self {
            time: event.time.as_deref().and_then(span::moment),
            observed,
            severity: if is_warning { Severity::Warn } else { Severity::Info },
            level: event.severity.to_owned(),
            event: "k8s.event".to_owned(),
            body: event.message.to_owned(),
            attributes,
            about: About {
                node: event.node.unwrap_or_default().to_owned(),
                namespace: event.namespace.to_owned(),
                pod: event.pod.unwrap_or_default().to_owned(),
                pod_uid: event.pod.map_or("", |_| event.uid).to_owned(),
                container: event.container.unwrap_or_default().to_owned(),
                ..About::default()
            },
            ..Self::default()
        }
    }

    pub(super) fn record(self) -> (About, LogRecord) {
        let (trace_id, span_id) = self.trace;
        let record = LogRecord {
            time_unix_nano: self.time.unwrap_or(0),
            observed_time_unix_nano: self.observed,
            severity_number: self.severity.number().into(),
            severity_text: self.level,
            body: Some(text(self.body)),
            attributes: self.attributes.0,
            trace_id,
            span_id,
            event_name: self.event,
            ..LogRecord::default()
        };
        (self.about, record)
    }
}
