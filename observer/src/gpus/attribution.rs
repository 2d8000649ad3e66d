//! Which GPUs a server's requests use. The process that owns the socket often owns no context: vLLM's API server has an
//! engine core and workers beside it. So a GPU is its if a process of its container is there, else of its process tree,
//! else of its pod, else of its pod's group. Where no process is seen at all, what the kubelet allocated tells.

use super::allocation::{Allocated, given};
use super::{Allocation, Process, Reading};
use crate::exchange::UsedBy;

/// Whose a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its id on the host.
    pub pid: u32,
    /// Its name.
    pub process: String,
    /// Its parent, that one's, and so on.
    pub ancestors: Vec<u32>,
    /// Its container's cgroup, or its systemd unit's: of neither, none.
    pub cgroup: Option<String>,
    /// Uid of its pod.
    pub pod_uid: Option<String>,
    /// What groups its pod with others that serve the same requests.
    pub group: Option<String>,
    /// Namespace, pod and container as metrics name them.
    pub names: [String; 3],
}

/// A GPU that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The device's UUID.
    pub device: String,
    /// The instance's.
    pub instance: Option<String>,
    /// How that is known.
    pub by: UsedBy,
}

/// How a server and a process on a GPU belong together.
fn link(server: &Owner, other: &Owner) -> Option<UsedBy> {
    let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    if server.pid == other.pid || same(&server.cgroup, &other.cgroup) {
        Some(UsedBy::Container)
    } else if other.ancestors.contains(&server.pid) || server.ancestors.contains(&other.pid) {
        Some(UsedBy::ProcessTree)
    } else if same(&server.pod_uid, &other.pod_uid) {
        Some(UsedBy::Pod)
    } else if same(&server.group, &other.group) {
        Some(UsedBy::PodGroup)
    } else {
        None
    }
}

/// The GPUs of a server: those to which the surest of the links leads, or else those that the kubelet allocated.
pub fn used(server: &Owner, readings: &[Reading], kubelet: &[Allocation]) -> Vec<Use> {
    let mut found: Vec<Use> = Vec::new();
    for reading in readings {
        for Process { instance, owner, .. } in reading.processes.iter().flatten() {
            let Some(by) = link(server, owner) else { continue };
            let device = &reading.device.uuid;
            match found.iter_mut().find(|one| one.device == *device && one.instance == *instance) {
                Some(known) => known.by = known.by.min(by),
                None => found.push(Use { device: device.clone(), instance: instance.clone(), by }),
            }
        }
    }
    let surest = found.iter().map(|one| one.by).min();
    found.retain(|one| Some(one.by) == surest);
    if found.is_empty() { allocated(server, readings, kubelet) } else { found }
}

