//! Prometheus: observations become counters, gauges and histograms, and those a scrape.
//!
//! In: [`Observation`]s and the identities of processes, on one thread, which owns [`RequestMetrics`]. Out:
//! text, on any thread that holds a [`Scrape`]. Both share the registry, whose children are atomics, and the
//! small table of exchanges in flight behind a mutex; the hot path, a delivery, increments one atomic that
//! its exchange keeps at hand.
//!
//! A series counts from 0, and the usual ends of requests are shown at 0 as soon as a set of labels is born,
//! so that `rate()` sees their first step; see `meaning::USUAL` for what is left out. Series are bounded
//! (`series`) and go some time after their container did ([`RequestMetrics::expire`]).

mod agent;
mod child;
mod cluster;
mod engines;
mod gpu;
mod in_flight;
mod kept;
mod kube;
mod labels;
mod meaning;
mod otlp;
mod pods;
mod series;
mod workload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, Registry, TextEncoder};

use crate::config::{MetricsConfig, MetricsProfile};
use crate::engines::Told;
use crate::enrich::{Identities, Identity};
use crate::exchange::{ExchangeId, Observation, Operation, Phase, RequestRecord};
use crate::recent::Running;
use crate::slo::Objective;
use crate::telemetry::AgentStats;

use child::Child;
use in_flight::InFlight;
use meaning::Change;
use series::Series;
use workload::{GroupKey, Place};

pub use child::SEMCONV;
pub use cluster::ClusterScrape;
pub use gpu::GpuTold;

struct Shared {
    registry: Registry,
    label_names: Vec<&'static str>,
    in_flight: Mutex<InFlight>,
    dropped: IntCounter,
    unmatched: IntCounter,
}

impl Shared {
    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        // Every change of the table is complete in itself, so it is good even after a panic elsewhere.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Live {
    identity: Arc<Identity>,
    operation: Option<Operation>,
    place: Place,
    deliveries: Option<IntCounter>,
    stalls: Option<IntCounter>,
}

/// The writing side: takes observations. Owned by one thread.
pub struct RequestMetrics {
    shared: Arc<Shared>,
    series: Series,
    live: HashMap<ExchangeId, Live>,
    objectives: Vec<Objective>,
    profile: MetricsProfile,
}

/// The reading side: renders scrapes. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Scrape {
    shared: Arc<Shared>,
}

/// What a scrape tells beside requests.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The observer of itself.
    pub agent: AgentStats,
    /// Engines of themselves.
    pub engines: Told,
    /// Pods, as the API server and their cgroups have them.
    pub pods: crate::pods::Told,
    /// GPUs, and what they did for requests.
    pub gpus: GpuTold,
    /// Watches of the API server.
    pub watches: Vec<crate::kube::Snapshot>,
    /// What became of spans and log records.
    pub otlp: Vec<crate::export::otlp::Told>,
}

/// Makes both sides.
///
/// # Errors
///
/// When a definition is refused by the registry, which a configuration that was resolved cannot cause.
pub fn exporter(
    config: &MetricsConfig,
    objectives: &[Objective],
) -> prometheus::Result<(RequestMetrics, Scrape)> {
    let registry = Registry::new();
    // These two are exported through the families of the agent, not by the registry.
    let dropped = IntCounter::new("dropped", "Values refused by the caps.")?;
    let unmatched = IntCounter::new("unmatched", "Observations of exchanges that never started.")?;
    let series = Series::new(config, &registry, dropped.clone())?;
    let shared = Arc::new(Shared {
        registry,
        label_names: series.label_names(),
        in_flight: Mutex::default(),
        dropped,
        unmatched,
    });
    let scrape = Scrape { shared: Arc::clone(&shared) };
    let (objectives, profile) = (objectives.to_vec(), config.profile);
    Ok((RequestMetrics { shared, series, live: HashMap::new(), objectives, profile }, scrape))
}

