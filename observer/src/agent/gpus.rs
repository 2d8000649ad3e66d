//! GPUs beside requests, as the thread that captures has them: whose processes are, rounds of readings, records that wait
//! for them, and what changes about devices as events.

use std::sync::{Arc, Mutex, PoisonError, mpsc::Receiver};

use super::{
    keeping::Keeping,
    now,
    whose::{Whose, locked},
};
use crate::{
    capture::monotonic,
    discover::{Process, ancestors},
    exchange::{Observation, RequestRecord},
    gpu::AllocationsTold,
    gpus::{Allocation, Change, FATAL_XIDS, Ledger, Owner, Round, Told, Transition, Transitions},
    timeline::{Kind, Level, Row},
};

/// What a scrape tells of requests' GPUs.
pub(super) type SharedGpus = Arc<Mutex<Told>>;

impl Whose {
    /// Whose a process is, to find what belongs together.
    pub(super) fn owner(&self, pid: u32, process: &Process) -> Owner {
        let identity = self.identity(process);
        let placement = &process.placement;
        let (id, uid) = (placement.container_id.as_deref(), placement.pod_uid.as_deref());
        let found = locked(&self.pods).find(id, uid);
        // A cgroup that is neither a container nor a service holds whatever a login started.
        let has_own = id.is_some() || placement.unit.is_some();
        Owner {
            pid,
            process: process.name.clone(),
            ancestors: ancestors(pid),
            cgroup: has_own.then(|| placement.cgroup.clone()),
            pod_uid: placement.pod_uid.clone(),
            group: found.and_then(|found| found.pod.group.clone()),
            names: [identity.namespace, identity.pod, identity.container],
        }
    }

    /// The same of any process of the node; one that is gone is nobody's.
    pub(super) fn owner_of(&self, pid: u32) -> Owner {
        match Process::look_up(pid) {
            Some(process) => self.owner(pid, &process),
            None => Owner { pid, ..Owner::default() },
        }
    }
}

/// Owned by the thread that captures.
pub(super) struct Gpus {
    ledger: Ledger,
    whose: Whose,
    /// The pods' version that owners were made of.
    named: u64,
    /// None where no GPU is looked for.
    rounds: Option<Receiver<Round>>,
    allocations: AllocationsTold,
    /// What the kubelet allocated, as it said last; nothing if it does not.
    kubelet: Vec<Allocation>,
    transitions: Transitions,
    keeping: Keeping,
    told: SharedGpus,
}

impl Gpus {
    pub(super) fn new(
        whose: Whose,
        rounds: Option<Receiver<Round>>,
        allocations: AllocationsTold,
        keeping: Keeping,
        told: SharedGpus,
    ) -> Self {
        Self {
            ledger: Ledger::default(),
            whose,
            named: 0,
            rounds,
            allocations,
            kubelet: Vec::new(),
            transitions: Transitions::default(),
            keeping,
            told,
        }
    }

    pub(super) fn process(&mut self, tgid: u32, process: &Process) {
        if self.rounds.is_some() {
            self.ledger.process(self.whose.owner(tgid, process));
        }
    }

    pub(super) fn process_gone(&mut self, tgid: u32) {
        self.ledger.process_gone(tgid);
    }

    /// Takes what is observed; a record that does not have to wait for readings comes back.
    pub(super) fn observe(&mut self, observation: Observation) -> Option<Box<RequestRecord>> {
        match observation {
            Observation::Started { id, pid, time, .. } => self.ledger.started(id, pid, time),
            Observation::Phase { id, phase } => self.ledger.phase(id, phase),
            Observation::Delivered { id } => self.ledger.delivered(id),
            Observation::Requested { .. } => {}
            Observation::Finished { id, record } => return self.ledger.finished(id, record, monotonic()),
        }
        None
    }

    /// Takes the rounds that came, and gives records that waited long enough to `publish`.
    pub(super) fn settle(&mut self, mut publish: impl FnMut(Box<RequestRecord>)) {
        for round in self.rounds.iter().flat_map(Receiver::try_iter) {
            for transition in self.transitions.read(&round, &self.kubelet) {
                self.keeping.event(row(&transition));
            }
            self.ledger.read(round);
        }
        while let Some(record) = self.ledger.poll(monotonic()) {
            publish(record);
        }
    }

    /// Gives all records that wait to `publish`: this is the end.
    pub(super) fn flush(&mut self, mut publish: impl FnMut(Box<RequestRecord>)) {
        while let Some(record) = self.ledger.drain() {
            publish(record);
        }
    }

    /// Once a second: names that became known, what the kubelet allocated, and what the next scrape tells.
    pub(super) fn look<'a>(&mut self, processes: impl Iterator<Item = (u32, &'a Process)>) {
        if self.rounds.is_none() {
            return;
        }
        let (kubelet, ..) = self.allocations.get();
        self.kubelet = kubelet.unwrap_or_default();
        self.ledger.allocated(self.kubelet.clone());
        let version = locked(&self.whose.pods).version();
        if version != std::mem::replace(&mut self.named, version) {
            for (tgid, process) in processes {
                self.process(tgid, process);
            }
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone_from(self.ledger.told());
    }
}

/// A change of a device as an event. Whose it is only if one container alone has it: what a row tells of a shared device
/// is not for each of those who share it.
fn row(transition: &Transition) -> Row {
    let age = i64::try_from(monotonic().saturating_sub(transition.time)).unwrap_or_default();
    let [namespace, pod, container] = transition.owner.clone().unwrap_or_default();
    Row {
        time: now() - age,
        kind: Kind::Gpu,
        reason: transition.change.reason().to_owned(),
        level: Some(level(&transition.change)),
        message: transition.to_string(),
        gpu: Some(transition.device.uuid.clone()),
        namespace,
        pod,
        container,
        ..Row::default()
    }
}

fn level(change: &Change) -> Level {
    match change {
        Change::Lost => Level::Error,
        Change::Xid(number, _) if FATAL_XIDS.contains(number) => Level::Error,
        // What a board's limit and its group allow is how it is run; heat and faults are not.
        Change::ThrottleBegin("sw_power_cap" | "sync_boost") | Change::ThrottleEnd(..) | Change::Returned => {
            Level::Info
        }
        Change::Xid(..) | Change::ThrottleBegin(_) => Level::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_bad_a_change_is() {
        for (change, expected) in [
            (Change::Xid(31, 1), Level::Warn),
            (Change::Xid(79, 1), Level::Error),
            (Change::Lost, Level::Error),
            (Change::Returned, Level::Info),
            (Change::ThrottleBegin("sw_power_cap"), Level::Info),
            (Change::ThrottleBegin("hw_thermal"), Level::Warn),
            (Change::ThrottleBegin("sw_thermal"), Level::Warn),
            (Change::ThrottleBegin("hw_power_brake"), Level::Warn),
            (Change::ThrottleBegin("hw_slowdown"), Level::Warn),
            (Change::ThrottleEnd("hw_thermal", 2.0), Level::Info),
        ] {
            assert_eq!(level(&change), expected, "{change:?}");
        }
        assert!(FATAL_XIDS.into_iter().all(|xid| level(&Change::Xid(xid, 1)) == Level::Error));
    }
}
