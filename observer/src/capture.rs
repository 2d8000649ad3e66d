//! Capture as a whole: probes, core and process discovery, turned by whoever owns the thread.
//!
//! Out, through a [`Sink`]: every raw record, and every observation with the process it is about. Runs on one
//! thread and never waits for anybody but the ring.

mod end;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use observer_ebpf::{Clock, Exit, Header, Kind, Record, exit_flags};
use rustix::time::{ClockId, clock_gettime};
use tracing::{debug, warn};

use crate::{
    discover::{Process, is_gone, listening, threads},
    exchange::Observation,
    kernel::{Kernel, LoadError, Options},
    pipeline::Pipeline,
};

pub use end::{End, REASONS};

/// Records taken from the ring before what follows from them is passed on.
const BATCH: usize = 4096;

/// Batches before anything else gets its turn, however fast the ring fills.
const BATCHES: usize = 16;

/// How long the ring may wait to be read: timestamps are the kernel's, so this delays, but falsifies nothing.
const PERIOD: Duration = Duration::from_millis(10);

/// Between looks at what grows slowly: ended connections, gone processes, the clocks.
const HOUSEKEEPING: u64 = 1_000_000_000;

/// A probe may still be in a connection that has just ended.
const GRACE: u64 = 2_000_000_000;

/// Processes that are remembered; far more than a node runs.
const PROCESSES: usize = 65_536;

/// What capture tells.
pub trait Sink {
    /// A raw record, as it came from the ring or was made beside it.
    fn record(&mut self, _raw: &[u8]) {}
    /// A process that observations will be about, or a new name for one.
    fn process(&mut self, _tgid: u32, _process: &Process) {}
    /// A process began to listen, or to accept, at this time.
    fn listens(&mut self, _tgid: u32, _time: u64) {}
    /// A process runs a new program since this time: one that observations were about, or the child of one.
    fn exec(&mut self, tgid: u32, process: &Process, _time: u64) {
        self.process(tgid, process);
    }
    /// The kernel chose a process to be killed at this time, because memory was out.
    fn chosen(&mut self, _tgid: u32, _process: &Process, _time: u64) {}
    /// A child of an observed process ended badly, of which nothing was told before.
    fn child_gone(&mut self, _tgid: u32, _process: &Process, _end: &End) {}
    /// A process is gone, or not to be observed any more, and all observations about it have been told.
    fn process_gone(&mut self, _tgid: u32, _end: Option<&End>) {}
    /// An observation.
    fn observation(&mut self, _observation: Observation) {}
    /// Bytes of a process's connection that were not decoded.
    fn undecoded(&mut self, _tgid: u32, _cause: &'static str, _bytes: u64) {}
    /// After each turn, some hundred times a second.
    fn turned(&mut self) {}
    /// Once a second.
    fn housekeeping(&mut self, _capture: &Capture) {}
}

/// Whether a process is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Observe,
    /// It is not.
    Ignore,
    /// It cannot be told yet: ask again. Until then it is not.
    Wait,
}

impl Decision {
    /// It is, or it is not.
    pub fn of(observe: bool) -> Self {
        if observe { Self::Observe } else { Self::Ignore }
    }
}

/// Which processes are observed, by id and what is known of them.
pub trait Scope: Send {
    /// Whether this one is.
    fn decide(&self, tgid: u32, process: &Process) -> Decision;

    /// Another number after something happened that may have changed a decision.
    fn version(&self) -> u64 {
        0
    }
}

impl<F: Fn(u32, &Process) -> Decision + Send> Scope for F {
    fn decide(&self, tgid: u32, process: &Process) -> Decision {
        self(tgid, process)
    }
}

