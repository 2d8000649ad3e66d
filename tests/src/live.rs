//! A capture that runs while a test drives a workload.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use observer::{
    capture::{Capture, Decision, End, Scope, Sink, monotonic},
    discover::Process,
    exchange::{Observation, RequestRecord},
    kernel::{Counts, Options, Probe, Sizes},
    pipeline::{Limits, Pipeline, Stats},
};
use observer_ebpf::{Record, exit_flags};

/// Whether live tests can run: as root, and not with `OBSERVER_LIVE=0`. In CI they must; elsewhere the reason
/// is printed.
///
/// # Panics
/// In CI without root.
pub fn privileged() -> bool {
    if std::env::var_os("OBSERVER_LIVE").is_some_and(|live| live == "0") {
        eprintln!("SKIPPED: live tests were left out");
        return false;
    }
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "live tests need root, and CI must run them");
    if !root {
        eprintln!("SKIPPED: live tests need root");
    }
    root
}

/// What a capture saw.
#[derive(Default)]
pub struct Seen {
    /// Finished exchanges.
    pub records: Vec<RequestRecord>,
    /// When each exchange that was seen to start did: the origin of its clocks, monotonic nanoseconds.
    pub started: HashMap<String, u64>,
    /// Deliveries.
    pub deliveries: usize,
    /// Bytes that were not decoded, by cause.
    pub undecoded: Vec<(&'static str, u64)>,
    /// Raw records by process and kind, with the data records' covered and captured bytes.
    pub raw: HashMap<u32, Raw>,
    /// How processes ended.
    pub ends: HashMap<u32, End>,
    /// Raw records, copied, if asked for.
    pub recording: Option<Vec<Vec<u8>>>,
    /// How long to dawdle over each record, so that the ring overflows.
    pub dawdle: Duration,
}

/// Raw records about one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw {
    /// Data records.
    pub data: u64,
    /// Bytes that they cover.
    pub covered: u64,
    /// Bytes that they captured.
    pub captured: u64,
    /// Open records.
    pub open: u64,
    /// Close records.
    pub close: u64,
    /// Listen records.
    pub listen: u64,
    /// Exec records.
    pub exec: u64,
    /// Exit records that say that the whole process is gone.
    pub exit: u64,
    /// Records of being chosen as victim when memory was out.
    pub oom: u64,
    /// Final positions of its connections, summed: received, sent.
    pub final_positions: (u64, u64),
    /// The highest of them.
    pub highest: (u64, u64),
}

/// What is known when a capture has stopped.
pub struct Report {
    /// What it saw.
    pub seen: Seen,
    /// Kernel counters, after the workload was quiet.
    pub counts: Counts,
    /// Pipeline counters.
    pub stats: Stats,
    /// Connections by state.
    pub connections: BTreeMap<&'static str, u64>,
    /// Runs that the kernel skipped.
    pub missed: Vec<(&'static str, u64)>,
    /// Entries left in kernel tables.
    pub sizes: Sizes,
    /// LLM exchanges still open.
    pub in_flight: usize,
    /// Records made beside the ring: clock pairs, confirmed exits.
    pub made_here: u64,
    /// How long detaching took.
    pub detach: Duration,
}

/// A running capture.
pub struct Live {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<Report>>,
}

struct Collect(Arc<Mutex<Seen>>);

impl Sink for Collect {
    fn record(&mut self, raw: &[u8]) {
        let mut seen = self.0.lock().expect("collector");
        if !seen.dawdle.is_zero() {
            std::thread::sleep(seen.dawdle);
        }
        let Ok(record) = Record::parse(raw) else { return };
        let of = seen.raw.entry(record.header().tgid).or_default();
        match record {
            Record::Data(data, _) => {
                of.data += 1;
                of.covered += u64::from(data.length);
                of.captured += u64::from(data.captured);
            }
            Record::Open(_) => of.open += 1,
            Record::Close(close) => {
                of.close += 1;
                of.highest = (of.highest.0.max(close.received), of.highest.1.max(close.sent));
                of.final_positions.0 += close.received;
                of.final_positions.1 += close.sent;
            }
            Record::Listen(_) => of.listen += 1,
            Record::Exec(_) => of.exec += 1,
            Record::Exit(exit) => of.exit += u64::from(exit.flags & exit_flags::GROUP_DEAD),
            Record::Oom(_) => of.oom += 1,
            Record::State(_) | Record::Ended(_) | Record::Clock(_) => {}
        }
        if let Some(recording) = &mut seen.recording {
            recording.push(raw.to_vec());
        }
    }

