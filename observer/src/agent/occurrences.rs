//! What occurs on this node, as events: processes, stalls, drops of the observer itself.

use std::collections::{HashMap, HashSet};

use super::{keeping::Keeping, now, pace::Pace, tenants::Housing};
use crate::{
    capture::{End, monotonic},
    enrich::{Identities, Identity},
    exchange::{ExchangeId, Observation, Phase},
    telemetry::AgentStats,
    timeline::{Kind, Level, Row},
};

/// Drops are told of no more often, in nanoseconds.
const APART: u64 = 10_000_000_000;

/// Containers without a process that are remembered, and for how long, in nanoseconds: those that come back have been
/// started again.
const ENDED: usize = 1024;
/// See there.
const LATER: u64 = 3_600_000_000_000;

/// What has to be known to tell of occurrences. Bounded by what runs.
#[derive(Default)]
pub(super) struct Occurrences {
    /// Processes of exchanges that run.
    running: HashMap<ExchangeId, u32>,
    /// Since when streams stall.
    stalled: HashMap<ExchangeId, u64>,
    /// Processes of which nothing was told, and nothing is at their end.
    silent: HashSet<u32>,
    /// Victims of which it was told that they were chosen.
    victims: HashSet<u32>,
    /// Containers whose last process ended, and when: namespace, pod, name.
    ended: HashMap<[String; 3], u64>,
    pace: Pace,
    /// Records that were dropped until it was last told.
    dropped: u64,
    told_of_drops: u64,
}

impl Occurrences {
    /// A process is observed from now on. What is in no container or unit is not known again by its name.
    pub(super) fn process(
        &mut self,
        keeping: &Keeping,
        tgid: u32,
        identity: &Identity,
        age: f64,
        housing: Option<Housing>,
    ) {
        let message = format!("{} (pid {tgid}) is observed, {age:.1} s after it began", identity.process);
        let observed = row(Kind::Process, "observed", Level::Info, message, tgid, identity);
        self.tell(keeping, Row { age: Some(age), ..observed });
        let Some(ended) = self.ended.remove(&key(identity)) else { return };
        let Some(Housing { restarts }) = housing else { return };
        let seconds = monotonic().saturating_sub(ended) as f64 / 1e9;
        let message =
            format!("{} serves again, {seconds:.1} s after its last process had ended", identity.container);
        let again = row(Kind::Process, "restart", Level::Warn, message, tgid, identity);
        self.tell(keeping, Row { restart: restarts, ..again });
    }

    /// A child of an observed process that is nobody's business, unless it begins to serve.
    pub(super) fn silent(&mut self, tgid: u32) {
        self.silent.insert(tgid);
    }

    /// It begins to, or is not observed any more. Whether nothing was told of it.
    pub(super) fn ends_silence(&mut self, tgid: u32) -> bool {
        self.silent.remove(&tgid)
    }

    /// A process runs another program since this monotonic time. Arguments are nobody's business: they may hold secrets.
    pub(super) fn exec(
        &mut self,
        keeping: &Keeping,
        (tgid, time): (u32, u64),
        before: Option<&Identity>,
        identity: &Identity,
    ) {
        let by = before.map_or_else(
            || "by an observed process".to_owned(),
            |before| format!("in place of {}", before.process),
        );
        let message = format!("{} (pid {tgid}) was started {by}", identity.process);
        self.ended.remove(&key(identity));
        self.tell(keeping, at(time, row(Kind::Process, "exec", Level::Info, message, tgid, identity)));
    }

    /// The kernel chose a process to be killed at this monotonic time.
    pub(super) fn chosen(&mut self, keeping: &Keeping, tgid: u32, identity: &Identity, time: u64) {
        // Of those that are not observed nobody tells the end.
        if self.victims.len() >= ENDED {
            self.victims.clear();
        }
        if !self.victims.insert(tgid) {
            return;
        }
        let message =
            format!("{} (pid {tgid}) was chosen to be killed: memory had run out", identity.process);
        self.tell(keeping, at(time, row(Kind::Process, "oom_kill", Level::Error, message, tgid, identity)));
    }

    /// A process is gone. It may have been the last one of its container.
    pub(super) fn process_gone(
        &mut self,
        keeping: &Keeping,
        tgid: u32,
        identity: &Identity,
        end: &End,
        was_last: bool,
    ) {
        if end.is_oom_kill() {
            self.chosen(keeping, tgid, identity, end.time);
        }
        self.victims.remove(&tgid);
        if self.silent.remove(&tgid) {
            return;
        }
        let level =
            if matches!(end.reason(), "ok" | "unknown" | "terminated") { Level::Info } else { Level::Error };
        let message = format!("{} (pid {tgid}) ended {}", identity.process, how(end));
        self.tell(keeping, at(end.time, row(Kind::Process, "exit", level, message, tgid, identity)));
        if was_last && (self.ended.len() < ENDED || self.ended.contains_key(&key(identity))) {
            self.ended.insert(key(identity), end.time);
        }
    }

    /// Once a second: what came too fast, and what the observer itself lost since it last told.
    pub(super) fn look(&mut self, keeping: &Keeping, statistics: &AgentStats) {
        let now = monotonic();
        self.ended.retain(|_, ended| now.saturating_sub(*ended) < LATER);
        for (reason, count) in self.pace.left_out(now) {
            let message = format!("{count} more of these within 10 s are not told one by one");
            let level = Some(Level::Warn);
            keeping.event(Row { kind: Kind::Process, reason, level, message, ..Row::default() });
        }
        self.drops(keeping, statistics, now);
    }

    fn tell(&mut self, keeping: &Keeping, row: Row) {
        if self.pace.admits(&row.reason, monotonic()) {
            keeping.event(row);
        }
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

    fn drops(&mut self, keeping: &Keeping, statistics: &AgentStats, now: u64) {
        let dropped = statistics.kernel_dropped() + statistics.dropped.values().sum::<u64>();
        let new = dropped.saturating_sub(self.dropped);
        if new > 0 && now.saturating_sub(self.told_of_drops) >= APART {
            (self.dropped, self.told_of_drops) = (dropped, now);
            let message =
                format!("{new} records were dropped: requests of this time may be partial or missing");
            keeping.own("dropped", Level::Warn, message);
        }
    }
}

/// What names a container.
fn key(identity: &Identity) -> [String; 3] {
    [&identity.namespace, &identity.pod, &identity.container].map(String::clone)
}

/// How a process ended, in words.
fn how(end: &End) -> String {
    match (end.code(), end.signal()) {
        _ if end.is_oom_kill() => "by signal 9: the kernel killed it because memory had run out".to_owned(),
        (Some(code), _) => format!("with code {code}"),
        (_, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "with a code that nobody tells".to_owned(),
    }
}

/// A row about what happened at this monotonic time.
fn at(time: u64, row: Row) -> Row {
    let ago = monotonic().saturating_sub(time).cast_signed();
    Row { time: now().saturating_sub(ago), ..row }
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
