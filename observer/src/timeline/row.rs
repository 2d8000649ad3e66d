//! One thing that happened.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::kind::{Kind, Level, Stream};
use crate::exchange::{Outcome, RequestRecord};

/// One thing that happened. As JSON its time is RFC 3339 with nanoseconds, and what is not known or empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// When, nanoseconds since 1970: for a log when its first line was written, for a request when it ended.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub time: i64,
    /// On which node.
    pub node: String,
    /// Names it on that node. Ids of one file's lines sort as the lines do.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Kubernetes namespace; empty outside Kubernetes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Pod; empty outside Kubernetes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Container, or what stands for it outside Kubernetes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// What manages the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// How often the container had been started again when it wrote this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<u32>,
    /// Process, where one is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// For how long that process had run, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<f64>,
    /// GPU, where one is meant: its UUID, as records of requests name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Where a line was written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// How bad it is, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What occurred, in one word: `exit`, `BackOff`; empty for lines and requests.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was written, or what there is to say.
    pub message: String,
    /// Id of a request that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Trace that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// How many places of the message were redacted.
    #[serde(skip_serializing_if = "is_zero")]
    pub redacted: u32,
    /// Bytes at the end of the message that were left out.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u32,
    /// It is shown because of what stands beside it.
    #[serde(skip_serializing_if = "is_false")]
    pub context: bool,
    /// The record of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<RequestRecord>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn as_text<S: Serializer>(time: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time_text(*time))
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(nanos).map_err(serde::de::Error::custom)
}

/// A time as it is written.
pub fn time_text(nanoseconds: i64) -> Timestamp {
    // Every such number is a moment between 1677 and 2262.
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A time in nanoseconds since 1970: those before 1678 and after 2262 become the first and the last.
pub fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH {
        i64::MIN
    } else {
        i64::MAX
    })
}

impl Row {
    /// The row of a finished request, which ended at this time unless its record says when.
    pub fn of_request(record: RequestRecord, ended: i64) -> Self {
        let time = record.ended_at.as_deref().and_then(|text| text.parse().ok()).map_or(ended, nanos);
        let level = match record.outcome {
            Some(outcome) if outcome.is_failure() => Level::Error,
            Some(Outcome::Ok) => Level::Info,
            _ => Level::Warn,
        };
        Self {
            time,
            node: record.node.clone(),
            id: record.id.clone(),
            kind: Kind::Request,
            namespace: record.namespace.clone(),
            pod: record.pod.clone(),
            container: record.container.clone(),
            pid: Some(record.pid),
            level: Some(level),
            message: said_of(&record),
            request_id: record.request_id.clone(),
            trace_id: record.trace_id.clone(),
            request: Some(Box::new(record)),
            ..Self::default()
        }
    }
}

/// A request in one line, by names and numbers alone.
fn said_of(record: &RequestRecord) -> String {
    let mut said = record.outcome.unwrap_or(Outcome::Unknown).as_str().to_owned();
    let mut add = |part: &str| {
        said.push(' ');
        said.push_str(part);
    };
    record.status.iter().for_each(|status| add(&status.to_string()));
    record.operation.iter().for_each(|operation| add(operation.as_str()));
    record.model.iter().for_each(|model| add(model));
    record.ttft.iter().for_each(|ttft| add(&format!("ttft={ttft:.3}s")));
    record.duration.iter().for_each(|duration| add(&format!("duration={duration:.3}s")));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_from_json() {
        let row = Row {
            time: 1_764_000_000_123_456_789,
            node: "a".into(),
            id: "x".into(),
            message: "hi".into(),
            level: Some(Level::Warn),
            stream: Some(Stream::Stderr),
            redacted: 2,
            ..Row::default()
        };
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(
            text,
            r#"{"time":"2025-11-24T16:00:00.123456789Z","node":"a","id":"x","kind":"log","stream":"stderr","level":"warn","message":"hi","redacted":2}"#
        );
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
        assert_eq!(time_text(i64::MIN).to_string().parse().map(nanos).ok(), Some(i64::MIN));
    }

    #[test]
    fn a_request_is_a_row_at_its_end() {
        let record = RequestRecord {
            id: "1f-0".into(),
            node: "a".into(),
            ended_at: Some("1970-01-01T00:00:01Z".into()),
            outcome: Some(Outcome::ServerError),
            status: Some(500),
            model: Some("m".into()),
            ..RequestRecord::default()
        };
        let row = Row::of_request(record.clone(), 5);
        assert_eq!(
            (row.time, row.level, row.message.as_str()),
            (1_000_000_000, Some(Level::Error), "server_error 500 m")
        );
        assert_eq!(row.request.as_deref(), Some(&record));
        assert_eq!(Row::of_request(RequestRecord { ended_at: None, ..record }, 5).time, 5);
    }
}
