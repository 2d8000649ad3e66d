//! Rows of the timeline as log records, and lines of logs back from them.
//!
//! Names are those of the conventions where they have one (OpenTelemetry: general logs attributes, resource conventions for
//! k8s, host, process, hardware); what they have no name for is under `llm.`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::{DecodeError, Message as _};

use super::attribute::Attributes;
use super::log::{Row, Severity};
use super::resource::{About, PodKnown, WORKLOADS};
use super::span::hex;
use crate::timeline::{self, Kind, Level, Stream};

const STREAM: &str = "log.iostream";
/// Node and id of a row: the same however often it is sent.
const UID: &str = "log.record.uid";
const RESTART: &str = "k8s.container.restart_count";
const REQUEST: &str = "llm.request.id";
const REDACTED: &str = "llm.log.redacted";
const LEFT_OUT: &str = "llm.log.left_out";

impl Row {
    /// An event or a line that this observer learnt of at this time.
    pub fn of_timeline(row: &timeline::Row, pod: Option<PodKnown>, observed: u64) -> Self {
        let mut attributes = Attributes::default();
        attributes.text(UID, &format!("{}/{}", row.node, row.id));
        attributes.text(STREAM, row.stream.map_or("", Stream::as_str));
        attributes.count(RESTART, row.restart.map(u64::from));
        attributes.known(REQUEST, row.request_id.as_ref());
        attributes.count(REDACTED, (row.redacted > 0).then_some(row.redacted.into()));
        attributes.count(LEFT_OUT, (row.left_out > 0).then_some(row.left_out.into()));
        attributes.seconds("llm.process.age", row.age);
        attributes.known("hw.id", row.gpu.as_ref());
        attributes.text("hw.type", if row.gpu.is_some() { "gpu" } else { "" });
        if row.kind == Kind::Kubernetes {
            attributes.text("k8s.event.reason", &row.reason);
        }
        let (pod_uid, workload) = pod.unwrap_or_default();
        let trace = row.trace_id.as_deref().and_then(hex).filter(|trace| trace.len() == 16);
        Self {
            time: u64::try_from(row.time).ok(),
            observed,
            severity: row.level.map_or(Severity::Unknown, Severity::of),
            level: row.level.map_or("", Level::as_str).to_owned(),
            event: match row.kind {
                Kind::Log => String::new(),
                Kind::Kubernetes => "k8s.event".to_owned(),
                kind => format!("llm.{}.{}", kind.as_str(), row.reason),
            },
            body: row.message.clone(),
            attributes,
            about: About {
                node: row.node.clone(),
                namespace: row.namespace.clone(),
                pod: row.pod.clone(),
                pod_uid,
                container: row.container.clone(),
                pid: row.pid.unwrap_or(0),
                process: String::new(),
                workload: workload.unwrap_or_default(),
            },
            trace: (trace.unwrap_or_default(), Vec::new()),
        }
    }
}

/// What came in a request of `/v1/logs`.
#[derive(Debug, Default, PartialEq)]
pub struct Received {
    /// Lines of logs. A row without an id has none by which it would be known again.
    pub lines: Vec<timeline::Row>,
    /// Records that are no lines: events.
    pub events: u64,
}

/// Lines of a message of the logs service.
///
/// # Errors
/// When it is no such message.
pub fn received(message: &[u8]) -> Result<Received, DecodeError> {
    let mut all = Received::default();
    for resource in ExportLogsServiceRequest::decode(message)?.resource_logs {
        let whose = whose(&resource.resource.unwrap_or_default().attributes);
        for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            if record.event_name.is_empty() {
                all.lines.push(line(&whose, &record));
            } else {
                all.events += 1;
            }
        }
    }
    Ok(all)
}

/// A row that says no more than whose it is.
fn whose(attributes: &[KeyValue]) -> timeline::Row {
    let text = |names: &[&str]| {
        let found = names.iter().find_map(|name| find(attributes, name)).map(said);
        found.unwrap_or_default()
    };
    let namespace = text(&["k8s.namespace.name"]);
    let in_kubernetes = !namespace.is_empty();
    timeline::Row {
        kind: Kind::Log,
        node: text(&["k8s.node.name", "host.name"]),
        pod: text(&["k8s.pod.name"]),
        container: text(if in_kubernetes { &["k8s.container.name"] } else { &["service.name"] }),
        workload: text(&WORKLOADS.map(|(_, name)| name)),
        pid: find(attributes, "process.pid").and_then(number),
        namespace,
        ..timeline::Row::default()
    }
}

fn line(whose: &timeline::Row, record: &LogRecord) -> timeline::Row {
    let found = |name| find(&record.attributes, name);
    let time = [record.time_unix_nano, record.observed_time_unix_nano].into_iter().find(|time| *time > 0);
    let uid = found(UID).map(said).unwrap_or_default();
    timeline::Row {
        time: time.and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
        id: uid.strip_prefix(&format!("{}/", whose.node)).unwrap_or(&uid).to_owned(),
        stream: found(STREAM).map(said).and_then(|word| Stream::of(&word)),
        level: level(record.severity_number).or_else(|| Level::of(&record.severity_text)),
        restart: found(RESTART).and_then(number),
        request_id: found(REQUEST).map(said),
        trace_id: (<[u8; 16]>::try_from(record.trace_id.as_slice()).ok())
            .map(|bytes| format!("{:032x}", u128::from_be_bytes(bytes))),
        redacted: found(REDACTED).and_then(number).unwrap_or(0),
        left_out: found(LEFT_OUT).and_then(number).unwrap_or(0),
        message: record.body.as_ref().map(said).unwrap_or_default(),
        ..whose.clone()
    }
}

fn find<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|pair| pair.key == name)?.value.as_ref()
}

