//! Requests beside the GPUs that they used.
//!
//! A request that ended waits for the readings that reach its end: at most [`PATIENCE`], and not at all while readings
//! do not come. Then its record gets its windows and its share, and goes on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::attribution::{Owner, Use, used};
use super::energy::{Energy, Share, Sharer};
use super::series::{HOLE, Series};
use super::{Allocation, Reading, Round};
use crate::exchange::{ExchangeId, GpuUse, GpuWindow, Phase, RequestRecord};

/// How long a record waits for readings.
const PATIENCE: u64 = 2_500_000_000;

/// Records that wait at a time; the oldest goes on as it is when there are more.
const WAITING: usize = 4096;

/// Requests in flight that are known at a time.
const OPEN: usize = 65_536;

/// Models of containers that shares are summed for; what lies beyond is summed as the model `other`.
const KEYS: usize = 1000;

/// One that got nothing for this long makes room for another.
const FORGOTTEN: u64 = 3_600_000_000_000;

/// A GPU that ran kernels for less of a round than this is idle, for more than that busy.
const IDLE: f64 = 0.05;
const BUSY: f64 = 0.2;

/// Whose requests shares are summed for: namespace, pod, container, model.
pub type Key = [String; 4];

/// Shares of requests that are known, and the tokens of the same requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Energy of devices, joules.
    pub joules: f64,
    /// Time of devices, seconds.
    pub seconds: f64,
    /// Prompt tokens.
    pub input: u64,
    /// Generated tokens.
    pub output: u64,
    /// Requests.
    pub requests: u64,
    /// When the last was added: monotonic nanoseconds.
    pub added: u64,
}

/// Seconds of a device in which something is to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// Its clocks were held back while a request that uses it was in flight.
    pub throttled_while_serving: f64,
    /// It was idle while a request that uses it waited for its first token.
    pub idle_while_waiting: f64,
    /// It was busy while no request that uses it was in flight.
    pub busy_without_request: f64,
}

/// What a scrape tells.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Shares by whose requests they are.
    pub shares: BTreeMap<Key, Shares>,
    /// By device.
    pub diagnosis: BTreeMap<String, Diagnosis>,
    /// Records that went on without figures that they would have had.
    pub unsettled: u64,
}

struct Open {
    pid: u32,
    began: u64,
    phase: Phase,
    deliveries: u64,
}

struct Ended {
    record: Box<RequestRecord>,
    began: u64,
    ended: u64,
    uses: Vec<Use>,
    rate: f64,
    told: u64,
}

struct Gpu {
    utilization: Series,
    sm: Series,
    memory: Series,
    power: Series,
    energy: Energy,
    read: u64,
}

impl Gpu {
    fn new() -> Self {
        Self {
            utilization: Series::of_means(),
            sm: Series::of_means(),
            memory: Series::of_moments(),
            power: Series::of_moments(),
            energy: Energy::default(),
            read: 0,
        }
    }

    /// Until when all that it tells is known.
    fn known_until(&self) -> u64 {
        let series = [&self.utilization, &self.sm, &self.memory, &self.power];
        let alive =
            series.into_iter().filter_map(Series::known_until).filter(|until| until + HOLE > self.read);
        alive.min().unwrap_or(0)
    }

    fn window(&self, from: u64, to: u64) -> GpuWindow {
        GpuWindow {
            utilization: self.utilization.window(from, to),
            sm_active: self.sm.window(from, to),
            memory: self.memory.window(from, to),
            power: self.power.window(from, to),
        }
    }
}

/// All of it; owned by the thread that captures.
#[derive(Default)]
pub struct Ledger {
    owners: HashMap<u32, Arc<Owner>>,
    kubelet: Vec<Allocation>,
    /// What servers with requests in flight use.
    uses: HashMap<u32, Vec<Use>>,
    open: HashMap<ExchangeId, Open>,
    ended: VecDeque<Ended>,
    /// Devices and instances by UUID.
    gpus: HashMap<String, Gpu>,
    readings: Vec<Reading>,
    read: u64,
    told: Told,
}

