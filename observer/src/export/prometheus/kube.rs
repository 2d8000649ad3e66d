//! How far what is known of Kubernetes can be trusted, as metric families: a snapshot in, families out, no state.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};

use crate::kube::Snapshot;

const AGE: &str = "Seconds since the API server was last heard on a watch. A healthy one says something about every \
                   minute; what is known is at most this old. Absent until it was heard at all.";
const ERRORS: &str = "Failures of a watch by reason: unreachable, unauthorized (401), forbidden (403), not_found (404), gone \
                      (410, the ordinary course), throttled (429), server (5xx), other. Each is tried again.";
const LISTS: &str = "How often everything was listed: once at the start, and after each watch that was gone.";
const BYTES: &str = "Bytes of lists and watches that came from the API server.";
const OBJECTS: &str = "Objects that are known.";

/// Families of `observer_kube_*`.
pub(super) fn families(watches: &[Snapshot]) -> prometheus::Result<Vec<MetricFamily>> {
    let ages = GaugeVec::new(Opts::new("observer_kube_watch_age_seconds", AGE), &["resource"])?;
    let errors =
        IntCounterVec::new(Opts::new("observer_kube_watch_errors_total", ERRORS), &["resource", "reason"])?;
    let lists = IntCounterVec::new(Opts::new("observer_kube_watch_lists_total", LISTS), &["resource"])?;
    let bytes = IntCounterVec::new(Opts::new("observer_kube_watch_bytes_total", BYTES), &["resource"])?;
    let objects = IntGaugeVec::new(Opts::new("observer_kube_objects", OBJECTS), &["resource"])?;
    for watch in watches {
        if let Some(age) = watch.age {
            ages.with_label_values(&[watch.resource]).set(age);
        }
        for (reason, count) in &watch.failures {
            errors.with_label_values(&[watch.resource, reason]).inc_by(*count);
        }
        lists.with_label_values(&[watch.resource]).inc_by(watch.lists);
        bytes.with_label_values(&[watch.resource]).inc_by(watch.bytes);
        objects.with_label_values(&[watch.resource]).set(watch.objects as i64);
    }
    let mut families =
        [ages.collect(), errors.collect(), lists.collect(), bytes.collect(), objects.collect()].concat();
    families.retain(|family| !family.get_metric().is_empty());
    Ok(families)
}
