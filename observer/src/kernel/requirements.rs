//! What the machine must grant before anything is loaded. Each refusal names what is missing and the remedy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::MetadataExt as _;
use thiserror::Error;

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Inode of the initial pid namespace (`PROC_PID_INIT_INO` of `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Something that the machine does not grant.
#[derive(Debug, Error)]
pub enum Requirement {
    /// A capability is missing.
    #[error(
        "missing capability {name}: run as root, or grant it \
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
    capabilities(&read("/proc/self/status")?)?;
    let namespace = fs::metadata("/proc/self/ns/pid")
        .map_err(|source| Requirement::Proc { path: "/proc/self/ns/pid", source })?;
    if namespace.ino() != INITIAL_PID_NAMESPACE {
        return Err(Requirement::PidNamespace);
    }
    tracefs()
}

fn read(path: &'static str) -> Result<String, Requirement> {
    fs::read_to_string(path).map_err(|source| Requirement::Proc { path, source })
}

/// `CAP_SYS_ADMIN` includes both capabilities that were split off it in 5.8.
fn capabilities(status: &str) -> Result<(), Requirement> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
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
        assert!(capabilities(&status(1 << CAP_SYS_ADMIN)).is_ok());
        assert!(capabilities(&status(1 << CAP_BPF | 1 << CAP_PERFMON)).is_ok());
        let missing = |bits| match capabilities(&status(bits)) {
            Err(Requirement::Capability { name }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(0), "CAP_BPF");
        assert_eq!(missing(1 << CAP_BPF), "CAP_PERFMON");
    }
}
