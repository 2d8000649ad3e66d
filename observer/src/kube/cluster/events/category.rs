//! What events are a matter of, and the words that become label values: reasons, kinds and types that are known.

use serde::Serialize;

use super::Event;

/// What an event is a matter of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// A container ended, fails, or is about to start again.
    Restart,
    /// Replicas are added or removed, or cannot be.
    Scaling,
    /// A node is found for a pod, or none.
    Scheduling,
    /// An image is pulled, or cannot be.
    Image,
    /// A volume is attached or mounted, or cannot be.
    Volume,
    /// A probe failed.
    Probe,
    /// A pod is made to leave its node.
    Eviction,
    /// A pod makes room for a more important one.
    Preemption,
    /// Memory ran out.
    Oom,
    /// Anything else.
    Other,
}

use Category::{Eviction, Image, Oom, Other, Preemption, Probe, Restart, Scaling, Scheduling, Volume};

impl Category {
    /// As label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Restart => "restart",
            Scaling => "scaling",
            Scheduling => "scheduling",
            Image => "image",
            Volume => "volume",
            Probe => "probe",
            Eviction => "eviction",
            Preemption => "preemption",
            Oom => "oom",
            Other => "other",
        }
    }

    /// What an event is a matter of. The kubelet uses two reasons for images and containers alike; their messages
    /// tell (kubernetes: `pkg/kubelet/images/image_manager.go`).
    pub fn of(event: &Event) -> Self {
        let about_image = || {
            let message = event.message.to_ascii_lowercase();
            message.contains("image") || message.contains("errimage")
        };
        match event.reason.as_str() {
            "BackOff" | "Failed" if about_image() => Image,
            reason => {
                REASONS.iter().find(|(known, _)| *known == reason).map_or(Other, |(_, category)| *category)
            }
        }
    }
}

