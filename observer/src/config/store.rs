//! `store.*`: what is kept on disk. `logs.*`: which logs are read, and what of them may be kept.

use std::path::PathBuf;
use std::time::Duration;

/// `store.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Whether requests and events are kept on disk at all.
    pub enabled: bool,
    /// The folder.
    pub path: PathBuf,
    /// Most bytes of it.
    pub bytes: u64,
    /// For how long.
    pub age: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            path: PathBuf::from("/var/lib/observer"),
            bytes: 2 << 30,
            age: Duration::from_hours(7 * 24),
        }
    }
}

/// `logs.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsConfig {
    /// Whether lines are kept in the store.
    pub store: LogStore,
    /// Whether prompts, keys and tokens are taken out of lines before they are kept or shown.
    pub redact: bool,
    /// Logs of all pods of the node, not only of those that serve.
    pub all: bool,
    /// Files that are read beside.
    pub files: Vec<PathBuf>,
    /// Units of systemd that are read beside.
    pub units: Vec<String>,
    /// The folder of the journal, if not this machine's own.
    pub journal: Option<PathBuf>,
    /// The cluster role that keeps lines, if they are sent there.
    pub cluster: Option<hyper::Uri>,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            store: LogStore::Auto,
            redact: true,
            all: false,
            files: Vec::new(),
            units: Vec::new(),
            journal: None,
            cluster: None,
        }
    }
}

/// Whether lines of logs are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogStore {
    /// Where no Kubernetes is asked: elsewhere the kubelet keeps them, and often a log system.
    #[default]
    Auto,
    /// They are.
    On,
    /// They are not.
    Off,
}
