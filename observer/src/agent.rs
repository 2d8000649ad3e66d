//! The agent: wires the rooms together, and is the only place that starts threads and tasks.
//!
//! One thread captures, decodes and updates metrics; the async runtime serves. What they share: the metrics
//! registry, the feed of finished requests, a snapshot of statistics, and a flag to stop.

mod gpus;
pub(crate) mod keeping;
mod lines;
mod occurrences;
mod pace;
mod pods;
mod record;
mod telling;
mod tenants;
mod whose;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use observer_ebpf::Counter;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::{
    capture::{Capture, End, Sink, monotonic, wall},
    config::{Config, PodsTold},
    discover::Process,
    engines::{Engines, Told},
    enrich::{Identities, Identity},
    estimate::Estimator,
    exchange::{Observation, RequestRecord},
    export::{
        otlp::OtlpError,
        prometheus::{Beside, GpuTold, RequestMetrics, exporter},
    },
    gpu::{self, AllocationsTold, Board, Nvidia, watch_allocations},
    gpus::Round,
    kernel::{LoadError, Options, ProbeMode},
    kube::{ConnectError, Connection, Health, Reviews, watch_node},
    pipeline::{Limits, Pipeline},
    serve::{NodeApi, RequestFeed, Reviewer, ServeError, Server, Sources, TokenFile},
    slo::{self, Objective},
    store::Store,
    telemetry::{AgentStats, Probe},
    timeline::Level,
};
use gpus::{Gpus, SharedGpus};
use keeping::Keeping;
use occurrences::Occurrences;
use pods::Rows;
pub use record::record;
use telling::{Receivers, Telling};
use tenants::{SharedTold, Tenants};
use whose::{NodeScope, SharedPods, Whose};

/// Finished requests that a slow follower may lag behind.
const FEED: usize = 4096;

