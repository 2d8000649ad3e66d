//! What became of spans and log records, as metric families: a snapshot in, families out, no state.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::export::otlp::{Cause, Told};

const TAKEN: &str = "\
    Spans and log records to be sent to the OTLP receiver, and lines to the cluster role that keeps them. At rest, taken = sent \
    + dropped + waiting.";
const SENT: &str = "Spans and log records that the OTLP receiver took.";
const DROPPED: &str = "\
    Spans and log records that were given up, by cause (queue_full: the receiver is slow or away, the oldest go; lagged: \
    they came too fast; refused: the receiver does not take such requests; rejected: it took others of the same request; \
    too_large: it alone is larger than the receiver takes; no_time: the wall clock was not known yet; stopped: the \
    observer ended).";
const WAITING: &str = "Spans and log records that wait to be sent or are under way.";
const BYTES: &str = "Bytes that waiting spans and log records take; at most otlp.queue.";
const RETRIES: &str = "Requests to the OTLP receiver that failed and are repeated.";

/// Families of `observer_otlp_*`; none if nothing is sent.
pub(super) fn families(signals: &[Told]) -> prometheus::Result<Vec<MetricFamily>> {
    let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
    let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["signal"]);
    let taken = counter("observer_otlp_taken_total", TAKEN, &["signal"])?;
    let sent = counter("observer_otlp_sent_total", SENT, &["signal"])?;
    let dropped = counter("observer_otlp_dropped_total", DROPPED, &["signal", "cause"])?;
    let retries = counter("observer_otlp_retries_total", RETRIES, &["signal"])?;
    let waiting = gauge("observer_otlp_waiting", WAITING)?;
    let bytes = gauge("observer_otlp_waiting_bytes", BYTES)?;
    for told in signals {
        let signal = [told.signal];
        taken.with_label_values(&signal).inc_by(told.taken);
        sent.with_label_values(&signal).inc_by(told.sent);
        retries.with_label_values(&signal).inc_by(told.retries);
        waiting.with_label_values(&signal).set((told.waiting + told.under_way) as i64);
        bytes.with_label_values(&signal).set(told.bytes as i64);
        for cause in Cause::ALL {
            let count = told.dropped.get(&cause).copied().unwrap_or(0);
            dropped.with_label_values(&[told.signal, cause.as_str()]).inc_by(count);
        }
    }
    let mut families = [taken, sent, dropped, retries].map(|family| family.collect()).concat();
    families.extend([waiting, bytes].map(|family| family.collect()).concat());
    families.retain(|family| !family.get_metric().is_empty());
    Ok(families)
}
