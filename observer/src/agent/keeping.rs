//! What happened, on its way to the store and to followers; and the threads that bring it there.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use tracing::{info, warn};

use super::{
    lines, now,
    telling::{Receivers, known},
    whose::SharedPods,
};
use crate::{
    config::{Config, LogStore},
    lines::Origin,
    logs::{Counts, Source, Wanted},
    recent::Finished,
    serve::{LogFiles, RowFeed},
    store::{Bounds, Store, StoreError},
    timeline::{Kind, Level, Row},
};

/// Rows that a slow follower may lag behind.
const FEED: usize = 4096;

/// Logs that are wanted, as the thread that captures knows them.
pub(super) type SharedWanted = Arc<Mutex<Wanted>>;

/// Where what happened goes. Never makes whoever tells wait.
#[derive(Clone)]
pub(crate) struct Keeping {
    /// The node of what does not say on which it happened.
    node: String,
    /// What ids of events begin with: a cluster merges those of its agents and its own.
    prefix: char,
    pub(crate) rows: RowFeed,
    pub(crate) store: Option<Store>,
    pub(super) stores_logs: bool,
    pub(super) files: LogFiles,
    pub(super) wanted: SharedWanted,
    pub(super) read: Arc<Mutex<Counts>>,
    /// To whom events go beside, and lines.
    pub(super) to: Receivers,
    told: Arc<AtomicU64>,
    pub(super) pods: SharedPods,
}

/// The threads.
pub(crate) struct Threads {
    writing: Option<JoinHandle<()>>,
    /// Told to end after all others, so that what they tell is kept.
    stop: Arc<AtomicBool>,
}

impl Threads {
    /// Commits what was told.
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.writing.is_some_and(|writing| writing.join().is_err()) {
            warn!("the thread that writes the store died; its last message says why");
        }
    }
}

/// Opens the store and starts what writes it. Without one, what happens is told to followers only. `pods` tell what manages whom.
pub(crate) fn open(
    config: &Config,
    node: &str,
    prefix: char,
    pods: &SharedPods,
) -> io::Result<(Keeping, Threads)> {
    let mut keeping = Keeping {
        node: node.to_owned(),
        prefix,
        rows: RowFeed::new(FEED),
        store: None,
        stores_logs: false,
        wanted: SharedWanted::default(),
        files: LogFiles::default(),
        read: Arc::default(),
        to: Receivers::default(),
        told: Arc::default(),
        pods: Arc::clone(pods),
    };
    let mut threads = Threads { writing: None, stop: Arc::default() };
    if !config.store.enabled {
        return Ok((keeping, threads));
    }
    let bounds = Bounds { path: config.store.path.clone(), bytes: config.store.bytes, age: config.store.age };
    let opened = Store::open(bounds, now);
    let (store, writer) = match opened {
        Ok(opened) => opened,
        Err(error @ (StoreError::Folder { .. } | StoreError::Taken(_) | StoreError::Index(_))) => {
            warn!(%error, "requests and events are not kept on disk");
            return Ok((keeping, threads));
        }
    };
    info!(path = %config.store.path.display(), rows = store.counts().rows, "what happens is kept on disk");
    let told = Arc::clone(&threads.stop);
    threads.writing = Some(thread::Builder::new().name("store".into()).spawn(move || writer.run(&told))?);
    keeping.store = Some(store);
    Ok((keeping, threads))
}

/// Opens the store of a node and starts what fills it.
pub(super) fn start(
    config: &Config,
    pods: &SharedPods,
    in_kubernetes: bool,
    to: Receivers,
    stop: &Arc<AtomicBool>,
) -> io::Result<(Keeping, Threads)> {
    let (mut keeping, threads) = open(config, &config.node, 'e', pods)?;
    keeping.to = to;
    let sources = sources(config, &keeping.wanted);
    keeping.files = LogFiles { sources, redacts: config.logs.redact, wall: now };
    if let Some(store) = &keeping.store {
        keeping.stores_logs = match config.logs.store {
            LogStore::On => true,
            LogStore::Off => false,
            LogStore::Auto => !in_kubernetes,
        };
        if keeping.stores_logs || !keeping.to.of_lines().is_empty() {
            lines::follow(config, store, &keeping, Arc::clone(stop))?;
        }
    } else if !keeping.to.of_lines().is_empty() {
        warn!(
            "otlp.lines, logs.cluster: without a store nobody knows up to where lines were sent, so none are"
        );
    }
    Ok((keeping, threads))
}

pub(super) type Sources = Arc<dyn Fn() -> Vec<(Source, Origin)> + Send + Sync>;

/// Logs that may be told of, now.
pub(super) fn sources(config: &Config, shared: &SharedWanted) -> Sources {
    let (node, pod_logs, all) = (config.node.clone(), config.kubernetes.pod_logs.clone(), config.logs.all);
    let files: Vec<(PathBuf, Origin)> =
        config.logs.files.iter().map(|path| (path.clone(), origin_of(path, &node))).collect();
    let shared = Arc::clone(shared);
    Arc::new(move || {
        let mut wanted = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wanted.all |= all;
        wanted.files.extend(files.iter().cloned());
        wanted.sources(&pod_logs, &node)
    })
}

/// Who writes a file that was named: the file itself.
fn origin_of(path: &std::path::Path, node: &str) -> Origin {
    let container = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Origin { node: node.to_owned(), container, ..Origin::default() }
}

impl Keeping {
    /// Keeps a request that ended.
    pub(super) fn request(&self, finished: &Arc<Finished>) {
        if let Some(store) = &self.store {
            let record = &finished.record;
            store.request(finished, self.workload(&record.namespace, &record.pod));
        }
    }

    /// What manages a pod; empty if nobody tells.
    fn workload(&self, namespace: &str, pod: &str) -> String {
        let workload = known(&self.pods, namespace, pod).and_then(|(_, workload)| workload);
        workload.map(|workload| workload.name).unwrap_or_default()
    }

    /// Tells of an event, which has no id yet.
    pub(crate) fn event(&self, mut row: Row) {
        row.id = format!("{}{:012x}", self.prefix, self.told.fetch_add(1, Ordering::Relaxed));
        if row.time == 0 {
            row.time = now();
        }
        if row.node.is_empty() {
            row.node.clone_from(&self.node);
        }
        if row.workload.is_empty() {
            row.workload = self.workload(&row.namespace, &row.pod);
        }
        self.rows.publish(&row);
        self.to.event(&row, &self.pods);
        if let Some(store) = &self.store {
            store.event(row);
        }
    }

    /// Tells of the observer itself.
    pub(crate) fn own(&self, reason: &str, level: Level, message: String) {
        self.event(Row {
            kind: Kind::Observer,
            reason: reason.to_owned(),
            level: Some(level),
            message,
            ..Row::default()
        });
    }
}
