//! What is told of the whole cluster, as a scrape: a snapshot in, text out. Only the bound on series is remembered.
//!
//! All of it carries the three workload labels, empty where they do not apply: a label that is left out would be filled
//! in with the scraped pod's own.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGauge, Opts, TextEncoder};

use crate::config::MetricsConfig;
use crate::kube::Snapshot;
use crate::kube::cluster::{BOUNDS, STATES, Told};
use crate::telemetry::ReceivedCounts;

use super::labels::{bounded, workload_names};
use super::pods::{START, unit};
use super::{agent, kube};

const LEADER: &str = "Whether this replica leads: it alone exports what is told of the cluster.";
const LIMITED: &str = "Values that were left out because metrics.max_series, or the room for what they are made of, was used up, by \
                       metric; those of gauges once in each scrape.";
const REPLICAS: &str = "Replicas of a workload as its controller counts them: desired, current, ready, available and updated. Of \
                        ReplicaSets only those that no Deployment owns; of LeaderWorkerSets groups of pods. What a kind does \
                        not count, or has not counted yet, is absent.";
const AUTOSCALER: &str =
    "Replicas that a HorizontalPodAutoscaler may ask for (min, max), sees (current) and wants (desired).";
const CONDITION: &str = "1 for each condition of a HorizontalPodAutoscaler with its status: ScalingLimited=True, or \
                         ScalingActive=False, is one that cannot do what it should.";
const SCALED: &str = "When a HorizontalPodAutoscaler last changed what it wants, as Unix time. With llm_container_first_token_timestamp_seconds \
                      it tells how long scaling takes until something is served.";
const QUOTA: &str = "What a ResourceQuota lets its namespace use (hard), and what is used, in base units.";
const LIMIT_RANGE: &str = "What a LimitRange asks of single containers, pods or volumes, in base units, by constraint: min, max, \
                           default, defaultRequest, maxLimitRequestRatio.";
const ALLOCATABLE: &str = "What a node offers to pods: cores, bytes of memory, pods, and accelerators such as nvidia.com/gpu and MIG \
                           instances.";
const NODE_CONDITION: &str = "1 for each condition of a node that is not as it should be, with its status: Ready that is not True, \
                              any other that is not False, and Unschedulable. Absent where all is well.";
const UNSCHEDULED: &str = "Seconds since the creation of a pod that has no node, by what stands in its way at the nodes that come \
                           closest: insufficient_gpu, insufficient_memory, insufficient_cpu, insufficient_other, volume, affinity, \
                           taint, preemption (room is being made), gated, not_tried, other.";
const EVENTS: &str = "Times that events of Kubernetes occurred since the first replica of the observer led, less what occurred \
                      while none did. What is repeated is counted by its own count.";

/// Renders scrapes of the cluster role.
pub struct ClusterScrape {
    workload: [&'static str; 3],
    most: usize,
    limited: Mutex<BTreeMap<&'static str, u64>>,
}

impl ClusterScrape {
    /// One in this style and with this bound.
    pub fn new(config: &MetricsConfig) -> Self {
        Self { workload: workload_names(config.labels), most: config.max_series, limited: Mutex::default() }
    }

    /// One scrape in text format: what a leader tells of the cluster, and what any replica tells of itself.
    ///
    /// # Errors
    /// When the text cannot be rendered, which would be a mistake in a definition.
    pub fn gather(
        &self,
        told: Option<&Told>,
        watches: &[Snapshot],
        otlp: &[crate::export::otlp::Told],
        (store, received): (Option<&crate::store::Snapshot>, Option<ReceivedCounts>),
    ) -> prometheus::Result<String> {
        let leader = IntGauge::new("observer_leader", LEADER)?;
        leader.set(i64::from(told.is_some()));
        let mut families = leader.collect();
        families.extend(agent::build()?);
        families.extend(kube::families(watches)?);
        families.extend(super::otlp::families(otlp)?);
        families.extend(super::kept::of_store(store)?);
        families.extend(super::kept::of_intake(received)?);
        if let Some(told) = told {
            let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
            let mut series = Series {
                workload: self.workload,
                left: self.most,
                limited: &mut limited,
                families: Vec::new(),
            };
            workloads(&mut series, told)?;
            resources(&mut series, told)?;
            pods_and_events(&mut series, told)?;
            families.extend(series.families);
            let left_out =
                IntCounterVec::new(Opts::new("observer_series_limited_total", LIMITED), &["metric"])?;
            let refused = told.refused.iter().map(|(metric, count)| (*metric, *count));
            for (metric, count) in limited.iter().map(|(metric, count)| (*metric, *count)).chain(refused) {
                left_out.with_label_values(&[metric]).inc_by(count);
            }
            families.extend(left_out.collect());
        }
        families.retain(|family| !family.get_metric().is_empty());
        for family in &mut families {
            // A vector has them in no order, and a scrape that is the same should read the same.
            family.mut_metric().sort_by_cached_key(|metric| {
                metric.get_label().iter().map(|label| label.value().to_owned()).collect::<Vec<_>>()
            });
        }
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families)
    }
}

