//! The pods of this node as this agent saw them: who their processes are, how their containers came to serve, what
//! they use, and which of them are told of.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::warn;

use super::keeping::SharedWanted;
use super::whose::{Whose, boot_time, locked};
use crate::{
    capture::{monotonic, wall},
    discover::{Placement, Process, absolute, usage},
    enrich::{Identities, Identity},
    exchange::RequestRecord,
    lines::Origin,
    logs::Wanted,
    pods::{Container, Starts, Told},
};

/// Where the kernel mounts the hierarchies of cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What a scrape tells of pods.
pub(super) type SharedTold = Arc<Mutex<Told>>;

/// What is known of a container or a unit, which stays the same when it is started again.
#[derive(Clone, Copy)]
pub(super) struct Housing {
    /// How often it was, where that is known.
    pub(super) restarts: Option<u32>,
}

/// Owned by the thread that captures.
pub(super) struct Tenants {
    whose: Whose,
    /// Tell of all pods, not only of those that serve.
    all: bool,
    /// The pods' version that identities were made of.
    named: u64,
    placed: HashMap<u32, Placement>,
    /// Uids of pods of which a request was seen.
    serving: HashSet<String>,
    /// Processes outside of pods that answered a request.
    servers: HashSet<u32>,
    starts: Starts,
    told: SharedTold,
    /// Whether it was said that this node seems to have another name.
    warned: bool,
}

impl Tenants {
    pub(super) fn new(whose: Whose, all: bool, told: SharedTold) -> Self {
        Self {
            whose,
            all,
            named: 0,
            placed: HashMap::new(),
            serving: HashSet::new(),
            servers: HashSet::new(),
            starts: Starts::default(),
            told,
            warned: false,
        }
    }

    pub(super) fn process(&mut self, tgid: u32, process: &Process, identities: &mut Identities) {
        identities.insert(tgid, self.whose.identity(process));
        if let Some(container) = &process.placement.container_id {
            self.starts.exec(container, wall().saturating_sub(boot_time().saturating_sub(process.started)));
        }
        let mut placement = process.placement.clone();
        if let Some(cgroup) = absolute(Path::new(CGROUPS), &placement.cgroup) {
            placement.cgroup = cgroup;
        }
        self.placed.insert(tgid, placement);
    }

    /// Who a process is.
    pub(super) fn identity(&self, process: &Process) -> Identity {
        self.whose.identity(process)
    }

    /// The container or unit that a process is in, if it is in one.
    pub(super) fn housing(&self, process: &Process) -> Option<Housing> {
        let Placement { container_id, unit, pod_uid, .. } = &process.placement;
        if container_id.is_none() && unit.is_none() {
            return None;
        }
        let found = locked(&self.whose.pods).find(container_id.as_deref(), pod_uid.as_deref());
        let known = found.and_then(|found| {
            let same = |container: &&Container| container.id.is_some() && container.id == *container_id;
            found.pod.containers.iter().find(same).map(|container| container.restarts)
        });
        Some(Housing { restarts: known.and_then(|restarts| u32::try_from(restarts).ok()) })
    }

    pub(super) fn process_gone(&mut self, tgid: u32) {
        self.placed.remove(&tgid);
        self.servers.remove(&tgid);
    }

    /// Once a second: whose logs are wanted. Those who serve, and the observer itself.
    pub(super) fn want(&self, shared: &SharedWanted, identities: &Identities) {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let pods = self.serving.iter().cloned().chain(Placement::of(&own).pod_uid).collect();
        let (mut never, mut workloads) = (BTreeSet::new(), BTreeMap::new());
        for pod in locked(&self.whose.pods).iter() {
            // Folders of static pods are named after the hash of their manifest.
            let folder = pod.static_hash.as_ref().unwrap_or(&pod.uid);
            if !pod.in_scope {
                never.insert(folder.clone());
            }
            if let Some(workload) = &pod.workload {
                workloads.insert(folder.clone(), workload.name.clone());
            }
        }
        let mut files: Vec<(PathBuf, Origin)> = Vec::new();
        for tgid in &self.servers {
            let identity = identities.of(*tgid);
            for descriptor in [1, 2] {
                // Only files have a name that leads to them.
                let link = format!("/proc/{tgid}/fd/{descriptor}");
                let Ok(path) = std::fs::read_link(link) else { continue };
                let is_file = std::fs::metadata(&path).is_ok_and(|known| known.is_file());
                if is_file && !files.iter().any(|(known, _)| *known == path) {
                    let origin = Origin {
                        node: identity.node.clone(),
                        container: identity.container.clone(),
                        ..Origin::default()
                    };
                    files.push((path, origin));
                }
            }
        }
        *shared.lock().unwrap_or_else(PoisonError::into_inner) =
            Wanted { all: false, pods, never, workloads, files };
    }

