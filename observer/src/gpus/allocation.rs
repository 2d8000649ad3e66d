//! Which containers have which GPUs: by their processes, and by what the kubelet allocated. The second is the only one for
//! GPUs that are idle, and is ambiguous where GPUs are shared.

use std::collections::BTreeSet;

use super::Reading;

/// Devices that the kubelet allocated to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Namespace, pod and container.
    pub names: [String; 3],
    /// What the device plugin calls the devices: `GPU-…`, `MIG-…`, `GPU-…::2` for a replica of a shared one,
    /// `nvidia0`, `nvidia0/gi1`.
    pub ids: Vec<String>,
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A process of the container is on the GPU.
    Process,
    /// The kubelet.
    Kubelet,
}

impl Source {
    /// The word used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "nvml",
            Self::Kubelet => "pod_resources",
        }
    }
}

/// A device, or an instance of it, that a container has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allocated {
    /// The device's UUID.
    pub device: String,
    /// The instance's; empty for a whole device.
    pub instance: String,
    /// Namespace, pod and container.
    pub names: [String; 3],
    /// Who says so.
    pub source: Source,
}

/// A device plugin's id as UUIDs of a device and an instance; none for what is not known here.
fn resolve(id: &str, readings: &[Reading]) -> Option<(String, String)> {
    let id = id.split_once("::").map_or(id, |(id, _)| id);
    if id.starts_with("MIG-") {
        let has = |reading: &&Reading| reading.instances.iter().any(|one| one.uuid == id);
        return readings.iter().find(has).map(|reading| (reading.device.uuid.clone(), id.to_owned()));
    }
    if let Some(rest) = id.strip_prefix("nvidia") {
        let mut parts = rest.split('/');
        let minor: u32 = parts.next()?.parse().ok()?;
        let reading = readings.iter().find(|reading| reading.device.minor == Some(minor))?;
        let instance = parts.find_map(|part| part.strip_prefix("gi")?.parse::<u32>().ok());
        let instance = instance.map_or(Some(String::new()), |id| {
            let found = reading.instances.iter().find(|one| one.gpu_instance == Some(id));
            found.map(|one| one.uuid.clone())
        });
        return Some((reading.device.uuid.clone(), instance?));
    }
    let known = readings.iter().any(|reading| reading.device.uuid == id);
    known.then(|| (id.to_owned(), String::new()))
}

/// What the kubelet allocated, as far as the devices are known here, each once.
pub(super) fn given(readings: &[Reading], kubelet: &[Allocation]) -> BTreeSet<Allocated> {
    let mut all = BTreeSet::new();
    for Allocation { names, ids } in kubelet {
        for (device, instance) in ids.iter().filter_map(|id| resolve(id, readings)) {
            all.insert(Allocated { device, instance, names: names.clone(), source: Source::Kubelet });
        }
    }
    all
}

/// Who has what, each once, and how many of those that have processes on a device were not allocated it. Without the
/// kubelet's word there is nothing to disagree with.
pub fn allocated(readings: &[Reading], kubelet: Option<&[Allocation]>) -> (Vec<Allocated>, u64) {
    let mut all = given(readings, kubelet.unwrap_or_default());
    let mut disagreements = BTreeSet::new();
    for reading in readings {
        for process in reading.processes.iter().flatten() {
            let [_, pod, _] = &process.owner.names;
            let one = Allocated {
                device: reading.device.uuid.clone(),
                instance: process.instance.clone().unwrap_or_default(),
                names: process.owner.names.clone(),
                source: Source::Process,
            };
            let told = Allocated { source: Source::Kubelet, ..one.clone() };
            if !pod.is_empty() && kubelet.is_some() && !all.contains(&told) {
                disagreements.insert(told);
            }
            all.insert(one);
        }
    }
    (all.into_iter().collect(), disagreements.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gpus::{Device, Instance, Owner, Process};

    fn names(pod: &str) -> [String; 3] {
        ["ml", pod, "server"].map(str::to_owned)
    }

    fn readings() -> Vec<Reading> {
        let device = |uuid: &str, minor| {
            Arc::new(Device { uuid: uuid.into(), minor: Some(minor), ..Device::default() })
        };
        let instance = Instance { uuid: "MIG-1".into(), gpu_instance: Some(7), ..Instance::default() };
        let process = Process {
            instance: None,
            memory: None,
            utilization: None,
            owner: Arc::new(Owner { names: names("a"), ..Owner::default() }),
        };
        vec![
            Reading { device: device("GPU-0", 0), processes: Some(vec![process]), ..Reading::default() },
            Reading { device: device("GPU-1", 1), instances: vec![instance], ..Reading::default() },
        ]
    }

    #[test]
    fn every_shape_of_an_id() {
        let readings = readings();
        for (id, expected) in [
            ("GPU-0", Some(("GPU-0", ""))),
            ("GPU-0::3", Some(("GPU-0", ""))),
            ("MIG-1", Some(("GPU-1", "MIG-1"))),
            ("MIG-1::0", Some(("GPU-1", "MIG-1"))),
            ("nvidia1", Some(("GPU-1", ""))),
            ("nvidia0/vgpu1", Some(("GPU-0", ""))),
            ("nvidia1/gi7", Some(("GPU-1", "MIG-1"))),
            ("nvidia1/gi7/vgpu0", Some(("GPU-1", "MIG-1"))),
            ("nvidia1/gi8", None),
            ("nvidia9", None),
            ("nvidia-caps", None),
            ("GPU-9", None),
            ("", None),
        ] {
            let found = resolve(id, &readings);
            let found = found.as_ref().map(|(device, instance)| (device.as_str(), instance.as_str()));
            assert_eq!(found, expected, "{id}");
        }
    }

    #[test]
    fn both_sources_are_told_and_their_disagreement() {
        let allocation = |pod, ids: &[&str]| Allocation {
            names: names(pod),
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
        };
        let count = |kubelet: Option<&[Allocation]>| {
            let (all, disagreements) = allocated(&readings(), kubelet);
            (all.iter().filter(|one| one.source == Source::Kubelet).count(), all.len(), disagreements)
        };
        assert_eq!(count(None), (0, 1, 0));
        assert_eq!(count(Some(&[])), (0, 1, 1), "a process on a GPU that its container was not given");
        assert_eq!(
            count(Some(&[allocation("a", &["GPU-0::0", "GPU-0::1"])])),
            (1, 2, 0),
            "two replicas, one GPU"
        );
        assert_eq!(count(Some(&[allocation("b", &["GPU-0", "MIG-1"])])), (2, 3, 1));
    }
}
