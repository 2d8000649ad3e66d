//! The pods of a node by uid and by the ids of their containers.

use std::{collections::HashMap, sync::Arc};

use super::{Change, Pod, Workload, changes};

/// How long a pod is still known after it is gone: its last observations come later than its end.
const LINGERS: u64 = 60_000_000_000;

/// Pods of one node that are known at a time. A kubelet runs 110 unless told otherwise; churn adds those that linger.
const MOST: usize = 4096;

/// Whose a container is.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container's name, unless only its pod is known yet.
    pub container: Option<String>,
}

#[derive(Clone, Debug)]
struct Known {
    pod: Arc<Pod>,
    /// Since when it is gone.
    gone: Option<u64>,
}

/// The pods of this node.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    by_uid: HashMap<String, Known>,
    /// Static pods: the hash of the manifest to the uid.
    by_hash: HashMap<String, String>,
    by_container: HashMap<String, (String, String)>,
    synced: bool,
    version: u64,
    refused: u64,
}

impl Pods {
    /// Takes in what a pod is now, and gives what has happened to it since it was last told. Of pods that are told
    /// before all were, nothing is known to have happened.
    pub fn apply(&mut self, pod: Pod) -> Vec<Change> {
        let known = self.by_uid.get(&pod.uid);
        if known.is_none() && self.by_uid.len() >= MOST {
            self.refused += 1;
            return Vec::new();
        }
        let happened = match known {
            Some(known) => changes(Some(known.pod.as_ref()), &pod),
            None if self.synced => changes(None, &pod),
            None => Vec::new(),
        };
        if known.is_none_or(|known| !same_identity(&known.pod, &pod)) {
            self.version += 1;
        }
        for container in &pod.containers {
            for id in container.id.iter().chain(&container.previous_id) {
                self.by_container.insert(id.clone(), (pod.uid.clone(), container.name.clone()));
            }
        }
        if let Some(hash) = &pod.static_hash {
            self.by_hash.insert(hash.clone(), pod.uid.clone());
        }
        self.by_uid.insert(pod.uid.clone(), Known { pod: Arc::new(pod), gone: None });
        happened
    }

    /// What manages the pods of an owner was found out.
    pub fn manage(&mut self, namespace: &str, owner: &Workload, workload: &Workload) {
        for known in self.by_uid.values_mut() {
            let pod = &known.pod;
            let is_theirs = pod.namespace == namespace && pod.owner.as_ref() == Some(owner);
            if is_theirs && pod.workload.as_ref() != Some(workload) {
                Arc::make_mut(&mut known.pod).workload = Some(workload.clone());
                self.version += 1;
            }
        }
    }

    /// A pod is gone. It is known for a while longer, but no more told of.
    pub fn delete(&mut self, uid: &str, now: u64) {
        if let Some(known) = self.by_uid.get_mut(uid) {
            known.gone.get_or_insert(now);
        }
    }

    /// All pods were told, and these are the ones that there are: the others are gone.
    pub fn synced(&mut self, there: impl Fn(&str) -> bool, now: u64) {
        for (uid, known) in &mut self.by_uid {
            if !there(uid) {
                known.gone.get_or_insert(now);
            }
        }
        if !self.synced {
            self.synced = true;
            self.version += 1;
        }
    }

    /// Forgets pods that have been gone for long enough.
    pub fn expire(&mut self, now: u64) {
        let before = self.by_uid.len();
        self.by_uid.retain(|_, known| known.gone.is_none_or(|since| now.saturating_sub(since) < LINGERS));
        if self.by_uid.len() != before {
            let by_uid = &self.by_uid;
            self.by_container.retain(|_, (uid, _)| by_uid.contains_key(uid));
            self.by_hash.retain(|_, uid| by_uid.contains_key(uid));
        }
    }

    /// Whose a container is, by its id or else by what its cgroup calls its pod.
    pub fn find(&self, container_id: Option<&str>, pod_uid: Option<&str>) -> Option<Found> {
        if let Some((uid, name)) = container_id.and_then(|id| self.by_container.get(id)) {
            return Some(Found { pod: Arc::clone(self.of(uid)?), container: Some(name.clone()) });
        }
        let told = pod_uid?;
        let uid = self.by_hash.get(told).map_or(told, String::as_str);
        Some(Found { pod: Arc::clone(self.of(uid)?), container: None })
    }

    /// The pod of this uid.
    pub fn of(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.by_uid.get(uid).map(|known| &known.pod)
    }

    /// The pods that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_uid.values().filter(|known| known.gone.is_none()).map(|known| &known.pod)
    }

    /// Whether all pods have been told at least once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Another number after anything changed that says whose a container is, or whether it is in scope.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How often a pod had no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// Whether both tell the same of whose containers are.
