//! All series of request metrics: who owns them, how many there are, and where what is too much goes.
//!
//! In: an identity, labels and changes. Out: children in the registry, never more than the caps allow:
//!
//! 1. the labels as they are, as long as the container and the whole stay below their cap less a reserve;
//! 2. else the model `other` of the same container, for which the reserve of the container is kept;
//! 3. else the container `other`, for which the reserve of the whole is kept;
//! 4. else the change is dropped and counted.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use crate::config::{Buckets, MetricsConfig};
use crate::enrich::Identity;
use crate::exchange::Outcome;

use super::child::{Child, Class};
use super::labels::{self, Code, OTHER};
use super::meaning::{Change, Changes};
use super::workload::{ENDS, GroupKey, Handle, Place, Workload, WorkloadKey};

/// Nanoseconds that series outlive the last process of their container: 15 minutes. A server that is started
/// again under the same name counts on, through a crash loop (whose back-off Kubernetes caps at 5 minutes) and
/// the loading of a large model; and what it counted last is scraped.
pub(super) const EXPIRY: u64 = 15 * 60 * 1_000_000_000;

/// All series of request metrics.
pub(super) struct Series {
    registry: Registry,
    names: [&'static str; 3],
    buckets: Buckets,
    per_workload: usize,
    total: usize,
    reserve: usize,
    used: usize,
    workloads: HashMap<WorkloadKey, Workload>,
    limited: IntCounterVec,
    dropped: IntCounter,
}

impl Series {
    pub(super) fn new(
        config: &MetricsConfig,
        registry: &Registry,
        dropped: IntCounter,
    ) -> prometheus::Result<Self> {
        let limited = IntCounterVec::new(
            Opts::new(
                "observer_series_limited_total",
                "Times that a cap on series moved a value to the model or container `other`, by the metric that \
                 needed another series. Raise metrics.max_series_per_process or metrics.max_series.",
            ),
            &["metric"],
        )?;
        registry.register(Box::new(limited.clone()))?;
        for child in one_of_each() {
            limited.with_label_values(&[child.metric()]);
        }
        Ok(Self {
            registry: registry.clone(),
            names: labels::workload_names(config.labels),
            buckets: config.buckets.clone(),
            per_workload: config.max_series_per_process,
            total: config.max_series,
            reserve: reserve(&config.buckets),
            used: 0,
            workloads: HashMap::new(),
            limited,
            dropped,
        })
    }

    /// What is known of the container of an identity.
    pub(super) fn workload(&mut self, identity: &Arc<Identity>) -> &mut Workload {
        self.workloads.entry(WorkloadKey::of(identity)).or_insert_with(|| Workload::new(Arc::clone(identity)))
    }

    /// What is known of the container of an identity, if anything is.
    pub(super) fn known(&self, identity: &Identity) -> Option<&Workload> {
        self.workloads.get(&WorkloadKey::of(identity))
    }

    /// Lets changes take effect under these labels, or where the caps send them. Says where that was.
    pub(super) fn apply(
        &mut self,
        identity: &Arc<Identity>,
        group: GroupKey,
        changes: &Changes<'_>,
    ) -> Place {
        let usual_provider = self.workload(identity).provider.clone();
        let place = Place { workload: WorkloadKey::of(identity), group };
        let total = below_reserve(self.total, self.reserve);

        let missing = self.missing(&place, changes);
        if self.fits(&place, &missing, below_reserve(self.per_workload, self.reserve), total) {
            return self.commit(place, changes);
        }
        for child in &missing {
            self.limited.with_label_values(&[child.metric()]).inc();
        }
        let other = Place { group: place.group.other(&usual_provider), ..place };
        let missing = self.missing(&other, changes);
        if self.fits(&other, &missing, self.per_workload, total) {
            return self.commit(other, changes);
        }
        let overflow = Place { workload: WorkloadKey::overflow(), group: other.group.other(OTHER) };
        self.commit(overflow, changes)
    }

