//! Which logs are wanted, and where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::lines::Origin;

/// Logs that are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of all pods of the node.
    pub all: bool,
    /// Of these pods, by the uid that their folder is named after.
    pub pods: BTreeSet<String>,
    /// Of none of these, whatever else is said: pods that may not be observed.
    pub never: BTreeSet<String>,
    /// What manages a pod, by the uid that its folder is named after.
    pub workloads: BTreeMap<String, String>,
    /// Files, with who writes them.
    pub files: Vec<(PathBuf, Origin)>,
}

/// One container's or service's log: files that follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The folder, or the file.
    pub path: PathBuf,
    /// Whether it is a folder of the kubelet's.
    pub is_folder: bool,
}

impl Wanted {
    /// Whether logs of the pod with this uid are wanted.
    fn wants(&self, uid: &str) -> bool {
        (self.all || self.pods.contains(uid)) && !self.never.contains(uid)
    }

    /// Sources that there are now: containers below the kubelet's folder of pods' logs, and files.
    pub fn sources(&self, pod_logs: &Path, node: &str) -> Vec<(Source, Origin)> {
        let mut sources = in_folder(pod_logs, node, |uid| {
            self.wants(uid).then(|| self.workloads.get(uid).cloned().unwrap_or_default())
        });
        for (path, origin) in &self.files {
            sources.push((Source { path: path.clone(), is_folder: false }, origin.clone()));
        }
        sources
    }
}

/// Containers below the kubelet's folder of pods' logs: `<namespace>_<pod>_<uid>/<container>/` (kubernetes
/// `pkg/kubelet/kuberuntime/helpers.go`). `whose` tells of a pod that is wanted what manages it, by its uid.
pub fn in_folder(
    pod_logs: &Path,
    node: &str,
    whose: impl Fn(&str) -> Option<String>,
) -> Vec<(Source, Origin)> {
    let mut sources = Vec::new();
    for pod in folders(pod_logs) {
        let name = pod.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut parts = name.splitn(3, '_');
        let (Some(namespace), Some(pod_name), Some(uid)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let Some(workload) = whose(uid) else { continue };
        for container in folders(&pod) {
            let origin = Origin {
                node: node.to_owned(),
                namespace: namespace.to_owned(),
                pod: pod_name.to_owned(),
                container: container.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                workload: workload.clone(),
                restart: None,
            };
            sources.push((Source { path: container, is_folder: true }, origin));
        }
    }
    sources
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let mut folders: Vec<PathBuf> =
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect();
    folders.sort();
    folders
}
