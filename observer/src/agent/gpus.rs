//! GPUs beside requests, as the thread that captures has them: whose processes are, rounds of readings, and records that
//! wait for them.

use std::sync::{Arc, Mutex, PoisonError, mpsc::Receiver};

use super::whose::{Whose, locked};
use crate::{
    capture::monotonic,
    discover::{Process, ancestors},
    exchange::{Observation, RequestRecord},
    gpus::{Ledger, Owner, Round, Told},
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
    told: SharedGpus,
}

impl Gpus {
    pub(super) fn new(whose: Whose, rounds: Option<Receiver<Round>>, told: SharedGpus) -> Self {
        Self { ledger: Ledger::default(), whose, named: 0, rounds, told }
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

    /// Once a second: names that became known, and what the next scrape tells.
    pub(super) fn look<'a>(&mut self, processes: impl Iterator<Item = (u32, &'a Process)>) {
        if self.rounds.is_none() {
            return;
        }
        let version = locked(&self.whose.pods).version();
        if version != std::mem::replace(&mut self.named, version) {
            for (tgid, process) in processes {
                self.process(tgid, process);
            }
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone_from(self.ledger.told());
    }
}