impl RequestMetrics {
    /// Takes one observation. Whose it is, is looked up when an exchange starts, and again at its end only
    /// if the start was not seen.
    pub fn observe(&mut self, observation: &Observation, identities: &Identities) {
        match observation {
            Observation::Delivered { id } => match self.live.get(id) {
                Some(Live { deliveries: Some(deliveries), .. }) => deliveries.inc(),
                Some(_) => self.shared.dropped.inc(),
                None => self.shared.unmatched.inc(),
            },
            Observation::Phase { id, phase } => match self.live.get(id) {
                Some(live) => {
                    if *phase == Phase::Stalled {
                        live.stalls.as_ref().unwrap_or(&self.shared.dropped).inc();
                    }
                    self.shared.in_flight().phase(*id, *phase);
                }
                None => self.shared.unmatched.inc(),
            },
            Observation::Started { id, pid, time, operation } => {
                self.started(*id, identities.of(*pid), *time, *operation);
            }
            Observation::Requested { id, stream, model } => self.requested(*id, *stream, model.as_deref()),
            Observation::Finished { id, record } => self.finished(*id, record, identities),
        }
    }

    /// Counts bytes of a process that were not decoded. Causes are words of the core: lower-case letters,
    /// digits and underscores.
    pub fn undecoded(&mut self, identity: &Arc<Identity>, cause: &str, bytes: u64) {
        let changes = vec![(Child::Undecoded(labels::cause(cause).into_owned()), Change::Add(bytes))];
        self.series.apply(identity, GroupKey::Trust, &changes);
    }

    /// Counts a program of a container that began to serve, or was started by one that does.
    pub fn process_started(&mut self, identity: &Arc<Identity>) {
        self.life(identity, Child::ProcessStarts);
    }

    /// Counts a process that ended, for one of [`crate::capture::REASONS`].
    pub fn process_ended(&mut self, identity: &Arc<Identity>, reason: &'static str) {
        self.life(identity, Child::ProcessExits(reason));
    }

    /// Whether a container has answered an LLM request.
    pub fn serves(&self, identity: &Identity) -> bool {
        self.series.known(identity).is_some_and(|workload| workload.lives.is_none())
    }

    fn life(&mut self, identity: &Arc<Identity>, child: Child) {
        match &mut self.series.workload(identity).lives {
            Some(lives) => *lives.entry(child).or_default() += 1,
            None => {
                self.series.apply(identity, GroupKey::Trust, &vec![(child, Change::Add(1))]);
            }
        }
    }

    /// Removes the series of containers of which no process `lives` and has lived for a while, at this monotonic
    /// time; to be called now and then. A container with exchanges in flight stays until they have ended, so
    /// that their ends are counted.
    pub fn expire(&mut self, now: u64, lives: impl FnMut(&Identity) -> bool) {
        let gone = self.series.expire(now, lives);
        if !gone.is_empty() {
            self.shared.in_flight().forget(|values| gone.iter().any(|key| key.owns(values)));
        }
    }

    fn started(&mut self, id: ExchangeId, identity: &Arc<Identity>, time: u64, operation: Option<Operation>) {
        let workload = self.series.workload(identity);
        let group = GroupKey::Requests {
            provider: workload.provider.clone(),
            operation: operation.map_or("", Operation::as_str),
            // Not known before the body is, and not confirmed before the answer.
            model: String::new(),
            role: workload.role,
        };
        let place = self.series.apply(identity, group, &meaning::started());
        let deliveries = self.series.counter(&place, &Child::Deliveries);
        let stalls = self.series.counter(&place, &Child::Stalls);
        if self.series.has(&place, &Child::InFlight) {
            self.shared.in_flight().start(id, Arc::new(place.label_values()), time);
        }
        self.series.running(&place, true);
        let live = Live { identity: Arc::clone(identity), operation, place, deliveries, stalls };
        if let Some(earlier) = self.live.insert(id, live) {
            self.series.running(&earlier.place, false);
        }
    }

