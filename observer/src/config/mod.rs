//! Configuration: defaults, then one TOML file, then the environment, then flags become one [`Config`].
//!
//! In: what was typed ([`typed`]). Out: resolved values, each valid by itself and with the others, or a
//! [`ConfigError`] that names the place, the field, the value and the remedy. An unknown field is refused
//! wherever it comes from.

mod buckets;
pub mod cli;
mod error;
mod fields;
mod gpu;
mod kubernetes;
mod objectives;
mod otlp;
mod scope;
mod selector;
mod store;
mod tls;
mod typed;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use buckets::{Buckets, MAX_BUCKETS};
pub use error::ConfigError;
pub use gpu::GpuConfig;
pub use kubernetes::{ClusterConfig, KubernetesConfig, KubernetesMode, PodsTold};
pub(crate) use otlp::header;
pub use otlp::{OtlpConfig, OtlpProtocol};
pub use scope::{PodScope, Unknown};
pub use selector::Selector;
pub use store::{LogStore, LogsConfig, StoreConfig};
pub use tls::TlsConfig;
pub use typed::{Source, variable};

use crate::pipeline::STALLS_AFTER;
use crate::slo::Objective;

use cli::Cli;
use typed::Typed;

/// The port that an agent serves on unless told otherwise.
pub const DEFAULT_PORT: u16 = 9842;

/// Everything that an operator can decide, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address that the HTTP endpoint listens on.
    pub listen: SocketAddr,
    /// Questions about requests.
    pub api: ApiConfig,
    /// Who this observer is to others.
    pub tls: TlsConfig,
    /// Name of this node in metrics and records.
    pub node: String,
    /// Log level.
    pub log: LevelFilter,
    /// What is exported, and how much of it.
    pub metrics: MetricsConfig,
    /// What the kernel side copies.
    pub capture: CaptureConfig,
    /// What may be done with prompts and completions.
    pub content: ContentConfig,
    /// Bounds of the pipeline.
    pub limits: LimitsConfig,
    /// When a stream stalls.
    pub stall: StallConfig,
    /// What is promised to clients.
    pub slo: Vec<Objective>,
    /// What is read of engines' own metrics.
    pub engines: EnginesConfig,
    /// How GPUs are read.
    pub gpu: GpuConfig,
    /// What is asked of Kubernetes.
    pub kubernetes: KubernetesConfig,
    /// What the cluster role is told.
    pub cluster: ClusterConfig,
    /// Where spans and log records go.
    pub otlp: OtlpConfig,
    /// What is kept on disk.
    pub store: StoreConfig,
    /// Which logs are read.
    pub logs: LogsConfig,
}

/// `api.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Bytes in which finished requests are remembered.
    pub recent: usize,
    /// File with the token by which `/api` answers to others than loopback peers; without one it does not.
    pub token_file: Option<PathBuf>,
    /// Whether `/api` answers to those whom the API server knows, about what they may see.
    pub kubernetes: bool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { recent: 32 << 20, token_file: None, kubernetes: false }
    }
}

/// `metrics.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsConfig {
    /// Upper bounds of histogram buckets.
    pub buckets: Buckets,
    /// Series of one container; what lies beyond goes to the model `other`.
    pub max_series_per_process: usize,
    /// Series of all containers.
    pub max_series: usize,
    /// How the workload labels are spelt.
    pub labels: LabelStyle,
    /// Which metrics are exported.
    pub profile: MetricsProfile,
    /// Whether they are for the same as `/api`, and not for everybody.
    pub guarded: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            buckets: Buckets::default(),
            max_series_per_process: 1500,
            max_series: 20_000,
            labels: LabelStyle::default(),
            profile: MetricsProfile::default(),
            guarded: false,
        }
    }
}

/// How the workload labels are spelt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelStyle {
    /// `namespace`, `pod`, `container`: for scrapes with `honorLabels: true`.
    #[default]
    Default,
    /// `k8s_namespace_name`, `k8s_pod_name`, `k8s_container_name`: survive a scrape without `honorLabels`.
    Otel,
}

/// Which metrics are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsProfile {
    /// What an operator looks at first.
    #[default]
    Default,
    /// Besides, when the response started, how long the request took to read, and the estimate of its wait.
    Full,
}

/// `capture.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Size of the ring buffer: a power of two, so a multiple of any page size up to its lower bound.
    pub ring_bytes: u32,
    /// Whether the arrival of request data at the socket is recorded.
    pub arrival: bool,
    /// Which processes may be observed.
    pub processes: ProcessScope,
}

/// `capture.processes.*`: which processes may be observed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessScope {
    /// Only these, unless empty.
    pub allow: Vec<String>,
    /// Never these; wins over `allow`.
    pub deny: Vec<String>,
}

