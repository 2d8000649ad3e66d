//! What a container uses, from the files of its cgroup.
//!
//! Version 2 has one hierarchy (kernel `Documentation/admin-guide/cgroup-v2.rst`), version 1 one for each
//! controller (`cgroup-v1/cpuacct.rst`, `memory.rst`); hybrid hosts keep the controllers in those of version 1.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::pods::Usage;

/// Cgroups between the root and a pod's: kubelets nested in containers need the most.
const DEPTH: usize = 6;

/// Nanoseconds and microseconds of a second.
const NANOS: f64 = 1e9;
const MICROS: f64 = 1e6;

/// What the cgroup of this path uses, below the folder where the hierarchies are mounted.
pub fn usage(root: &Path, cgroup: &str) -> Usage {
    let path = Path::new(cgroup.trim_start_matches('/'));
    if root.join("cgroup.controllers").exists() { unified(&root.join(path)) } else { split(root, path) }
}

/// Where a cgroup is whose path was told from within another one, as `/../pod<uid>/<id>`: `/proc` counts from the cgroup
/// namespace of who reads it. The path from the root, if such a cgroup is there.
pub fn absolute(root: &Path, cgroup: &str) -> Option<String> {
    let Some(inner) = cgroup.strip_prefix("/..") else { return Some(cgroup.to_owned()) };
    let inner = Path::new(inner.trim_start_matches("/..").trim_start_matches('/'));
    let hierarchy = ["memory", "cpu,cpuacct", "cpu"].map(|controller| root.join(controller));
    let unified = root.join("cgroup.controllers").exists();
    let top = if unified { root.to_owned() } else { hierarchy.into_iter().find(|top| top.exists())? };
    let mut folders = vec![(top.clone(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let found = folder.join(inner);
        if found.is_dir() {
            let path = found.strip_prefix(&top).ok()?;
            return Some(format!("/{}", path.display()));
        }
        if depth < DEPTH {
            let entries = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
            let inside = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(inside.map(|entry| (entry.path(), depth + 1)));
        }
    }
    None
}

fn unified(folder: &Path) -> Usage {
    let stat = fs::read_to_string(folder.join("cpu.stat")).unwrap_or_default();
    let memory = number(&folder.join("memory.current"));
    Usage {
        cpu_seconds: field(&stat, "usage_usec").map(|usec| usec as f64 / MICROS),
        throttled_seconds: field(&stat, "throttled_usec").map(|usec| usec as f64 / MICROS),
        memory,
        working_set: working_set(memory, &folder.join("memory.stat"), "inactive_file"),
    }
}

fn split(root: &Path, path: &Path) -> Usage {
    // Controllers that are mounted together have a folder of both names, and links of each.
    let folder = |controllers: &[&str]| -> PathBuf {
        let folders = controllers.iter().map(|controller| root.join(controller).join(path));
        folders.into_iter().find(|folder| folder.exists()).unwrap_or_default()
    };
    let (cpu, memory) = (folder(&["cpu", "cpu,cpuacct"]), folder(&["memory"]));
    let stat = fs::read_to_string(cpu.join("cpu.stat")).unwrap_or_default();
    let used = number(&memory.join("memory.usage_in_bytes"));
    Usage {
        cpu_seconds: number(&folder(&["cpuacct", "cpu,cpuacct"]).join("cpuacct.usage"))
            .map(|nanos| nanos as f64 / NANOS),
        throttled_seconds: field(&stat, "throttled_time").map(|nanos| nanos as f64 / NANOS),
        memory: used,
        working_set: working_set(used, &memory.join("memory.stat"), "total_inactive_file"),
    }
}

/// As the kubelet has it (cadvisor `container/libcontainer/handler.go`, `setMemoryStats`).
fn working_set(used: Option<u64>, stat: &Path, inactive: &str) -> Option<u64> {
    let stat = fs::read_to_string(stat).ok()?;
    Some(used?.saturating_sub(field(&stat, inactive)?))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The value of a line `name value`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CGROUP: &str = "/kubepods/pod1/c";

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn version_2() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("cgroup.controllers", "cpu memory\n"),
                ("kubepods/pod1/c/cpu.stat", "usage_usec 1500000\nuser_usec 1\nthrottled_usec 250000\n"),
                ("kubepods/pod1/c/memory.current", "1000\n"),
                ("kubepods/pod1/c/memory.stat", "anon 5\ninactive_file 300\nactive_file 7\n"),
            ],
        );
        let expected = Usage {
            cpu_seconds: Some(1.5),
            throttled_seconds: Some(0.25),
            memory: Some(1000),
            working_set: Some(700),
        };
        assert_eq!(usage(root.path(), CGROUP), expected);
        assert_eq!(usage(root.path(), "/elsewhere"), Usage::default());
    }

    #[test]
    fn a_path_from_within_another_cgroup() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("cgroup.controllers", "cpu memory\n"),
                ("kubelet.slice/kubepods.slice/pod1.slice/c.scope/cpu.stat", ""),
                ("system.slice/ssh.service/cpu.stat", ""),
            ],
        );
        let found = absolute(root.path(), "/../../pod1.slice/c.scope");
        assert_eq!(found.as_deref(), Some("/kubelet.slice/kubepods.slice/pod1.slice/c.scope"));
        assert_eq!(absolute(root.path(), "/../pod2.slice/c.scope"), None);
        assert_eq!(absolute(root.path(), "/a/b").as_deref(), Some("/a/b"));
    }

    #[test]
    fn version_1_and_hybrid() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("unified/cgroup.controllers", "\n"),
                ("cpu,cpuacct/kubepods/pod1/c/cpuacct.usage", "1500000000\n"),
                ("cpu,cpuacct/kubepods/pod1/c/cpu.stat", "nr_periods 4\nthrottled_time 250000000\n"),
                ("memory/kubepods/pod1/c/memory.usage_in_bytes", "1000\n"),
                ("memory/kubepods/pod1/c/memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
            ],
        );
        let expected = Usage {
            cpu_seconds: Some(1.5),
            throttled_seconds: Some(0.25),
            memory: Some(1000),
            working_set: Some(700),
        };
        assert_eq!(usage(root.path(), CGROUP), expected);
    }
}
