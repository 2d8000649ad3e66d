//! Pods of this node, as far as they were told: the vocabulary, and the look-up from a container to its pod.
//!
//! In: pods, as whoever watches the API server learns of them. Out: whose a container is, and what is to be said
//! of pods. No IO, no clock: moments come in, as nanoseconds of the wall clock unless said otherwise.

mod changes;
mod index;
mod starts;

use std::{collections::BTreeMap, sync::Arc};

pub use changes::{Change, Gravity, changes};
pub use index::{Found, Pods};
pub use starts::Starts;

/// What manages pods, by kind and name, such as Deployment `llama`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// Kind as Kubernetes spells it.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Where a pod is in its life (core/v1 `PodPhase`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Accepted, not all containers run yet.
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well and stay ended.
    Succeeded,
    /// All containers ended, at least one of them badly.
    Failed,
    /// Not told, or its node is not heard of.
    #[default]
    Unknown,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Succeeded, Self::Failed, Self::Unknown];

    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// From Kubernetes' word for it.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word).unwrap_or_default()
    }
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: names are used again, uids are not.
    pub uid: String,
    /// Hash of a static pod's manifest, which cgroups and log folders carry in place of the uid.
    pub static_hash: Option<String>,
    /// The node that it was assigned to.
    pub node: String,
    /// Its controller, as the pod itself says.
    pub owner: Option<Workload>,
    /// What an operator would say manages it: the controller's own controller, where there is one.
    pub workload: Option<Workload>,
    /// What groups it with other pods that serve the same requests: a `LeaderWorkerSet`'s group, a Ray cluster.
    pub group: Option<String>,
    /// Whether its processes may be observed.
    pub in_scope: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// Why the pod as a whole is where it is, such as `Evicted`.
    pub reason: Option<String>,
    /// Whether its condition Ready is true.
    pub ready: bool,
    /// When it was created.
    pub created: Option<u64>,
    /// When a node was found for it.
    pub scheduled: Option<u64>,
    /// When its init containers were done.
    pub initialized: Option<u64>,
    /// Since when it is ready.
    pub became_ready: Option<u64>,
    /// When it was asked to go.
    pub deleted: Option<u64>,
    /// Its containers, init and ephemeral ones included.
    pub containers: Vec<Container>,
}

/// What kind of container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// Runs as long as the pod does.
    #[default]
    Main,
    /// Runs before the others do, or beside them if it restarts always.
    Init,
    /// Was added to look at the others.
    Ephemeral,
}

/// One container of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What kind.
    pub kind: ContainerKind,
    /// Its id, 64 hex digits, once there is one.
    pub id: Option<String>,
    /// Id of the one before the last restart.
    pub previous_id: Option<String>,
    /// What it does now.
    pub state: State,
    /// How its last life ended.
    pub last: Option<Termination>,
    /// How often the kubelet started it again.
    pub restarts: u64,
    /// Whether its probes say it is ready.
    pub ready: bool,
    /// What it asks for, in base units: cores, bytes, devices.
    pub requests: BTreeMap<String, f64>,
    /// What it may use at most, in the same units.
    pub limits: BTreeMap<String, f64>,
}

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// It has no status yet.
    #[default]
    Unknown,
    /// It does not run yet, or not again.
    Waiting {
        /// Such as `CrashLoopBackOff` or `ImagePullBackOff`.
        reason: String,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Option<u64>,
    },
    /// It ended.
    Terminated(Termination),
}

/// How a container's life ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Termination {
    /// Such as `Completed`, `Error` or `OOMKilled`.
    pub reason: String,
    /// Its exit code.
    pub exit_code: i32,
    /// When.
    pub finished: Option<u64>,
}

/// What a container uses, as far as its cgroup tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time since it began, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Time that it was kept off the processors by its limit, in seconds.
    pub throttled_seconds: Option<f64>,
    /// Bytes in use, page cache included.
    pub memory: Option<u64>,
    /// The same without the file cache that can be dropped at once.
    pub working_set: Option<u64>,
}

/// What is told of pods at one moment.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The moment.
    pub now: u64,
    /// The pods that are told of.
    pub pods: Vec<Arc<Pod>>,
    /// How their containers came to serve.
    pub starts: Starts,
    /// What containers use, by namespace, pod and container.
    pub usage: Vec<([String; 3], Usage)>,
}

impl Container {
    /// When it was started, if it runs.
    pub fn started(&self) -> Option<u64> {
        match self.state {
            State::Running { since } => since,
            State::Unknown | State::Waiting { .. } | State::Terminated(_) => None,
        }
    }
}