/// Families as they are made, as long as there is room.
struct Series<'a> {
    workload: [&'static str; 3],
    left: usize,
    limited: &'a mut BTreeMap<&'static str, u64>,
    families: Vec<MetricFamily>,
}

/// Label values after those of the workload, and the value.
type Row<'a> = ([&'a str; 3], Vec<&'a str>, f64);

impl Series<'_> {
    /// Makes a family of rows.
    fn gauge<'a>(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[&'static str],
        rows: impl Iterator<Item = Row<'a>>,
    ) -> prometheus::Result<()> {
        let names = [&self.workload[..], labels].concat();
        let vector = GaugeVec::new(Opts::new(name, help), &names)?;
        for row in rows {
            if let Some(values) = self.admit(name, &row) {
                vector.with_label_values(&values).set(row.2);
            }
        }
        self.families.extend(vector.collect());
        Ok(())
    }

    fn counter<'a>(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[&'static str],
        rows: impl Iterator<Item = Row<'a>>,
    ) -> prometheus::Result<()> {
        let names = [&self.workload[..], labels].concat();
        let vector = IntCounterVec::new(Opts::new(name, help), &names)?;
        for row in rows {
            if let Some(values) = self.admit(name, &row) {
                vector.with_label_values(&values).inc_by(row.2 as u64);
            }
        }
        self.families.extend(vector.collect());
        Ok(())
    }

    /// The label values of a row for which there is room.
    fn admit(&mut self, name: &'static str, row: &Row<'_>) -> Option<Vec<String>> {
        if self.left == 0 {
            *self.limited.entry(name).or_default() += 1;
            return None;
        }
        self.left -= 1;
        Some(row.0.iter().chain(&row.1).map(|value| bounded(value)).collect())
    }
}

/// Of a namespace, but of no pod.
fn of(namespace: &str) -> [&str; 3] {
    [namespace, "", ""]
}

fn workloads(series: &mut Series<'_>, told: &Told) -> prometheus::Result<()> {
    let replicas = told.replicas.iter().flat_map(|(kind, rows)| {
        rows.iter().flat_map(move |((namespace, name), replicas)| {
            let counted = STATES.into_iter().zip(replicas.counts);
            counted.filter_map(move |(state, count)| {
                Some((of(namespace), vec![*kind, name, state], count? as f64))
            })
        })
    });
    series.gauge("llm_workload_replicas", REPLICAS, &["workload_kind", "workload", "state"], replicas)?;
    let counts = told.autoscalers.iter().flat_map(|((namespace, name), autoscaler)| {
        let target = &autoscaler.target;
        BOUNDS.into_iter().zip(autoscaler.counts).filter_map(move |(bound, count)| {
            Some((of(namespace), vec![name.as_str(), &target.kind, &target.name, bound], count? as f64))
        })
    });
    let labels = ["autoscaler", "workload_kind", "workload", "bound"];
    series.gauge("llm_autoscaler_replicas", AUTOSCALER, &labels, counts)?;
    let conditions = told.autoscalers.iter().flat_map(|((namespace, name), autoscaler)| {
        let conditions = autoscaler.conditions.iter();
        conditions.map(move |(kind, status)| (of(namespace), vec![name.as_str(), kind, status], 1.0))
    });
    series.gauge(
        "llm_autoscaler_condition",
        CONDITION,
        &["autoscaler", "condition", "status"],
        conditions,
    )?;
    let scaled = told.autoscalers.iter().filter_map(|((namespace, name), autoscaler)| {
        let target = &autoscaler.target;
        let seconds = autoscaler.scaled? as f64 / 1e9;
        Some((of(namespace), vec![name.as_str(), &target.kind, &target.name], seconds))
    });
    let labels = ["autoscaler", "workload_kind", "workload"];
    series.gauge("llm_autoscaler_last_scale_timestamp_seconds", SCALED, &labels, scaled)
}