    /// The counter of a child that exists, to be kept at hand.
    pub(super) fn counter(&self, place: &Place, child: &Child) -> Option<IntCounter> {
        match self.workloads.get(&place.workload)?.groups.get(&place.group)?.children.get(child)? {
            Handle::Counter(counter) => Some(counter.clone()),
            Handle::Histogram(_) | Handle::Derived => None,
        }
    }

    /// Whether a child exists.
    pub(super) fn has(&self, place: &Place, child: &Child) -> bool {
        let group =
            self.workloads.get(&place.workload).and_then(|workload| workload.groups.get(&place.group));
        group.is_some_and(|group| group.children.contains_key(child))
    }

    /// Notes that an exchange with series at this place began, or ended.
    pub(super) fn running(&mut self, place: &Place, began: bool) {
        if let Some(workload) = self.workloads.get_mut(&place.workload) {
            workload.running = if began { workload.running + 1 } else { workload.running.saturating_sub(1) };
        }
    }

    /// Names of the labels that request metrics have in common, in the order of [`Place::label_values`].
    pub(super) fn label_names(&self) -> Vec<&'static str> {
        self.names.into_iter().chain(labels::REQUEST_NAMES).collect()
    }

    /// Removes the series of containers that have been gone for long, at this monotonic time, and have nothing
    /// in flight; of all that are gone, if others need the room.
    pub(super) fn expire(&mut self, now: u64, mut lives: impl FnMut(&Identity) -> bool) -> Vec<WorkloadKey> {
        let overflow = WorkloadKey::overflow();
        let is_full = self.used + self.reserve > below_reserve(self.total, self.reserve);
        let mut gone = Vec::new();
        for (key, workload) in &mut self.workloads {
            if *key == overflow || workload.running > 0 || lives(&workload.identity) {
                workload.gone_since = None;
            } else if now.saturating_sub(*workload.gone_since.get_or_insert(now)) >= EXPIRY || is_full {
                gone.push(key.clone());
            }
        }
        for key in &gone {
            let Some(workload) = self.workloads.remove(key) else { continue };
            self.used -= workload.used;
            for handle in workload.groups.into_values().flat_map(|group| group.children.into_values()) {
                // Only a collector that was never registered can be refused, and none of those is kept.
                let _removed = match handle {
                    Handle::Counter(counter) => self.registry.unregister(Box::new(counter)),
                    Handle::Histogram(histogram) => self.registry.unregister(Box::new(histogram)),
                    Handle::Derived => Ok(()),
                };
            }
        }
        gone
    }

    /// Series in use, by a count of its own.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    fn missing(&self, place: &Place, changes: &Changes<'_>) -> HashSet<Child> {
        let group =
            self.workloads.get(&place.workload).and_then(|workload| workload.groups.get(&place.group));
        let children = changes.iter().map(|(child, _)| child);
        match group {
            None => children.cloned().chain(place.group.born().into_iter().map(|(child, _)| child)).collect(),
            Some(group) => children
                .map(|child| group.settle(child))
                .filter(|child| !group.children.contains_key(child))
                .collect(),
        }
    }

    fn fits(&self, place: &Place, missing: &HashSet<Child>, per_workload: usize, total: usize) -> bool {
        let cost: usize = missing.iter().map(|child| child.cost(&self.buckets)).sum();
        let used = self.workloads.get(&place.workload).map_or(0, |workload| workload.used);
        // Nothing new always fits: the caps bound series, not values.
        cost == 0 || (used + cost <= per_workload && self.used + cost <= total)
    }

    fn commit(&mut self, place: Place, changes: &Changes<'_>) -> Place {
        let workload = self
            .workloads
            .entry(place.workload.clone())
            .or_insert_with(|| Workload::new(Arc::new(place.workload.as_identity())));
        let born = if workload.groups.contains_key(&place.group) { Vec::new() } else { place.group.born() };
        let group = workload.groups.entry(place.group.clone()).or_default();
        let names = self.names.into_iter().chain(labels::REQUEST_NAMES);
        let mut values: Option<Vec<String>> = None;
        for (child, change) in born.iter().chain(changes) {
            let child = group.settle(child);
            let handle = match group.children.entry(child) {
                Entry::Occupied(entry) => Some(entry.into_mut()),
                Entry::Vacant(entry) => {
                    let cost = entry.key().cost(&self.buckets);
                    let values = values.get_or_insert_with(|| place.label_values());
                    let common = names.clone().zip(values.iter().map(String::as_str));
                    let made = if self.used + cost <= self.total {
                        make(&self.registry, &self.buckets, common, entry.key()).ok()
                    } else {
                        self.limited.with_label_values(&[entry.key().metric()]).inc();
                        None
                    };
                    made.map(|handle| {
                        self.used += cost;
                        workload.used += cost;
                        group.ends += usize::from(matches!(entry.key(), Child::Requests { .. }));
                        entry.insert(handle)
                    })
                }
            };
            match (handle, change) {
                (Some(Handle::Counter(counter)), Change::Add(n)) => counter.inc_by(*n),
                (Some(Handle::Histogram(histogram)), Change::Observe(value)) => histogram.observe(*value),
                (Some(Handle::Histogram(histogram)), Change::ObserveMicros(values)) => {
                    values.iter().for_each(|micros| histogram.observe(f64::from(*micros) / 1e6));
                }
                (_, Change::Add(0)) => {}
                (_, Change::ObserveMicros(values)) => self.dropped.inc_by(values.len() as u64),
                (_, Change::Add(_) | Change::Observe(_)) => self.dropped.inc(),
            }
        }
        place
    }
}