fn number(value: &AnyValue) -> Option<u32> {
    match value.value {
        Some(Value::IntValue(number)) => u32::try_from(number).ok(),
        _ => None,
    }
}

/// As text: what has parts, as JSON.
fn said(value: &AnyValue) -> String {
    match json(value) {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn json(value: &AnyValue) -> serde_json::Value {
    match &value.value {
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BytesValue(bytes)) => String::from_utf8_lossy(bytes).into(),
        Some(Value::BoolValue(flag)) => (*flag).into(),
        Some(Value::IntValue(number)) => (*number).into(),
        Some(Value::DoubleValue(number)) => (*number).into(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(json).collect(),
        Some(Value::KvlistValue(list)) => {
            let pair = |pair: &KeyValue| {
                (pair.key.clone(), pair.value.as_ref().map_or(serde_json::Value::Null, json))
            };
            serde_json::Value::Object(list.values.iter().map(pair).collect())
        }
        // An index into a table that only profiles have.
        _ => serde_json::Value::Null,
    }
}

/// OpenTelemetry: logs data model, `SeverityNumber`, four numbers for each.
fn level(number: i32) -> Option<Level> {
    let place = usize::try_from(number.checked_sub(1)?).ok()? / 4;
    Level::ALL.get(place).copied()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::KeyValueList;
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};

    use super::super::signal::{Entry, Logs, Signal as _};
    use super::*;
    use crate::pods::Workload;

    fn sent(rows: &[timeline::Row]) -> Vec<u8> {
        let workload =
            |row: &timeline::Row| Workload { kind: "Deployment".into(), name: row.workload.clone() };
        let batch = rows.iter().map(|row| {
            let pod = (!row.pod.is_empty()).then(|| ("uid".to_owned(), Some(workload(row))));
            let (about, record) = Row::of_timeline(row, pod, 9).record();
            (Entry { about, record }, 1)
        });
        Logs::request(&batch.collect()).encode_to_vec()
    }

    #[test]
    fn lines_come_back_as_they_were_sent() {
        let in_pod = timeline::Row {
            time: 1_764_000_000_123_456_789,
            node: "a/b".into(),
            id: "f00-1".into(),
            namespace: "ml".into(),
            pod: "llama-0".into(),
            container: "server".into(),
            workload: "llama".into(),
            restart: Some(2),
            stream: Some(Stream::Stderr),
            level: Some(Level::Trace),
            message: "said\n  something".into(),
            request_id: Some("chatcmpl-1".into()),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
            redacted: 3,
            left_out: 4,
            ..timeline::Row::default()
        };
        let outside = timeline::Row {
            time: 5,
            node: "n".into(),
            id: "x".into(),
            container: "vllm.service".into(),
            level: Some(Level::Fatal),
            message: "gone".into(),
            ..timeline::Row::default()
        };
        let event = timeline::Row { kind: Kind::Process, reason: "exit".into(), ..outside.clone() };
        let came = received(&sent(&[in_pod.clone(), event, outside.clone()])).unwrap();
        assert_eq!(came, Received { lines: vec![in_pod, outside], events: 1 });
    }

    #[test]
    fn levels_have_four_numbers_each() {
        for place in Level::ALL {
            assert_eq!(level(Severity::of(place).number().into()), Some(place));
        }
        assert_eq!([level(0), level(-3), level(25), level(i32::MIN)], [None; 4]);
        assert_eq!(
            [level(1), level(4), level(24)],
            [Some(Level::Trace), Some(Level::Trace), Some(Level::Fatal)]
        );
    }

    #[test]
    fn events_have_names_and_say_what_they_are_about() {
        let row = timeline::Row {
            kind: Kind::Gpu,
            reason: "xid".into(),
            gpu: Some("GPU-1".into()),
            pid: Some(7),
            ..timeline::Row::default()
        };
        let (about, record) = Row::of_timeline(&row, None, 1).record();
        assert_eq!((record.event_name.as_str(), about.pid), ("llm.gpu.xid", 7));
        assert_eq!(find(&record.attributes, "hw.id").map(said).as_deref(), Some("GPU-1"));
        let row = timeline::Row { kind: Kind::Kubernetes, reason: "OOMKilled".into(), ..row };
        let (_, record) = Row::of_timeline(&row, None, 1).record();
        assert_eq!(record.event_name, "k8s.event");
        assert_eq!(find(&record.attributes, "k8s.event.reason").map(said).as_deref(), Some("OOMKilled"));
    }

    #[test]
    fn what_others_send_is_taken_as_far_as_it_goes() {
        let value = |value| AnyValue { value: Some(value) };
        let pair =
            |key: &str, of| KeyValue { key: key.into(), value: Some(value(of)), ..KeyValue::default() };
        let parts = vec![pair("msg", Value::StringValue("hi".into())), pair("n", Value::IntValue(1))];
        let record = LogRecord {
            observed_time_unix_nano: 7,
            severity_text: "WARNING".into(),
            body: Some(value(Value::KvlistValue(KeyValueList { values: parts }))),
            attributes: vec![
                pair(UID, Value::StringValue("other/1".into())),
                pair(RESTART, Value::DoubleValue(1.0)),
            ],
            trace_id: vec![1],
            ..LogRecord::default()
        };
        let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let came = received(&ExportLogsServiceRequest { resource_logs }.encode_to_vec()).unwrap();
        let expected = timeline::Row {
            time: 7,
            id: "other/1".into(),
            level: Some(Level::Warn),
            message: r#"{"msg":"hi","n":1}"#.into(),
            ..timeline::Row::default()
        };
        assert_eq!(came.lines, [expected]);
        assert!(received(b"\xff\xff").is_err());
        assert_eq!(received(b"").unwrap(), Received::default());
    }
}
