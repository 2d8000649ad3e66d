//! The pods of one node, kept up to date in an index that others look things up in.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1 as core;
use kube::{Api, runtime::watcher};

use super::{
    connect::{ConnectError, Connection},
    health::Health,
    owners::Owners,
    pods::convert,
    watch::{Keep, keep},
};
use crate::{
    config::PodScope,
    pods::{Change, Pod, Pods, Workload},
};

/// Whom it is told to what has happened to a pod that may be told of.
pub type TellChange = Arc<dyn Fn(&Pod, Change) + Send + Sync>;

/// Label by which LeaderWorkerSet marks all pods of a group; those of workers are owned by a StatefulSet of their leader.
const LEADER_WORKER_SET: &str = "leaderworkerset.sigs.k8s.io/name";

/// Watches the pods of a node, and keeps `pods` up to date with them, until it is dropped. What happens to them is told
/// to `tell`.
///
/// `wall` is the wall clock in nanoseconds.
///
/// # Errors
/// When no client can be made.
pub async fn watch_node(
    connection: &Connection,
    node: &str,
    scope: PodScope,
    (pods, tell): (Arc<Mutex<Pods>>, TellChange),
    health: [Arc<Health>; 2],
    wall: fn() -> u64,
) -> Result<(), ConnectError> {
    let [of_pods, of_owners] = health;
    let (owners, waiting) = Owners::new();
    let found = {
        let pods = Arc::clone(&pods);
        move |namespace: &str, owner: &Workload, workload: &Workload| {
            locked(&pods).manage(namespace, owner, workload);
        }
    };
    let asking = owners.clone().find_out(connection.client(&of_owners)?, waiting, of_owners, found);
    let api: Api<core::Pod> = Api::all(connection.client(&of_pods)?);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut keeper = Keeper { pods, tell, scope, owners, there: HashSet::new(), telling: false, wall };
    tokio::join!(keep(api, config, of_pods, &mut keeper), asking);
    Ok(())
}

fn locked(pods: &Mutex<Pods>) -> MutexGuard<'_, Pods> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keeper {
    pods: Arc<Mutex<Pods>>,
    tell: TellChange,
    scope: PodScope,
    owners: Owners,
    /// Uids of those that were told since all are told anew.
    there: HashSet<String>,
    telling: bool,
    wall: fn() -> u64,
}

impl Keep<core::Pod> for Keeper {
    fn begin(&mut self) {
        self.there.clear();
        self.telling = true;
    }

    fn apply(&mut self, pod: core::Pod) {
        let group = pod.metadata.labels.as_ref().and_then(|labels| labels.get(LEADER_WORKER_SET)).cloned();
        let Some(mut pod) = convert(pod, &self.scope) else { return };
        pod.workload = match (group, &pod.owner) {
            (Some(name), _) => Some(Workload { kind: "LeaderWorkerSet".to_owned(), name }),
            (None, Some(owner)) => Some(self.owners.of(&pod.namespace, owner)),
            (None, None) => None,
        };
        if self.telling {
            self.there.insert(pod.uid.clone());
        }
        let uid = pod.uid.clone();
        let mut pods = locked(&self.pods);
        let changes = pods.apply(pod);
        let known = pods.of(&uid).cloned();
        drop(pods);
        if let Some(pod) = known.filter(|pod| pod.in_scope) {
            for change in changes {
                (self.tell)(&pod, change);
            }
        }
    }

    fn delete(&mut self, pod: core::Pod) {
        if let Some(uid) = pod.metadata.uid {
            locked(&self.pods).delete(&uid, (self.wall)());
        }
    }

    fn told(&mut self) {
        let there = std::mem::take(&mut self.there);
        self.telling = false;
        locked(&self.pods).synced(|uid| there.contains(uid), (self.wall)());
    }

    fn len(&self) -> usize {
        locked(&self.pods).iter().count()
    }
}
