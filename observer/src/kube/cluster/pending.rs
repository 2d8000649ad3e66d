//! Pods that wait for a node, and why the scheduler found none.
//!
//! Only pods whose phase is Pending are asked for: those that wait for a node, and those that were given one and do not
//! run yet. Of the latter only their creation is remembered, for what events tell of their images.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{
    amounts::is_accelerator,
    lingering::Lingering,
    table::{Table, place},
};
use crate::{config::PodScope, kube::Keep};

/// A pod that waits for a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unscheduled {
    /// When it was created, in nanoseconds of the wall clock.
    pub created: Option<u64>,
    /// Why the scheduler found none: one of a few words.
    pub cause: &'static str,
}

/// Keeps those two.
pub(super) struct Pending {
    pub(super) unscheduled: Table<Unscheduled>,
    pub(super) scope: Arc<PodScope>,
    /// When pods were created that do not run yet, or did not until just now: in nanoseconds of the wall clock.
    pub(super) births: Lingering<u64>,
}

impl Keep<Pod> for Pending {
    fn begin(&mut self) {
        self.unscheduled.begin();
        self.births.begin();
    }

    fn apply(&mut self, pod: Pod) {
        let place = place(&pod);
        if let (Some(uid), Some(created)) = (&pod.metadata.uid, created(&pod)) {
            self.births.there(uid, created);
        }
        let admitted = self.scope.admits(&place.0, pod.labels(), pod.annotations());
        match unscheduled(&pod).filter(|_| admitted) {
            Some(waits) => self.unscheduled.set(place, waits),
            None => self.unscheduled.remove(&place),
        }
    }

    fn delete(&mut self, pod: Pod) {
        self.unscheduled.remove(&place(&pod));
        if let Some(uid) = &pod.metadata.uid {
            self.births.gone(uid);
        }
    }

    fn told(&mut self) {
        self.unscheduled.told();
        self.births.told();
    }

    fn len(&self) -> usize {
        self.births.len()
    }
}

fn created(pod: &Pod) -> Option<u64> {
    u64::try_from(pod.metadata.creation_timestamp.as_ref()?.0.as_nanosecond()).ok()
}

/// What is told of a pod that has no node.
fn unscheduled(pod: &Pod) -> Option<Unscheduled> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if node.is_some_and(|node| !node.is_empty()) {
        return None;
    }
    let status = pod.status.as_ref();
    // A pod that has ended waits for nothing.
    if status.and_then(|status| status.phase.as_deref()).is_some_and(|phase| !matches!(phase, "" | "Pending"))
    {
        return None;
    }
    let nominated = status.and_then(|status| status.nominated_node_name.as_deref());
    let mut conditions = status.and_then(|status| status.conditions.as_deref()).into_iter().flatten();
    let condition =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let cause = match condition {
        _ if nominated.is_some_and(|node| !node.is_empty()) => "preemption",
        None => "not_tried",
        Some(condition) => match condition.reason.as_deref().unwrap_or_default() {
            "SchedulingGated" => "gated",
            "Unschedulable" => cause(condition.message.as_deref().unwrap_or_default()),
            _ => "other",
        },
    };
    Some(Unscheduled { created: created(pod), cause })
}

/// The cause that a scheduler's message comes down to:
/// `0/5 nodes are available: 2 Insufficient nvidia.com/gpu, 3 node(s) had untolerated taint {a: b}. preemption: …`.
///
/// A node is named with what it failed first, and nodes are tested in an order (kubernetes:
/// `pkg/scheduler/apis/config/v1/default_plugins.go`): taints, node affinity, ports, resources, volumes, then spreading and affinity to pods. So what the
/// farthest node failed is what stands between the pod and a node: of a hundred nodes without GPUs and one with
/// all of them taken, the one.
fn cause(message: &str) -> &'static str {
    let message = message.split(". preemption:").next().unwrap_or_default();
    let reasons = message.split_once("available:").map_or(message, |(_, reasons)| reasons);
    let causes = reasons.split(", ").map(rank);
    causes.max_by_key(|(rank, _)| *rank).map_or("other", |(_, cause)| cause)
}

