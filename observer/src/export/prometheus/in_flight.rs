//! Exchanges that have started and not ended: the table behind two gauges.
//!
//! Written when an exchange starts, changes phase or ends; read at each scrape. Deliveries do not come here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};

use crate::exchange::{ExchangeId, Phase, Role};
use crate::recent;

use super::child::{Child, IN_FLIGHT, OLDEST};

/// Values of the labels that request metrics have in common.
pub(super) type Labels = Arc<Vec<String>>;

struct Running {
    labels: Labels,
    phase: Phase,
    since: u64,
}

/// The table.
#[derive(Default)]
pub(super) struct InFlight {
    running: HashMap<ExchangeId, Running>,
    /// Every set of labels that ever had something in flight, so that its gauges go back to 0.
    seen: BTreeSet<Labels>,
}

impl InFlight {
    pub(super) fn start(&mut self, id: ExchangeId, labels: Labels, since: u64) {
        self.seen.insert(Arc::clone(&labels));
        self.running.insert(id, Running { labels, phase: Phase::Receiving, since });
    }

    pub(super) fn relabel(&mut self, id: ExchangeId, labels: Labels) {
        if let Some(running) = self.running.get_mut(&id) {
            self.seen.insert(Arc::clone(&labels));
            running.labels = labels;
        }
    }

    pub(super) fn phase(&mut self, id: ExchangeId, phase: Phase) {
        if let Some(running) = self.running.get_mut(&id) {
            running.phase = phase;
        }
    }

    pub(super) fn end(&mut self, id: ExchangeId) {
        self.running.remove(&id);
    }

    /// Forgets the sets of labels of a container that is gone.
    pub(super) fn forget(&mut self, mut gone: impl FnMut(&[String]) -> bool) {
        self.seen.retain(|labels| !gone(labels));
    }

    /// What runs, by whose it is, the model and the role.
    pub(super) fn running(&self) -> Vec<recent::Running> {
        let mut counts: HashMap<&[String], u64> = HashMap::new();
        for running in self.running.values() {
            *counts.entry(running.labels.as_slice()).or_default() += 1;
        }
        let row = |(labels, requests): (&[String], u64)| {
            let [namespace, pod, container, _, _, model, role] = labels else { return None };
            Some(recent::Running {
                whose: [namespace, pod, container].map(String::clone),
                model: model.clone(),
                role: Role::ALL.into_iter().find(|known| known.as_str() == role)?,
                requests,
            })
        };
        counts.into_iter().filter_map(row).collect()
    }

    /// Both gauges at this monotonic time.
    pub(super) fn families(&self, names: &[&str], now: u64) -> prometheus::Result<Vec<MetricFamily>> {
        if self.seen.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = names.iter().copied().chain(["phase"]).collect();
        let count = IntGaugeVec::new(Opts::new(Child::InFlight.metric(), IN_FLIGHT), &names)?;
        let oldest = GaugeVec::new(Opts::new("llm_requests_oldest_age_seconds", OLDEST), &names)?;
        let mut totals: HashMap<(&Labels, Phase), (i64, u64)> = HashMap::new();
        for running in self.running.values() {
            let (count, age) = totals.entry((&running.labels, running.phase)).or_default();
            *count += 1;
            *age = (*age).max(now.saturating_sub(running.since));
        }
        for labels in &self.seen {
            for phase in Phase::ALL {
                let (running, age) = totals.get(&(labels, phase)).copied().unwrap_or_default();
                let values: Vec<&str> = labels.iter().map(String::as_str).chain([phase.as_str()]).collect();
                count.with_label_values(&values).set(running);
                oldest.with_label_values(&values).set(age as f64 / 1e9);
            }
        }
        let mut families = count.collect();
        families.extend(oldest.collect());
        Ok(families)
    }
}