/// What may be used of a cap by what is not `other`.
fn below_reserve(cap: usize, reserve: usize) -> usize {
    cap - reserve.min(cap / 2)
}

fn make<'a>(
    registry: &Registry,
    buckets: &Buckets,
    common: impl Iterator<Item = (&'static str, &'a str)>,
    child: &Child,
) -> prometheus::Result<Handle> {
    let mut labels: HashMap<String, String> =
        common.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    labels.extend(child.labels().into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())));
    if matches!(child, Child::InFlight) {
        return Ok(Handle::Derived);
    }
    if let Some(bounds) = child.buckets(buckets) {
        let options = HistogramOpts::new(child.metric(), child.help());
        let histogram = Histogram::with_opts(options.const_labels(labels).buckets(bounds.to_vec()))?;
        registry.register(Box::new(histogram.clone()))?;
        return Ok(Handle::Histogram(histogram));
    }
    let counter = IntCounter::with_opts(Opts::new(child.metric(), child.help()).const_labels(labels))?;
    registry.register(Box::new(counter.clone()))?;
    Ok(Handle::Counter(counter))
}

/// What one busy group takes: the reserve that the caps keep for `other`.
fn reserve(buckets: &Buckets) -> usize {
    let histograms = [
        Child::Duration(Class::Ok),
        Child::Duration(Class::Error),
        Child::Duration(Class::Aborted),
        Child::Ttft,
        Child::Tpot,
        Child::Chunk,
        Child::RequestTokens("input"),
        Child::RequestTokens("output"),
        Child::Queue("accept"),
        Child::Queue("socket"),
        Child::Queue("engine"),
        Child::InFlight,
    ];
    // Ends, tokens by type and source, waste, starts, deliveries and processes come on top.
    histograms.iter().map(|child| child.cost(buckets)).sum::<usize>() + ENDS + 48
}

fn one_of_each() -> [Child; 23] {
    [
        Child::Duration(Class::Ok),
        Child::Ttft,
        Child::Tpot,
        Child::Chunk,
        Child::RequestTokens(""),
        Child::Requests { outcome: Outcome::Ok, code: Code::None, finish: "" },
        Child::Started(""),
        Child::InFlight,
        Child::Deliveries,
        Child::Stalls,
        Child::ClientStalls,
        Child::Tokens { kind: "", source: "" },
        Child::Wasted(Outcome::Ok),
        Child::Queue(""),
        Child::WaitEstimate,
        Child::Slo { slo: String::new(), met: "" },
        Child::SloExcluded { slo: String::new(), reason: "" },
        Child::ResponseStart,
        Child::RequestRead,
        Child::Partial(String::new()),
        Child::Undecoded(String::new()),
        Child::ProcessStarts,
        Child::ProcessExits(""),
    ]
}