/// How far a node came that was refused for this, and what it is called. Texts are those of the scheduler's plugins
/// (kubernetes: pkg/scheduler/framework/plugins/*, `ErrReason…`), of which the beginning stays over versions.
fn rank(reason: &str) -> (u8, &'static str) {
    let reason = reason.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    if let Some(resource) = reason.strip_prefix("Insufficient ") {
        let resource = resource.trim_end_matches('.').trim();
        return match resource {
            "cpu" => (5, "insufficient_cpu"),
            "memory" => (6, "insufficient_memory"),
            device if is_accelerator(device) => (7, "insufficient_gpu"),
            _ => (4, "insufficient_other"),
        };
    }
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if reason.starts_with("Too many pods") {
        (4, "insufficient_other")
    } else if has(&["cannot allocate all claims", "resourceclaim", "ResourceClaim"]) {
        // Dynamic resource allocation: devices, after resources were found to suffice.
        (7, "insufficient_gpu")
    } else if has(&["volume", "persistentvolumeclaim", "PersistentVolume", "storage class", "disk conflict"])
    {
        (8, "volume")
    } else if has(&["pod affinity", "pod anti-affinity", "topology spread", "anti-affinity rules"]) {
        (9, "affinity")
    } else if has(&["node affinity", "node selector", "didn't match Pod's node"]) {
        (2, "affinity")
    } else if has(&["taint", "unschedulable"]) {
        (1, "taint")
    } else {
        (0, "other")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn messages_of_schedulers() {
        for (message, expected) in [
            ("0/5 nodes are available: 5 Insufficient cpu.", "insufficient_cpu"),
            ("0/5 nodes are available: 2 Insufficient memory, 3 Insufficient cpu.", "insufficient_memory"),
            (
                "0/101 nodes are available: 1 Insufficient nvidia.com/gpu, 100 node(s) didn't match Pod's node \
                 affinity/selector. preemption: 0/101 nodes are available: 1 No preemption victims found for \
                 incoming pod, 100 Preemption is not helpful for scheduling.",
                "insufficient_gpu",
            ),
            ("0/3 nodes are available: 3 Insufficient nvidia.com/mig-1g.5gb.", "insufficient_gpu"),
            ("0/3 nodes are available: 3 Insufficient ephemeral-storage.", "insufficient_other"),
            ("0/3 nodes are available: 3 Too many pods.", "insufficient_other"),
            (
                "0/4 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, \
                 3 node(s) were unschedulable.",
                "taint",
            ),
            (
                "0/4 nodes are available: 1 node(s) had untolerated taint {a: b}, 3 node(s) didn't match node selector.",
                "affinity",
            ),
            (
                "0/4 nodes are available: 2 Insufficient cpu, 2 node(s) didn't match pod anti-affinity rules.",
                "affinity",
            ),
            ("0/4 nodes are available: 4 node(s) didn't match pod topology spread constraints.", "affinity"),
            ("0/4 nodes are available: 4 node(s) had volume node affinity conflict.", "volume"),
            ("0/4 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "volume"),
            ("persistentvolumeclaim \"weights\" not found", "volume"),
            ("0/2 nodes are available: 2 cannot allocate all claims.", "insufficient_gpu"),
            (
                "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.",
                "other",
            ),
            ("no nodes available to schedule pods", "other"),
            ("", "other"),
        ] {
            assert_eq!(cause(message), expected, "{message}");
        }
    }

    fn pod(spec: &Value, status: &Value) -> Option<Unscheduled> {
        let metadata = json!({"name": "a", "namespace": "ml", "creationTimestamp": "1970-01-01T00:00:07Z"});
        unscheduled(
            &serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap(),
        )
    }

    #[test]
    fn who_waits_and_since_when() {
        let spec = json!({"containers": []});
        let scheduled = |reason: &str, message: &str| json!([{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]);
        let waits = pod(&spec, &json!({"phase": "Pending"})).unwrap();
        assert_eq!((waits.created, waits.cause), (Some(7_000_000_000), "not_tried"));
        let conditions = scheduled("Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.");
        let status = json!({"phase": "Pending", "conditions": conditions});
        assert_eq!(pod(&spec, &status).unwrap().cause, "insufficient_cpu");
        let status = json!({"conditions": scheduled("SchedulingGated", "")});
        assert_eq!(pod(&spec, &status).unwrap().cause, "gated");
        let status = json!({"conditions": scheduled("SchedulerError", "boom")});
        assert_eq!(pod(&spec, &status).unwrap().cause, "other");
        let status = json!({"nominatedNodeName": "n1", "conditions": conditions});
        assert_eq!(pod(&spec, &status).unwrap().cause, "preemption");
        assert_eq!(pod(&json!({"containers": [], "nodeName": "n1"}), &json!({"phase": "Pending"})), None);
        assert_eq!(pod(&spec, &json!({"phase": "Failed"})), None);
    }
}
