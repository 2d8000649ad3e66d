//! Names of pods and containers from the kubelet's log folders, for when no API server tells them.
//!
//! `pods/<namespace>_<pod>_<uid>/<container>/` and `containers/<pod>_<namespace>_<container>-<id>.log`, where
//! neither namespaces nor names contain an underscore (kubelet `pkg/kubelet/kuberuntime/helpers.go`).

use std::{fs, path::Path};

use super::Placement;

/// What the kubelet calls a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container, if its log is there.
    pub container: Option<String>,
}

impl Names {
    /// Finds the names of where a process runs, in the folder `pods` of the kubelet's logs and the folder
    /// `containers` beside it.
    pub fn find(pods: &Path, placement: &Placement) -> Option<Self> {
        let by_uid = placement.pod_uid.as_deref().and_then(|uid| {
            entries(pods).find_map(|entry| {
                let (namespace, rest) = entry.split_once('_')?;
                let (pod, found) = rest.split_once('_')?;
                (found == uid).then(|| (namespace.to_owned(), pod.to_owned()))
            })
        });
        let by_id = placement.container_id.as_deref().and_then(|id| {
            entries(&pods.with_file_name("containers")).find_map(|entry| {
                let name = entry.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
                let mut parts = name.splitn(3, '_');
                let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
                Some((namespace.to_owned(), pod.to_owned(), container.to_owned()))
            })
        });
        match (by_id, by_uid) {
            (Some((namespace, pod, container)), _) => {
                Some(Self { namespace, pod, container: Some(container) })
            }
            (None, Some((namespace, pod))) => Some(Self { namespace, pod, container: None }),
            (None, None) => None,
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_container_or_else_from_the_pod() {
        let logs = tempfile::tempdir().unwrap();
        let pods = logs.path().join("pods");
        let (uid, id) = ("7d0b1f5e-3c1a-4a52-9f0e-0123456789ab", "0123456789abcdef".repeat(4));
        fs::create_dir_all(pods.join(format!("ml_llama-0_{uid}"))).unwrap();
        fs::create_dir_all(pods.join("ml_other_8d0b1f5e-3c1a-4a52-9f0e-0123456789ab")).unwrap();
        let placed = |id: Option<&str>, uid: Option<&str>| Placement {
            container_id: id.map(str::to_owned),
            pod_uid: uid.map(str::to_owned),
            ..Placement::default()
        };
        let names = |container: Option<&str>| {
            let container = container.map(str::to_owned);
            Some(Names { namespace: "ml".to_owned(), pod: "llama-0".to_owned(), container })
        };
        assert_eq!(Names::find(&pods, &placed(Some(&id), Some(uid))), names(None));
        fs::create_dir_all(logs.path().join("containers")).unwrap();
        fs::write(logs.path().join(format!("containers/llama-0_ml_server-{id}.log")), "").unwrap();
        assert_eq!(Names::find(&pods, &placed(Some(&id), Some(uid))), names(Some("server")));
        assert_eq!(Names::find(&pods, &placed(Some(&id), None)), names(Some("server")));
        assert_eq!(Names::find(&pods, &placed(Some(&"f".repeat(64)), None)), None);
        assert_eq!(Names::find(&logs.path().join("nowhere/pods"), &placed(Some(&id), Some(uid))), None);
    }
}