fn same_identity(a: &Pod, b: &Pod) -> bool {
    let ids = |pod: &Pod| {
        let ids = pod.containers.iter().map(|container| (container.name.clone(), container.id.clone()));
        ids.collect::<Vec<_>>()
    };
    a.in_scope == b.in_scope
        && a.group == b.group
        && a.workload == b.workload
        && a.static_hash == b.static_hash
        && ids(a) == ids(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::Container;

    const SECOND: u64 = 1_000_000_000;

    fn pod(uid: &str, containers: &[(&str, Option<&str>)]) -> Pod {
        let containers = containers.iter().map(|(name, id)| Container {
            name: (*name).to_owned(),
            id: id.map(str::to_owned),
            ..Container::default()
        });
        Pod {
            uid: uid.to_owned(),
            name: format!("pod-{uid}"),
            containers: containers.collect(),
            ..Pod::default()
        }
    }

    fn named(pods: &Pods, id: Option<&str>, uid: Option<&str>) -> Option<(String, Option<String>)> {
        pods.find(id, uid).map(|found| (found.pod.name.clone(), found.container))
    }

    #[test]
    fn a_container_is_found_by_its_id_and_before_it_is_told_by_its_pod() {
        let mut pods = Pods::default();
        pods.apply(pod("u", &[("a", None)]));
        let version = pods.version();
        assert_eq!(named(&pods, Some("1"), Some("u")), Some(("pod-u".into(), None)));
        pods.apply(pod("u", &[("a", Some("1"))]));
        assert!(pods.version() > version, "whoever asked before should ask again");
        assert_eq!(named(&pods, Some("1"), None), Some(("pod-u".into(), Some("a".into()))));
        assert_eq!(named(&pods, Some("2"), Some("v")), None);
        assert_eq!(named(&pods, None, None), None);
    }

    #[test]
    fn a_static_pod_is_found_by_the_hash_of_its_manifest() {
        let mut pods = Pods::default();
        pods.apply(Pod { static_hash: Some("hash".into()), ..pod("u", &[]) });
        assert_eq!(named(&pods, None, Some("hash")), Some(("pod-u".into(), None)));
    }

    #[test]
    fn what_restarted_and_what_is_gone_is_known_for_a_minute() {
        let mut pods = Pods::default();
        let mut restarted = pod("u", &[("a", Some("2"))]);
        restarted.containers[0].previous_id = Some("1".into());
        pods.apply(restarted);
        assert_eq!(named(&pods, Some("1"), None), Some(("pod-u".into(), Some("a".into()))));
        pods.delete("u", 10 * SECOND);
        assert_eq!(pods.iter().count(), 0, "it is told of no more");
        pods.expire(69 * SECOND);
        assert!(named(&pods, Some("2"), None).is_some());
        pods.expire(70 * SECOND);
        assert!(named(&pods, Some("2"), Some("u")).is_none());
        assert!(pods.by_container.is_empty() && pods.by_uid.is_empty());
    }

    #[test]
    fn after_all_were_told_the_others_are_gone() {
        let mut pods = Pods::default();
        pods.apply(pod("u", &[]));
        pods.apply(pod("v", &[]));
        assert!(!pods.is_synced());
        pods.synced(|uid| uid == "u", SECOND);
        assert!(pods.is_synced());
        assert_eq!(pods.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>(), ["u"]);
        pods.apply(pod("v", &[]));
        assert_eq!(pods.iter().count(), 2, "one that comes back is there");
    }

    #[test]
    fn a_status_that_says_nothing_of_identity_asks_nobody_to_look_again() {
        let mut pods = Pods::default();
        pods.apply(pod("u", &[("a", Some("1"))]));
        let version = pods.version();
        pods.apply(Pod { ready: true, ..pod("u", &[("a", Some("1"))]) });
        assert_eq!(pods.version(), version);
        pods.apply(Pod { in_scope: true, ..pod("u", &[("a", Some("1"))]) });
        assert_ne!(pods.version(), version);
    }

    #[test]
    fn whoever_manages_an_owner_manages_its_pods() {
        let named = |kind: &str, name: &str| Workload { kind: kind.to_owned(), name: name.to_owned() };
        let (set, deployment) = (named("ReplicaSet", "a-1"), named("Deployment", "a"));
        let mut pods = Pods::default();
        let owned = Pod { namespace: "ml".into(), owner: Some(set.clone()), ..pod("u", &[]) };
        pods.apply(Pod { workload: Some(set.clone()), ..owned.clone() });
        pods.apply(Pod { namespace: "other".into(), uid: "v".into(), ..owned });
        let version = pods.version();
        pods.manage("ml", &set, &deployment);
        assert!(pods.version() > version);
        assert_eq!(pods.of("u").unwrap().workload, Some(deployment));
        assert_eq!(pods.of("v").unwrap().workload, None);
    }

    #[test]
    fn there_is_a_bound() {
        let mut pods = Pods::default();
        for uid in 0..MOST + 3 {
            pods.apply(pod(&uid.to_string(), &[]));
        }
        assert_eq!((pods.by_uid.len(), pods.refused()), (MOST, 3));
    }
}