/// Probes, core and processes.
pub struct Capture {
    /// The probes.
    pub kernel: Kernel,
    /// The core.
    pub pipeline: Pipeline,
    /// Raw records that were no records: a bug, or another version's object.
    pub malformed: u64,
    /// Records made beside the ring: clock pairs and confirmed exits.
    pub made: u64,
    processes: HashMap<u32, Process>,
    scope: Box<dyn Scope>,
    decided: u64,
    /// Processes that serve something and are out of scope.
    outside: HashMap<u32, Outside>,
    /// Ended connections and when they ended.
    ended: VecDeque<(u64, u64)>,
    /// The same connections.
    ending: HashSet<u64>,
    /// Processes that are gone, and how they ended; or that are not to be observed any more.
    gone: HashMap<u32, Option<End>>,
    /// Processes that were chosen to be killed.
    victims: HashSet<u32>,
    /// Processes whose leader is known to be gone, and that nothing else is known of.
    suspects: HashSet<u32>,
    next_housekeeping: u64,
    /// Runs of the system call probes that the kernel skipped.
    missed: u64,
}

/// A process that is not observed.
struct Outside {
    /// What is known of it.
    process: Process,
    /// Whether that is only for now.
    decision: Decision,
    /// When it was seen to begin to listen.
    listened: Option<u64>,
}

/// Monotonic time: the kernel side's clock.
pub fn monotonic() -> u64 {
    nanos(ClockId::Monotonic)
}