/// Why the agent ended.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The probes do not run here.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The HTTP endpoint does not.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Kubernetes is to be asked and cannot be.
    #[error(transparent)]
    Kubernetes(#[from] ConnectError),
    /// Spans and log records are to be sent and cannot be.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// A metric definition was refused.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The runtime, a thread or a signal handler could not be had.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// The thread that captures died.
    #[error("the capture thread died; its last message says why")]
    Died,
    /// The recording could not be written.
    #[error("cannot write the recording {}: {reason}", path.display())]
    Recording {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

type Statistics = Arc<Mutex<AgentStats>>;

/// What the capture thread tells to.
struct Observer {
    identities: Identities,
    tenants: Tenants,
    gpus: Gpus,
    objectives: Vec<Objective>,
    estimator: Estimator,
    engines: Option<Arc<Engines>>,
    metrics: RequestMetrics,
    feed: RequestFeed,
    keeping: Keeping,
    occurrences: Occurrences,
    statistics: Statistics,
    /// When it began, by the clock of processes' starts.
    began: u64,
}

impl Observer {
    /// Notes who a process is; whether it was not known.
    fn know(&mut self, tgid: u32, process: &Process) -> bool {
        let is_new = !self.identities.has(tgid);
        self.tenants.process(tgid, process, &mut self.identities);
        self.gpus.process(tgid, process);
        is_new
    }

    /// Whether its children are worth a word: a container runtime, say, starts others all the time.
    fn is_of_interest(&self, identity: &Identity) -> bool {
        !identity.pod.is_empty() || self.metrics.serves(identity)
    }
}

impl Sink for Observer {
    fn process(&mut self, tgid: u32, process: &Process) {
        let is_news = self.know(tgid, process);
        if !self.occurrences.ends_silence(tgid) && !is_news {
            return;
        }
        let identity = self.identities.of(tgid);
        let age = whose::boot_time().saturating_sub(process.started) as f64 / 1e9;
        self.occurrences.process(&self.keeping, tgid, identity, age, self.tenants.housing(process));
        if is_news && process.started >= self.began {
            self.metrics.process_started(identity);
        }
    }

    fn exec(&mut self, tgid: u32, process: &Process, time: u64) {
        let before = self.identities.remove(tgid);
        self.know(tgid, process);
        let identity = self.identities.of(tgid);
        if before.is_some() || self.is_of_interest(identity) {
            self.occurrences.exec(&self.keeping, (tgid, time), before.as_deref(), identity);
        } else {
            self.occurrences.silent(tgid);
        }
        self.metrics.process_started(identity);
    }

    fn chosen(&mut self, tgid: u32, process: &Process, time: u64) {
        let identity = self.tenants.identity(process);
        self.occurrences.chosen(&self.keeping, tgid, &identity, time);
    }

    fn child_gone(&mut self, tgid: u32, process: &Process, end: &End) {
        let identity = Arc::new(self.tenants.identity(process));
        self.metrics.process_ended(&identity, end.reason());
        if self.is_of_interest(&identity) {
            self.occurrences.process_gone(&self.keeping, tgid, &identity, end, false);
        }
    }

    fn listens(&mut self, tgid: u32, time: u64) {
        self.tenants.listens(tgid, time);
    }

    fn process_gone(&mut self, tgid: u32, end: Option<&End>) {
        if let Some((identity, end)) = self.identities.remove(tgid).zip(end) {
            let was_last = !self.identities.has_container_of(&identity);
            self.metrics.process_ended(&identity, end.reason());
            self.occurrences.process_gone(&self.keeping, tgid, &identity, end, was_last);
        }
        self.occurrences.ends_silence(tgid);
        self.tenants.process_gone(tgid);
        self.gpus.process_gone(tgid);
        self.estimator.process_gone(tgid);
        if let Some(engines) = &self.engines {
            engines.process_gone(tgid);
        }
    }

    fn observation(&mut self, mut observation: Observation) {
        self.estimator.observe(&mut observation);
        if let Observation::Finished { record, .. } = &mut observation {
            self.identities.fill(record);
            self.tenants.served(record);
            if let Some(engines) = &self.engines {
                engines.served(record, self.identities.of(record.pid));
            }
            record.slo = slo::judge(&self.objectives, record);
        }
        self.metrics.observe(&observation, &self.identities);
        self.occurrences.observe(&self.keeping, &observation, &self.identities);
        if let Some(record) = self.gpus.observe(observation) {
            publish(&self.feed, &self.keeping, *record);
        }
    }

    fn turned(&mut self) {
        self.gpus.settle(|record| publish(&self.feed, &self.keeping, *record));
    }

    fn undecoded(&mut self, tgid: u32, cause: &'static str, bytes: u64) {
        let identity = Arc::clone(self.identities.of(tgid));
        self.metrics.undecoded(&identity, cause, bytes);
    }

    fn housekeeping(&mut self, capture: &Capture) {
        self.tenants.look(capture.processes(), &mut self.identities);
        self.gpus.look(capture.processes());
        let identities = &self.identities;
        self.metrics.expire(monotonic(), |identity| identities.has_container_of(identity));
        self.tenants.want(&self.keeping.wanted, &self.identities);
        let statistics = AgentStats {
            recent: self.feed.remembers(),
            store: self.keeping.store.as_ref().map(Store::counts),
            logs: *self.keeping.read.lock().unwrap_or_else(PoisonError::into_inner),
            ..statistics(capture)
        };
        self.occurrences.look(&self.keeping, &statistics);
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = statistics;
    }
}

/// Tells followers of a finished request, remembers it and keeps it.
fn publish(feed: &RequestFeed, keeping: &Keeping, record: RequestRecord) {
    let finished = feed.publish(record, now());
    keeping.request(&finished);
}

/// The wall clock as requests bear it.
fn now() -> i64 {
    wall().cast_signed()
}

fn statistics(capture: &Capture) -> AgentStats {
    let counts = capture.kernel.counts();
    let missed: BTreeMap<_, _> = capture.kernel.missed().into_iter().collect();
    let stats = capture.pipeline.stats();
    let mut kernel = AgentStats::default().kernel;
    for counter in Counter::ALL {
        kernel[counter as usize] = counts.get(counter);
    }
    AgentStats {
        kernel,
        received: stats.received + capture.malformed,
        decoded: stats.decoded,
        defects: capture.pipeline.defects().clone(),
        lost_bytes: stats.lost_bytes,
        upstream: [
            ("matched", stats.dispatch.matched),
            ("ambiguous", stats.dispatch.ambiguous),
            ("alone", stats.dispatch.alone),
        ],
        evicted: stats.evicted,
        dropped: BTreeMap::from([
            ("malformed", capture.malformed),
            ("connection_table_full", stats.dropped_table_full),
        ]),
        connections: capture.pipeline.connections(),
        processes: capture.counts(),
        probes: capture
            .kernel
            .report()
            .iter()
            .map(|probe| Probe {
                name: probe.name.to_owned(),
                attached: probe.mode == ProbeMode::Attached,
                missed: missed.get(probe.name).copied().unwrap_or(0),
            })
            .collect(),
        ..AgentStats::default()
    }
}

/// `pods`: those of this node, where Kubernetes is asked.
fn start_capture(config: &Config, pods: Option<SharedPods>) -> Result<Capture, LoadError> {
    let scope = Box::new(NodeScope {
        processes: config.capture.processes.clone(),
        kubernetes: pods.map(|pods| (config.kubernetes.scope.clone(), pods)),
        began: monotonic(),
    });
    let options = Options {
        ring_bytes: config.capture.ring_bytes,
        arrival: config.capture.arrival,
        ask_first: scope.asks_first(),
    };
    let limits = Limits { connections: config.limits.connections, bytes: config.limits.bytes };
    let pipeline = Pipeline::new(limits).stalls_after(config.stall.nanos());
    let capture = Capture::start(&options, pipeline, scope)?;
    for probe in capture.kernel.report() {
        match probe.mode {
            ProbeMode::Attached => info!("probe {probe}"),
            ProbeMode::Missing { .. } => warn!("probe {probe}"),
        }
    }
    Ok(capture)
}

/// How long followers are kept waiting for the last records at the end.
const LAST_WORDS: Duration = Duration::from_millis(600);

/// Observes this node until SIGINT or SIGTERM.
///
/// # Errors
/// [`AgentError`]: what could not be started, or died.
pub fn run(config: &Config) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent(config))
}