fn resources(series: &mut Series<'_>, told: &Told) -> prometheus::Result<()> {
    let quotas = told.quotas.iter().flat_map(|((namespace, name), quota)| {
        let amounts = quota.amounts.iter();
        amounts.map(move |(resource, kind, amount)| {
            (of(namespace), vec![name.as_str(), resource, kind], *amount)
        })
    });
    series.gauge("llm_resource_quota", QUOTA, &["resourcequota", "resource", "type"], quotas)?;
    let limits = told.limits.iter().flat_map(|((namespace, name), limits)| {
        limits.amounts.iter().map(move |(kind, resource, constraint, amount)| {
            (of(namespace), vec![name.as_str(), resource, kind, constraint], *amount)
        })
    });
    let labels = ["limitrange", "resource", "type", "constraint"];
    series.gauge("llm_resource_limit_range", LIMIT_RANGE, &labels, limits)?;
    let allocatable = told.nodes.iter().flat_map(|((_, name), node)| {
        let amounts = node.allocatable.iter();
        amounts
            .map(move |(resource, amount)| (of(""), vec![name.as_str(), resource, unit(resource)], *amount))
    });
    let labels = ["node", "resource", "unit"];
    series.gauge("llm_resource_node_allocatable", ALLOCATABLE, &labels, allocatable)?;
    let wrong = told.nodes.iter().flat_map(|((_, name), node)| {
        node.wrong.iter().map(move |(kind, status)| (of(""), vec![name.as_str(), kind, status], 1.0))
    });
    series.gauge("llm_node_condition", NODE_CONDITION, &["node", "condition", "status"], wrong)
}

