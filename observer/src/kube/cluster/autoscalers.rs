//! Autoscalers of pods: between which bounds they scale, what they want, and whether they can.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use crate::{kube::pods::nanos, pods::Workload};

/// What is counted, in the order of [`Autoscaler::counts`].
pub const BOUNDS: [&str; 4] = ["min", "max", "current", "desired"];

/// One autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Autoscaler {
    /// What it scales.
    pub target: Workload,
    /// Replicas, in the order of [`BOUNDS`].
    pub counts: [Option<i64>; BOUNDS.len()],
    /// Conditions such as `ScalingLimited`, and whether they are `True`, `False` or `Unknown`.
    pub conditions: Vec<(String, String)>,
    /// When it last changed what it wants, in nanoseconds of the wall clock.
    pub scaled: Option<u64>,
}

pub(super) fn of(object: HorizontalPodAutoscaler) -> Option<Autoscaler> {
    let spec = object.spec;
    // A spec that is missing reads as an empty one.
    if spec.scale_target_ref.kind.is_empty() {
        return None;
    }
    let status = object.status.unwrap_or_default();
    let counted = status.conditions.is_some();
    let conditions = status.conditions.into_iter().flatten();
    let target = Workload { kind: spec.scale_target_ref.kind, name: spec.scale_target_ref.name };
    let counts = [
        Some(spec.min_replicas.unwrap_or(1)),
        Some(spec.max_replicas),
        // Left out of the status where it is 0, and where nothing was counted yet.
        status.current_replicas.or(counted.then_some(0)),
        counted.then_some(status.desired_replicas),
    ];
    Some(Autoscaler {
        target,
        counts: counts.map(|count| count.map(i64::from)),
        conditions: conditions.map(|condition| (condition.type_, condition.status)).collect(),
        scaled: status.last_scale_time.as_ref().and_then(nanos),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn autoscaler(status: &Value) -> Autoscaler {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"});
        let object = json!({"metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, "maxReplicas": 9},
            "status": status});
        of(serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn bounds_counts_and_conditions() {
        let conditions =
            json!([{"type": "AbleToScale", "status": "True"}, {"type": "ScalingLimited", "status": "False"}]);
        let told = autoscaler(&json!({"currentReplicas": 2, "desiredReplicas": 3, "conditions": conditions,
            "lastScaleTime": "2026-01-05T08:00:00Z"}));
        assert_eq!(told.scaled, Some(1_767_600_000_000_000_000));
        assert_eq!((told.target.kind.as_str(), told.target.name.as_str()), ("Deployment", "llama"));
        assert_eq!(told.counts, [Some(1), Some(9), Some(2), Some(3)]);
        let condition = |kind: &str, status: &str| (kind.to_owned(), status.to_owned());
        assert_eq!(told.conditions, [condition("AbleToScale", "True"), condition("ScalingLimited", "False")]);
    }

    #[test]
    fn nothing_was_counted_yet() {
        assert_eq!(autoscaler(&json!({})).counts, [Some(1), Some(9), None, None]);
        assert_eq!(
            autoscaler(&json!({"desiredReplicas": 0, "conditions": []})).counts[2..],
            [Some(0), Some(0)]
        );
    }
}