/// GPUs that the kubelet allocated to a server's container, or else to its pod. Where a process is seen, processes decide:
/// a GPU that is shared is allocated to many.
fn allocated(server: &Owner, readings: &[Reading], kubelet: &[Allocation]) -> Vec<Use> {
    let [namespace, pod, _] = &server.names;
    let is_of_pod = |names: &[String; 3]| !pod.is_empty() && names[..2] == [&**namespace, &**pod];
    let mut all = given(readings, kubelet);
    all.retain(|one| is_of_pod(&one.names));
    if all.iter().any(|one| one.names == server.names) {
        all.retain(|one| one.names == server.names);
    }
    let is_seen = |one: &Use| {
        let there = readings.iter().filter(|reading| reading.device.uuid == one.device);
        let mut processes = there.flat_map(|reading| reading.processes.iter().flatten());
        processes.any(|process| one.instance.is_none() || process.instance == one.instance)
    };
    let mut found: Vec<Use> = Vec::new();
    for Allocated { device, instance, .. } in all {
        let instance = Some(instance).filter(|id| !id.is_empty());
        let one = Use { device, instance, by: UsedBy::PodResources };
        if !found.contains(&one) && !is_seen(&one) {
            found.push(one);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gpus::{Device, Instance};

    fn owner(pid: u32, cgroup: &str, pod: &str, ancestors: &[u32]) -> Owner {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Owner {
            pid,
            cgroup: some(cgroup),
            pod_uid: some(pod),
            ancestors: ancestors.to_vec(),
            ..Owner::default()
        }
    }

    fn reading(uuid: &str, owners: &[Owner]) -> Reading {
        let process = |owner: &Owner| Process {
            instance: None,
            memory: None,
            utilization: None,
            owner: Arc::new(owner.clone()),
        };
        Reading {
            device: Arc::new(Device { uuid: uuid.into(), ..Device::default() }),
            processes: Some(owners.iter().map(process).collect()),
            ..Reading::default()
        }
    }

    fn told(server: &Owner, readings: &[Reading]) -> Vec<(String, UsedBy)> {
        used(server, readings, &[]).into_iter().map(|one| (one.device, one.by)).collect()
    }

    #[test]
    fn what_was_allocated_tells_where_no_process_is_seen() {
        let names = |pod: &str, container: &str| ["ml", pod, container].map(str::to_owned);
        let server = Owner { names: names("a", "server"), ..owner(1, "/c1", "p1", &[]) };
        let allocation = |pod, container, id: &str| Allocation {
            names: names(pod, container),
            ids: vec![format!("{id}::0"), format!("{id}::1")],
        };
        let of = |readings: &[Reading], kubelet: &[Allocation]| -> Vec<(String, UsedBy)> {
            used(&server, readings, kubelet).into_iter().map(|one| (one.device, one.by)).collect()
        };
        let (idle, other) = (reading("a", &[]), reading("b", &[owner(9, "/c9", "p9", &[])]));
        let untold = Reading { processes: None, ..reading("c", &[]) };
        let readings = [idle, other, untold];
        let given = |device: &str| (device.to_owned(), UsedBy::PodResources);
        let all = ["a", "b", "c"].map(|id| allocation("a", "server", id));
        assert_eq!(of(&readings, &all), [given("a"), given("c")], "on b another's process is seen");
        assert_eq!(of(&readings, &[allocation("a", "sidecar", "a")]), [given("a")], "another of its pod");
        let both = [allocation("a", "sidecar", "a"), allocation("a", "server", "c")];
        assert_eq!(of(&readings, &both), [given("c")], "its own come first");
        assert_eq!(of(&readings, &[allocation("b", "server", "a")]), [], "another pod's");
        let own = reading("d", &[owner(2, "/c1", "p1", &[])]);
        assert_eq!(of(&[readings[0].clone(), own], &all), [("d".to_owned(), UsedBy::Container)]);
        let outside = Owner { names: ["", "", "server"].map(str::to_owned), ..Owner::default() };
        let nowhere = Allocation { names: outside.names.clone(), ids: vec!["a".to_owned()] };
        assert_eq!(used(&outside, &readings, &[nowhere]), [], "outside of pods nothing is allocated");
    }

    #[test]
    fn an_instance_is_allocated_by_itself() {
        let names = ["ml", "a", "server"].map(str::to_owned);
        let server = Owner { names: names.clone(), ..owner(1, "/c1", "p1", &[]) };
        let mut split = reading("a", &[owner(9, "/c9", "p9", &[])]);
        let one = |uuid: &str| Instance { uuid: uuid.into(), ..Instance::default() };
        split.instances = vec![one("MIG-1"), one("MIG-2")];
        split.processes.iter_mut().flatten().for_each(|process| process.instance = Some("MIG-1".into()));
        let allocated = |id: &str| Allocation { names: names.clone(), ids: vec![id.to_owned()] };
        let found = used(&server, &[split.clone()], &[allocated("MIG-2")]);
        assert_eq!(found[0].instance.as_deref(), Some("MIG-2"));
        assert_eq!(used(&server, &[split], &[allocated("MIG-1")]), [], "where another's process is");
    }

    #[test]
    fn the_surest_link_wins() {
        let server = owner(10, "/c1", "p1", &[9, 1]);
        let of = |readings: &[Reading]| told(&server, readings);
        let container = reading("a", &[owner(11, "/c1", "p1", &[])]);
        let child = reading("b", &[owner(12, "/c2", "p2", &[10, 9, 1])]);
        let parent = reading("c", &[owner(9, "", "", &[1])]);
        let pod = reading("d", &[owner(13, "/c3", "p1", &[])]);
        let stranger = reading("e", &[owner(14, "/c4", "p4", &[9, 1]), owner(15, "", "", &[])]);
        let all = [container.clone(), child.clone(), parent.clone(), pod.clone(), stranger.clone()];
        assert_eq!(of(&all), [("a".to_owned(), UsedBy::Container)]);
        assert_eq!(
            of(&all[1..]),
            [("b".to_owned(), UsedBy::ProcessTree), ("c".to_owned(), UsedBy::ProcessTree)]
        );
        assert_eq!(of(&[pod, stranger.clone()]), [("d".to_owned(), UsedBy::Pod)]);
        assert_eq!(of(&[stranger]), [], "siblings under a shell are strangers");
    }

    #[test]
    fn pods_of_a_group_share_their_gpus() {
        let in_group =
            |pid, pod: &str, group: &str| Owner { group: Some(group.into()), ..owner(pid, "", pod, &[]) };
        let server = in_group(1, "leader", "LeaderWorkerSet ml/a 0");
        let readings = [
            reading("a", &[in_group(2, "worker", "LeaderWorkerSet ml/a 0")]),
            reading("b", &[in_group(3, "other", "LeaderWorkerSet ml/a 1")]),
        ];
        assert_eq!(told(&server, &readings), [("a".to_owned(), UsedBy::PodGroup)]);
    }

    #[test]
    fn what_has_no_cgroup_is_not_all_one() {
        assert_eq!(told(&owner(1, "", "", &[]), &[reading("a", &[owner(2, "", "", &[])])]), []);
        assert_eq!(told(&owner(1, "", "", &[]), &[reading("a", &[owner(1, "", "", &[])])]).len(), 1);
    }
}
