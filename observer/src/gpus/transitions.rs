//! What changes about GPUs: errors, clocks that are held back and let go, devices that are lost and return. Each change is
//! told once; what would come again and again is told together.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::allocation::given;
use super::xid::{OTHER_XID, meaning};
use super::{Allocation, Device, Owner, Reading, Round};

/// Clocks that are held back for less than a second, as exact as rounds are, are not told of: what was seen in one round may
/// have been a moment.
const LASTS: u64 = 900_000_000;

/// They are let go once they were not held back for so long: under full load a power limit comes and goes.
const LET_GO: u64 = 5_000_000_000;

/// The same error of one device is told of no more often; those in between are counted.
const APART: u64 = 10_000_000_000;

/// Kinds of errors of one device that are told one by one within [`APART`].
const XIDS: usize = 64;

/// Who was seen to have a device has it for so long: a crash ends a process before it is told.
const OWNED: u64 = 30_000_000_000;

/// Devices that are known; lost ones make room.
const DEVICES: usize = 256;

/// Namespace, pod and container.
type Names = [String; 3];

/// What changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An XID error, and how often it came since it was last told.
    Xid(u64, u64),
    /// Its clocks are held back, for this cause.
    ThrottleBegin(&'static str),
    /// They were, for so many seconds.
    ThrottleEnd(&'static str, f64),
    /// It has fallen off the bus, has to be reset, or is not listed any more.
    Lost,
    /// It is read again.
    Returned,
}

impl Change {
    /// It in one word.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Xid(..) => "xid",
            Self::ThrottleBegin(_) => "throttle_begin",
            Self::ThrottleEnd(..) => "throttle_end",
            Self::Lost => "lost",
            Self::Returned => "returned",
        }
    }
}

/// A change of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// Which.
    pub device: Arc<Device>,
    /// When: monotonic nanoseconds, as exact as rounds are.
    pub time: u64,
    /// What.
    pub change: Change,
    /// Namespace, pod and container that have it, if exactly one has.
    pub owner: Option<Names>,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU {} ({}) ", self.device.index, self.device.uuid)?;
        match &self.change {
            Change::Xid(number, times) => {
                match *number {
                    OTHER_XID => write!(f, "told of an XID error without its number")?,
                    number => write!(f, "told of XID {number}")?,
                }
                meaning(*number).map_or(Ok(()), |what| write!(f, ": {what}"))?;
                if *times > 1 { write!(f, ", {times} times") } else { Ok(()) }
            }
            Change::ThrottleBegin(cause) => write!(f, "is held back by {} ({cause})", words(cause)),
            Change::ThrottleEnd(cause, seconds) => {
                write!(f, "was held back by {} ({cause}) for {seconds:.1} s", words(cause))
            }
            Change::Lost => write!(f, "has fallen off the bus, or has to be reset: it is not read any more"),
            Change::Returned => write!(f, "is read again"),
        }
    }
}

/// What a cause means, as NVML's reasons for lower clocks do.
fn words(cause: &str) -> &'static str {
    match cause {
        "sw_power_cap" => "its power limit",
        "hw_slowdown" => "its hardware, for heat or power",
        "sync_boost" => "the slowest of those it is in step with",
        "sw_thermal" => "its driver, for heat",
        "hw_thermal" => "its hardware, for heat",
        "hw_power_brake" => "the power supply",
        _ => "something else",
    }
}

/// Clocks that are held back for one cause.
#[derive(Clone, Copy, Debug)]
struct Held {
    since: u64,
    last: u64,
    told: bool,
}

impl Held {
    fn end(&self, cause: &'static str) -> (u64, Change) {
        (self.last, Change::ThrottleEnd(cause, (self.last - self.since) as f64 / 1e9))
    }
}

/// An error as it comes again.
#[derive(Clone, Copy, Debug, Default)]
struct Repeated {
    told: Option<u64>,
    untold: u64,
}

#[derive(Debug, Default)]
struct State {
    device: Arc<Device>,
    lost: bool,
    /// Who has it, by cgroup or else by names, which come to be known later; and when that was last seen.
    owners: BTreeMap<String, (Names, u64)>,
    held: BTreeMap<&'static str, Held>,
    xids: BTreeMap<u64, Repeated>,
}

