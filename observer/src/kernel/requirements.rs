//! What the machine must grant before anything is loaded. Each refusal names what is missing and the remedy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::MetadataExt as _;
use thiserror::Error;

const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Inode of the initial pid namespace (`PROC_PID_INIT_INO` of `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Something that the machine does not grant.
#[derive(Debug, Error)]
pub enum Requirement {
    /// A capability is missing.
    #[error(
        "missing capability {name}; run as root, or grant it \
         (systemd: AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYS_PTRACE CAP_DAC_READ_SEARCH; \
         Kubernetes: securityContext.privileged: true)"
    )]
    Capability {
        /// Its name.
        name: &'static str,
    },
    /// Process ids would not be the kernel's.
    #[error(
        "not in the initial pid namespace: process ids seen here are not the kernel's; \
         run on the host, or set hostPID: true (Kubernetes) or --pid=host (containers)"
    )]
    PidNamespace,
    /// Tracepoint formats cannot be read.
    #[error(
        "tracefs is not mounted and could not be mounted at {path}: {source}; \
         run `mount -t tracefs tracefs {path}`, or mount the host's /sys/kernel/tracing into the container"
    )]
    Tracefs {
        /// Where it should be.
        path: &'static str,
        /// Why mounting failed.
        source: io::Error,
    },
    /// A file of /proc could not be read.
    #[error("cannot read {path}: {source}; mount /proc")]
    Proc {
        /// Which.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Checks capabilities, the pid namespace and tracefs, which is mounted if need be. Returns where tracefs is.
///
/// # Errors
/// The first [`Requirement`] that does not hold.
pub fn check() -> Result<PathBuf, Requirement> {
    loading(effective(&read("/proc/self/status")?))?;
    pid_namespace()?;
    tracefs()
}

/// What is required, one by one: what holds, or what does not.
pub fn requirements() -> [(&'static str, Result<String, Requirement>); 3] {
    let capabilities = read("/proc/self/status").and_then(|status| loading(effective(&status)));
    [
        ("capabilities", capabilities.map(|()| "CAP_BPF and CAP_PERFMON, or what includes them".to_owned())),
        ("pid namespace", pid_namespace().map(|()| "the initial one".to_owned())),
        ("tracefs", tracefs().map(|path| path.display().to_string())),
    ]
}

/// A capability that is needed beside those for loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// What is missing without it, if it is not there.
    pub without: Option<&'static str>,
}

/// Capabilities that are needed beside those for loading, on this kernel.
pub fn capabilities() -> Vec<Capability> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    beside(effective(&read("/proc/self/status").unwrap_or_default()), charges_memlock(&release))
}

fn beside(effective: u64, charges_memlock: bool) -> Vec<Capability> {
    const PROC: &str = "processes of other users that ran before the agent are not looked into";
    let mut needed =
        vec![(CAP_SYS_PTRACE, "CAP_SYS_PTRACE", PROC), (CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", PROC)];
    if charges_memlock {
        let memlock = "this kernel charges maps against RLIMIT_MEMLOCK, which cannot be raised";
        needed.push((CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", memlock));
    }
    let judged = |(bit, name, without): (u32, &'static str, &'static str)| Capability {
        name,
        without: (effective >> bit & 1 == 0).then_some(without),
    };
    needed.into_iter().map(judged).collect()
}

/// Whether a kernel of this release is older than 5.11: it charges maps against `RLIMIT_MEMLOCK`.
pub(super) fn charges_memlock(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version < (5, 11)
}

fn read(path: &'static str) -> Result<String, Requirement> {
    fs::read_to_string(path).map_err(|source| Requirement::Proc { path, source })
}

fn pid_namespace() -> Result<(), Requirement> {
    let namespace = fs::metadata("/proc/self/ns/pid")
        .map_err(|source| Requirement::Proc { path: "/proc/self/ns/pid", source })?;
    if namespace.ino() == INITIAL_PID_NAMESPACE { Ok(()) } else { Err(Requirement::PidNamespace) }
}

/// The bits of `CapEff`.
fn effective(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

/// What loading takes. `CAP_SYS_ADMIN` includes both capabilities that were split off it in 5.8.
fn loading(effective: u64) -> Result<(), Requirement> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    for (bit, name) in [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")] {
        if !has(bit) && !has(CAP_SYS_ADMIN) {
            return Err(Requirement::Capability { name });
        }
    }
    Ok(())
}

fn tracefs() -> Result<PathBuf, Requirement> {
    const PATH: &str = "/sys/kernel/tracing";
    for candidate in [PATH, "/sys/kernel/debug/tracing"] {
        if Path::new(candidate).join("events/sched").is_dir() {
            return Ok(candidate.into());
        }
    }
    rustix::mount::mount("tracefs", PATH, "tracefs", rustix::mount::MountFlags::empty(), None)
        .map_err(|source| Requirement::Tracefs { path: PATH, source: source.into() })?;
    Ok(PATH.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named_one_by_one() {
        let status = |bits: u64| format!("Name:\tx\nCapEff:\t{bits:016x}\n");
        let loading = |bits| loading(effective(&status(bits)));
        assert!(loading(1 << CAP_SYS_ADMIN).is_ok());
        assert!(loading(1 << CAP_BPF | 1 << CAP_PERFMON).is_ok());
        let missing = |bits| match loading(bits) {
            Err(Requirement::Capability { name }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(0), "CAP_BPF");
        assert_eq!(missing(1 << CAP_BPF), "CAP_PERFMON");
    }

    #[test]
    fn what_is_needed_beside_depends_on_the_kernel() {
        let lacks = |bits, old| -> Vec<&str> {
            let beside = beside(bits, old).into_iter();
            beside.filter(|one| one.without.is_some()).map(|one| one.name).collect()
        };
        assert_eq!(lacks(u64::MAX, true), [""; 0]);
        assert_eq!(lacks(0, false), ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
        assert_eq!(lacks(1 << CAP_SYS_PTRACE, true), ["CAP_DAC_READ_SEARCH", "CAP_SYS_RESOURCE"]);
    }

    #[test]
    fn old_kernels_charge_maps() {
        assert!(charges_memlock("5.10.0-46-cloud-amd64"));
        assert!(charges_memlock("4.19.0"));
        assert!(!charges_memlock("5.11.0"));
        assert!(!charges_memlock("6.1.0-56-cloud-amd64"));
        assert!(!charges_memlock("7.0-rc1"));
    }
}
