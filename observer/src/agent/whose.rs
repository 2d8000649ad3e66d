//! Whose a process is, and whether it may be observed: /proc, the API server's pods and the kubelet's folders put
//! together.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    capture::{Decision, Scope, monotonic},
    config::{PodScope, ProcessScope},
    discover::{Names, Process},
    enrich::Identity,
    pods::Pods,
};

/// The pods of this node, as whoever watches the API server knows them and whoever asks reads them.
pub(super) type SharedPods = Arc<Mutex<Pods>>;

pub(super) fn locked(pods: &SharedPods) -> MutexGuard<'_, Pods> {
    // Every change of the index is complete in itself, so it is good even after a panic elsewhere.
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who processes of this node are.
#[derive(Clone)]
pub(super) struct Whose {
    pub(super) node: String,
    pub(super) pods: SharedPods,
    /// The kubelet's folder of pods' logs.
    pub(super) pod_logs: PathBuf,
}

impl Whose {
    /// Who a process is: by the API server, else by the kubelet's folders, else by itself.
    pub(super) fn identity(&self, process: &Process) -> Identity {
        let placement = &process.placement;
        let (id, uid) = (placement.container_id.as_deref(), placement.pod_uid.as_deref());
        let found = locked(&self.pods).find(id, uid);
        let mut identity = Identity {
            node: self.node.clone(),
            container: process.container(),
            process: process.name.clone(),
            ..Identity::default()
        };
        let mut name = None;
        if let Some(found) = found {
            identity.namespace.clone_from(&found.pod.namespace);
            identity.pod.clone_from(&found.pod.name);
            name = found.container;
        }
        if name.is_none()
            && (id.is_some() || uid.is_some())
            && let Some(names) = Names::find(&self.pod_logs, placement)
        {
            (identity.namespace, identity.pod) = (names.namespace, names.pod);
            name = names.container;
        }
        if let Some(name) = name {
            identity.container = name;
        }
        identity
    }
}

/// A pod is told within moments of its first process; an API server that does not answer, not at all.
const PATIENCE: u64 = 15_000_000_000;

/// Which processes of this node are observed.
pub(super) struct NodeScope {
    pub(super) processes: ProcessScope,
    /// Whether and which pods are, where Kubernetes is asked.
    pub(super) kubernetes: Option<(PodScope, SharedPods)>,
    /// When the agent began.
    pub(super) began: u64,
}

impl NodeScope {
    /// Whether anything but the observer's own processes may be out of scope, so that it has to be asked first.
    pub(super) fn asks_first(&self) -> bool {
        self.kubernetes.is_some() || self.processes != ProcessScope::default()
    }
}

impl Scope for NodeScope {
    fn decide(&self, _tgid: u32, process: &Process) -> Decision {
        if !self.processes.admits(&process.name) {
            return Decision::Ignore;
        }
        let Some((scope, pods)) = &self.kubernetes else { return Decision::Observe };
        let placement = &process.placement;
        let (id, uid) = (placement.container_id.as_deref(), placement.pod_uid.as_deref());
        let pods = locked(pods);
        if let Some(found) = pods.find(id, uid) {
            return Decision::of(found.pod.in_scope);
        }
        if uid.is_none() {
            // In no pod: a service of the node, or a container beside Kubernetes.
            return Decision::of(!scope.names_pods());
        }
        let told = pods.is_synced() || monotonic().saturating_sub(self.began) >= PATIENCE;
        let old = boot_time().saturating_sub(process.started) >= PATIENCE;
        if told && old && scope.admits_unknown() { Decision::Observe } else { Decision::Wait }
    }

    fn version(&self) -> u64 {
        self.kubernetes.as_ref().map_or(0, |(_, pods)| locked(pods).version())
    }
}

