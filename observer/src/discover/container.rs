//! Where a process runs, from its cgroup path: which container, which pod, which unit.
//!
//! Container runtimes name the innermost cgroup of a container after its id, 64 hex digits, with a prefix
//! and a suffix that depend on the cgroup driver: `<id>`, `cri-containerd-<id>.scope`, `crio-<id>.scope`,
//! `docker-<id>.scope`, `libpod-<id>.scope`, `…:cri-containerd:<id>`. The kubelet names the cgroup above it
//! after the pod: `pod<uid>`, or `kubepods-burstable-pod<uid with _>.slice` with the systemd driver. The uid of
//! a static pod is the hash of its manifest there (kubelet, `pkg/kubelet/cm/pod_container_manager_linux.go`).

/// Digits of a container id.
const ID: usize = 64;

/// Digits of a pod's uid without its dashes, and of the hash that a static pod has in its place.
const UID: usize = 32;

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Id of its container, 64 hex digits.
    pub container_id: Option<String>,
    /// Uid of its pod as the API server spells it, or the hash of a static pod's manifest.
    pub pod_uid: Option<String>,
    /// The systemd unit that it belongs to outside of containers, such as `vllm.service`.
    pub unit: Option<String>,
    /// The cgroup of its container, or its own: a path below the root of the hierarchy.
    pub cgroup: String,
}

impl Placement {
    /// From the content of `/proc/PID/cgroup`.
    ///
    /// Each line is `hierarchy:controllers:path`. On hosts with several hierarchies some may not be used by the
    /// runtime, so the line that tells most is taken.
    pub fn of(cgroup: &str) -> Self {
        let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        // The first of those that tell as much: max_by_key would take the last.
        let best =
            paths.map(Self::at).reduce(|best, other| if other.told() > best.told() { other } else { best });
        best.unwrap_or_default()
    }

    fn told(&self) -> usize {
        usize::from(self.container_id.is_some())
            + usize::from(self.pod_uid.is_some())
            + usize::from(self.unit.is_some())
    }

    fn at(path: &str) -> Self {
        let mut placement = Self { cgroup: path.to_owned(), ..Self::default() };
        let mut end = path.len();
        // Innermost first: a container in a container belongs to the inner one, whose pod is above it.
        for segment in path.rsplit('/') {
            if placement.container_id.is_none()
                && let Some(id) = container_id(segment)
            {
                placement.container_id = Some(id);
                path[..end].clone_into(&mut placement.cgroup);
            }
            if let Some(uid) = pod_uid(segment) {
                placement.pod_uid = Some(uid);
                break;
            }
            end = end.saturating_sub(segment.len() + 1);
        }
        if placement.container_id.is_none() && placement.pod_uid.is_none() {
            // A user's session is a unit, too, and says nothing of what runs in it.
            let last = path
                .rsplit('/')
                .next()
                .filter(|last| last.ends_with(".service") && !last.starts_with("user@"));
            placement.unit = last.map(str::to_owned);
        }
        placement
    }
}

fn container_id(segment: &str) -> Option<String> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    // CRI-O's monitor lives beside the container under its id.
    if name.starts_with("crio-conmon-") {
        return None;
    }
    let tail = name.rsplit(['-', ':']).next()?;
    (tail.len() == ID && tail.bytes().all(is_hex)).then(|| tail.to_owned())
}

