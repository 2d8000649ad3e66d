//! Replicas of what runs pods, as its controller counts them.

use k8s_openapi::api::apps::v1 as apps;
use kube::core::DynamicObject;

/// What is counted, in the order of [`Replicas::counts`].
pub const STATES: [&str; 5] = ["desired", "current", "ready", "available", "updated"];

/// How many replicas something has. What its kind does not count, or has not counted yet, is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// In the order of [`STATES`].
    pub counts: [Option<i64>; STATES.len()],
}

impl Replicas {
    fn of(counts: [Option<i32>; STATES.len()]) -> Self {
        Self { counts: counts.map(|count| count.map(i64::from)) }
    }
}

// A count that is 0 is left out of a status (`omitempty`); a status that was never written is not there.

pub(super) fn of_deployment(object: apps::Deployment) -> Replicas {
    let desired = object.spec.map_or(1, |spec| spec.replicas.unwrap_or(1));
    let Some(status) = object.status else { return Replicas::of([Some(desired), None, None, None, None]) };
    Replicas::of([
        Some(desired),
        Some(status.replicas.unwrap_or(0)),
        Some(status.ready_replicas.unwrap_or(0)),
        Some(status.available_replicas.unwrap_or(0)),
        Some(status.updated_replicas.unwrap_or(0)),
    ])
}

/// `currentReplicas` of a StatefulSet are those of the current *revision*; what others call current is `replicas`.
pub(super) fn of_stateful_set(object: apps::StatefulSet) -> Replicas {
    let desired = object.spec.map_or(1, |spec| spec.replicas.unwrap_or(1));
    let Some(status) = object.status else { return Replicas::of([Some(desired), None, None, None, None]) };
    Replicas::of([
        Some(desired),
        Some(status.replicas),
        Some(status.ready_replicas.unwrap_or(0)),
        Some(status.available_replicas.unwrap_or(0)),
        Some(status.updated_replicas.unwrap_or(0)),
    ])
}

/// How many a DaemonSet desires depends on the nodes, so only its status tells.
pub(super) fn of_daemon_set(object: apps::DaemonSet) -> Option<Replicas> {
    let status = object.status?;
    Some(Replicas::of([
        Some(status.desired_number_scheduled),
        Some(status.current_number_scheduled),
        Some(status.number_ready),
        Some(status.number_available.unwrap_or(0)),
        Some(status.updated_number_scheduled.unwrap_or(0)),
    ]))
}

/// Those of a Deployment are told by it.
pub(super) fn of_replica_set(object: apps::ReplicaSet) -> Option<Replicas> {
    let mut owners = object.metadata.owner_references.into_iter().flatten();
    if owners.any(|owner| owner.kind == "Deployment") {
        return None;
    }
    let desired = object.spec.map_or(1, |spec| spec.replicas.unwrap_or(1));
    let Some(status) = object.status else {
        return Some(Replicas::of([Some(desired), None, None, None, None]));
    };
    Some(Replicas::of([
        Some(desired),
        Some(status.replicas),
        Some(status.ready_replicas.unwrap_or(0)),
        Some(status.available_replicas.unwrap_or(0)),
        None,
    ]))
}

/// Replicas of a LeaderWorkerSet are groups of pods (lws: `api/leaderworkerset/v1/leaderworkerset_types.go`).
pub(super) fn of_leader_worker_set(object: DynamicObject) -> Replicas {
    let data = object.data;
    let number = |part: &str, name: &str| data.get(part)?.get(name)?.as_i64();
    let status = data.get("status").is_some_and(serde_json::Value::is_object);
    let counted = |name: &str| status.then(|| number("status", name).unwrap_or(0));
    let desired = number("spec", "replicas").unwrap_or(1);
    let counts =
        [Some(desired), counted("replicas"), counted("readyReplicas"), None, counted("updatedReplicas")];
    Replicas { counts }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn counts<K: DeserializeOwned>(
        convert: fn(K) -> Option<Replicas>,
        object: Value,
    ) -> Option<[Option<i64>; 5]> {
        convert(serde_json::from_value(object).unwrap()).map(|replicas| replicas.counts)
    }

    #[test]
    fn each_kind_in_its_words() {
        let status = json!({"replicas": 4, "readyReplicas": 3, "availableReplicas": 2, "updatedReplicas": 1,
            "currentReplicas": 9});
        let object = json!({"metadata": {"name": "a"}, "spec": {"replicas": 5}, "status": status});
        let all = Some([Some(5), Some(4), Some(3), Some(2), Some(1)]);
        assert_eq!(counts(|object| Some(of_deployment(object)), object.clone()), all);
        assert_eq!(counts(|object| Some(of_stateful_set(object)), object.clone()), all);
        assert_eq!(counts(of_replica_set, object.clone()), Some([Some(5), Some(4), Some(3), Some(2), None]));
        let daemon_set = json!({"metadata": {"name": "a"}, "status": {"desiredNumberScheduled": 5,
            "currentNumberScheduled": 4, "numberReady": 3, "numberAvailable": 2, "updatedNumberScheduled": 1,
            "numberMisscheduled": 0}});
        assert_eq!(counts(of_daemon_set, daemon_set), all);
        let mut set = object;
        set["apiVersion"] = json!("leaderworkerset.x-k8s.io/v1");
        set["kind"] = json!("LeaderWorkerSet");
        assert_eq!(
            counts(|object| Some(of_leader_worker_set(object)), set),
            Some([Some(5), Some(4), Some(3), None, Some(1)])
        );
    }

    #[test]
    fn what_is_missing_is_absent_or_its_default() {
        let empty = json!({"metadata": {"name": "a"}});
        let one = Some([Some(1), None, None, None, None]);
        assert_eq!(counts(|object| Some(of_deployment(object)), empty.clone()), one);
        assert_eq!(counts(|object| Some(of_stateful_set(object)), empty.clone()), one);
        assert_eq!(counts(of_replica_set, empty.clone()), one);
        assert_eq!(counts(|object| Some(of_leader_worker_set(object)), empty.clone()), one);
        assert_eq!(counts(of_daemon_set, empty), None);
        let zero = json!({"metadata": {"name": "a"}, "spec": {"replicas": 0}, "status": {}});
        assert_eq!(counts(|object| Some(of_deployment(object)), zero), Some([Some(0); 5]));
    }

    #[test]
    fn a_replica_set_of_a_deployment_is_told_by_the_deployment() {
        let owned = |kind: &str| {
            let owner =
                json!({"apiVersion": "v1", "kind": kind, "name": "a", "uid": "1", "controller": true});
            json!({"metadata": {"name": "a", "ownerReferences": [owner]}, "spec": {"replicas": 2}})
        };
        assert_eq!(counts(of_replica_set, owned("Deployment")), None);
        assert!(counts(of_replica_set, owned("Rollout")).is_some());
    }
}
