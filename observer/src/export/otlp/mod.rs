//! OpenTelemetry: finished requests as spans, events as log records, sent to a receiver that the operator names.
//!
//! In: records and rows, from any thread, which never waits. Out: OTLP over gRPC or HTTP. What waits is in memory,
//! bounded, and what does not fit is counted ([`Told`]).

mod attribute;
mod failure;
mod log;
mod queue;
mod reply;
mod resource;
mod sender;
mod signal;
mod span;
mod transport;

use std::sync::Arc;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;

pub use attribute::Attributes;
pub use log::{Row, Severity};
pub use queue::{Cause, Told};
pub use resource::{About, PodKnown};
pub use transport::OtlpError;

use crate::config::OtlpConfig;
use crate::exchange::RequestRecord;

use queue::Queue;
use signal::{Entry, Logs, Signal as _, Traces};
use transport::Transport;

/// Bytes that an item takes beside its message on the wire: structures are larger than what they become.
const OVERHEAD: usize = 1024;

/// Where spans and log records are handed in. Cheap to clone.
#[derive(Clone)]
pub struct Otlp {
    traces: Option<Queue<Entry<Span>>>,
    logs: Option<Queue<Entry<LogRecord>>>,
    transport: Arc<Transport>,
    wall: fn() -> i64,
}

impl Otlp {
    /// If the settings name a receiver. `wall`: nanoseconds since 1970.
    ///
    /// # Errors
    /// When the receiver cannot be reached by these settings, whatever it does.
    pub fn new(config: &OtlpConfig, wall: fn() -> i64) -> Result<Option<Self>, OtlpError> {
        let Some(endpoint) = config.endpoint.clone().filter(|_| config.traces || config.logs) else {
            return Ok(None);
        };
        Ok(Some(Self {
            traces: config.traces.then(|| Queue::new(Traces::NAME, config.queue)),
            logs: config.logs.then(|| Queue::new(Logs::NAME, config.queue)),
            transport: Arc::new(Transport::new(config, endpoint, wall)?),
            wall,
        }))
    }

    /// Takes a finished request in.
    pub fn request(&self, record: &RequestRecord, pod: Option<PodKnown>) {
        let about = About::of(record, pod);
        if let Some(traces) = &self.traces {
            match span::span(record) {
                Some(span) => put(traces, about.clone(), span),
                None => traces.refuse(Cause::NoTime, 1),
            }
        }
        if let Some(logs) = &self.logs {
            match Row::of_request(record, about) {
                Some(row) => self.row(row),
                None => logs.refuse(Cause::NoTime, 1),
            }
        }
    }

    /// Takes an event or a line of a log in.
    pub fn row(&self, row: Row) {
        if let Some(logs) = &self.logs {
            let (about, record) = row.record();
            put(logs, about, record);
        }
    }

    /// So many finished requests came too fast to be taken in.
    pub fn lagged(&self, count: u64) {
        if let Some(traces) = &self.traces {
            traces.refuse(Cause::Lagged, count);
        }
        if let Some(logs) = &self.logs {
            logs.refuse(Cause::Lagged, count);
        }
    }

    /// Sends, until [`Otlp::close`] and what then waits has been sent once.
    pub async fn run(&self) {
        let traces = async {
            if let Some(queue) = &self.traces {
                sender::run::<Traces>(queue.clone(), &self.transport, self.wall).await;
            }
        };
        let logs = async {
            if let Some(queue) = &self.logs {
                sender::run::<Logs>(queue.clone(), &self.transport, self.wall).await;
            }
        };
        tokio::join!(traces, logs);
    }

    /// Nothing more is taken in.
    pub fn close(&self) {
        if let Some(queue) = &self.traces {
            queue.close();
        }
        if let Some(queue) = &self.logs {
            queue.close();
        }
    }

    /// What became of everything.
    pub fn told(&self) -> Vec<Told> {
        let traces = self.traces.as_ref().map(Queue::told);
        traces.into_iter().chain(self.logs.as_ref().map(Queue::told)).collect()
    }
}

fn put<R: prost::Message>(queue: &Queue<Entry<R>>, about: About, record: R) {
    let size = record.encoded_len() * 2 + OVERHEAD;
    queue.put(Entry { about, record }, size);
}
