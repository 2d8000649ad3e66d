//! A pod as the API server tells it → [`pods::Pod`]. Everything else that it tells is dropped here.
//!
//! What is missing in the object is absent in the result: a kubelet fills a pod's status bit by bit, and other
//! API servers leave out more than Kubernetes does.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};

use super::quantity;
use crate::{
    config::PodScope,
    pods::{Container, ContainerKind, Phase, Pod, State, Termination, Workload},
};

/// Annotation of a static pod's mirror: the hash of its manifest.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// What a pod is now; `None` if it has no name or no uid.
pub(crate) fn convert(pod: core::Pod, scope: &PodScope) -> Option<Pod> {
    let meta = pod.metadata;
    let (labels, annotations) = (meta.labels.unwrap_or_default(), meta.annotations.unwrap_or_default());
    let namespace = meta.namespace.unwrap_or_default();
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let since = |kind: &str| {
        let condition =
            conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
        condition.map(|condition| condition.last_transition_time.as_ref().and_then(nanos))
    };
    let owner = meta.owner_references.into_iter().flatten().find(|owner| owner.controller == Some(true));
    let owner = owner.map(|owner| Workload { kind: owner.kind, name: owner.name });
    let mut statuses: HashMap<String, core::ContainerStatus> =
        [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .map(|status| (status.name.clone(), status))
            .collect();
    let mut containers = Vec::new();
    let mut add = |name: String, kind, resources: Option<core::ResourceRequirements>| {
        let status = statuses.remove(&name);
        containers.push(container(name, kind, resources.unwrap_or_default(), status));
    };
    for init in spec.init_containers.into_iter().flatten() {
        add(init.name, ContainerKind::Init, init.resources);
    }
    for main in spec.containers {
        add(main.name, ContainerKind::Main, main.resources);
    }
    for ephemeral in spec.ephemeral_containers.into_iter().flatten() {
        add(ephemeral.name, ContainerKind::Ephemeral, ephemeral.resources);
    }
    Some(Pod {
        in_scope: scope.admits(&namespace, &labels, &annotations),
        group: group(&namespace, &labels),
        namespace,
        name: meta.name?,
        uid: meta.uid?,
        static_hash: annotations.get(CONFIG_HASH).cloned(),
        node: spec.node_name.unwrap_or_default(),
        workload: owner.clone(),
        owner,
        phase: Phase::of(status.phase.as_deref().unwrap_or_default()),
        reason: status.reason.filter(|reason| !reason.is_empty()),
        ready: since("Ready").is_some(),
        created: meta.creation_timestamp.as_ref().and_then(nanos),
        scheduled: since("PodScheduled").flatten(),
        initialized: since("Initialized").flatten(),
        became_ready: since("Ready").flatten(),
        deleted: meta.deletion_timestamp.as_ref().and_then(nanos),
        containers,
    })
}

/// The group of pods that it serves with: a group of a `LeaderWorkerSet` (its label names, `group-index` is unique in
/// the set), or a Ray cluster.
fn group(namespace: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let label = |name: &str| labels.get(name).filter(|value| !value.is_empty());
    if let Some(set) = label("leaderworkerset.sigs.k8s.io/name") {
        let index = label("leaderworkerset.sigs.k8s.io/group-index")?;
        return Some(format!("leaderworkerset {namespace}/{set} {index}"));
    }
    label("ray.io/cluster").map(|cluster| format!("ray {namespace}/{cluster}"))
}

fn container(
    name: String,
    kind: ContainerKind,
    resources: core::ResourceRequirements,
    status: Option<core::ContainerStatus>,
) -> Container {
    let mut container = Container {
        name,
        kind,
        requests: amounts(resources.requests),
        limits: amounts(resources.limits),
        ..Container::default()
    };
    let Some(status) = status else { return container };
    container.id = status.container_id.as_deref().and_then(id);
    container.restarts = u64::try_from(status.restart_count).unwrap_or(0);
    container.ready = status.ready;
    let last = status.last_state.and_then(|state| state.terminated);
    container.previous_id = last.as_ref().and_then(|last| last.container_id.as_deref()).and_then(id);
    container.last = last.map(termination);
    let state = status.state.unwrap_or_default();
    container.state = if let Some(running) = state.running {
        State::Running { since: running.started_at.as_ref().and_then(nanos) }
    } else if let Some(terminated) = state.terminated {
        State::Terminated(termination(terminated))
    } else if let Some(waiting) = state.waiting {
        State::Waiting { reason: waiting.reason.unwrap_or_default() }
    } else {
        State::Unknown
    };
    container
}

fn termination(state: core::ContainerStateTerminated) -> Termination {
    Termination {
        reason: state.reason.unwrap_or_default(),
        exit_code: state.exit_code,
        finished: state.finished_at.as_ref().and_then(nanos),
    }
}

/// `containerd://<id>` → `<id>`.
fn id(told: &str) -> Option<String> {
    let id = told.split_once("://").map_or(told, |(_, id)| id);
    (!id.is_empty()).then(|| id.to_owned())
}

fn amounts(told: Option<BTreeMap<String, Quantity>>) -> BTreeMap<String, f64> {
    let told = told.into_iter().flatten();
    told.filter_map(|(resource, amount)| Some((resource, quantity::parse(&amount.0)?))).collect()
}

/// Nanoseconds of the wall clock.
pub(super) fn nanos(time: &Time) -> Option<u64> {
    u64::try_from(time.0.as_nanosecond()).ok()
}