impl Ledger {
    /// Whose a process that serves is. The caller bounds how many there are.
    pub fn process(&mut self, owner: Owner) {
        self.uses.remove(&owner.pid);
        self.owners.insert(owner.pid, Arc::new(owner));
    }

    /// A process is gone.
    pub fn process_gone(&mut self, pid: u32) {
        self.owners.remove(&pid);
        self.uses.remove(&pid);
    }

    /// What the kubelet allocated; nothing where it does not say.
    pub fn allocated(&mut self, kubelet: Vec<Allocation>) {
        self.kubelet = kubelet;
    }

    /// A request started.
    pub fn started(&mut self, id: ExchangeId, pid: u32, began: u64) {
        if self.open.len() < OPEN {
            let Self { owners, uses, readings, kubelet, .. } = self;
            uses.entry(pid)
                .or_insert_with(|| owners.get(&pid).map_or(Vec::new(), |own| used(own, readings, kubelet)));
            self.open.insert(id, Open { pid, began, phase: Phase::Receiving, deliveries: 0 });
        }
    }

    /// A request moved to another phase.
    pub fn phase(&mut self, id: ExchangeId, phase: Phase) {
        if let Some(open) = self.open.get_mut(&id) {
            open.phase = phase;
        }
    }

    /// A request delivered tokens.
    pub fn delivered(&mut self, id: ExchangeId) {
        if let Some(open) = self.open.get_mut(&id) {
            open.deliveries += 1;
        }
    }

    /// A request ended, at `now` at the latest. The record comes back at once if no GPU is its.
    pub fn finished(
        &mut self,
        id: ExchangeId,
        record: Box<RequestRecord>,
        now: u64,
    ) -> Option<Box<RequestRecord>> {
        let open = self.open.remove(&id);
        let uses = self.uses.get(&record.pid).filter(|_| self.is_fresh(now)).cloned().unwrap_or_default();
        let (Some(open), Some(duration), false) = (open, record.duration, uses.is_empty()) else {
            return Some(record);
        };
        let tokens = [record.tokens.input, record.tokens.output_total()].into_iter().flatten().sum::<u64>();
        let rate = tokens.max(record.token_events).max(1) as f64 / duration.max(1e-6);
        let ended = after(open.began, duration);
        self.ended.push_back(Ended { record, began: open.began, ended, uses, rate, told: now });
        None
    }

    /// Takes what was read.
    pub fn read(&mut self, round: Round) {
        let took = round.time.saturating_sub(self.read).min(HOLE) as f64 / 1e9;
        let took = if self.read == 0 { 0.0 } else { took };
        self.read = round.time;
        self.readings = round.readings;
        for reading in &self.readings {
            let gpu = self.gpus.entry(reading.device.uuid.clone()).or_insert_with(Gpu::new);
            gpu.read = round.time;
            gpu.utilization.add(&reading.utilization);
            gpu.power.add(&reading.power);
            gpu.energy.add(&reading.power);
            let at = |value: f64| [(round.time, value)];
            gpu.memory.add(&reading.memory.map_or(Vec::new(), |memory| at(memory.used as f64).to_vec()));
            gpu.sm.add(&reading.activity.sm.map_or(Vec::new(), |sm| at(sm).to_vec()));
            for instance in &reading.instances {
                let gpu = self.gpus.entry(instance.uuid.clone()).or_insert_with(Gpu::new);
                gpu.read = round.time;
                gpu.memory.add(&instance.memory.map_or(Vec::new(), |memory| at(memory.used as f64).to_vec()));
                gpu.sm.add(&instance.activity.sm.map_or(Vec::new(), |sm| at(sm).to_vec()));
            }
        }
        let read = self.read;
        self.gpus.retain(|_, gpu| read.saturating_sub(gpu.read) < 10 * HOLE);
        let pids: HashSet<u32> = self.open.values().map(|open| open.pid).collect();
        let mut before = std::mem::take(&mut self.uses);
        for pid in pids {
            let owner = self.owners.get(&pid);
            let now = owner.map_or(Vec::new(), |owner| used(owner, &self.readings, &self.kubelet));
            // A GPU that is lost, or an engine that crashed on it, takes its processes with it: its requests used it.
            let known = if now.is_empty() { before.remove(&pid).unwrap_or_default() } else { now };
            self.uses.insert(pid, known);
        }
        self.diagnose(took);
        let oldest =
            self.open.values().map(|open| open.began).chain(self.ended.iter().map(|one| one.began)).min();
        let oldest = oldest.unwrap_or(read).min(read.saturating_sub(HOLE));
        for gpu in self.gpus.values_mut() {
            gpu.energy.forget(oldest);
        }
    }

