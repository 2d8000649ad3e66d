//! `kubernetes.*`: whether and how the API server is asked, and which pods are observed and told of. `cluster.*`: what
//! `observer cluster` needs beside.

use std::path::PathBuf;

use super::scope::PodScope;

/// `kubernetes.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesConfig {
    /// Whether the API server is asked.
    pub mode: KubernetesMode,
    /// How to reach it; without it as pods do.
    pub kubeconfig: Option<PathBuf>,
    /// Which pods are told of.
    pub pods: PodsTold,
    /// The kubelet's folder of pods' logs.
    pub pod_logs: PathBuf,
    /// Which pods are observed.
    pub scope: PodScope,
}

/// Whether the API server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KubernetesMode {
    /// If this runs in a pod, or a kubeconfig is named.
    #[default]
    Auto,
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Which pods are told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodsTold {
    /// Those of which a request was seen.
    #[default]
    Serving,
    /// All of the node.
    All,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            mode: KubernetesMode::Auto,
            kubeconfig: None,
            pods: PodsTold::Serving,
            pod_logs: PathBuf::from("/var/log/pods"),
            scope: PodScope::default(),
        }
    }
}

/// `cluster.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The Lease by which replicas agree on a leader.
    pub lease: String,
    /// Where that is, and the agents; without it the namespace of this pod, or of the kubeconfig's context.
    pub namespace: Option<String>,
    /// The headless Service of the agents.
    pub agents: String,
    /// Whether lines of logs that agents send are kept.
    pub logs: bool,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            lease: "observer-cluster".to_owned(),
            namespace: None,
            agents: "observer-agent".to_owned(),
            logs: false,
        }
    }
}
