//! What GPUs did while an exchange went on. Filled in beside the core, as its owner is.

use serde::{Deserialize, Serialize};

/// How it is known that a request used a GPU, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsedBy {
    /// A process of the server's container, or of its systemd unit, has a context on it.
    Container,
    /// A descendant or an ancestor of the server has.
    ProcessTree,
    /// Another container of the server's pod has.
    Pod,
    /// Another pod of the server's group on this node has: a `LeaderWorkerSet`'s group, a Ray cluster.
    PodGroup,
    /// No process is seen on it; the kubelet allocated it to the server's container, or else to its pod.
    PodResources,
}

/// Mean, weighted by time, and highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Highest.
    pub max: f64,
}

/// One GPU during one part of a request. All that runs on the GPU is in it, not only this request. Absent is what was
/// not told for all of that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuWindow {
    /// Share of time in which at least one kernel ran, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization: Option<Spread>,
    /// Share of multiprocessors that had work, 0 to 1; Hopper and later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm_active: Option<Spread>,
    /// Bytes of memory in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Spread>,
    /// Watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<Spread>,
}

impl GpuWindow {
    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A GPU that a request used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuUse {
    /// The device's UUID, `GPU-…`.
    #[serde(rename = "UUID")]
    pub uuid: String,
    /// The MIG instance's UUID, `MIG-…`: utilisation and memory are its, power and energy the device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How that is known.
    pub by: UsedBy,
    /// From the first byte of the request until the engine began with the prompt; if the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<GpuWindow>,
    /// From there, else from the last byte of the request, to the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<GpuWindow>,
    /// From the first token to the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<GpuWindow>,
    /// From the first byte of the request to the last of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<GpuWindow>,
    /// Energy of the device that is apportioned to this request, joules: requests in flight share it by their tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apportioned_joules: Option<f64>,
    /// Time of the device that is, by the same shares, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apportioned_seconds: Option<f64>,
}