/// The wall clock, in nanoseconds since 1970.
pub fn wall() -> u64 {
    nanos(ClockId::Realtime)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

impl Capture {
    /// Loads and attaches the probes, for a core that is to take in what they tell.
    ///
    /// # Errors
    /// [`LoadError`] if the probes cannot run here.
    pub fn start(options: &Options, pipeline: Pipeline, scope: Box<dyn Scope>) -> Result<Self, LoadError> {
        let kernel = Kernel::load(options)?;
        let capture = Self {
            kernel,
            pipeline,
            malformed: 0,
            made: 0,
            processes: HashMap::new(),
            decided: scope.version(),
            scope,
            outside: HashMap::new(),
            ended: VecDeque::new(),
            ending: HashSet::new(),
            gone: HashMap::new(),
            victims: HashSet::new(),
            suspects: HashSet::new(),
            next_housekeeping: 0,
            missed: 0,
        };
        // The observer's own endpoint is no workload.
        capture.kernel.watch.deny(std::process::id());
        Ok(capture)
    }

    /// Watches who listened before the probes were there.
    pub fn backfill(&mut self, sink: &mut impl Sink) {
        // What ends within the first moments has its times, too.
        self.note_clocks(sink);
        let own = std::process::id();
        for tgid in listening().into_iter().filter(|tgid| *tgid != own) {
            if self.look_up(tgid, None, sink) {
                self.kernel.watch.adopt(tgid);
            }
        }
    }

    /// Looks a process up, which may run a new program since a time, and decides on it. Whether it is observed: it is
    /// not if it is gone or out of scope.
    fn look_up(&mut self, tgid: u32, exec: Option<u64>, sink: &mut impl Sink) -> bool {
        let Some(process) = Process::look_up(tgid) else { return false };
        let decision = decide(&*self.scope, tgid, &process);
        if decision != Decision::Observe {
            debug!(tgid, process.name, process.is_native, ?decision, "not observed");
            self.kernel.watch.deny(tgid);
            if !self.outside.contains_key(&tgid) {
                // It may have been until now: what is open is told as far as it was seen.
                self.pipeline.let_go(tgid, monotonic());
            }
            if self.processes.remove(&tgid).is_some() {
                self.gone.insert(tgid, None);
            }
            if self.outside.len() < PROCESSES || self.outside.contains_key(&tgid) {
                let listened = self.outside.get(&tgid).and_then(|outside| outside.listened);
                self.outside.insert(tgid, Outside { process, decision, listened });
            }
            return false;
        }
        if self.processes.len() >= PROCESSES && !self.processes.contains_key(&tgid) {
            return false;
        }
        let outside = self.outside.remove(&tgid);
        self.kernel.watch.admit(tgid);
        match exec {
            Some(time) => sink.exec(tgid, &process, time),
            None => sink.process(tgid, &process),
        }
        if let Some(time) = outside.and_then(|outside| outside.listened) {
            sink.listens(tgid, time);
        }
        self.processes.insert(tgid, process);
        true
    }

    /// Decides again on those that wait, and on everyone if anything changed.
    fn decide_again(&mut self, sink: &mut impl Sink) {
        // The kernel side forgets a process that ends, or that replaces its program.
        let watch = &self.kernel.watch;
        self.outside.retain(|tgid, _| watch.is_denied(*tgid));
        let version = self.scope.version();
        let changed = version != std::mem::replace(&mut self.decided, version);
        let decided = |tgid: u32, process: &Process| decide(&*self.scope, tgid, process);
        let outside =
            self.outside.iter().filter(|(_, outside)| changed || outside.decision == Decision::Wait);
        let outside = outside
            .filter(|(tgid, outside)| decided(**tgid, &outside.process) != outside.decision)
            .map(|(tgid, _)| *tgid);
        let inside = self.processes.iter().filter(|_| changed);
        let inside = inside
            .filter(|(tgid, process)| decided(**tgid, process) != Decision::Observe)
            .map(|(tgid, _)| *tgid);
        for tgid in outside.chain(inside).collect::<Vec<_>>() {
            if !self.look_up(tgid, None, sink) && is_gone(tgid) {
                self.outside.remove(&tgid);
            }
        }
    }

    /// Processes that serve something, by whether they are observed.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let waiting =
            self.outside.values().filter(|outside| outside.decision == Decision::Wait).count() as u64;
        let outside = self.outside.len() as u64 - waiting;
        [("observed", self.processes.len() as u64), ("out_of_scope", outside), ("undecided", waiting)]
    }

    /// Waits for the ring, takes what is in it, and passes on what follows from it.
    pub fn turn(&mut self, sink: &mut impl Sink) {
        self.kernel.wait(PERIOD);
        let begin = monotonic();
        if self.drain(sink) {
            self.look_for_stalls(begin, sink);
        }
        let now = monotonic();
        if now >= self.next_housekeeping {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.housekeeping(now, sink);
            sink.housekeeping(self);
        }
        sink.turned();
    }

    /// Takes what is in the ring, up to a bound: under overload there is always more. Whether there was less.
    pub fn drain(&mut self, sink: &mut impl Sink) -> bool {
        for _ in 0..BATCHES {
            let mut lifecycle = Vec::new();
            let Self { kernel, pipeline, malformed, .. } = self;
            let taken = kernel.poll(BATCH, |raw| {
                let Ok(record) = Record::parse(raw) else {
                    *malformed += 1;
                    return;
                };
                sink.record(raw);
                match record {
                    Record::Exit(exit) => lifecycle.push((exit.header, Some(exit))),
                    Record::Open(_) | Record::Listen(_) | Record::Exec(_) | Record::Oom(_) => {
                        lifecycle.push((*record.header(), None));
                    }
                    Record::Data(..)
                    | Record::Close(_)
                    | Record::State(_)
                    | Record::Ended(_)
                    | Record::Clock(_) => {}
                }
                pipeline.handle_record(&record);
            });
            for (header, exit) in lifecycle {
                self.lifecycle(header, exit, sink);
            }
            self.pass_on(sink);
            if taken < BATCH {
                return true;
            }
        }
        false
    }

    /// Notes the streams that stall. A write that was entered before `now` is either in the ring, and then the
    /// stream was heard of, or still under way, because its client does not read.
    fn look_for_stalls(&mut self, now: u64, sink: &mut impl Sink) {
        let suspects: Vec<_> = std::iter::from_fn(|| self.pipeline.poll_suspect(now)).collect();
        if suspects.is_empty() {
            return;
        }
        let processes: BTreeSet<u32> = suspects.iter().map(|suspect| suspect.tgid).collect();
        let tables = &self.kernel.tables;
        let writing: HashSet<u64> = processes
            .into_iter()
            .flat_map(|tgid| threads(tgid).into_iter().filter_map(move |tid| tables.writing(tgid, tid)))
            .collect();
        // A write that returned while that was looked up is in the ring by now.
        if !self.drain(sink) {
            return;
        }
        for suspect in suspects.iter().filter(|suspect| !writing.contains(&suspect.connection)) {
            self.pipeline.handle_timeout(suspect.connection, now);
        }
        self.pass_on(sink);
    }

    fn lifecycle(&mut self, header: Header, exit: Option<Exit>, sink: &mut impl Sink) {
        let Header { kind, tgid, time, .. } = header;
        match exit {
            Some(exit) if exit.flags & exit_flags::GROUP_DEAD != 0 => {
                let end = End::of(&exit).or_asked(tgid);
                self.gone.insert(tgid, Some(end));
                if end.reason() != "ok" && !self.processes.contains_key(&tgid) {
                    self.child_gone(tgid, &end, sink);
                }
            }
            // Only the leader is known to be gone: look, now and in each housekeeping.
            Some(exit) => {
                if exit.flags & exit_flags::OOM != 0 {
                    self.victims.insert(tgid);
                }
                self.look_for_end(tgid, sink);
            }
            None if kind == Kind::Oom as u32 => self.chosen(tgid, time, sink),
            None if kind == Kind::Open as u32 && self.processes.contains_key(&tgid) => {}
            None => {
                let exec = (kind == Kind::Exec as u32).then_some(time);
                let observed = self.look_up(tgid, exec, sink);
                let listens = kind == Kind::Listen as u32;
                if listens && observed {
                    sink.listens(tgid, time);
                } else if listens && let Some(outside) = self.outside.get_mut(&tgid) {
                    outside.listened.get_or_insert(time);
                }
            }
        }
    }

    /// The kernel chose a process to be killed. Others than those that are observed are told of, too, if they may be: an
    /// engine's workers need not serve anything.
    fn chosen(&mut self, tgid: u32, time: u64, sink: &mut impl Sink) {
        if let Some(process) = self.processes.get(&tgid) {
            self.victims.insert(tgid);
            return sink.chosen(tgid, process, time);
        }
        // It is still there for a while: to give its memory back takes time.
        if let Some(process) = Process::look_up(tgid)
            && decide(&*self.scope, tgid, &process) == Decision::Observe
        {
            sink.chosen(tgid, &process, time);
        }
    }

    /// A process that serves nothing itself ended badly, such as a worker that an engine forked. Who it was is told by
    /// what is left of it, until its parent has asked.
    fn child_gone(&mut self, tgid: u32, end: &End, sink: &mut impl Sink) {
        if let Some(process) = Process::look_up(tgid)
            && decide(&*self.scope, tgid, &process) == Decision::Observe
        {
            sink.child_gone(tgid, &process, end);
        }
    }

    fn look_for_end(&mut self, tgid: u32, sink: &mut impl Sink) {
        if self.gone.contains_key(&tgid) {
            return;
        }
        if !is_gone(tgid) {
            // Its leader is gone, or it was not yet to be seen that all of it is.
            self.suspects.insert(tgid);
            return;
        }
        self.suspects.remove(&tgid);
        let exit = Exit {
            header: Header {
                kind: Kind::Exit as u32,
                length: size_of::<Exit>() as u32,
                time: monotonic(),
                tgid,
                tid: tgid,
            },
            flags: exit_flags::GROUP_DEAD,
            status: 0,
        };
        sink.record(&exit.to_bytes());
        self.pipeline.handle_record(&Record::Exit(exit));
        self.made += 1;
        self.kernel.watch.clear(tgid);
        self.gone.insert(tgid, Some(End::of(&exit).or_asked(tgid)));
    }

    /// Calls whose probes the kernel skipped left no trace in any position.
    fn mistrust(&mut self) {
        let missed = self.kernel.missed();
        let calls = missed.iter().filter(|(program, _)| matches!(*program, "sys_enter" | "sys_exit"));
        let missed = calls.map(|(_, missed)| missed).sum();
        if missed > std::mem::replace(&mut self.missed, missed) {
            warn!(missed, "the kernel skipped probes of system calls: open exchanges are marked partial");
            self.pipeline.mark_open("probe_missed");
        }
    }

    /// Observations, verdicts, ends.
    fn pass_on(&mut self, sink: &mut impl Sink) {
        while let Some((connection, verdict)) = self.pipeline.poll_verdict() {
            if !self.kernel.tables.decide(connection, verdict) {
                warn!(connection, "table of verdicts is full; more of this connection is copied than needed");
            }
        }
        while let Some(observation) = self.pipeline.poll_observation() {
            sink.observation(observation);
        }
        while let Some((tgid, cause, bytes)) = self.pipeline.poll_undecoded() {
            sink.undecoded(tgid, cause, bytes);
        }
        let mut now = None;
        while let Some(connection) = self.pipeline.poll_ended() {
            // Its TCP goes on ending after its last descriptor did.
            if self.ending.insert(connection) {
                self.ended.push_back((*now.get_or_insert_with(monotonic), connection));
            }
        }
    }

    fn housekeeping(&mut self, now: u64, sink: &mut impl Sink) {
        self.kernel.flush_log();
        self.mistrust();
        self.note_clocks(sink);
        while let Some(&(ended, connection)) = self.ended.front()
            && now.saturating_sub(ended) >= GRACE
        {
            self.ended.pop_front();
            self.ending.remove(&connection);
            // It may have come back: through another descriptor, or because it was given up for its memory.
            if !self.pipeline.follows(connection) {
                self.kernel.tables.forget(connection);
            }
        }
        self.decide_again(sink);
        let known: Vec<u32> = self.processes.keys().chain(&self.suspects).copied().collect();
        for tgid in known {
            self.look_for_end(tgid, sink);
        }
        self.suspects.retain(|tgid| !self.processes.contains_key(tgid));
        self.pass_on(sink);
        if !self.gone.is_empty() {
            let gone = std::mem::take(&mut self.gone);
            self.kernel.tables.sweep(|tgid| gone.contains_key(&tgid));
            for (tgid, mut end) in gone {
                self.processes.remove(&tgid);
                let was_chosen = self.victims.remove(&tgid);
                if let Some(end) = &mut end {
                    end.chosen |= was_chosen;
                }
                sink.process_gone(tgid, end.as_ref());
            }
        }
    }

    fn note_clocks(&mut self, sink: &mut impl Sink) {
        let clock = clock();
        sink.record(&clock.to_bytes());
        self.pipeline.handle_record(&Record::Clock(clock));
        self.made += 1;
    }

    /// Processes that observations may be about.
    pub fn processes(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.processes.iter().map(|(tgid, process)| (*tgid, process))
    }

    /// Detaches every probe, takes what is left in the ring, and tells of the exchanges that are still open, as far as
    /// they were seen.
    pub fn stop(mut self, sink: &mut impl Sink) {
        self.kernel.detach();
        // Nothing is added any more.
        while !self.drain(sink) {}
        self.pipeline.finish(monotonic());
        self.pass_on(sink);
    }
}

/// Whether a process is observed. One whose system calls are numbered differently cannot be.
fn decide(scope: &dyn Scope, tgid: u32, process: &Process) -> Decision {
    if process.is_native { scope.decide(tgid, process) } else { Decision::Ignore }
}

/// The present moment on both clocks.
fn clock() -> Clock {
    let time = monotonic();
    let own = std::process::id();
    Clock {
        header: Header {
            kind: Kind::Clock as u32,
            length: size_of::<Clock>() as u32,
            time,
            tgid: own,
            tid: own,
        },
        realtime: wall(),
    }
}