impl State {
    fn errors(&mut self, time: u64, xids: &[u64], changes: &mut Vec<(u64, Change)>) {
        for xid in xids {
            let is_known = self.xids.contains_key(xid) || self.xids.len() < XIDS;
            self.xids.entry(if is_known { *xid } else { OTHER_XID }).or_default().untold += 1;
        }
        let is_due = |told: Option<u64>| told.is_none_or(|told| time.saturating_sub(told) >= APART);
        for (xid, repeated) in self.xids.iter_mut().filter(|(_, one)| one.untold > 0 && is_due(one.told)) {
            changes.push((time, Change::Xid(*xid, repeated.untold)));
            *repeated = Repeated { told: Some(time), untold: 0 };
        }
        self.xids.retain(|_, one| one.untold > 0 || !is_due(one.told));
    }

    fn clocks(&mut self, time: u64, causes: &[&'static str], changes: &mut Vec<(u64, Change)>) {
        self.held.retain(|cause, held| {
            let is_on = time.saturating_sub(held.last) < LET_GO;
            let goes_on = is_on && (held.told || causes.contains(cause));
            if !goes_on && held.told {
                changes.push(held.end(cause));
            }
            goes_on
        });
        for cause in causes {
            let held = self.held.entry(cause).or_insert(Held { since: time, last: time, told: false });
            held.last = time;
            if !held.told && time - held.since >= LASTS {
                held.told = true;
                changes.push((held.since, Change::ThrottleBegin(cause)));
            }
        }
    }

    fn presence(&mut self, time: u64, lost: bool, changes: &mut Vec<(u64, Change)>) {
        if std::mem::replace(&mut self.lost, lost) != lost {
            changes.push((time, if lost { Change::Lost } else { Change::Returned }));
        }
        if lost {
            let ended = std::mem::take(&mut self.held).into_iter().filter(|(_, held)| held.told);
            changes.extend(ended.map(|(cause, held)| held.end(cause)));
        }
    }

    fn owner(&self) -> Option<Names> {
        let mut names = self.owners.values().map(|(names, _)| names);
        let first = names.next()?;
        names.all(|other| other == first).then(|| first.clone())
    }
}

/// What is known of devices, to notice what changes.
#[derive(Debug, Default)]
pub struct Transitions(BTreeMap<String, State>);

impl Transitions {
    /// What changed until this round, by device; whose they are also by what the kubelet allocated.
    pub fn read(&mut self, round: &Round, kubelet: &[Allocation]) -> Vec<Transition> {
        let time = round.time;
        let given = given(&round.readings, kubelet);
        let mut told = Vec::new();
        for reading in &round.readings {
            let state = self.0.entry(reading.device.uuid.clone()).or_default();
            state.device = Arc::clone(&reading.device);
            let given = given.iter().filter(|one| one.device == reading.device.uuid);
            state.owners.extend(given.map(|one| (one.names.join("/"), (one.names.clone(), time))));
            for process in reading.processes.iter().flatten() {
                let Owner { cgroup, names, .. } = &*process.owner;
                let key = cgroup.clone().unwrap_or_else(|| names.join("/"));
                state.owners.insert(key, (names.clone(), time));
            }
            told.extend(Self::changes(state, time, Some(reading)));
        }
        let is_there = |uuid: &String| round.readings.iter().any(|reading| reading.device.uuid == *uuid);
        for (_, state) in self.0.iter_mut().filter(|(uuid, _)| !is_there(uuid)) {
            told.extend(Self::changes(state, time, None));
        }
        if self.0.len() > DEVICES {
            self.0.retain(|_, state| !state.lost);
        }
        told
    }

    fn changes(state: &mut State, time: u64, reading: Option<&Reading>) -> Vec<Transition> {
        let mut changes = Vec::new();
        state.owners.retain(|_, (_, seen)| time.saturating_sub(*seen) <= OWNED);
        state.errors(time, reading.map_or(&[], |reading| &reading.xids), &mut changes);
        let lost = reading.is_none_or(|reading| reading.lost);
        state.presence(time, lost, &mut changes);
        if let Some(reading) = reading.filter(|_| !lost) {
            state.clocks(time, &reading.held_back_by().collect::<Vec<_>>(), &mut changes);
        }
        let (device, owner) = (&state.device, state.owner());
        let one =
            |(time, change)| Transition { device: Arc::clone(device), time, change, owner: owner.clone() };
        changes.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
