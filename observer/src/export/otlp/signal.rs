//! Spans and log records: what differs between them on the wire.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::queue::Batch;
use super::resource::About;

/// A span or log record, and what it is about.
#[derive(Clone, Debug)]
pub(super) struct Entry<R> {
    pub(super) about: About,
    pub(super) record: R,
}

/// One of the signals of OTLP.
pub(super) trait Signal: Send + Sync + 'static {
    type Record: Message + Clone + Send + Sync + 'static;
    type Request: Message + Clone + Send + Sync + 'static;
    type Response: Message + Default + Send + Sync + 'static;

    /// Its name in metrics.
    const NAME: &'static str;
    /// Over HTTP.
    const PATH: &'static str;
    /// Over gRPC.
    const METHOD: &'static str;

    /// A request of these.
    fn request(batch: &Batch<Entry<Self::Record>>) -> Self::Request;

    /// What of a request the receiver did not take, and why.
    fn rejected(response: &Self::Response) -> (u64, String);
}

pub(super) struct Traces;

pub(super) struct Logs;

impl Signal for Traces {
    type Record = Span;
    type Request = ExportTraceServiceRequest;
    type Response = ExportTraceServiceResponse;

    const NAME: &'static str = "traces";
    const PATH: &'static str = "/v1/traces";
    const METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn request(batch: &Batch<Entry<Span>>) -> ExportTraceServiceRequest {
        let resource_spans = by_resource(batch)
            .into_iter()
            .map(|(about, spans)| ResourceSpans {
                resource: Some(about.resource()),
                scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            })
            .collect();
        ExportTraceServiceRequest { resource_spans }
    }

    fn rejected(response: &ExportTraceServiceResponse) -> (u64, String) {
        let partial = response.partial_success.clone().unwrap_or_default();
        (u64::try_from(partial.rejected_spans).unwrap_or(0), partial.error_message)
    }
}

impl Signal for Logs {
    type Record = LogRecord;
    type Request = ExportLogsServiceRequest;
    type Response = ExportLogsServiceResponse;

    const NAME: &'static str = "logs";
    const PATH: &'static str = "/v1/logs";
    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn request(batch: &Batch<Entry<LogRecord>>) -> ExportLogsServiceRequest {
        let resource_logs = by_resource(batch)
            .into_iter()
            .map(|(about, log_records)| ResourceLogs {
                resource: Some(about.resource()),
                scope_logs: vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            })
            .collect();
        ExportLogsServiceRequest { resource_logs }
    }

    fn rejected(response: &ExportLogsServiceResponse) -> (u64, String) {
        let partial = response.partial_success.clone().unwrap_or_default();
        (u64::try_from(partial.rejected_log_records).unwrap_or(0), partial.error_message)
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "observer".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// In the order in which each first appears.
fn by_resource<R: Clone>(batch: &Batch<Entry<R>>) -> Vec<(&About, Vec<R>)> {
    let mut groups: Vec<(&About, Vec<R>)> = Vec::new();
    let mut places: HashMap<&About, usize> = HashMap::new();
    for (entry, _) in batch {
        let place = *places.entry(&entry.about).or_insert_with(|| {
            groups.push((&entry.about, Vec::new()));
            groups.len() - 1
        });
        if let Some((_, records)) = groups.get_mut(place) {
            records.push(entry.record.clone());
        }
    }
    groups
}