fn pod_uid(segment: &str) -> Option<String> {
    // `<parent>.slice:cri-containerd:<id>`: containerd's own cgroup manager on a systemd host.
    let name = segment.split(':').next()?;
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.rsplit_once("-pod") {
        Some((parent, uid)) if parent.contains("kubepods") => uid,
        _ => name.strip_prefix("pod")?,
    };
    let digits: String = uid.chars().filter(|c| !matches!(c, '-' | '_')).collect();
    if digits.len() != UID || !digits.bytes().all(is_hex) {
        return None;
    }
    Some(if uid.len() == UID { digits } else { uid.replace('_', "-") })
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "7d0b1f5e-3c1a-4a52-9f0e-0123456789ab";
    const HASH: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }

    /// Where, the pod, the container; and how much of the path is the container's cgroup.
    fn shapes() -> Vec<(&'static str, String, Option<&'static str>)> {
        let (id, under) = (id(), UID.replace('-', "_"));
        vec![
            ("cgroupfs, guaranteed", format!("/kubepods/pod{UID}/{id}"), Some(UID)),
            ("cgroupfs, burstable", format!("/kubepods/burstable/pod{UID}/{id}"), Some(UID)),
            ("cgroupfs, best effort", format!("/kubepods/besteffort/pod{UID}/{id}"), Some(UID)),
            (
                "systemd and containerd, burstable",
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{id}.scope"
                ),
                Some(UID),
            ),
            (
                "systemd and containerd, guaranteed",
                format!("/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{id}.scope"),
                Some(UID),
            ),
            (
                "systemd and CRI-O",
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-{id}.scope"
                ),
                Some(UID),
            ),
            (
                "CRI-O with crun, whose container has a cgroup of its own inside",
                format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{id}.scope/container"),
                Some(UID),
            ),
            (
                "systemd and cri-dockerd",
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/docker-{id}.scope"
                ),
                Some(UID),
            ),
            (
                "kind, in the container that is its node",
                format!(
                    "/docker/{id}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{under}.slice/cri-containerd-{id}.scope"
                ),
                Some(UID),
            ),
            (
                "kind with cgroupfs",
                format!("/system.slice/docker-{id}.scope/kubelet/kubepods/burstable/pod{UID}/{id}"),
                Some(UID),
            ),
            ("seen from a cgroup namespace", format!("/../../pod{UID}/{id}"), Some(UID)),
            (
                "seen from a cgroup namespace, systemd",
                format!("/../../kubepods-pod{under}.slice/cri-containerd-{id}.scope"),
                Some(UID),
            ),
            (
                "seen from the namespace of a pod's other container",
                format!("/../cri-containerd-{id}.scope"),
                None,
            ),
            (
                "containerd's cgroup names on a systemd host",
                format!(
                    "/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{id}"
                ),
                Some(UID),
            ),
            ("static pod, cgroupfs", format!("/kubepods/burstable/pod{HASH}/{id}"), Some(HASH)),
            (
                "static pod, systemd",
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice/cri-containerd-{id}.scope"
                ),
                Some(HASH),
            ),
            (
                "k3s, k0s and microk8s with an embedded containerd",
                format!("/kubepods/besteffort/pod{UID}/{id}"),
                Some(UID),
            ),
            ("containerd outside of Kubernetes", format!("/k8s.io/{id}"), None),
            ("nerdctl", format!("/system.slice/nerdctl-{id}.scope"), None),
            ("docker, systemd", format!("/system.slice/docker-{id}.scope"), None),
            ("docker, cgroupfs", format!("/docker/{id}"), None),
            ("docker, with systemd inside", format!("/docker/{id}/init.scope"), None),
            ("podman, rootful", format!("/machine.slice/libpod-{id}.scope"), None),
            (
                "podman, rootless",
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container"
                ),
                None,
            ),
        ]
    }

    #[test]
    fn every_runtime_and_driver() {
        for (name, path, pod) in shapes() {
            // Version 2 has one line; version 1 and hybrid ones have several, and some are of no use.
            for cgroup in [
                format!("0::{path}\n"),
                format!("12:pids:{path}\n11:memory:{path}\n1:name=systemd:{path}\n0::/\n"),
                format!("13:rdma:/\n4:cpu,cpuacct:{path}\n0::/init.scope\n"),
            ] {
                let found = Placement::of(&cgroup);
                assert_eq!(found.container_id, Some(id()), "{name}: {path}");
                assert_eq!(found.pod_uid.as_deref(), pod, "{name}: {path}");
                assert_eq!(found.unit, None, "{name}: {path}");
                assert!(
                    path.starts_with(&found.cgroup) && found.cgroup.contains(&id()),
                    "{name}: {}",
                    found.cgroup
                );
            }
        }
    }

    #[test]
    fn the_cgroup_is_that_of_the_container() {
        let (id, under) = (id(), UID.replace('-', "_"));
        let container = format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{id}.scope");
        assert_eq!(Placement::of(&format!("0::{container}/container/deeper")).cgroup, container);
        assert_eq!(Placement::of("0::/system.slice/ssh.service\n").cgroup, "/system.slice/ssh.service");
    }

    #[test]
    fn a_pod_without_a_container_is_its_sandbox() {
        let found = Placement::of(&format!("0::/kubepods/burstable/pod{UID}\n"));
        assert_eq!((found.container_id, found.pod_uid.as_deref()), (None, Some(UID)));
    }

    #[test]
    fn what_is_in_no_container() {
        let id = id();
        for (path, unit) in [
            ("/system.slice/vllm.service".to_owned(), Some("vllm.service")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/llama.service".to_owned(),
                Some("llama.service"),
            ),
            ("/user.slice/user-1000.slice/user@1000.service".to_owned(), None),
            ("/user.slice/user-0.slice/session-1.scope".to_owned(), None),
            ("/".to_owned(), None),
            (String::new(), None),
            // CRI-O's monitor, and names that only look like a pod's.
            (format!("/kubepods/crio-conmon-{id}.scope"), None),
            ("/podracer/pod-1".to_owned(), None),
            ("/machine.slice/my-pod0123.slice".to_owned(), None),
        ] {
            let found = Placement::of(&format!("0::{path}\n"));
            assert_eq!((found.container_id, found.pod_uid), (None, None), "{path}");
            assert_eq!(found.unit.as_deref(), unit, "{path}");
        }
        assert_eq!(Placement::of("nonsense"), Placement::default());
    }
}
