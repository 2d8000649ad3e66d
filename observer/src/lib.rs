//! An eBPF observer for LLM inference.
//!
//! The rooms in the order of the road; each imports only rooms before it. See ARCHITECTURE.md.

/// Flags, environment and file → one resolved configuration.
pub mod config;

/// Rim in: probes, ring, maps.
pub mod kernel;

/// One socket, one byte stream per direction, with explicit gaps.
pub mod connection;

/// HTTP messages of a stream.
pub mod http;

/// Recordings of raw records, with content masked.
pub mod recording;

/// Event streams, lines of JSON, JSON: framing only.
pub mod body;

/// What LLM APIs say.
pub mod llm;

/// Requests and their responses become observations.
pub mod exchange;

/// The core in one piece.
pub mod pipeline;

/// Pods and their containers.
pub mod pods;

/// GPUs: what was read of them, and what that says about requests.
pub mod gpus;

/// Processes and containers.
pub mod discover;

/// Rim in: the Kubernetes API.
pub mod kube;

/// Rim in: NVML, and the kubelet's allocations.
pub mod gpu;

/// Whose an observation is.
pub mod enrich;

/// What engines say of themselves.
pub mod engines;

/// How long requests waited, where no one tells.
pub mod estimate;

/// Whether requests were served as promised.
pub mod slo;

/// What happened, in one order: requests, lines of logs, events.
pub mod timeline;
pub mod tls;

/// What containers write becomes rows.
pub mod lines;

/// Requests that ended lately.
pub mod recent;

/// Why a request was slow, or failed.
pub mod explain;
/// Rim in: files of logs.
pub mod logs;

/// What happened, on disk.
pub mod store;

/// The observer about itself.
pub mod telemetry;

/// Probes, core and discovery, turned by one thread.
pub mod capture;

/// Rim out: Prometheus.
pub mod export;

/// Rim out: HTTP.
pub mod serve;

/// Questions to other nodes.
pub mod fleet;

/// What is missing for a role.
pub mod doctor;

/// Wires the rooms together: one node.
pub mod agent;

/// Wires the rooms together: what must be watched once per cluster.
pub mod cluster;

/// Recordings through the core.
pub mod replay;

/// Rim out: the terminal.
pub mod cli;