/// Reasons by who gives them. Sources, all of kubernetes unless named: pkg/kubelet/events/event.go,
/// pkg/kubelet/eviction, pkg/kubelet/oom, `pkg/scheduler/schedule_one.go`, pkg/scheduler/framework/preemption,
/// pkg/controller/{deployment,replicaset,statefulset,daemon,job,podautoscaler,volume,tainteviction};
/// cluster-autoscaler, Karpenter, KEDA, node-problem-detector, LeaderWorkerSet.
const REASONS: [(&str, Category); 130] = [
    ("BackOff", Restart),
    ("Failed", Restart),
    ("Killing", Restart),
    ("ExceededGracePeriod", Restart),
    ("SandboxChanged", Restart),
    ("FailedKillPod", Restart),
    ("FailedPostStartHook", Restart),
    ("FailedPreStopHook", Restart),
    ("UnfinishedPreStopHook", Restart),
    ("BackoffLimitExceeded", Restart),
    ("PodFailurePolicy", Restart),
    ("RecreatingFailedPod", Restart),
    ("RecreatingTerminatedPod", Restart),
    ("NodeRebooted", Restart),
    ("Rebooted", Restart),
    ("ScalingReplicaSet", Scaling),
    ("SuccessfulRescale", Scaling),
    ("FailedRescale", Scaling),
    ("FailedGetScale", Scaling),
    ("FailedComputeMetricsReplicas", Scaling),
    ("FailedGetResourceMetric", Scaling),
    ("FailedGetContainerResourceMetric", Scaling),
    ("FailedGetPodsMetric", Scaling),
    ("FailedGetObjectMetric", Scaling),
    ("FailedGetExternalMetric", Scaling),
    ("InvalidMetricSourceType", Scaling),
    ("InvalidSelector", Scaling),
    ("SuccessfulCreate", Scaling),
    ("SuccessfulDelete", Scaling),
    ("FailedCreate", Scaling),
    ("FailedDelete", Scaling),
    ("ReplicaSetCreateError", Scaling),
    ("TriggeredScaleUp", Scaling),
    ("NotTriggerScaleUp", Scaling),
    ("FailedToScaleUpGroup", Scaling),
    ("ScaledUpGroup", Scaling),
    ("ScaleUpTimedOut", Scaling),
    ("ScaleUpFailed", Scaling),
    ("ScaleDown", Scaling),
    ("ScaleDownEmpty", Scaling),
    ("ScaleDownFailed", Scaling),
    ("KEDAScalersStarted", Scaling),
    ("KEDAScalerFailed", Scaling),
    ("KEDAScaleTargetActivated", Scaling),
    ("KEDAScaleTargetActivationFailed", Scaling),
    ("KEDAScaleTargetDeactivated", Scaling),
    ("KEDAScaleTargetDeactivationFailed", Scaling),
    ("ScaledObjectReady", Scaling),
    ("ScaledObjectCheckFailed", Scaling),
    ("GroupsProgressing", Scaling),
    ("GroupsUpdating", Scaling),
    ("Scheduled", Scheduling),
    ("FailedScheduling", Scheduling),
    ("WaitingForGates", Scheduling),
    ("Nominated", Scheduling),
    ("FailedBinding", Scheduling),
    ("FailedPlacement", Scheduling),
    ("FailedDaemonPod", Scheduling),
    ("NodeNotReady", Scheduling),
    ("NodeReady", Scheduling),
    ("NodeSchedulable", Scheduling),
    ("NodeNotSchedulable", Scheduling),
    ("OutOfcpu", Scheduling),
    ("OutOfmemory", Scheduling),
    ("OutOfpods", Scheduling),
    ("UnexpectedAdmissionError", Scheduling),
    ("NodeAffinity", Scheduling),
    ("FailedPrepareDynamicResources", Scheduling),
    ("Pulling", Image),
    ("Pulled", Image),
    ("InspectFailed", Image),
    ("ErrImageNeverPull", Image),
    ("NetworkFailed", Image),
    ("ImageGCFailed", Image),
    ("FreeDiskSpaceFailed", Image),
    ("FailedMount", Volume),
    ("FailedAttachVolume", Volume),
    ("FailedDetachVolume", Volume),
    ("FailedMapVolume", Volume),
    ("FailedUnMount", Volume),
    ("FailedUnmapDevice", Volume),
    ("SuccessfulAttachVolume", Volume),
    ("SuccessfulMountVolume", Volume),
    ("WarnAlreadyMountedVolume", Volume),
    ("FailedMountOnFilesystemMismatch", Volume),
    ("VolumeResizeFailed", Volume),
    ("VolumeResizeSuccessful", Volume),
    ("FileSystemResizeFailed", Volume),
    ("FileSystemResizeSuccessful", Volume),
    ("FileSystemResizeRequired", Volume),
    ("Provisioning", Volume),
    ("ProvisioningSucceeded", Volume),
    ("ProvisioningFailed", Volume),
    ("ExternalProvisioning", Volume),
    ("WaitForFirstConsumer", Volume),
    ("WaitForPodScheduled", Volume),
    ("VolumeMismatch", Volume),
    ("VolumeFailedDelete", Volume),
    ("VolumeFailedRecycle", Volume),
    ("VolumeDeleted", Volume),
    ("Unhealthy", Probe),
    ("ProbeWarning", Probe),
    ("Evicted", Eviction),
    ("Evict", Eviction),
    ("EvictionThresholdMet", Eviction),
    ("FailedEviction", Eviction),
    ("TaintManagerEviction", Eviction),
    ("DisruptionBlocked", Eviction),
    ("Disrupted", Eviction),
    ("NodeShutdown", Eviction),
    ("NodeHasDiskPressure", Eviction),
    ("NodeHasInsufficientMemory", Eviction),
    ("NodeHasInsufficientPID", Eviction),
    ("Preempted", Preemption),
    ("Preempting", Preemption),
    ("SystemOOM", Oom),
    ("OOMKilling", Oom),
    ("OOMKilled", Oom),
    ("Created", Other),
    ("Started", Other),
    ("Completed", Other),
    ("SawCompletedJob", Other),
    ("Starting", Other),
    ("FailedSync", Other),
    ("FailedValidation", Other),
    ("FailedCreatePodContainer", Other),
    ("FailedCreatePodSandBox", Other),
    ("FailedPodSandBoxStatus", Other),
    ("NetworkNotReady", Other),
    ("LeaderElection", Other),
];

