//! How a process ended.

use std::fs;

use observer_ebpf::{Exit, exit_flags};

/// `SIGKILL`, the one signal that nobody can have sent by mistake to a victim of the kernel.
const SIGKILL: u32 = 9;

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// When, on the kernel side's clock.
    pub time: u64,
    /// What its parent is told (`wait(2)`); none if nobody told the observer.
    pub status: Option<u32>,
    /// Whether the kernel had chosen it to be killed because memory was out.
    pub chosen: bool,
}

impl End {
    /// What the kernel side told.
    pub(super) fn of(exit: &Exit) -> Self {
        let has = |flag| exit.flags & flag != 0;
        Self {
            time: exit.header.time,
            status: has(exit_flags::STATUS).then_some(exit.status),
            chosen: has(exit_flags::OOM),
        }
    }

    /// The same, with what /proc tells of a process that its parent has not asked for yet.
    pub(super) fn or_asked(self, tgid: u32) -> Self {
        Self { status: self.status.or_else(|| unasked(tgid)), ..self }
    }

    /// The code that it exited with.
    pub fn code(&self) -> Option<u32> {
        self.status.filter(|_| self.signal().is_none()).map(|status| status >> 8 & 0xff)
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<u32> {
        self.status.map(|status| status & 0x7f).filter(|signal| *signal != 0)
    }

    /// Whether the kernel killed it because memory was out: it was chosen, and died of what victims die of.
    pub fn is_oom_kill(&self) -> bool {
        self.chosen && self.status.is_none_or(|_| self.signal() == Some(SIGKILL))
    }

    /// One of [`REASONS`].
    pub fn reason(&self) -> &'static str {
        match (self.code(), self.signal()) {
            _ if self.is_oom_kill() => "oom_kill",
            (Some(0), _) => "ok",
            (Some(_), _) => "error",
            (_, Some(SIGKILL)) => "killed",
            // SIGHUP, SIGINT, SIGTERM: somebody asked it to end.
            (_, Some(1 | 2 | 15)) => "terminated",
            // SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS: those that dump
            // core (signal(7)).
            (_, Some(3..=8 | 11 | 24 | 25 | 31)) => "crash",
            (_, Some(_)) => "signal",
            (None, None) => "unknown",
        }
    }
}

/// Ways to end that are told apart.
pub const REASONS: [&str; 8] =
    ["ok", "error", "killed", "terminated", "crash", "signal", "oom_kill", "unknown"];

/// The wait status of a process that is gone and was not asked for yet (`proc_pid_stat(5)`, field 52).
fn unasked(tgid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{tgid}/stat")).ok()?;
    // The name may hold anything, the last parenthesis ends it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let code = fields.next_back()?.trim().parse().ok()?;
    matches!(state, "Z" | "X").then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_signals_and_victims() {
        let told = |status: Option<u32>, chosen| {
            let end = End { time: 0, status, chosen };
            assert!(REASONS.contains(&end.reason()));
            (end.code(), end.signal(), end.reason())
        };
        assert_eq!(told(Some(0), false), (Some(0), None, "ok"));
        assert_eq!(told(Some(3 << 8), false), (Some(3), None, "error"));
        assert_eq!(told(Some(9), false), (None, Some(9), "killed"));
        assert_eq!(told(Some(9), true), (None, Some(9), "oom_kill"));
        assert_eq!(told(Some(15), true), (None, Some(15), "terminated"), "it was quicker than the kernel");
        // With a core.
        assert_eq!(told(Some(0x80 + 11), false), (None, Some(11), "crash"));
        assert_eq!(told(Some(12), false), (None, Some(12), "signal"));
        assert_eq!(told(None, false), (None, None, "unknown"));
        assert_eq!(told(None, true), (None, None, "oom_kill"));
    }

    #[test]
    fn what_was_not_asked_for_is_still_there() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let tgid = child.id();
        let end = End { time: 1, ..End::default() };
        let looks = (0..2000).take_while(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            end.or_asked(tgid).code() != Some(3)
        });
        assert!(looks.count() < 2000);
        child.wait().unwrap();
        assert_eq!(end.or_asked(tgid), end);
    }
}