    fn diagnose(&mut self, took: f64) {
        // Of each device: a request in flight, and one that waits for its first token.
        let mut serving: HashMap<&str, bool> = HashMap::new();
        for open in self.open.values() {
            for one in self.uses.get(&open.pid).into_iter().flatten() {
                *serving.entry(&one.device).or_default() |= open.phase == Phase::Waiting;
            }
        }
        for reading in self.readings.iter().filter(|reading| !reading.lost) {
            let uuid = &reading.device.uuid;
            let told = self.told.diagnosis.entry(uuid.clone()).or_default();
            let waiting = serving.get(uuid.as_str()).copied();
            let (is_serving, is_waiting) = (waiting.is_some(), waiting == Some(true));
            let mean = match reading.utilization.len() {
                0 => None,
                count => Some(reading.utilization.iter().map(|(_, share)| share).sum::<f64>() / count as f64),
            };
            let mut count = |seconds: fn(&mut Diagnosis) -> &mut f64, holds: bool| {
                *seconds(told) += if holds { took } else { 0.0 };
            };
            count(
                |told| &mut told.throttled_while_serving,
                is_serving && reading.held_back_by().next().is_some(),
            );
            count(|told| &mut told.idle_while_waiting, is_waiting && mean.is_some_and(|mean| mean < IDLE));
            count(|told| &mut told.busy_without_request, !is_serving && mean.is_some_and(|mean| mean > BUSY));
        }
    }

    fn is_fresh(&self, now: u64) -> bool {
        self.read != 0 && now.saturating_sub(self.read) <= PATIENCE
    }

    /// The next record that is ready at this time. Those that come later are not held up by it for long.
    pub fn poll(&mut self, now: u64) -> Option<Box<RequestRecord>> {
        let first = self.ended.front()?;
        let known = first.uses.iter().all(|one| {
            let of = |uuid: &String| self.gpus.get(uuid).is_none_or(|gpu| gpu.known_until() >= first.ended);
            of(&one.device) && one.instance.as_ref().is_none_or(of)
        });
        let late = now.saturating_sub(first.told) > PATIENCE;
        if !(known || late || self.ended.len() > WAITING || !self.is_fresh(now)) {
            return None;
        }
        let ended = self.ended.pop_front()?;
        Some(self.settle(ended))
    }

    /// The next record, ready or not: nothing will be read any more.
    pub fn drain(&mut self) -> Option<Box<RequestRecord>> {
        let ended = self.ended.pop_front()?;
        Some(self.settle(ended))
    }

    fn settle(&mut self, ended: Ended) -> Box<RequestRecord> {
        let Ended { mut record, began, ended, uses, rate, .. } = ended;
        let parts = Parts::of(&record, began, ended);
        let mut sum = Some(Share::default());
        for Use { device, instance, by } in uses {
            let others = self.others(&device);
            // Instances share the energy of their device, so it is taken once for all of a request's.
            let first = !record.gpu.iter().any(|one| one.uuid == device);
            let share = self.gpus.get_mut(&device).filter(|_| first);
            let share =
                share.and_then(|gpu| gpu.energy.take(Sharer { from: began, to: ended, rate }, &others));
            let window = |part: Option<(u64, u64)>| {
                part.and_then(|(from, to)| self.window(&device, instance.as_ref(), from, to))
            };
            if first {
                sum = sum
                    .zip(share)
                    .map(|(a, b)| Share { joules: a.joules + b.joules, seconds: a.seconds + b.seconds });
            }
            let one = GpuUse {
                queue: window(parts.queue),
                prefill: window(parts.prefill),
                decode: window(parts.decode),
                whole: window(Some((began, ended))),
                apportioned_joules: share.map(|share| share.joules),
                apportioned_seconds: share.map(|share| share.seconds),
                uuid: device,
                instance,
                by,
            };
            record.gpu.push(one);
        }
        match sum {
            Some(share) if record.is_complete() => self.sum(&record, share),
            _ => self.told.unsettled += 1,
        }
        record
    }