/// The clock of processes' starts: it also counts while the machine is suspended.
pub(super) fn boot_time() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Placement;
    use crate::pods::{Container, Pod};

    const UID: &str = "7d0b1f5e-3c1a-4a52-9f0e-0123456789ab";

    fn process(uid: Option<&str>, id: Option<&str>, age: u64) -> Process {
        let placement = Placement {
            container_id: id.map(str::to_owned),
            pod_uid: uid.map(str::to_owned),
            ..Placement::default()
        };
        let started = boot_time().saturating_sub(age);
        Process { name: "python3".into(), placement, started, is_native: true }
    }

    fn pod(in_scope: bool) -> Pod {
        let container = Container { name: "server".into(), id: Some("c1".into()), ..Container::default() };
        Pod {
            namespace: "ml".into(),
            name: "llama-0".into(),
            uid: UID.into(),
            in_scope,
            containers: vec![container],
            ..Pod::default()
        }
    }

    fn scope(scope: PodScope, began: u64) -> (NodeScope, SharedPods) {
        let pods = SharedPods::default();
        let scope = NodeScope {
            processes: ProcessScope::default(),
            kubernetes: Some((scope, Arc::clone(&pods))),
            began,
        };
        (scope, pods)
    }

    #[test]
    fn a_pod_is_waited_for_and_then_decided_on() {
        let (scope, pods) = scope(PodScope::default(), monotonic());
        let version = scope.version();
        assert_eq!(scope.decide(1, &process(Some(UID), Some("c1"), 0)), Decision::Wait);
        locked(&pods).apply(pod(true));
        assert_ne!(scope.version(), version);
        assert_eq!(scope.decide(1, &process(Some(UID), Some("c1"), 0)), Decision::Observe);
        assert_eq!(scope.decide(1, &process(Some(UID), None, 0)), Decision::Observe);
        locked(&pods).apply(pod(false));
        assert_eq!(scope.decide(1, &process(Some(UID), Some("c1"), 0)), Decision::Ignore);
        assert_eq!(scope.decide(1, &process(None, None, 0)), Decision::Observe, "in no pod");
    }

    #[test]
    fn of_whom_nobody_tells_is_observed_after_a_while_unless_pods_were_named() {
        let long_ago = monotonic().saturating_sub(2 * PATIENCE);
        let old = process(Some(UID), Some("c1"), 2 * PATIENCE);
        let (any, pods) = scope(PodScope::default(), long_ago);
        assert_eq!(any.decide(1, &old), Decision::Observe, "the API server is away");
        assert_eq!(any.decide(1, &process(Some(UID), Some("c1"), 0)), Decision::Wait, "it may still be told");
        locked(&pods).synced(|_| true, 0);
        assert_eq!(any.decide(1, &old), Decision::Observe);
        let (fresh, _pods) = scope(PodScope::default(), monotonic());
        assert_eq!(fresh.decide(1, &old), Decision::Wait, "the agent has just begun");
        let named = PodScope { include: vec!["ml".into()], ..PodScope::default() };
        let (named, _pods) = scope(named, long_ago);
        assert_eq!(named.decide(1, &old), Decision::Wait);
        assert_eq!(
            named.decide(1, &process(None, Some("c2"), 0)),
            Decision::Ignore,
            "in no pod, so in none of these"
        );
    }

    #[test]
    fn names_come_from_the_api_server_then_from_the_kubelet_then_from_the_process() {
        let logs = tempfile::tempdir().unwrap();
        let whose =
            Whose { node: "n".into(), pods: SharedPods::default(), pod_logs: logs.path().join("pods") };
        let names = |identity: Identity| (identity.namespace, identity.pod, identity.container);
        let own = |namespace: &str, pod: &str, container: &str| {
            (namespace.to_owned(), pod.to_owned(), container.to_owned())
        };
        assert_eq!(names(whose.identity(&process(None, None, 0))), own("", "", "python3"));
        assert_eq!(names(whose.identity(&process(Some(UID), Some("c1"), 0))), own("", "", "c1"));
        std::fs::create_dir_all(logs.path().join(format!("pods/ml_llama-0_{UID}"))).unwrap();
        assert_eq!(names(whose.identity(&process(Some(UID), Some("c1"), 0))), own("ml", "llama-0", "c1"));
        locked(&whose.pods).apply(pod(true));
        assert_eq!(names(whose.identity(&process(Some(UID), Some("c1"), 0))), own("ml", "llama-0", "server"));
    }
}
