//! `gpu.*`: whether and how GPUs are read.

use std::{path::PathBuf, time::Duration};

/// `gpu.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuConfig {
    /// Whether they are looked for.
    pub enabled: bool,
    /// The driver's library, if it is not to be looked for.
    pub library: Option<PathBuf>,
    /// Between two rounds of readings.
    pub interval: Duration,
    /// The socket of the kubelet's pod-resources API.
    pub pod_resources: PathBuf,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            library: None,
            interval: Duration::from_secs(1),
            pod_resources: PathBuf::from("/var/lib/kubelet/pod-resources/kubelet.sock"),
        }
    }
}