    /// What is asked for is known: the exchange moves to the series of its model.
    fn requested(&mut self, id: ExchangeId, stream: bool, model: Option<&str>) {
        let Some(live) = self.live.get_mut(&id) else { return self.shared.unmatched.inc() };
        let workload = self.series.workload(&live.identity);
        let group = GroupKey::Requests {
            provider: workload.provider.clone(),
            operation: live.operation.map_or("", Operation::as_str),
            model: workload.model_label(model, None),
            role: workload.role,
        };
        let about = self.objectives.iter().filter(|objective| objective.is_about(model));
        let mut changes = meaning::requested(stream);
        changes.extend(meaning::promised(about.map(|objective| objective.name.as_str())));
        let place = self.series.apply(&live.identity, group, &changes);
        live.deliveries = self.series.counter(&place, &Child::Deliveries);
        live.stalls = self.series.counter(&place, &Child::Stalls);
        self.series.running(&live.place, false);
        self.series.running(&place, true);
        if self.series.has(&place, &Child::InFlight) {
            self.shared.in_flight().relabel(id, Arc::new(place.label_values()));
        }
        live.place = place;
    }

    fn finished(&mut self, id: ExchangeId, record: &RequestRecord, identities: &Identities) {
        let live = self.live.remove(&id);
        let identity = match &live {
            Some(live) => Arc::clone(&live.identity),
            None => Arc::clone(identities.of(record.pid)),
        };
        let workload = self.series.workload(&identity);
        if let Some(provider) = record.provider.as_deref().filter(|provider| !provider.is_empty()) {
            workload.provider = labels::bounded(provider);
        }
        workload.role = record.role;
        let group = GroupKey::Requests {
            provider: workload.provider.clone(),
            operation: record.operation.map_or("", Operation::as_str),
            model: workload.model_label(record.model.as_deref(), record.status),
            role: record.role,
        };
        let lives = workload.lives.take();
        self.series.apply(&identity, group, &meaning::finished(record, self.profile));
        if let Some(lives) = lives {
            self.series.apply(&identity, GroupKey::Trust, &meaning::lives(&lives));
        }
        let trust = meaning::trust(record);
        if !trust.is_empty() {
            self.series.apply(&identity, GroupKey::Trust, &trust);
        }
        if let Some(live) = live {
            self.series.running(&live.place, false);
            self.shared.in_flight().end(id);
        }
    }
}

impl Scrape {
    /// Requests that have not ended, under the names that labels have: the model `other` takes what is beyond the caps.
    pub fn running(&self) -> Vec<Running> {
        self.shared.in_flight().running()
    }

    /// One scrape in text format, at this monotonic time in nanoseconds.
    ///
    /// # Errors
    ///
    /// When the text cannot be rendered, which would be a mistake in a definition.
    pub fn gather(&self, now: u64, beside: &Beside) -> prometheus::Result<String> {
        let mut families = Vec::new();
        families.extend(self.shared.in_flight().families(&self.shared.label_names, now)?);
        let dropped =
            [("series_limit", self.shared.dropped.get()), ("unmatched", self.shared.unmatched.get())];
        families.extend(agent::families(&beside.agent, &dropped)?);
        families.extend(kept::families(beside.agent.store.as_ref(), &beside.agent.logs)?);
        families.extend(engines::families(&self.shared.label_names[..3], &beside.engines)?);
        families.extend(pods::families(&self.shared.label_names[..3], &beside.pods)?);
        families.extend(gpu::families(&self.shared.label_names[..3], &beside.gpus)?);
        families.extend(kube::families(&beside.watches)?);
        families.extend(otlp::families(&beside.otlp)?);
        for family in &mut families {
            // The registry sorts its own.
            family.mut_metric().sort_by_cached_key(|metric| {
                metric.get_label().iter().map(|label| label.value().to_owned()).collect::<Vec<_>>()
            });
        }
        families.extend(self.shared.registry.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families)
    }
}

#[cfg(test)]
mod tests;