async fn agent(config: &Config) -> Result<(), AgentError> {
    // The port is taken first: an agent that nobody can ask should not observe.
    let server = Server::bind(config.listen).await?.beside(&config.tls).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (metrics, scrape) = exporter(&config.metrics, &config.slo)?;
    let feed = RequestFeed::new(FEED, config.api.recent, now());
    let statistics = Statistics::default();
    let to = Receivers::of(config)?;
    let engines = config.engines.metrics.then(|| Arc::new(Engines::new(config.engines.interval)));
    let (pods, told_of_pods) = (SharedPods::default(), SharedTold::default());
    let whose = Whose {
        node: config.node.clone(),
        pods: Arc::clone(&pods),
        pod_logs: config.kubernetes.pod_logs.clone(),
    };
    let kubernetes = Connection::find(&config.kubernetes).await?;
    let asked = kubernetes.is_some().then(|| Arc::clone(&pods));
    let stop = Arc::new(AtomicBool::new(false));
    let (keeping, threads) = keeping::start(config, &pods, kubernetes.is_some(), to.clone(), &stop)?;
    let watches = match &kubernetes {
        Some(connection) => watch_pods(connection, config, &pods, keeping.clone()),
        None => Vec::new(),
    };
    let telling = Telling::start(to.clone(), feed.follow(), Arc::clone(&pods));
    let (told_of_gpus, allocations) = (SharedGpus::default(), AllocationsTold::default());
    let (board, rounds) = Board::new(config.gpu.interval, monotonic);
    if config.gpu.enabled {
        gpu_thread(config, &whose, Arc::clone(&board), Arc::clone(&stop))?;
        tokio::spawn(watch_allocations(config.gpu.pod_resources.clone(), allocations.clone()));
    }
    let rounds: Option<Receiver<Round>> = config.gpu.enabled.then_some(rounds);
    let (allocated, told) = (allocations.clone(), Arc::clone(&told_of_gpus));
    let observer = Observer {
        keeping: keeping.clone(),
        occurrences: Occurrences::default(),
        gpus: Gpus::new(whose.clone(), rounds, allocated, keeping.clone(), told),
        identities: Identities::on_node(&config.node),
        tenants: Tenants::new(whose, config.kubernetes.pods == PodsTold::All, Arc::clone(&told_of_pods)),
        objectives: config.slo.clone(),
        estimator: Estimator::default(),
        engines: engines.clone(),
        metrics,
        feed: feed.clone(),
        statistics: Arc::clone(&statistics),
        began: whose::boot_time(),
    };
    let ready = Arc::new(AtomicBool::new(false));
    if let Some(engines) = &engines {
        engines_thread(Arc::clone(engines), config.engines.interval, Arc::clone(&stop))?;
    }
    let (ended, mut end) = tokio::sync::oneshot::channel();
    let thread = capture_thread(config, asked, observer, Arc::clone(&ready), Arc::clone(&stop), ended)?;
    let (is_ready, early) = (Arc::clone(&ready), Arc::new(AtomicBool::new(false)));
    let told_early = Arc::clone(&early);
    info!(address = %server.address(), "serving /metrics, /healthz, /readyz and /api/v1");

    let (running, node, reads_gpus) = (scrape.clone(), config.node.clone(), config.gpu.enabled);
    let api = NodeApi {
        node: config.node.clone(),
        feed,
        running: Arc::new(move || running.running()),
        wall: now,
        rows: keeping.rows.clone(),
        store: keeping.store.clone(),
        stores_logs: keeping.stores_logs,
        files: keeping.files.clone(),
    };
    let sources = Sources {
        metrics: Arc::new(move || {
            let stats = statistics.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let now = monotonic();
            let told = engines.as_ref().map_or_else(Told::default, |engines| engines.told(now));
            let pods = told_of_pods.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let otlp = to.told();
            let gpus = GpuTold {
                node: node.clone(),
                read: if reads_gpus { board.told() } else { gpu::Told::default() },
                requests: told_of_gpus.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                allocations: allocations.get(),
            };
            let watches = watches.iter().map(|health| health.snapshot()).collect();
            scrape
                .gather(now, &Beside { agent: stats, engines: told, pods, gpus, watches, otlp })
                .map_err(|error| error.to_string())
        }),
        ready,
        not_ready: "the probes are not attached yet",
        events: None,
        api: Arc::new(api),
        token: Arc::new(TokenFile::at(config.api.token_file.clone())),
        reviewer: reviewer(config, kubernetes.as_ref())?,
        intake: None,
        metrics_guarded: config.metrics.guarded,
    };
    let served = server
        .run(sources, async move {
            tokio::select! {
                _ = interrupt.recv() => info!("SIGINT: stopping"),
                _ = terminate.recv() => info!("SIGTERM: stopping"),
                _ = &mut end => return,
            }
            let early = !is_ready.load(Ordering::Relaxed);
            told_early.store(early, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
            if !early {
                // Followers are told of what is still open. The probes detach meanwhile.
                let _late = tokio::time::timeout(LAST_WORDS, end).await;
            }
        })
        .await;
    if early.load(Ordering::Relaxed) {
        // The kernel may verify programs for longer than a second. Whatever it has accepted ends with this
        // process, and nothing was observed that anybody could miss.
        return Ok(served?);
    }
    let captured = thread.join().map_err(|_panic| AgentError::Died);
    keeping.own("stopped", Level::Info, "the observer was told to stop".to_owned());
    threads.end();
    captured??;
    telling.end().await;
    Ok(served?)
}

/// Who asks the API server about those who ask, if it is to be asked.
pub(crate) fn reviewer(
    config: &Config,
    connection: Option<&Connection>,
) -> Result<Option<Arc<Reviewer>>, ConnectError> {
    let Some(connection) = connection.filter(|_| config.api.kubernetes) else { return Ok(None) };
    Ok(Some(Arc::new(Reviewer::new(Reviews::over(connection)?, monotonic))))
}

/// Watches the pods of this node in the background; nobody waits for it. How far it can be trusted.
fn watch_pods(
    connection: &Connection,
    config: &Config,
    pods: &SharedPods,
    keeping: Keeping,
) -> Vec<Arc<Health>> {
    let health = ["pods", "owners"].map(|resource| Health::of(resource, monotonic));
    let (watches, connection) = (health.to_vec(), connection.clone());
    let (node, scope, pods) = (config.node.clone(), config.kubernetes.scope.clone(), Arc::clone(pods));
    tokio::spawn(async move {
        let rows = Rows::to(keeping);
        let watching = watch_node(&connection, &node, scope, (pods, rows.tell()), health, wall);
        tokio::select! {
            ended = watching => {
                if let Err(error) = ended {
                    warn!(%error, "pods are not known");
                }
            }
            never = rows.look() => never,
        }
    });
    watches
}

fn capture_thread(
    config: &Config,
    pods: Option<SharedPods>,
    mut observer: Observer,
    ready: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    ended: tokio::sync::oneshot::Sender<()>,
) -> io::Result<JoinHandle<Result<(), LoadError>>> {
    let config = config.clone();
    thread::Builder::new().name("capture".into()).spawn(move || {
        // Dropped whichever way this thread ends, and then the agent ends, too.
        let _ended = ended;
        let mut capture = start_capture(&config, pods)?;
        capture.backfill(&mut observer);
        observer.housekeeping(&capture);
        ready.store(true, Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) {
            capture.turn(&mut observer);
        }
        ready.store(false, Ordering::Relaxed);
        capture.stop(&mut observer);
        observer.gpus.flush(|record| publish(&observer.feed, &observer.keeping, *record));
        Ok(())
    })
}

/// Reads GPUs. Nobody waits for it: a call into a driver may hang for ever.
fn gpu_thread(config: &Config, whose: &Whose, board: Arc<Board>, stop: Arc<AtomicBool>) -> io::Result<()> {
    let mut nvidia = Nvidia { library: config.gpu.library.clone(), interval: config.gpu.interval, wall };
    let whose = whose.clone();
    thread::Builder::new().name("gpus".into()).spawn(move || {
        let owners = move |pid| whose.owner_of(pid);
        gpu::run(&mut nvidia, &board, &owners, &stop);
    })?;
    Ok(())
}

/// Reads what engines say of themselves, every so often. Nobody waits for it: at worst it hangs in a read while
/// the process ends.
fn engines_thread(engines: Arc<Engines>, interval: Duration, stop: Arc<AtomicBool>) -> io::Result<()> {
    thread::Builder::new().name("engines".into()).spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(interval);
            engines.read(monotonic);
        }
    })?;
    Ok(())
}

/// A flag that SIGINT and SIGTERM set.
fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        flag.store(true, Ordering::Relaxed);
    })?;
    Ok(stop)
}
