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
mod row;
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
pub use row::{Received, received};
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
    /// Whether events are sent, and not only lines.
    events: bool,
    transport: Arc<Transport>,
    wall: fn() -> i64,
}

impl Otlp {
    /// One that sends nothing but lines, and counts them by this name.
    ///
    /// # Errors
    /// As [`Otlp::new`].
    pub fn of_lines(
        name: &'static str,
        config: &OtlpConfig,
        wall: fn() -> i64,
    ) -> Result<Option<Self>, OtlpError> {
        let otlp = Self::new(config, wall)?;
        Ok(otlp.map(|otlp| Self { logs: Some(Queue::new(name, config.queue)), ..otlp }))
    }

    /// If the settings name a receiver. `wall`: nanoseconds since 1970.
    ///
    /// # Errors
    /// When the receiver cannot be reached by these settings, whatever it does.
    pub fn new(config: &OtlpConfig, wall: fn() -> i64) -> Result<Option<Self>, OtlpError> {
        let Some(endpoint) = config.endpoint.clone().filter(|_| config.traces || config.has_logs()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            traces: config.traces.then(|| Queue::new(Traces::NAME, config.queue)),
            logs: config.has_logs().then(|| Queue::new(Logs::NAME, config.queue)),
            events: config.logs,
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
        if let Some(logs) = self.logs.as_ref().filter(|_| self.events) {
            match Row::of_request(record, about) {
                Some(row) => self.row(row),
                None => logs.refuse(Cause::NoTime, 1),
            }
        }
    }

    /// Takes an event in, or a line of a log.
    pub fn row(&self, row: Row) {
        let is_wanted = self.events || row.event.is_empty();
        if let Some(logs) = self.logs.as_ref().filter(|_| is_wanted) {
            let (about, record) = row.record();
            put(logs, about, record);
        }
    }

    /// Log records that were taken in so far.
    pub fn taken_logs(&self) -> u64 {
        self.logs.as_ref().map_or(0, Queue::taken)
    }

    /// Whether the first so many log records have been sent, or given up.
    pub fn has_settled(&self, logs: u64) -> bool {
        self.logs.as_ref().is_none_or(|queue| queue.settled() >= logs)
    }

    /// Whether log records wait that take more than half of the room: whoever can come back with more, should.
    pub fn is_behind(&self) -> bool {
        self.logs.as_ref().is_some_and(Queue::is_behind)
    }

    /// So many finished requests came too fast to be taken in.
    pub fn lagged(&self, count: u64) {
        if let Some(traces) = &self.traces {
            traces.refuse(Cause::Lagged, count);
        }
        if let Some(logs) = self.logs.as_ref().filter(|_| self.events) {
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
