//! What pods belong to, and what scales it.

use serde_json::{Value, json};

use super::{metadata, owned_by};

/// How many replicas a workload has of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replicas {
    /// Asked for.
    pub desired: u32,
    /// There are.
    pub current: u32,
    /// Ready.
    pub ready: u32,
    /// Ready for long enough.
    pub available: u32,
    /// Of the latest template.
    pub updated: u32,
}

impl Replicas {
    /// As many as asked for, and all well.
    pub fn all(number: u32) -> Self {
        Self { desired: number, current: number, ready: number, available: number, updated: number }
    }
}

fn workload(
    version: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    mut spec: Value,
    status: &Value,
) -> Value {
    spec["selector"] = json!({"matchLabels": {"app": name}});
    spec["template"] = json!({"metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "server", "image": "vllm/vllm-openai:v0.11.0", "resources": {}}]}});
    json!({"apiVersion": version, "kind": kind, "metadata": metadata(kind, namespace, name), "spec": spec, "status": status})
}

/// A number that a server leaves out of `status` when it is zero (`omitempty`).
fn nonzero(status: &mut Value, fields: &[(&str, u32)]) {
    for (name, number) in fields.iter().filter(|(_, number)| *number > 0) {
        status[*name] = json!(number);
    }
}

/// A `Deployment`.
pub fn deployment(namespace: &str, name: &str, replicas: Replicas) -> Value {
    let spec = json!({"replicas": replicas.desired, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}});
    let mut status = json!({"observedGeneration": 1});
    nonzero(
        &mut status,
        &[
            ("replicas", replicas.current),
            ("readyReplicas", replicas.ready),
            ("availableReplicas", replicas.available),
            ("updatedReplicas", replicas.updated),
            ("unavailableReplicas", replicas.desired.saturating_sub(replicas.available)),
        ],
    );
    workload("apps/v1", "Deployment", namespace, name, spec, &status)
}

/// A `ReplicaSet` of a deployment.
pub fn replica_set(namespace: &str, name: &str, deployment: &str, replicas: Replicas) -> Value {
    // Unlike the others it tells zero (kubernetes: api/apps/v1 ReplicaSetStatus).
    let mut status = json!({"observedGeneration": 1, "replicas": replicas.current});
    nonzero(
        &mut status,
        &[
            ("fullyLabeledReplicas", replicas.current),
            ("readyReplicas", replicas.ready),
            ("availableReplicas", replicas.available),
        ],
    );
    let set =
        workload("apps/v1", "ReplicaSet", namespace, name, json!({"replicas": replicas.desired}), &status);
    owned_by(set, "Deployment", deployment)
}

/// A `StatefulSet`.
pub fn stateful_set(namespace: &str, name: &str, replicas: Replicas) -> Value {
    let spec = json!({"replicas": replicas.desired, "serviceName": name, "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
    let mut status = json!({"observedGeneration": 1, "replicas": replicas.current, "collisionCount": 0,
        "availableReplicas": replicas.available, "currentRevision": format!("{name}-7c9d"), "updateRevision": format!("{name}-7c9d")});
    nonzero(
        &mut status,
        &[
            ("readyReplicas", replicas.ready),
            ("currentReplicas", replicas.current),
            ("updatedReplicas", replicas.updated),
        ],
    );
    workload("apps/v1", "StatefulSet", namespace, name, spec, &status)
}

/// A `DaemonSet`.
pub fn daemon_set(namespace: &str, name: &str, replicas: Replicas) -> Value {
    let spec = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "revisionHistoryLimit": 10});
    let mut status = json!({"observedGeneration": 1, "desiredNumberScheduled": replicas.desired,
        "currentNumberScheduled": replicas.current, "numberReady": replicas.ready, "numberMisscheduled": 0});
    nonzero(
        &mut status,
        &[("numberAvailable", replicas.available), ("updatedNumberScheduled", replicas.updated)],
    );
    workload("apps/v1", "DaemonSet", namespace, name, spec, &status)
}

/// A `LeaderWorkerSet` of groups of so many pods.
pub fn leader_worker_set(namespace: &str, name: &str, size: u32, replicas: Replicas) -> Value {
    let template = json!({"spec": {"containers": [{"name": "server", "image": "vllm/vllm-openai:v0.11.0"}]}});
    json!({"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet",
        "metadata": metadata("LeaderWorkerSet", namespace, name),
        "spec": {"replicas": replicas.desired, "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 0}},
            "leaderWorkerTemplate": {"size": size, "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": template, "workerTemplate": template}},
        "status": {"replicas": replicas.current, "readyReplicas": replicas.ready, "updatedReplicas": replicas.updated,
            "hpaPodSelector": format!("leaderworkerset.sigs.k8s.io/name={name},leaderworkerset.sigs.k8s.io/worker-index=0"),
            "conditions": [{"type": "Available", "status": if replicas.ready == replicas.desired { "True" } else { "False" },
                "reason": "AllGroupsReady", "message": "", "lastTransitionTime": super::CREATED}]}})
}

/// A `Job` that runs.
pub fn job(namespace: &str, name: &str) -> Value {
    let status = json!({"active": 1, "ready": 1, "startTime": super::CREATED, "uncountedTerminatedPods": {}});
    let spec = json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed"});
    workload("batch/v1", "Job", namespace, name, spec, &status)
}

/// A `CronJob`.
pub fn cron_job(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata("CronJob", namespace, name),
        "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false, "jobTemplate": {}}, "status": {}})
}

/// A `HorizontalPodAutoscaler` of a workload of apps/v1, with its least and most replicas, and those that
/// there are and that it wants.
pub fn autoscaler(
    namespace: &str,
    name: &str,
    target: (&str, &str),
    bounds: (u32, u32),
    current: u32,
    desired: u32,
) -> Value {
    let metric = |side: &str| {
        json!({"type": "Pods", "pods": {"metric": {"name": "llm_requests_waiting"},
            side: {"type": "AverageValue", "averageValue": "5"}}})
    };
    let condition = |kind: &str, met: bool, reason: &str, message: &str| {
        json!({"type": kind, "status": if met { "True" } else { "False" }, "reason": reason, "message": message,
            "lastTransitionTime": super::CREATED})
    };
    let limited = desired == bounds.1;
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": metadata("HorizontalPodAutoscaler", namespace, name),
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": target.0, "name": target.1},
            "minReplicas": bounds.0, "maxReplicas": bounds.1, "metrics": [metric("target")]},
        "status": {"currentReplicas": current, "desiredReplicas": desired, "lastScaleTime": super::CREATED,
            "currentMetrics": [metric("current")],
            "conditions": [
                condition("AbleToScale", true, "ReadyForNewScale", "recommended size matches current size"),
                condition("ScalingActive", true, "ValidMetricFound", "the HPA was able to successfully calculate a replica count"),
                condition("ScalingLimited", limited, if limited { "TooManyReplicas" } else { "DesiredWithinRange" }, "")]}})
}