    /// A process began to listen, at this monotonic time.
    pub(super) fn listens(&mut self, tgid: u32, time: u64) {
        if let Some(container) = self.placed.get(&tgid).and_then(|at| at.container_id.as_deref()) {
            self.starts.listen(container, wall().saturating_sub(monotonic().saturating_sub(time)));
        }
    }

    /// A request was answered.
    pub(super) fn served(&mut self, record: &RequestRecord) {
        let Some(placement) = self.placed.get(&record.pid) else { return };
        if placement.pod_uid.is_none() {
            self.servers.insert(record.pid);
        }
        if let Some(uid) = &placement.pod_uid
            && !self.serving.contains(uid)
        {
            self.serving.insert(uid.clone());
        }
        let success = record.status.is_some_and(|status| (200..300).contains(&status));
        let started = record.started_at.as_deref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        if let (true, Some(container), Some(started)) = (success, &placement.container_id, started)
            && let Ok(started) = u64::try_from(started.as_nanosecond())
        {
            let after = |seconds: f64| started.saturating_add((seconds * 1e9) as u64);
            let answered = after(record.clocks.response_start.unwrap_or_default());
            self.starts.served(container, answered, record.clocks.first_token.map(after));
        }
    }

    /// Once a second: names that became known, and what the next scrape tells.
    pub(super) fn look<'a>(
        &mut self,
        processes: impl Iterator<Item = (u32, &'a Process)>,
        identities: &mut Identities,
    ) {
        let version = locked(&self.whose.pods).version();
        if version != std::mem::replace(&mut self.named, version) {
            for (tgid, process) in processes {
                let identity = self.whose.identity(process);
                if **identities.of(tgid) != identity {
                    identities.insert(tgid, identity);
                }
            }
        }
        let now = wall();
        let mut pods = locked(&self.whose.pods);
        pods.expire(now);
        let in_pods = self.placed.values().any(|at| at.pod_uid.is_some());
        if in_pods && pods.is_synced() && pods.iter().next().is_none() && !self.warned {
            self.warned = true;
            let node = &self.whose.node;
            warn!(
                node,
                "the API server knows no pod of this node, but there are some: set `node` to its name there"
            );
        }
        let serves = |uid: &str, hash: Option<&String>| {
            self.serving.contains(uid) || hash.is_some_and(|hash| self.serving.contains(hash))
        };
        let told: Vec<_> = pods
            .iter()
            .filter(|pod| pod.in_scope && (self.all || serves(&pod.uid, pod.static_hash.as_ref())))
            .cloned()
            .collect();
        let known = |uid: &String| pods.find(None, Some(uid)).is_some();
        self.serving
            .retain(|uid| known(uid) || self.placed.values().any(|at| at.pod_uid.as_ref() == Some(uid)));
        drop(pods);
        let containers: HashSet<&str> =
            self.placed.values().filter_map(|at| at.container_id.as_deref()).collect();
        let is_told = |id: &str| {
            told.iter().any(|pod| pod.containers.iter().any(|container| container.id.as_deref() == Some(id)))
        };
        self.starts.retain(|id| containers.contains(id) || is_told(id));
        let mut using: HashMap<[String; 3], String> = HashMap::new();
        for (tgid, placement) in &self.placed {
            let Some(uid) = placement.pod_uid.as_ref().filter(|_| placement.container_id.is_some()) else {
                continue;
            };
            let identity = identities.of(*tgid);
            if self.all || self.serving.contains(uid) {
                let names = [&identity.namespace, &identity.pod, &identity.container].map(String::clone);
                using.insert(names, placement.cgroup.clone());
            }
        }
        let using = using.into_iter().map(|(names, cgroup)| (names, usage(Path::new(CGROUPS), &cgroup)));
        let told = Told { now, pods: told, starts: self.starts.clone(), usage: using.collect() };
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }
}
