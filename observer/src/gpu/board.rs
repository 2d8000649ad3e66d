//! What the reading thread tells: to scrapes by a snapshot, to the thread that captures by a bounded queue.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use super::Ended;
use crate::gpus::{OTHER_XID, Reading, Round};

/// Rounds that may wait for the thread that captures.
const QUEUE: usize = 64;

/// How far back the highest values go: a scrape every half minute misses no peak.
const PEAKS: u64 = 30_000_000_000;

/// Readings older than so many intervals are not told any more, only how old they are.
const STALE: u64 = 5;

/// A longer time between two rounds counts as this for what is summed over time.
const LONGEST: u64 = 5_000_000_000;

/// Kinds of XID errors that are counted for one device by themselves.
const XIDS: usize = 64;

/// Where reading stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing was looked for yet.
    #[default]
    Starting,
    /// There is no library.
    Absent,
    /// There is one that does not work, or whose driver does not.
    Failed,
    /// Devices are read.
    Reading,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Absent, Self::Failed, Self::Reading];

    /// The word used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Absent => "absent",
            Self::Failed => "failed",
            Self::Reading => "reading",
        }
    }
}

/// What became of calls into the library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Functions that devices do not support, and which devices.
    pub unsupported: BTreeMap<&'static str, BTreeSet<String>>,
    /// Calls that failed otherwise, by function and error.
    pub failures: BTreeMap<(&'static str, &'static str), u64>,
}

/// What is summed for a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Seconds by the reason for which its clocks were lower than they could be.
    pub throttled: BTreeMap<&'static str, f64>,
    /// XID errors by number.
    pub xids: BTreeMap<u64, u64>,
    /// The highest power and utilisation of the last half minute.
    peaks: VecDeque<(u64, Option<f64>, Option<f64>)>,
}

impl Sums {
    /// The highest power, watts, of the last half minute.
    pub fn power_peak(&self) -> Option<f64> {
        self.peaks.iter().filter_map(|(_, power, _)| *power).reduce(f64::max)
    }

    /// The highest utilisation of the last half minute.
    pub fn utilization_peak(&self) -> Option<f64> {
        self.peaks.iter().filter_map(|(_, _, utilization)| *utilization).reduce(f64::max)
    }

    fn add(&mut self, reading: &Reading, time: u64, took: u64) {
        for reason in &reading.throttled_by {
            *self.throttled.entry(reason).or_default() += took as f64 / 1e9;
        }
        for xid in &reading.xids {
            let is_counted = self.xids.len() < XIDS || self.xids.contains_key(xid);
            *self.xids.entry(if is_counted { *xid } else { OTHER_XID }).or_default() += 1;
        }
        let max = |samples: &[(u64, f64)]| samples.iter().map(|(_, value)| *value).reduce(f64::max);
        self.peaks.push_back((time, max(&reading.power), max(&reading.utilization)));
        while self.peaks.front().is_some_and(|(then, ..)| time.saturating_sub(*then) > PEAKS) {
            self.peaks.pop_front();
        }
    }
}

/// What a scrape is told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Whether GPUs are looked for at all.
    pub enabled: bool,
    /// Where reading stands.
    pub state: State,
    /// Seconds since the last round; none if there was none.
    pub age: Option<f64>,
    /// The last round; none if it is too old.
    pub round: Option<Arc<Round>>,
    /// Sums by device.
    pub sums: BTreeMap<String, Sums>,
    /// What became of calls.
    pub calls: Calls,
    /// Rounds, and the seconds that they took.
    pub rounds: (u64, f64),
    /// Rounds that the thread that captures did not take in time.
    pub dropped: u64,
    /// Samples whose times cannot be right, so that what was read at the moment took their place.
    pub mistimed: u64,
}

/// Where the reading thread writes.
pub struct Board {
    told: Mutex<Told>,
    last: Mutex<u64>,
    queue: SyncSender<Round>,
    stale: u64,
    clock: fn() -> u64,
}

impl Board {
    /// A board for rounds at this interval by this monotonic clock, and the end of its queue.
    pub fn new(interval: Duration, clock: fn() -> u64) -> (Arc<Self>, Receiver<Round>) {
        let (queue, rounds) = sync_channel(QUEUE);
        let told = Mutex::new(Told { enabled: true, ..Told::default() });
        let stale = STALE * interval.as_nanos() as u64;
        (Arc::new(Self { told, last: Mutex::new(0), queue, stale, clock }), rounds)
    }

    fn locked(&self) -> MutexGuard<'_, Told> {
        // Every change is complete in itself.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a round that began at this time, and what became of calls until now.
    pub(super) fn publish(&self, round: Round, began: u64, calls: Calls, mistimed: u64) {
        let before =
            std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), round.time);
        let took = if before == 0 { 0 } else { round.time.saturating_sub(before).min(LONGEST) };
        let mut told = self.locked();
        told.state = State::Reading;
        told.calls = calls;
        told.mistimed += mistimed;
        told.rounds = (told.rounds.0 + 1, told.rounds.1 + (self.clock)().saturating_sub(began) as f64 / 1e9);
        for reading in &round.readings {
            told.sums.entry(reading.device.uuid.clone()).or_default().add(reading, round.time, took);
        }
        told.round = Some(Arc::new(round.clone()));
        if self.queue.try_send(round).is_err() {
            told.dropped += 1;
        }
    }

    /// Reading ended.
    pub(super) fn ended(&self, ended: &Ended) {
        let mut told = self.locked();
        told.state = if *ended == Ended::Absent { State::Absent } else { State::Failed };
    }

    /// This moment on the board's clock.
    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// What a scrape is told at this moment.
    pub fn told(&self) -> Told {
        let now = self.now();
        let mut told = self.locked().clone();
        let last = told.round.as_ref().map(|round| round.time);
        told.age = last.map(|time| now.saturating_sub(time) as f64 / 1e9);
        if last.is_some_and(|time| now.saturating_sub(time) > self.stale) {
            told.round = None;
        }
        told
    }
}
