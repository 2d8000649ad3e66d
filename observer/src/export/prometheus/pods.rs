//! Pods of this node as metric families: what the API server said of them, what their containers use, and how they
//! came to serve. A snapshot in, families out, no state.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts};

use crate::pods::{ContainerKind, Phase, Pod, State, Told};

use super::labels::bounded;

const INFO: &str = "1 for each pod: its uid, node and what manages it. Pods that serve LLM requests, unless \
                    kubernetes.pods=all; kube-state-metrics tells of the others.";
const PHASE: &str = "1 for the phase that the pod is in, 0 for the others.";
const READY: &str = "Whether the pod's condition Ready is true.";
const REASON: &str = "1 for the reason that the pod as a whole gives for its phase, such as Evicted.";
const STUCK: &str =
    "Seconds that the pod has been pending since it was created, or terminating since it was asked to.";
const WAITING: &str =
    "1 for the reason that a container waits for, such as CrashLoopBackOff or ImagePullBackOff.";
const TERMINATED: &str = "1 for the reason that a container ended for and did not start again.";
const LAST: &str =
    "1 for how a container's life before this one ended, such as OOMKilled, with its exit code.";
const RESTARTS: &str = "Times that the kubelet started the container again.";
const REQUESTS: &str =
    "What a container asks for: cores, bytes, or devices such as nvidia.com/gpu and MIG instances.";
const LIMITS: &str = "What a container may use at most, in the units of its requests.";
const CPU: &str = "Processor time that the container used, by its cgroup.";
const THROTTLED: &str =
    "Time that the container's threads were kept off the processors by its limit, by its cgroup.";
const MEMORY: &str = "Memory that the container uses, page cache included, by its cgroup.";
const WORKING_SET: &str = "Memory that the container uses without the file cache that can be dropped at once: what the \
                           kubelet evicts by.";
pub(super) const START: &str = "Seconds from the creation of the pod, or from the end of the container's life before, to a phase of \
                     the container's start: scheduled, initialized, image_pulled (told by the cluster role), started, exec, listening, first_success, first_token, \
                     ready. Moments of the API server are whole seconds. What happened before the observer looked is absent.";

const TOKEN: &str = "When the container generated its first token, as Unix time; absent unless it was seen to begin to listen.";

