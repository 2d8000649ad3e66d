//! One process.

use std::{fs, io::Read as _};

use procfs::process::Process as Proc;

use super::container::Placement;

/// Hex digits of a container id that name it, as container tools print it.
const SHORT_ID: usize = 12;

/// Nanoseconds of a second.
const NANOS: u64 = 1_000_000_000;

/// What is known of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its name: `comm` of its main thread.
    pub name: String,
    /// Where it runs.
    pub placement: Placement,
    /// When it was started: nanoseconds on the clock that also counts while the machine is suspended.
    pub started: u64,
    /// Its system calls are numbered as this machine's.
    pub is_native: bool,
}

impl Process {
    /// Looks a process up; `None` if it is gone.
    pub fn look_up(tgid: u32) -> Option<Self> {
        let process = Proc::new(tgid.cast_signed()).ok()?;
        let stat = process.stat().ok()?;
        let cgroup = fs::read_to_string(format!("/proc/{tgid}/cgroup")).unwrap_or_default();
        let started = stat.starttime.saturating_mul(NANOS / procfs::ticks_per_second());
        let placement = Placement::of(&cgroup);
        Some(Self { name: stat.comm, placement, started, is_native: is_native(tgid) })
    }

    /// What the `container` label says as long as no one names the container: its id where there is one, else the
    /// systemd unit, else the process's name.
    pub fn container(&self) -> String {
        match (&self.placement.container_id, &self.placement.unit) {
            (Some(id), _) => id.chars().take(SHORT_ID).collect(),
            (None, Some(unit)) => unit.strip_suffix(".service").unwrap_or(unit).to_owned(),
            (None, None) => self.name.clone(),
        }
    }
}

/// Whether a process runs a 64-bit program. 32-bit ones number their system calls differently. A program
/// that cannot be read is taken for native: the kernel side tolerates what it does not understand.
fn is_native(tgid: u32) -> bool {
    const EI_CLASS: usize = 4;
    const ELFCLASS32: u8 = 1;
    let mut ident = [0; EI_CLASS + 1];
    let read = fs::File::open(format!("/proc/{tgid}/exe")).and_then(|mut file| file.read_exact(&mut ident));
    read.is_err() || !ident.starts_with(b"\x7fELF") || ident[EI_CLASS] != ELFCLASS32
}

/// Ids of a process's threads; none if it is gone.
pub fn threads(tgid: u32) -> Vec<u32> {
    let tasks = Proc::new(tgid.cast_signed()).and_then(|process| process.tasks());
    let ids = tasks.into_iter().flatten().filter_map(|task| Some(task.ok()?.tid.cast_unsigned()));
    ids.collect()
}

/// A process' parent, that one's, and so on, as far as they are there.
pub fn ancestors(tgid: u32) -> Vec<u32> {
    const DEPTH: usize = 32;
    let parent = |pid: &u32| {
        let stat = Proc::new(pid.cast_signed()).and_then(|process| process.stat()).ok()?;
        (stat.ppid > 0).then(|| stat.ppid.cast_unsigned())
    };
    std::iter::successors(parent(&tgid), parent).take(DEPTH).collect()
}

/// Whether no thread of a process is left. A leader that exited while others live on is a zombie with tasks.
pub fn is_gone(tgid: u32) -> bool {
    let Ok(process) = Proc::new(tgid.cast_signed()) else { return true };
    let Ok(tasks) = process.tasks() else { return true };
    !tasks
        .filter_map(Result::ok)
        .any(|task| task.stat().is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'x')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_native_and_alive() {
        let own = Process::look_up(std::process::id()).unwrap();
        assert!(own.is_native);
        assert!(threads(std::process::id()).contains(&std::process::id()));
        assert!(!own.name.is_empty());
        assert!(!is_gone(std::process::id()));
        assert_eq!(ancestors(std::process::id())[0], std::os::unix::process::parent_id());
        assert!(is_gone(u32::MAX >> 1));
        assert_eq!(Process::look_up(u32::MAX >> 1), None);
    }

    #[test]
    fn the_container_is_named_by_its_short_id_else_by_unit_or_process() {
        let id = "0123456789abcdef".repeat(4);
        let mut process = Process { name: "llama-server".into(), ..Process::default() };
        assert_eq!(process.container(), "llama-server");
        process.placement.unit = Some("llm.service".into());
        assert_eq!(process.container(), "llm");
        process.placement.container_id = Some(id);
        assert_eq!(process.container(), "0123456789ab");
    }
}
