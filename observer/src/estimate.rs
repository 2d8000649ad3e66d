//! How long a request waited in its engine's queue, estimated where the engine does not tell. Pure: no IO, no clock.
//!
//! In: observations in the order in which the core tells them. Out: `queue.estimate` of finished records,
//!
//! ```text
//! first_token − request_end − the fastest prefill seen of (process, model, size of the prompt) when idle
//! ```
//!
//! and never below 0. An exchange was idle if no other of its process and model was in flight when it began, and
//! none began before its first token. Sizes are powers of two of the input tokens that were not cached; there is
//! no estimate before [`ENOUGH`] idle exchanges of a size were seen, none for an exchange that was seen in part
//! or whose tokens are not known. The fastest, because what else slows a prefill down is not seen here: other
//! processes on the GPU, traffic that is not decoded.

use std::collections::{BTreeSet, HashMap};

use crate::exchange::{ExchangeId, Observation, RequestRecord};

/// Idle exchanges of one size that must have been seen.
pub const ENOUGH: u32 = 5;

/// Processes and models that are remembered; beyond it, the one that was not idle for longest is learned anew.
const LANES: usize = 1024;

/// Sizes of prompts: none, 1, 2 to 3, 4 to 7 …; the last takes all that is larger.
const SIZES: usize = 32;

/// Models that are noted as being served when an exchange began; beyond it, its own may be among them.
const MODELS: usize = 8;

/// Estimates, and what they rest on.
#[derive(Default)]
pub struct Estimator {
    processes: HashMap<u32, HashMap<ExchangeId, Running>>,
    /// Process of each exchange in flight.
    served_by: HashMap<ExchangeId, u32>,
    lanes: HashMap<(u32, String), Lane>,
    /// Counts idle exchanges, to tell which lane was learned of last.
    learned: u64,
}

struct Running {
    start: u64,
    /// `None` as long as it is not known, or if none is named: it may be any.
    model: Option<String>,
    /// Models of those that were in flight when it began.
    beside: BTreeSet<Option<String>>,
    /// When the first of those began that came after it, and may be for its model.
    joined: Option<u64>,
}

/// What is known of one model of one process.
#[derive(Default)]
struct Lane {
    sizes: [Idle; SIZES],
    learned: u64,
}

/// Prefills of one size, of idle exchanges.
#[derive(Clone, Copy, Default)]
struct Idle {
    seen: u32,
    /// Seconds.
    fastest: f64,
}

impl Estimator {
    /// Takes in an observation, and puts the estimate into a finished record if there is one.
    pub fn observe(&mut self, observation: &mut Observation) {
        match observation {
            Observation::Started { id, pid, time, .. } => self.started(*id, *pid, *time),
            Observation::Requested { id, model, .. } => self.requested(*id, model.as_deref()),
            Observation::Finished { id, record } => {
                let idle = self.finished(*id, record);
                record.queue.estimate = self.estimate(record, idle);
            }
            Observation::Phase { .. } | Observation::Delivered { .. } => {}
        }
    }

    /// Forgets a process that is gone.
    pub fn process_gone(&mut self, pid: u32) {
        for id in self.processes.remove(&pid).into_iter().flat_map(HashMap::into_keys) {
            self.served_by.remove(&id);
        }
        self.lanes.retain(|(of, _), _| *of != pid);
    }

    fn started(&mut self, id: ExchangeId, pid: u32, start: u64) {
        let running = self.processes.entry(pid).or_default();
        let mut beside = BTreeSet::new();
        for other in running.values() {
            if !beside.contains(&other.model) {
                beside.insert(other.model.clone().filter(|_| beside.len() < MODELS));
            }
        }
        running.insert(id, Running { start, model: None, beside, joined: None });
        self.served_by.insert(id, pid);
    }

    fn requested(&mut self, id: ExchangeId, model: Option<&str>) {
        let Some(running) = self.served_by.get(&id).and_then(|pid| self.processes.get_mut(pid)) else {
            return;
        };
        let Some(this) = running.get_mut(&id) else { return };
        this.model = model.map(str::to_owned);
        let start = this.start;
        for (_, other) in running.iter_mut().filter(|(other, _)| **other != id) {
            if may_be_same(other.model.as_deref(), model) {
                other.joined = Some(other.joined.map_or(start, |joined| joined.min(start)));
            }
        }
    }

    /// Whether it is known that it was idle.
    fn finished(&mut self, id: ExchangeId, record: &RequestRecord) -> bool {
        let Some(pid) = self.served_by.remove(&id) else { return false };
        let Some(running) = self.processes.get_mut(&pid) else { return false };
        let Some(this) = running.remove(&id) else { return false };
        let Some(first_token) = record.clocks.first_token else { return false };
        let first_token = this.start.saturating_add((first_token * 1e9) as u64);
        let joined = running.values().filter(|other| other.model.is_none()).map(|other| other.start);
        let is_joined = joined.chain(this.joined).any(|joined| joined < first_token);
        let model = this.model.as_deref();
        let is_alone = !this.beside.iter().any(|beside| may_be_same(beside.as_deref(), model));
        if running.is_empty() {
            self.processes.remove(&pid);
        }
        is_alone && !is_joined
    }

    fn estimate(&mut self, record: &RequestRecord, idle: bool) -> Option<f64> {
        // Only a stream shows when its prefill was over, and only one that was seen whole shows it truly.
        record.ttft.filter(|_| record.is_complete())?;
        let prefill = record.clocks.first_token? - record.clocks.request_end?;
        let size = (u64::BITS - record.tokens.input?.leading_zeros()) as usize;
        let size = size.min(SIZES - 1);
        let key = (record.pid, record.model.clone().unwrap_or_default());
        if idle && prefill >= 0.0 {
            self.make_room(&key);
            self.learned += 1;
            let lane = self.lanes.entry(key.clone()).or_default();
            lane.learned = self.learned;
            let Idle { seen, fastest } = &mut lane.sizes[size];
            *fastest = if *seen == 0 { prefill } else { fastest.min(prefill) };
            *seen = seen.saturating_add(1);
        }
        let known = self.lanes.get(&key)?.sizes[size];
        (known.seen >= ENOUGH).then(|| (prefill - known.fastest).max(0.0))
    }

    fn make_room(&mut self, key: &(u32, String)) {
        if self.lanes.len() >= LANES && !self.lanes.contains_key(key) {
            let oldest = self.lanes.iter().min_by_key(|(_, lane)| lane.learned).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.lanes.remove(&key));
        }
    }
}

fn may_be_same(model: Option<&str>, other: Option<&str>) -> bool {
    model.zip(other).is_none_or(|(model, other)| model == other)
}

#[cfg(test)]
mod tests;