impl ProcessScope {
    /// Whether a process of this name (as in `/proc/PID/comm`, at most 15 bytes) may be observed.
    pub fn admits(&self, comm: &str) -> bool {
        // The kernel keeps 15 bytes of a name; an operator writes the whole one.
        let names = |entry: &String| entry.as_bytes().iter().take(15).eq(comm.as_bytes().iter().take(15));
        !self.deny.iter().any(names) && (self.allow.is_empty() || self.allow.iter().any(names))
    }
}

/// `content.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentConfig {
    /// Whether `observer record --with-content` is permitted.
    pub allow_recording: bool,
}

/// `limits.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Connections that are followed at a time.
    pub connections: usize,
    /// Bytes that all connections together may hold while they are decoded.
    pub bytes: usize,
}

/// `stall.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallConfig {
    /// For how long any stream may be silent, however evenly it flowed until then.
    pub minimum: Duration,
}

/// `engines.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnginesConfig {
    /// Whether the agent reads the gauges of engines that it recognises, from their own endpoints.
    pub metrics: bool,
    /// Between two reads of one.
    pub interval: Duration,
}

impl StallConfig {
    /// The minimum as the core counts time.
    pub fn nanos(self) -> u64 {
        self.minimum.as_nanos() as u64
    }
}

impl Config {
    /// The defaults, on a node of this name.
    pub fn on_node(node: &str) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
            api: ApiConfig::default(),
            tls: TlsConfig::default(),
            node: node.to_owned(),
            log: LevelFilter::INFO,
            metrics: MetricsConfig::default(),
            capture: CaptureConfig {
                ring_bytes: 16 << 20,
                arrival: true,
                processes: ProcessScope::default(),
            },
            content: ContentConfig::default(),
            limits: LimitsConfig { connections: 16_384, bytes: 256 << 20 },
            stall: StallConfig { minimum: Duration::from_nanos(STALLS_AFTER) },
            slo: Vec::new(),
            engines: EnginesConfig { metrics: false, interval: Duration::from_secs(15) },
            gpu: GpuConfig::default(),
            kubernetes: KubernetesConfig::default(),
            cluster: ClusterConfig::default(),
            otlp: OtlpConfig::default(),
            store: StoreConfig::default(),
            logs: LogsConfig::default(),
        }
    }

    /// Reads file, environment and flags of this process, and resolves them.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or for the first value that is refused.
    pub fn load(cli: &Cli) -> Result<Self, ConfigError> {
        let file = match &cli.config {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|cause| ConfigError::Unreadable { path: path.clone(), cause })?;
                Some((path.as_path(), text))
            }
        };
        // A name or value that is not UTF-8 cannot be one of ours; lossy text is refused like any other.
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self::resolve(file.as_ref().map(|(path, text)| (*path, text.as_str())), environment, cli, &hostname)
    }

    /// Resolves what was typed. Reads nothing but its arguments.
    ///
    /// # Errors
    ///
    /// For the first value that is refused, in the order file, environment, flags.
    pub fn resolve(
        file: Option<(&Path, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
        cli: &Cli,
        hostname: &str,
    ) -> Result<Self, ConfigError> {
        let mut values: Vec<Typed> = match file {
            Some((path, text)) => typed::from_file(path, text, &fields::names())?,
            None => Vec::new(),
        };
        values.extend(typed::from_environment(environment, &fields::names()));
        values.extend(typed::from_flags(cli.settings()));

        let mut config = Self::on_node(hostname);
        for typed in values {
            fields::apply(&mut config, typed)?;
        }
        config.check()?;
        Ok(config)
    }

    /// How lines get to the cluster role that keeps them, if they do.
    pub fn to_cluster(&self) -> OtlpConfig {
        OtlpConfig {
            endpoint: self.logs.cluster.clone(),
            token_file: self.api.token_file.clone(),
            ca_file: self.tls.ca_file.clone(),
            cert_file: self.tls.cert_file.clone(),
            key_file: self.tls.key_file.clone(),
            traces: false,
            lines: true,
            insists: true,
            queue: self.otlp.queue,
            ..OtlpConfig::default()
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.metrics.max_series_per_process > self.metrics.max_series {
            return Err(ConfigError::Contradiction {
                field: "metrics.max_series_per_process",
                value: self.metrics.max_series_per_process.to_string(),
                other: "metrics.max_series",
                other_value: self.metrics.max_series.to_string(),
                remedy: "lower the first or raise the second",
            });
        }
        self.tls.check()?;
        tls::pair(["otlp.cert_file", "otlp.key_file"], [&self.otlp.cert_file, &self.otlp.key_file])?;
        if fields::node_name(&self.node).is_err() {
            return Err(ConfigError::NoNodeName { value: self.node.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