/// Families with the workload labels of these names, at this moment of the wall clock.
pub(super) fn families(names: &[&'static str], told: &Told) -> prometheus::Result<Vec<MetricFamily>> {
    let gauge = |name: &str, help: &str, more: &[&'static str]| {
        GaugeVec::new(Opts::new(name, help), &[names, more].concat())
    };
    let counter = |name: &str, help: &str| CounterVec::new(Opts::new(name, help), names);
    let info = gauge("llm_pod_info", INFO, &["uid", "node", "workload_kind", "workload"])?;
    let phases = gauge("llm_pod_status_phase", PHASE, &["phase"])?;
    let ready = gauge("llm_pod_ready", READY, &[])?;
    let reasons = gauge("llm_pod_status_reason", REASON, &["reason"])?;
    let stuck = gauge("llm_pod_stuck_seconds", STUCK, &["state"])?;
    let waiting = gauge("llm_pod_container_waiting", WAITING, &["reason"])?;
    let terminated = gauge("llm_pod_container_terminated", TERMINATED, &["reason"])?;
    let last = gauge("llm_pod_container_last_terminated", LAST, &["reason", "exit_code"])?;
    let restarts = counter("llm_pod_container_restarts_total", RESTARTS)?;
    let requests = gauge("llm_resource_requests", REQUESTS, &["resource", "unit"])?;
    let limits = gauge("llm_resource_limits", LIMITS, &["resource", "unit"])?;
    let start = gauge("llm_container_start_phase_seconds", START, &["phase"])?;
    let tokens = gauge("llm_container_first_token_timestamp_seconds", TOKEN, &[])?;
    for pod in &told.pods {
        let (namespace, name) = (pod.namespace.as_str(), pod.name.as_str());
        let whole = [namespace, name, ""];
        let (kind, workload) = pod.workload.as_ref().map_or(("", ""), |w| (w.kind.as_str(), w.name.as_str()));
        info.with_label_values(&[namespace, name, "", &pod.uid, &pod.node, kind, workload]).set(1.0);
        for phase in Phase::ALL {
            let is = f64::from(u8::from(phase == pod.phase));
            phases.with_label_values(&[namespace, name, "", phase.as_str()]).set(is);
        }
        ready.with_label_values(&whole).set(f64::from(u8::from(pod.ready)));
        if let Some(reason) = &pod.reason {
            reasons.with_label_values(&[namespace, name, "", &bounded(reason)]).set(1.0);
        }
        if let Some((state, seconds)) = stuck_for(pod, told.now) {
            stuck.with_label_values(&[namespace, name, "", state]).set(seconds);
        }
        for container in &pod.containers {
            let at = [namespace, name, container.name.as_str()];
            let with = |vector: &GaugeVec, more: &[&str], value: f64| {
                vector.with_label_values(&[&at[..], more].concat()).set(value);
            };
            match &container.state {
                State::Waiting { reason } => with(&waiting, &[&bounded(reason)], 1.0),
                // An init container is meant to end.
                State::Terminated(end) if container.kind == ContainerKind::Main || end.exit_code != 0 => {
                    with(&terminated, &[&bounded(&end.reason)], 1.0);
                }
                State::Terminated(_) | State::Running { .. } | State::Unknown => {}
            }
            if let Some(end) = &container.last {
                with(&last, &[&bounded(&end.reason), &end.exit_code.to_string()], 1.0);
            }
            restarts.with_label_values(&at).inc_by(container.restarts as f64);
            for (vector, amounts) in [(&requests, &container.requests), (&limits, &container.limits)] {
                for (resource, amount) in amounts {
                    with(vector, &[&bounded(resource), unit(resource)], *amount);
                }
            }
            let token = container.id.as_ref().and_then(|id| told.starts.first_token(id));
            if let Some(token) = token {
                with(&tokens, &[], token as f64 / 1e9);
            }
            for (phase, seconds) in told.starts.phases(pod, container) {
                with(&start, &[phase], seconds);
            }
        }
    }
    let mut families = Vec::new();
    for vector in
        [info, phases, ready, reasons, stuck, waiting, terminated, last, requests, limits, start, tokens]
    {
        families.extend(vector.collect());
    }
    families.extend(restarts.collect());
    families.extend(usage(names, told)?);
    families.retain(|family| !family.get_metric().is_empty());
    Ok(families)
}

fn usage(names: &[&'static str], told: &Told) -> prometheus::Result<Vec<MetricFamily>> {
    let cpu = CounterVec::new(Opts::new("llm_resource_cpu_seconds_total", CPU), names)?;
    let throttled = CounterVec::new(Opts::new("llm_resource_cpu_throttled_seconds_total", THROTTLED), names)?;
    let memory = GaugeVec::new(Opts::new("llm_resource_memory_bytes", MEMORY), names)?;
    let working = GaugeVec::new(Opts::new("llm_resource_memory_working_set_bytes", WORKING_SET), names)?;
    for (names, usage) in &told.usage {
        let at: Vec<&str> = names.iter().map(String::as_str).collect();
        for (vector, value) in [(&cpu, usage.cpu_seconds), (&throttled, usage.throttled_seconds)] {
            if let Some(value) = value {
                vector.with_label_values(&at).inc_by(value);
            }
        }
        for (vector, value) in [(&memory, usage.memory), (&working, usage.working_set)] {
            if let Some(value) = value {
                vector.with_label_values(&at).set(value as f64);
            }
        }
    }
    Ok([cpu.collect(), throttled.collect(), memory.collect(), working.collect()].concat())
}

/// For how long a pod has been on its way in or out.
fn stuck_for(pod: &Pod, now: u64) -> Option<(&'static str, f64)> {
    let seconds = |since: u64| now.saturating_sub(since) as f64 / 1e9;
    match (pod.deleted, pod.phase, pod.created) {
        (Some(asked), _, _) => Some(("terminating", seconds(asked))),
        (None, Phase::Pending, Some(created)) => Some(("pending", seconds(created))),
        _ => None,
    }
}

/// What a resource is counted in.
pub(super) fn unit(resource: &str) -> &'static str {
    match resource {
        "cpu" => "core",
        "memory" | "ephemeral-storage" | "storage" => "byte",
        resource if resource.starts_with("hugepages-") => "byte",
        _ => "integer",
    }
}
