//! What occurs on this node, as events: processes, stalls, drops of the observer itself.

use std::{collections::HashMap, fs};

use super::keeping::Keeping;
use crate::{
    capture::monotonic,
    enrich::{Identities, Identity},
    exchange::{ExchangeId, Observation, Phase},
    telemetry::AgentStats,
    timeline::{Kind, Level, Row},
};

/// Drops are told of no more often, in nanoseconds.
const APART: u64 = 10_000_000_000;

/// What has to be known to tell of occurrences. Bounded by what runs.
#[derive(Default)]
pub(super) struct Occurrences {
    /// Processes of exchanges that run.
    running: HashMap<ExchangeId, u32>,
    /// Since when streams stall.
    stalled: HashMap<ExchangeId, u64>,
    /// Records that were dropped until it was last told.
    dropped: u64,
    told_of_drops: u64,
}

impl Occurrences {
    /// A process is observed from now on, or runs another program.
    pub(super) fn process(keeping: &Keeping, tgid: u32, identity: &Identity) {
        let message = format!("{} (pid {tgid}) is observed", identity.process);
        keeping.event(row(Kind::Process, "observed", Level::Info, message, tgid, identity));
    }

    /// A process is gone.
    pub(super) fn process_gone(keeping: &Keeping, tgid: u32, identity: &Identity) {
        // Until its parent asks, the kernel keeps how it ended; later nobody knows.
        let (how, level) = match ended(tgid) {
            Some(status) if status & 0x7f != 0 => (format!("by signal {}", status & 0x7f), Level::Error),
            Some(status) if status >> 8 != 0 => (format!("with code {}", status >> 8), Level::Error),
            Some(_) => ("with code 0".to_owned(), Level::Info),
            None => ("with a code that nobody tells".to_owned(), Level::Info),
        };
        let message = format!("{} (pid {tgid}) ended {how}", identity.process);
        keeping.event(row(Kind::Process, "exit", level, message, tgid, identity));
    }

    /// Stalls, as the core notices them.
    pub(super) fn observe(&mut self, keeping: &Keeping, observation: &Observation, identities: &Identities) {
        match observation {
            Observation::Started { id, pid, .. } => {
                self.running.insert(*id, *pid);
            }
            Observation::Phase { id, phase } => {
                let pid = self.running.get(id).copied().unwrap_or_default();
                if *phase == Phase::Stalled {
                    self.stalled.insert(*id, monotonic());
                    let message = "a stream says nothing although its client reads".to_owned();
                    stall(keeping, "begin", Level::Warn, message, (*id, pid), identities);
                } else {
                    self.goes_on(keeping, (*id, pid), identities);
                }
            }
            Observation::Finished { id, record } => {
                self.goes_on(keeping, (*id, record.pid), identities);
                self.running.remove(id);
            }
            _ => {}
        }
    }

    fn goes_on(&mut self, keeping: &Keeping, (id, pid): (ExchangeId, u32), identities: &Identities) {
        if let Some(since) = self.stalled.remove(&id) {
            let seconds = monotonic().saturating_sub(since) as f64 / 1e9;
            let message =
                format!("a stream that was called stalled {seconds:.3} s ago goes on, or has ended");
            stall(keeping, "end", Level::Info, message, (id, pid), identities);
        }
    }

    /// What the observer itself lost since it last told.
    pub(super) fn drops(&mut self, keeping: &Keeping, statistics: &AgentStats) {
        let dropped = statistics.kernel_dropped() + statistics.dropped.values().sum::<u64>();
        let new = dropped.saturating_sub(self.dropped);
        let now = monotonic();
        if new > 0 && now.saturating_sub(self.told_of_drops) >= APART {
            (self.dropped, self.told_of_drops) = (dropped, now);
            let message =
                format!("{new} records were dropped: requests of this time may be partial or missing");
            keeping.own("dropped", Level::Warn, message);
        }
    }
}

fn stall(
    keeping: &Keeping,
    reason: &str,
    level: Level,
    message: String,
    (id, pid): (ExchangeId, u32),
    identities: &Identities,
) {
    let mut row = row(Kind::Stall, reason, level, message, pid, identities.of(pid));
    // The observer's own name of the request: what `observer requests --id` takes.
    row.request_id = Some(id.to_string());
    keeping.event(row);
}

fn row(kind: Kind, reason: &str, level: Level, message: String, pid: u32, identity: &Identity) -> Row {
    Row {
        kind,
        reason: reason.to_owned(),
        level: Some(level),
        message,
        pid: Some(pid),
        namespace: identity.namespace.clone(),
        pod: identity.pod.clone(),
        container: identity.container.clone(),
        ..Row::default()
    }
}

/// The wait status of a process that is gone and was not asked for yet (`proc_pid_stat(5)`, field 52).
fn ended(tgid: u32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{tgid}/stat")).ok()?;
    // The name may hold anything, the last parenthesis ends it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let code = fields.next_back()?.trim().parse().ok()?;
    matches!(state, "Z" | "X").then_some(code)
}
