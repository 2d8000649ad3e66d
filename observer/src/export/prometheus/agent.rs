//! The observer about itself, as metric families: a snapshot in, families out, no state.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use observer_ebpf::Counter;

use crate::telemetry::AgentStats;

use super::child::SEMCONV;

const RECORDS: &str = "\
    Records by stage: seen and submitted in the kernel, received and decoded in user \
    space. At rest, seen = submitted + dropped{stage=\"kernel\"} and received = decoded \
    + dropped{stage=\"user\"}.";
const DROPPED: &str = "\
    What was lost, by stage (kernel: records that found no room in the ring; call: calls \
    whose record could not be made; user: records not decoded; metrics: values not \
    exported) and cause.";
const HOLES: &str = "\
    Bytes of observed connections that were not copied by the kernel side, by cause \
    (fault: user memory was not readable; opaque: moved by a call that is not copied).";
const LOST: &str =
    "Bytes of followed connections whose records never came, by what the positions of later records tell.";
const DEFECTS: &str =
    "Defects of HTTP messages on the wire, whether or not the exchange was one with an LLM.";
const EVICTED: &str =
    "Connections that were given up because all of them together held more memory than limits.bytes.";
const UPSTREAM: &str = "\
    LLM requests that observed processes sent to another server, by what is known of the request that caused each \
    (matched: its dispatch wait is measured; ambiguous: several may have; alone: none that is open can have).";
const CONNECTIONS: &str = "Connections that are followed now, by state.";
const PROCESSES: &str = "Processes that accept connections or listen, by whether they are observed: observed, out_of_scope, \
                         undecided (of a pod of which nobody tells yet; not observed meanwhile).";
const RECENT: &str = "Finished requests that are remembered for /api/v1/requests.";
const RECENT_BYTES: &str = "Bytes that remembered requests take; at most api.recent.";
const FORGOTTEN: &str =
    "Finished requests that were forgotten, the oldest first, because there was no more room.";
const PROBE: &str = "1 for each probe, by whether it is attached or absent.";
const MISSED: &str = "Runs of a probe that the kernel says it skipped.";
const BUILD: &str = "1, with the version of the observer and the commit of the OpenTelemetry GenAI semantic \
                     conventions that its names follow.";

/// Families of `observer_*`. `dropped` are values that the exporter itself lost, by cause.
pub(super) fn families(
    stats: &AgentStats,
    dropped: &[(&'static str, u64)],
) -> prometheus::Result<Vec<MetricFamily>> {
    let kernel = |counter| stats.counter(counter);
    let mut families = Vec::new();

    let records = IntCounterVec::new(Opts::new("observer_records_total", RECORDS), &["stage"])?;
    records.with_label_values(&["seen"]).inc_by(kernel(Counter::Seen));
    records.with_label_values(&["submitted"]).inc_by(kernel(Counter::Submitted));
    records.with_label_values(&["received"]).inc_by(stats.received);
    records.with_label_values(&["decoded"]).inc_by(stats.decoded);
    families.extend(records.collect());

    let lost = IntCounterVec::new(Opts::new("observer_dropped_total", DROPPED), &["stage", "cause"])?;
    let of_kernel = [
        ("kernel", "ring_data", Counter::DroppedRingData),
        ("kernel", "ring_full", Counter::DroppedRingFull),
        ("call", "stash_full", Counter::StashFull),
        ("call", "table_full", Counter::TableFull),
        ("call", "unpaired", Counter::Unpaired),
        ("call", "unresolved", Counter::Unresolved),
    ];
    for (stage, cause, counter) in of_kernel {
        lost.with_label_values(&[stage, cause]).inc_by(kernel(counter));
    }
    for (cause, count) in &stats.dropped {
        lost.with_label_values(&["user", cause]).inc_by(*count);
    }
    for (cause, count) in dropped {
        lost.with_label_values(&["metrics", cause]).inc_by(*count);
    }
    families.extend(lost.collect());

    let holes = IntCounterVec::new(Opts::new("observer_hole_bytes_total", HOLES), &["cause"])?;
    holes.with_label_values(&["fault"]).inc_by(kernel(Counter::FaultBytes));
    holes.with_label_values(&["opaque"]).inc_by(kernel(Counter::OpaqueBytes));
    families.extend(holes.collect());

    let upstream = IntCounterVec::new(Opts::new("observer_upstream_requests_total", UPSTREAM), &["cause"])?;
    for (cause, count) in stats.upstream {
        upstream.with_label_values(&[cause]).inc_by(count);
    }
    families.extend(upstream.collect());

    let lost = IntCounterVec::new(Opts::new("observer_lost_bytes_total", LOST), &[])?;
    lost.with_label_values::<&str>(&[]).inc_by(stats.lost_bytes);
    families.extend(lost.collect());

    let defects = IntCounterVec::new(Opts::new("observer_wire_defects_total", DEFECTS), &["defect"])?;
    for (defect, count) in &stats.defects {
        defects.with_label_values(&[defect]).inc_by(*count);
    }
    families.extend(defects.collect());

    let evicted = IntCounterVec::new(Opts::new("observer_evicted_connections_total", EVICTED), &[])?;
    evicted.with_label_values::<&str>(&[]).inc_by(stats.evicted);
    families.extend(evicted.collect());

    let connections = IntGaugeVec::new(Opts::new("observer_connections", CONNECTIONS), &["state"])?;
    for (state, count) in &stats.connections {
        connections.with_label_values(&[state]).set(*count as i64);
    }
    families.extend(connections.collect());

    let processes = IntGaugeVec::new(Opts::new("observer_processes", PROCESSES), &["state"])?;
    for (state, count) in stats.processes.iter().filter(|(state, _)| !state.is_empty()) {
        processes.with_label_values(&[state]).set(*count as i64);
    }
    families.extend(processes.collect());

    let [requests, bytes, forgotten] = stats.recent;
    for (name, help, value) in
        [("observer_recent_requests", RECENT, requests), ("observer_recent_bytes", RECENT_BYTES, bytes)]
    {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value as i64);
        families.extend(gauge.collect());
    }
    let counter = IntCounter::new("observer_recent_requests_forgotten_total", FORGOTTEN)?;
    counter.inc_by(forgotten);
    families.extend(counter.collect());

    let info = IntGaugeVec::new(Opts::new("observer_probe_info", PROBE), &["probe", "mode"])?;
    let missed = IntCounterVec::new(Opts::new("observer_probe_missed_total", MISSED), &["probe"])?;
    for probe in &stats.probes {
        let mode = if probe.attached { "attached" } else { "absent" };
        info.with_label_values(&[probe.name.as_str(), mode]).set(1);
        missed.with_label_values(&[probe.name.as_str()]).inc_by(probe.missed);
    }
    families.extend(info.collect());
    families.extend(missed.collect());

    families.extend(build()?);

    families.retain(|family| !family.get_metric().is_empty());
    Ok(families)
}

/// Which observer this is.
pub(super) fn build() -> prometheus::Result<Vec<MetricFamily>> {
    let build = IntGaugeVec::new(Opts::new("observer_build_info", BUILD), &["version", "semconv"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION"), SEMCONV]).set(1);
    Ok(build.collect())
}