fn pods_and_events(series: &mut Series<'_>, told: &Told) -> prometheus::Result<()> {
    let unscheduled = told.unscheduled.iter().filter_map(|((namespace, pod), waits)| {
        let seconds = told.now.saturating_sub(waits.created?) as f64 / 1e9;
        Some(([namespace.as_str(), pod, ""], vec![waits.cause], seconds))
    });
    series.gauge("llm_pod_unscheduled_seconds", UNSCHEDULED, &["reason"], unscheduled)?;
    let pulls = told.pulls.iter().map(|(container, seconds)| {
        (container.each_ref().map(String::as_str), vec!["image_pulled"], *seconds)
    });
    series.gauge("llm_container_start_phase_seconds", START, &["phase"], pulls)?;
    let events = told.events.iter().map(|(tally, count)| {
        let values = vec![tally.kind, tally.category.as_str(), tally.reason, tally.severity];
        (of(&tally.namespace), values, *count as f64)
    });
    series.counter("llm_events_total", EVENTS, &["kind", "category", "reason", "type"], events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LabelStyle;
    use crate::kube::cluster::events::{Category, Tally};
    use crate::kube::cluster::{Autoscaler, Capacity, Limits, Quota, Replicas, Unscheduled};
    use crate::pods::Workload;

    fn place(namespace: &str, name: &str) -> (String, String) {
        (namespace.to_owned(), name.to_owned())
    }

    fn told() -> Told {
        let target = Workload { kind: "Deployment".to_owned(), name: "llama".to_owned() };
        let autoscaler = Autoscaler {
            target,
            counts: [Some(1), Some(9), None, None],
            conditions: vec![place("ScalingLimited", "True")],
            scaled: Some(1_767_600_000_000_000_000),
        };
        let replicas = Replicas { counts: [Some(3), Some(2), Some(1), None, Some(0)] };
        let quota = Quota { amounts: vec![("requests.nvidia.com/gpu".to_owned(), "hard", 8.0)] };
        let limits =
            Limits { amounts: vec![("Container".to_owned(), "cpu".to_owned(), "defaultRequest", 0.5)] };
        let node = Capacity {
            allocatable: vec![("memory".to_owned(), 1024.0)],
            wrong: vec![place("Ready", "Unknown")],
        };
        let tally = Tally {
            namespace: "ml".to_owned(),
            kind: "Pod",
            category: Category::Restart,
            reason: "BackOff",
            severity: "Warning",
        };
        Told {
            now: 42_000_000_000,
            replicas: vec![("Deployment", vec![(place("ml", "llama"), replicas)])],
            autoscalers: vec![(place("ml", "a"), autoscaler)],
            quotas: vec![(place("ml", "q"), quota)],
            limits: vec![(place("ml", "l"), limits)],
            nodes: vec![(place("", "n1"), node)],
            unscheduled: vec![(
                place("ml", "llama-1"),
                Unscheduled { created: Some(40_500_000_000), cause: "insufficient_gpu" },
            )],
            events: vec![(tally, 7)],
            pulls: vec![(["ml".to_owned(), "llama-0".to_owned(), "server".to_owned()], 31.0)],
            refused: vec![("llm_events_total", 2)],
        }
    }

    fn lines(config: &MetricsConfig, told: Option<&Told>) -> Vec<String> {
        let text = ClusterScrape::new(config).gather(told, &[], &[], (None, None)).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn every_family_of_a_leader() {
        let lines = lines(&MetricsConfig::default(), Some(&told()));
        for line in [
            "llm_workload_replicas{container=\"\",namespace=\"ml\",pod=\"\",state=\"desired\",workload=\"llama\",workload_kind=\"Deployment\"} 3",
            "llm_workload_replicas{container=\"\",namespace=\"ml\",pod=\"\",state=\"updated\",workload=\"llama\",workload_kind=\"Deployment\"} 0",
            "llm_autoscaler_replicas{autoscaler=\"a\",bound=\"max\",container=\"\",namespace=\"ml\",pod=\"\",workload=\"llama\",workload_kind=\"Deployment\"} 9",
            "llm_autoscaler_condition{autoscaler=\"a\",condition=\"ScalingLimited\",container=\"\",namespace=\"ml\",pod=\"\",status=\"True\"} 1",
            "llm_resource_quota{container=\"\",namespace=\"ml\",pod=\"\",resource=\"requests.nvidia.com/gpu\",resourcequota=\"q\",type=\"hard\"} 8",
            "llm_resource_limit_range{constraint=\"defaultRequest\",container=\"\",limitrange=\"l\",namespace=\"ml\",pod=\"\",resource=\"cpu\",type=\"Container\"} 0.5",
            "llm_resource_node_allocatable{container=\"\",namespace=\"\",node=\"n1\",pod=\"\",resource=\"memory\",unit=\"byte\"} 1024",
            "llm_node_condition{condition=\"Ready\",container=\"\",namespace=\"\",node=\"n1\",pod=\"\",status=\"Unknown\"} 1",
            "llm_pod_unscheduled_seconds{container=\"\",namespace=\"ml\",pod=\"llama-1\",reason=\"insufficient_gpu\"} 1.5",
            "llm_events_total{category=\"restart\",container=\"\",kind=\"Pod\",namespace=\"ml\",pod=\"\",reason=\"BackOff\",type=\"Warning\"} 7",
            "llm_container_start_phase_seconds{container=\"server\",namespace=\"ml\",phase=\"image_pulled\",pod=\"llama-0\"} 31",
            "observer_leader 1",
            "observer_series_limited_total{metric=\"llm_events_total\"} 2",
        ] {
            assert!(lines.iter().any(|told| told == line), "{line}\n{lines:#?}");
        }
        let absent = ["state=\"available\"", "bound=\"current\""];
        assert!(!lines.iter().any(|line| absent.iter().any(|absent| line.contains(absent))), "{lines:#?}");
    }

    #[test]
    fn a_follower_tells_of_itself_only() {
        let lines = lines(&MetricsConfig::default(), None);
        assert!(lines.contains(&"observer_leader 0".to_owned()), "{lines:#?}");
        assert!(lines.iter().all(|line| line.starts_with("observer_")), "{lines:#?}");
    }

    #[test]
    fn labels_in_opentelemetrys_spelling() {
        let config = MetricsConfig { labels: LabelStyle::Otel, ..MetricsConfig::default() };
        let lines = lines(&config, Some(&told()));
        let pod = "k8s_container_name=\"\",k8s_namespace_name=\"ml\",k8s_pod_name=\"llama-1\"";
        assert!(lines.iter().any(|line| line.contains(pod)), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("{namespace=") || line.contains(",namespace=")));
    }

    #[test]
    fn beyond_the_bound_nothing_is_exported_and_all_is_counted() {
        let config = MetricsConfig { max_series: 5, ..MetricsConfig::default() };
        let scrape = ClusterScrape::new(&config);
        scrape.gather(Some(&told()), &[], &[], (None, None)).unwrap();
        let text = scrape.gather(Some(&told()), &[], &[], (None, None)).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("llm_")).count(), 5);
        let limited = |metric: &str| format!("observer_series_limited_total{{metric=\"{metric}\"}}");
        assert!(text.contains(&format!("{} 2", limited("llm_autoscaler_replicas"))), "{text}");
        assert!(
            text.contains(&format!("{} 4", limited("llm_events_total"))),
            "two scrapes and two before:\n{text}"
        );
    }
}