/// Kinds that events are about.
const KINDS: [&str; 21] = [
    "Pod",
    "Node",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "LeaderWorkerSet",
    "HorizontalPodAutoscaler",
    "ScaledObject",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "ResourceClaim",
    "ResourceQuota",
    "Service",
    "Ingress",
    "Lease",
    "NodeClaim",
    "InferencePool",
    "PodDisruptionBudget",
];

/// A word for what is not in a list.
const OTHER: &str = "other";

/// A reason as label value: one of a known list.
pub fn known_reason(reason: &str) -> &'static str {
    REASONS.iter().find(|(known, _)| *known == reason).map_or(OTHER, |(known, _)| known)
}

/// A kind as label value: one of a known list.
pub fn known_kind(kind: &str) -> &'static str {
    KINDS.into_iter().find(|known| *known == kind).unwrap_or(OTHER)
}

/// A type as label value.
pub fn known_type(severity: &str) -> &'static str {
    ["Normal", "Warning"].into_iter().find(|known| *known == severity).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn category(reason: &str, message: &str) -> Category {
        Category::of(&Event { reason: reason.to_owned(), message: message.to_owned(), ..Event::default() })
    }

    #[test]
    fn reasons_and_what_they_are_a_matter_of() {
        for (reason, message, expected) in [
            ("BackOff", "Back-off restarting failed container server in pod llama-0_ml(1)", Restart),
            ("BackOff", "Back-off pulling image \"registry.example/vllm:x\"", Image),
            ("Failed", "Failed to pull image \"vllm:x\": not found", Image),
            ("Failed", "Error: ErrImagePull", Image),
            ("Failed", "Error: ImagePullBackOff", Image),
            ("Failed", "Error: failed to create containerd task: exec: no such file", Restart),
            ("Killing", "Stopping container server", Restart),
            ("ScalingReplicaSet", "Scaled up replica set llama-1 to 3", Scaling),
            ("SuccessfulRescale", "New size: 3; reason: cpu above target", Scaling),
            ("FailedScheduling", "0/1 nodes are available", Scheduling),
            ("FailedMount", "MountVolume.SetUp failed", Volume),
            ("Unhealthy", "Readiness probe failed", Probe),
            ("Evicted", "The node was low on resource: memory", Eviction),
            ("Preempted", "Preempted by pod x on node n", Preemption),
            ("OOMKilling", "Memory cgroup out of memory", Oom),
            ("Created", "Created container server", Other),
            ("NobodyKnowsThis", "", Other),
        ] {
            assert_eq!(category(reason, message), expected, "{reason}: {message}");
        }
    }

    #[test]
    fn what_is_not_known_is_other() {
        assert_eq!(known_reason("BackOff"), "BackOff");
        assert_eq!(known_reason("MadeUp"), "other");
        assert_eq!(known_kind("Pod"), "Pod");
        assert_eq!(known_kind("Gadget"), "other");
        assert_eq!((known_type("Warning"), known_type("warning")), ("Warning", "other"));
    }

    #[test]
    fn no_reason_is_there_twice() {
        let names: BTreeSet<_> = REASONS.iter().map(|(reason, _)| reason).collect();
        assert_eq!(names.len(), REASONS.len());
        assert_eq!(serde_json::to_value(Oom).unwrap(), Oom.as_str());
    }
}
