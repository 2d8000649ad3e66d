//! The container that a process runs in, from its cgroup path.
//!
//! Container runtimes name the innermost cgroup of a container after its id, 64 hex digits, with a prefix
//! and a suffix that depend on the cgroup driver: `<id>`, `cri-containerd-<id>.scope`, `crio-<id>.scope`,
//! `docker-<id>.scope`, `libpod-<id>.scope`, `…:cri-containerd:<id>`.

/// Digits of a container id.
const ID: usize = 64;

/// The container id in the content of `/proc/PID/cgroup`.
///
/// Each line is `hierarchy:controllers:path`. On hosts with several hierarchies some may not be used by the
/// runtime, so all are asked.
pub(super) fn container_id(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        // Innermost first: a container in a container belongs to the inner one.
        path.rsplit('/').find_map(id)
    })
}

fn id(segment: &str) -> Option<String> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    // CRI-O's monitor lives beside the container under its id.
    if name.starts_with("crio-conmon-") {
        return None;
    }
    let tail = name.rsplit(['-', ':']).next()?;
    (tail.len() == ID && tail.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        .then(|| tail.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_and_driver() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/kubepods/burstable/pod7d0b/{id}"),
            format!("/kubepods.slice/kubepods-burstable-pod7d0b.slice/cri-containerd-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod7d0b.slice/crio-{id}.scope"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope"),
            format!("/system.slice/containerd.service/kubepods-burstable-pod7d0b.slice:cri-containerd:{id}"),
            format!("/../../pod7d0b/{id}"),
            format!("/docker/{id}/init.scope"),
        ] {
            let cgroup = format!("12:cpuset:/\n0::{path}\n");
            assert_eq!(container_id(&cgroup).as_deref(), Some(id.as_str()), "{path}");
        }
        assert_eq!(container_id("0::/user.slice/session-1.scope\n"), None);
        assert_eq!(container_id(&format!("0::/kubepods/crio-conmon-{id}.scope\n")), None);
        assert_eq!(container_id("nonsense"), None);
    }
}
