//! What the machine grants an agent, but for what the kernel room itself requires.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, State};
use crate::config::Config;

/// The oldest kernel that the probes are made for.
const OLDEST: (u32, u32) = (5, 10);

/// Where the loader and `deploy/` look for NVIDIA's library (deploy/README.md, GPUs).
const NVML: [&str; 11] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/local/nvidia/lib64",
    "/host/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/host/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
    "/host/run/nvidia/driver/usr/lib64",
    "/host/home/kubernetes/bin/nvidia/lib64",
    "/host/usr/lib/x86_64-linux-gnu",
    "/host/usr/lib/aarch64-linux-gnu",
    "/host/usr/lib64",
];

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    vec![
        kernel(&release),
        lockdown(fs::read_to_string("/sys/kernel/security/lockdown").ok().as_deref()),
        btf(Path::new("/sys/kernel/btf/vmlinux").exists()),
        cgroups(Path::new("/sys/fs/cgroup")),
        pod_logs(&config.kubernetes.pod_logs),
        units(&config.logs.units, std::env::var_os("PATH").as_deref()),
        nvml(
            Path::new("/proc/driver/nvidia/version").exists(),
            NVML.iter().map(|folder| Path::new(folder).join("libnvidia-ml.so.1")).find(|file| file.exists()),
        ),
    ]
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("Linux {release}");
    if version >= OLDEST {
        return Finding::ok("kernel", found);
    }
    Finding::with(
        "kernel",
        State::Missing,
        found,
        format!("run it on Linux {}.{} or later", OLDEST.0, OLDEST.1),
    )
}

/// The mode stands in brackets (kernel `security/lockdown/lockdown.c`).
fn lockdown(text: Option<&str>) -> Finding {
    let mode = text.map(|text| text.split(['[', ']']).nth(1).unwrap_or(text).trim());
    match mode {
        None => Finding::ok("lockdown", "not in this kernel, or not shown here"),
        Some("confidentiality") => Finding::with(
            "lockdown",
            State::Missing,
            "confidentiality: no program may read the kernel's memory",
            "boot with lockdown=integrity, or without",
        ),
        Some(mode) => Finding::ok("lockdown", mode),
    }
}

/// The probes read what tracepoints and system calls are given, whose layouts tracefs tells, so they do without.
fn btf(is_there: bool) -> Finding {
    let found = if is_there {
        "/sys/kernel/btf/vmlinux"
    } else {
        "none; the probes do without, but how a process ended is known only until its parent has asked"
    };
    Finding::ok("btf", found)
}

fn cgroups(root: &Path) -> Finding {
    let controllers = ["memory", "cpu,cpuacct", "cpu"].map(|name| root.join(name));
    if root.join("cgroup.controllers").exists() {
        Finding::ok("cgroups", format!("version 2 at {}", root.display()))
    } else if controllers.iter().any(|folder| folder.is_dir()) {
        Finding::ok("cgroups", format!("version 1 at {}", root.display()))
    } else {
        Finding::with(
            "cgroups",
            State::Less,
            format!("none at {}: CPU and memory use are not told", root.display()),
            "mount the host's /sys/fs/cgroup there, as deploy/ does",
        )
    }
}

fn pod_logs(folder: &Path) -> Finding {
    if folder.is_dir() {
        return Finding::ok("pod logs", folder.display().to_string());
    }
    Finding::with(
        "pod logs",
        State::Less,
        format!("no {}: without an API server pods are not named", folder.display()),
        "on a Kubernetes node, mount the kubelet's folder there, or name it in kubernetes.pod_logs",
    )
}

/// Units are read by a program that is not in every image.
fn units(names: &[String], path: Option<&OsStr>) -> Finding {
    if names.is_empty() {
        return Finding::ok("journalctl", "not needed: logs.units names none");
    }
    let mut folders = path.map(std::env::split_paths).into_iter().flatten();
    match folders.find_map(|folder| Some(folder.join("journalctl")).filter(|file| file.is_file())) {
        Some(file) => Finding::ok("journalctl", file.display().to_string()),
        None => Finding::with(
            "journalctl",
            State::Less,
            "it is not on PATH: units are not read",
            "install systemd's journalctl beside the observer, or clear logs.units",
        ),
    }
}

fn nvml(driver: bool, library: Option<PathBuf>) -> Finding {
    match (driver, library) {
        (_, Some(path)) => Finding::ok("libnvidia-ml", path.display().to_string()),
        (false, None) => Finding::ok("libnvidia-ml", "no NVIDIA driver here, and no library"),
        (true, None) => Finding::with(
            "libnvidia-ml",
            State::Less,
            "there is a driver, but no libnvidia-ml.so.1 in the usual folders",
            "give the pod the driver's folder: gpu.driver in the chart",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        assert_eq!(kernel("5.10.0-46-cloud-amd64").state, State::Ok);
        assert_eq!(kernel("6.18.44").state, State::Ok);
        let old = kernel("5.4.0-150-generic");
        assert_eq!(old.state, State::Missing);
        assert!(old.remedy.unwrap().contains("5.10"));
    }

    #[test]
    fn units_need_a_program() {
        let (folder, names) = (tempfile::tempdir().unwrap(), ["vllm.service".to_owned()]);
        let path = Some(folder.path().as_os_str());
        assert_eq!(units(&[], None).state, State::Ok);
        assert_eq!((units(&names, path).state, units(&names, None).state), (State::Less, State::Less));
        fs::write(folder.path().join("journalctl"), "").unwrap();
        assert_eq!(units(&names, path).state, State::Ok);
    }

    #[test]
    fn lockdown_by_its_mode() {
        assert_eq!(lockdown(None).state, State::Ok);
        assert_eq!(lockdown(Some("[none] integrity confidentiality\n")).found, "none");
        assert_eq!(lockdown(Some("none [integrity] confidentiality\n")).state, State::Ok);
        assert_eq!(lockdown(Some("none integrity [confidentiality]\n")).state, State::Missing);
    }

    #[test]
    fn files_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(cgroups(folder.path()).state, State::Less);
        fs::create_dir(folder.path().join("memory")).unwrap();
        assert!(cgroups(folder.path()).found.starts_with("version 1"));
        fs::write(folder.path().join("cgroup.controllers"), "").unwrap();
        assert!(cgroups(folder.path()).found.starts_with("version 2"));
        assert_eq!(pod_logs(folder.path()).state, State::Ok);
        assert_eq!(pod_logs(&folder.path().join("pods")).state, State::Less);
        assert_eq!(nvml(false, None).state, State::Ok);
        assert_eq!(nvml(true, None).state, State::Less);
        assert_eq!(nvml(true, Some("/usr/lib64/libnvidia-ml.so.1".into())).state, State::Ok);
    }
}