    fn process_gone(&mut self, tgid: u32, end: Option<&End>) {
        self.0.lock().expect("collector").ends.extend(end.map(|end| (tgid, *end)));
    }

    fn undecoded(&mut self, _tgid: u32, cause: &'static str, bytes: u64) {
        self.0.lock().expect("collector").undecoded.push((cause, bytes));
    }

    fn observation(&mut self, observation: Observation) {
        let mut seen = self.0.lock().expect("collector");
        match observation {
            Observation::Started { id, time, .. } => {
                seen.started.insert(id.to_string(), time);
            }
            Observation::Delivered { .. } => seen.deliveries += 1,
            Observation::Finished { record, .. } => seen.records.push(*record),
            Observation::Requested { .. } | Observation::Phase { .. } => {}
        }
    }
}

impl Live {
    /// Attaches the probes and returns when they are there. `seen` is where to begin.
    pub fn start(options: &Options, seen: Seen) -> Self {
        let own = |tgid: u32, _: &Process| Decision::of(is_descendant(tgid));
        Self::start_scoped(options, seen, Box::new(own))
    }

    /// With another scope than the processes that this one started.
    pub fn start_scoped(options: &Options, seen: Seen, scope: Box<dyn Scope>) -> Self {
        let seen = Arc::new(Mutex::new(seen));
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = sync_channel(1);
        let thread = {
            let (seen, stop, options) = (Arc::clone(&seen), Arc::clone(&stop), options.clone());
            std::thread::spawn(move || run(&options, &seen, &stop, &ready, scope))
        };
        is_ready.recv().expect("the capture thread died: see its message");
        Self { stop, seen, thread: Some(thread) }
    }

    /// Those of the agent unless it is told otherwise.
    pub fn options() -> Options {
        Options { ring_bytes: 16 << 20, arrival: true, ask_first: false }
    }

    /// With the defaults of the agent.
    pub fn start_default() -> Self {
        Self::start(&Self::options(), Seen::default())
    }

    /// Looks at what was seen so far.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("collector"))
    }

    /// Waits until a condition holds; panics with `what` after `limit`.
    pub fn wait_until(&self, what: &str, limit: Duration, condition: impl Fn(&Seen) -> bool) {
        let end = monotonic() + limit.as_nanos() as u64;
        while !self.look(&condition) {
            let (records, raw) = self.look(|seen| (seen.records.len(), format!("{:?}", seen.raw)));
            assert!(monotonic() < end, "not seen in {limit:?}: {what}; {records} exchanges; {raw}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops after what is under way was seen, and detaches.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("the capture thread died: see its message")
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Whether a process was started by this one, directly or not: what else runs on the machine is not the
/// test's business.
pub fn is_descendant(tgid: u32) -> bool {
    let mut pid = tgid;
    for _ in 0..64 {
        if pid == std::process::id() {
            return true;
        }
        // "pid (comm) state ppid …"; comm may hold anything.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        match parent {
            Some(parent) if parent > 0 => pid = parent,
            _ => return false,
        }
    }
    false
}

fn run(
    options: &Options,
    seen: &Arc<Mutex<Seen>>,
    stop: &AtomicBool,
    ready: &SyncSender<Vec<Probe>>,
    scope: Box<dyn Scope>,
) -> Report {
    let mut sink = Collect(Arc::clone(seen));
    let mut capture = Capture::start(options, Pipeline::new(Limits::default()), scope)
        .unwrap_or_else(|error| panic!("the probes do not run here: {error}"));
    capture.backfill(&mut sink);
    let _ = ready.send(capture.kernel.report().to_vec());
    while !stop.load(Ordering::Relaxed) {
        capture.turn(&mut sink);
    }
    while !capture.drain(&mut sink) {}
    let (counts, missed) = (capture.kernel.counts(), capture.kernel.missed());
    let report = Report {
        counts,
        missed,
        stats: capture.pipeline.stats(),
        connections: capture.pipeline.connections(),
        sizes: capture.kernel.tables.sizes(),
        in_flight: capture.pipeline.in_flight(),
        made_here: capture.made,
        seen: Seen::default(),
        detach: Duration::ZERO,
    };
    let begin = monotonic();
    capture.stop(&mut sink);
    let detach = Duration::from_nanos(monotonic() - begin);
    Report { seen: std::mem::take(&mut *seen.lock().expect("collector")), detach, ..report }
}