    fn window(&self, device: &str, instance: Option<&String>, from: u64, to: u64) -> Option<GpuWindow> {
        let of = |uuid: &str| self.gpus.get(uuid).map_or(GpuWindow::default(), |gpu| gpu.window(from, to));
        let whole = of(device);
        let window = instance.map_or(whole, |instance| GpuWindow { power: whole.power, ..of(instance) });
        (!window.is_empty()).then_some(window)
    }

    /// All others that are in flight on a device, or were and are not settled.
    fn others(&self, device: &str) -> Vec<Sharer> {
        let uses =
            |list: Option<&Vec<Use>>| list.is_some_and(|list| list.iter().any(|one| one.device == device));
        let ended = self.ended.iter().filter(|one| uses(Some(&one.uses)));
        let ended = ended.map(|one| Sharer { from: one.began, to: one.ended, rate: one.rate });
        let going = self.open.values().filter(|open| uses(self.uses.get(&open.pid))).map(|open| {
            let age = self.read.saturating_sub(open.began).max(1) as f64 / 1e9;
            // What its prompt and its answer come to is not known yet; what it owes is taken when it is.
            Sharer { from: open.began, to: u64::MAX, rate: open.deliveries.max(1) as f64 / age }
        });
        ended.chain(going).collect()
    }

    fn sum(&mut self, record: &RequestRecord, share: Share) {
        let model = record.model.clone().unwrap_or_default();
        let mut key = [record.namespace.clone(), record.pod.clone(), record.container.clone(), model];
        let (all, now) = (&mut self.told.shares, self.read);
        if all.len() >= KEYS && !all.contains_key(&key) {
            all.retain(|_, shares| now.saturating_sub(shares.added) < FORGOTTEN);
        }
        if all.len() >= KEYS && !all.contains_key(&key) {
            key = ["", "", "", "other"].map(str::to_owned);
        }
        let shares = all.entry(key).or_default();
        shares.added = now;
        shares.joules += share.joules;
        shares.seconds += share.seconds;
        shares.input += record.tokens.input_total().unwrap_or(0);
        shares.output += record.tokens.output_total().unwrap_or(0);
        shares.requests += 1;
    }

    /// What a scrape tells.
    pub fn told(&self) -> &Told {
        &self.told
    }
}

/// A time that is so many seconds after another.
fn after(time: u64, seconds: f64) -> u64 {
    time.saturating_add((seconds.max(0.0) * 1e9) as u64)
}

/// From when to when its parts were.
struct Parts {
    queue: Option<(u64, u64)>,
    prefill: Option<(u64, u64)>,
    decode: Option<(u64, u64)>,
}

impl Parts {
    fn of(record: &RequestRecord, began: u64, ended: u64) -> Self {
        let clocks = &record.clocks;
        let at = |seconds: Option<f64>| seconds.map(|seconds| after(began, seconds));
        let (read, first, last) = (at(clocks.request_end), at(clocks.first_token), at(clocks.last_token));
        // When the engine began with the prompt: by how long it says that took, or that the request had waited.
        let by_prefill = first.zip(record.timings.prefill);
        let by_prefill = by_prefill.map(|(first, took)| first.saturating_sub((took.max(0.0) * 1e9) as u64));
        let by_queue = read.zip(record.queue.engine).map(|(read, waited)| after(read, waited));
        let prefill_from = by_prefill.or(by_queue).map(|time| time.clamp(began, ended));
        let part = |from: Option<u64>, to: Option<u64>| from.zip(to).filter(|(from, to)| from < to);
        Self {
            queue: part(prefill_from.map(|_| began), prefill_from),
            prefill: part(prefill_from.or(read), first),
            decode: part(first, last),
        }
    }
}

#[cfg(test)]
mod tests;
