//! What happened around a request, out of rows of events and of logs.

use serde::{Deserialize, Serialize};

use crate::exchange::RequestRecord;
use crate::timeline::{Kind, Level, Row, nanos};

/// A process that began so many seconds before is still warming up: weights, kernels and caches are loaded by first requests.
pub(super) const WARMING: f64 = 120.0;

/// Happenings are noted at the latest so many seconds after what they did to a request.
pub(super) const LATE: f64 = 5.0;

/// Lines of logs so many seconds before a request are still about it.
const EARLY: f64 = 5.0;

/// Throttling is looked for so many seconds before: it may have begun long ago.
const THROTTLED: f64 = 3600.0;

/// Characters of a line of a log that are shown.
const SHOWN: usize = 300;

/// What happened in or around the container that served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// Seconds after the start of the request; negative before it.
    pub at: f64,
    /// When it was over, if it lasts and is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<f64>,
    /// What it was.
    pub what: What,
    /// For people: what happened. Of a line of a log its beginning, after redaction.
    pub text: String,
}

/// Kinds of happenings that matter to a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The process that served began.
    ProcessStart,
    /// It ended.
    ProcessEnd,
    /// It was killed for want of memory.
    OutOfMemory,
    /// The GPU ran slower than it could.
    GpuThrottle,
    /// The GPU failed.
    GpuError,
    /// A line of a log.
    Log,
    /// Something else that is worth reading.
    Other,
}

impl What {
    /// The word used in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProcessStart => "process_start",
            Self::ProcessEnd => "process_end",
            Self::OutOfMemory => "out_of_memory",
            Self::GpuThrottle => "gpu_throttle",
            Self::GpuError => "gpu_error",
            Self::Log => "log",
            Self::Other => "other",
        }
    }
}

/// Where rows are to be looked for that tell of a request: spans of time, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Around {
    /// Events.
    pub events: (i64, i64),
    /// Events of GPUs.
    pub gpus: (i64, i64),
    /// Lines of logs.
    pub lines: (i64, i64),
}

impl Around {
    /// Around this request, if it says when it was.
    pub fn of(record: &RequestRecord) -> Option<Self> {
        let start = start(record)?;
        let from = |seconds: f64| start - (seconds * 1e9) as i64;
        let until = start + ((end(record) + LATE) * 1e9) as i64;
        Some(Self {
            events: (from(WARMING), until),
            gpus: (from(THROTTLED), until),
            lines: (from(EARLY), until),
        })
    }
}

fn start(record: &RequestRecord) -> Option<i64> {
    record.started_at.as_deref()?.parse().ok().map(nanos)
}

/// Seconds from the start of a request to its end, as far as it was seen.
pub(super) fn end(record: &RequestRecord) -> f64 {
    record.clocks.response_end.or(record.client_left).or(record.duration).unwrap_or(0.0)
}

/// What rows tell of a request, in the order of time.
pub fn happenings(rows: &[Row], record: &RequestRecord) -> Vec<Happening> {
    let Some(start) = start(record) else { return Vec::new() };
    let mut rows: Vec<&Row> = rows.iter().filter(|row| concerns(row, record)).collect();
    rows.sort_by_key(|row| row.time);
    let mut all: Vec<(Happening, &Row)> = Vec::new();
    for row in rows {
        // Of a process that is observed from then on: when it began.
        let at = (row.time - start) as f64 / 1e9 - row.age.unwrap_or(0.0);
        // What was held back when the observer stopped is not known to last, nor is what is said to begin again.
        let is_stop = (row.kind, row.reason.as_str()) == (Kind::Observer, "stopped");
        let is_throttling = row.kind == Kind::Gpu && row.reason.starts_with("throttle_");
        for (happening, begun) in &mut all {
            if happening.until.is_none()
                && (is_stop && begun.reason == "throttle_begin" || is_throttling && begins(begun, row))
            {
                happening.until = Some(at);
            }
        }
        let is_end = is_throttling && row.reason == "throttle_end";
        if !is_end && !is_stop {
            all.push((Happening { at, until: None, what: what(row, record), text: text(row) }, row));
        }
    }
    all.into_iter()
        .map(|(happening, _)| happening)
        .filter(|one| match one.what {
            What::Log => one.at >= -EARLY,
            What::GpuThrottle => one.at >= -WARMING || one.until.is_none_or(|until| until > 0.0),
            _ => one.at >= -WARMING,
        })
        .collect()
}

/// Whether a row tells of the begin of the throttling whose end another tells: of the same device, for the same cause, which
/// both name last in parentheses.
fn begins(row: &Row, end: &Row) -> bool {
    let cause = |row: &Row| {
        let (_, rest) = row.message.rsplit_once('(')?;
        rest.split_once(')').map(|(cause, _)| cause.to_owned())
    };
    row.reason == "throttle_begin" && row.gpu == end.gpu && cause(row) == cause(end)
}

/// Whether a row tells something of a request: of its process, its pod, its GPUs or itself, or of all that is observed.
fn concerns(row: &Row, record: &RequestRecord) -> bool {
    let names_it = row.request_id.as_ref().is_some_and(|id| {
        *id == record.id || record.request_id.as_ref() == Some(id) || record.response_id.as_ref() == Some(id)
    });
    let of_pod = !record.pod.is_empty() && row.pod == record.pod && row.namespace == record.namespace;
    let of_process = record.pod.is_empty()
        && row.pod.is_empty()
        && (row.pid == Some(record.pid) || row.kind == Kind::Log && row.container == record.container);
    match row.kind {
        Kind::Request => false,
        Kind::Observer => matches!(row.reason.as_str(), "dropped" | "stopped"),
        Kind::Gpu => record.gpu.iter().any(|gpu| row.gpu.as_ref() == Some(&gpu.uuid)),
        Kind::Stall => names_it,
        Kind::Log => names_it || (of_pod || of_process) && row.level >= Some(Level::Warn),
        Kind::Process | Kind::Kubernetes => of_pod || of_process,
    }
}

fn what(row: &Row, record: &RequestRecord) -> What {
    let is_own = row.pid.is_none_or(|pid| pid == record.pid);
    let is_of_container = row.container == record.container;
    match (row.kind, row.reason.as_str()) {
        (Kind::Log, _) => What::Log,
        (Kind::Process, "oom_kill") | (Kind::Kubernetes, "OOMKilled") if is_of_container => What::OutOfMemory,
        (Kind::Process, "observed" | "exec") if is_own => What::ProcessStart,
        (Kind::Process, "exit") if is_own => What::ProcessEnd,
        (Kind::Gpu, "throttle_begin") if row.level >= Some(Level::Warn) => What::GpuThrottle,
        (Kind::Gpu, "xid" | "lost") if row.level >= Some(Level::Error) => What::GpuError,
        _ => What::Other,
    }
}

fn text(row: &Row) -> String {
    match row.kind {
        Kind::Log => row.message.lines().next().unwrap_or_default().chars().take(SHOWN).collect(),
        _ => row.message.clone(),
    }
}
