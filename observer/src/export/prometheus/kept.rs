//! What is kept on disk and read of logs, as metric families.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};

use crate::logs::Counts;
use crate::store::Snapshot;
use crate::telemetry::ReceivedCounts;

const ROWS: &str = "Rows that were written to the store, by kind.";
const DROPPED: &str = "\
    Rows that were not, by kind and cause (queue_full: they came faster than they were written; not_writable, \
    write_failed: the disk). Lines of logs are among them only where others sent them: what is read here is read again.";
const RECEIVED: &str = "Log records that others sent, by outcome (kept: lines that were taken in; event: no lines, which are not kept).";
const REFUSED: &str = "\
    Messages of log records that were refused, by cause (no_room: the store was not written fast enough, they are to be sent \
    again; malformed: they are no such messages).";
const DELETED: &str =
    "Volumes of the store that were deleted, the oldest first, by cause: age, bytes, disk_full.";

/// Families of `observer_store_*` and `observer_log_*`.
pub(super) fn families(store: Option<&Snapshot>, logs: &Counts) -> prometheus::Result<Vec<MetricFamily>> {
    if store.is_none() {
        return Ok(Vec::new());
    }
    let mut families = of_store(store)?;
    families.extend(gauges(&[
        ("observer_log_files", "Files of logs that are open.", logs.files),
        ("observer_log_sources", "Containers and files whose logs are followed.", logs.logs),
        ("observer_log_files_unreadable", "Files of logs that cannot be read.", logs.unreadable),
    ])?);
    families.extend(counters(&[
        ("observer_log_read_bytes_total", "Bytes of logs that were read.", logs.bytes),
        ("observer_log_rows_total", "Rows that were made of lines of logs.", logs.rows),
        ("observer_log_redactions_total", "Places in lines that were redacted.", logs.redactions),
        ("observer_log_left_out_bytes_total", "Bytes of messages that were too long.", logs.left_out),
        ("observer_log_truncations_total", "Files that were cut off while they were read.", logs.truncated),
        (
            "observer_log_sources_refused_total",
            "Looks at logs that were too many to be followed.",
            logs.too_many,
        ),
    ])?);
    Ok(families)
}

/// Families of `observer_store_*`.
pub(super) fn of_store(store: Option<&Snapshot>) -> prometheus::Result<Vec<MetricFamily>> {
    let Some(store) = store else { return Ok(Vec::new()) };
    let mut families = Vec::new();
    let written = IntCounterVec::new(Opts::new("observer_store_rows_written_total", ROWS), &["kind"])?;
    for (kind, rows) in &store.written {
        written.with_label_values(&[kind]).inc_by(*rows);
    }
    families.extend(written.collect());
    let dropped =
        IntCounterVec::new(Opts::new("observer_store_rows_dropped_total", DROPPED), &["kind", "cause"])?;
    for ((kind, cause), rows) in &store.dropped {
        dropped.with_label_values(&[kind, cause]).inc_by(*rows);
    }
    families.extend(dropped.collect());
    let deleted = IntCounterVec::new(Opts::new("observer_store_volumes_deleted_total", DELETED), &["cause"])?;
    for (cause, volumes) in &store.deleted {
        deleted.with_label_values(&[cause]).inc_by(*volumes);
    }
    families.extend(deleted.collect());
    families.extend(gauges(&[
        ("observer_store_bytes", "Bytes of the store on disk; at most store.bytes.", store.bytes),
        ("observer_store_rows", "Rows in the store.", store.rows),
        ("observer_store_volumes", "Volumes of the store.", store.volumes),
    ])?);
    families.extend(counters(&[
        (
            "observer_store_volumes_set_aside_total",
            "Volumes that were damaged and set aside.",
            store.set_aside,
        ),
        (
            "observer_store_failures_total",
            "Writes to the store that failed and were tried again.",
            store.failed,
        ),
    ])?);
    families.retain(|family| !family.get_metric().is_empty());
    Ok(families)
}

/// Families of `observer_received_*`; none where nothing is taken in.
pub(super) fn of_intake(received: Option<ReceivedCounts>) -> prometheus::Result<Vec<MetricFamily>> {
    let Some(counts) = received else { return Ok(Vec::new()) };
    let records =
        IntCounterVec::new(Opts::new("observer_received_log_records_total", RECEIVED), &["outcome"])?;
    for (outcome, count) in [("kept", counts.lines), ("event", counts.events)] {
        records.with_label_values(&[outcome]).inc_by(count);
    }
    let refused =
        IntCounterVec::new(Opts::new("observer_received_messages_refused_total", REFUSED), &["cause"])?;
    for (cause, count) in [("no_room", counts.no_room), ("malformed", counts.malformed)] {
        refused.with_label_values(&[cause]).inc_by(count);
    }
    Ok([records, refused].map(|family| family.collect()).concat())
}

fn gauges(all: &[(&str, &str, u64)]) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    for (name, help, value) in all {
        let gauge = IntGauge::new(*name, *help)?;
        gauge.set(*value as i64);
        families.extend(gauge.collect());
    }
    Ok(families)
}

fn counters(all: &[(&str, &str, u64)]) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    for (name, help, value) in all {
        let counter = IntCounter::new(*name, *help)?;
        counter.inc_by(*value);
        families.extend(counter.collect());
    }
    Ok(families)
}
