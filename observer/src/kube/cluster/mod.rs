//! What must be watched once per cluster: replicas, autoscalers, what bounds and offers resources, pods without a node,
//! and events.
//!
//! In: a connection, and the moment up to which somebody else did this. Out: [`Told`], a snapshot for the exporter, and each
//! event that occurs. Of every object only what is told is kept.

mod amounts;
mod autoscalers;
pub mod events;
mod lingering;
mod pending;
mod replicas;
mod scoped;
mod table;

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures_util::future::{FutureExt as _, LocalBoxFuture, join_all};
use k8s_openapi::api::core::v1 as core;
use kube::{
    Api, Resource,
    core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
    runtime::watcher::Config,
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::timeout};
use tracing::warn;

pub use amounts::{Capacity, Limits, Quota};
pub use autoscalers::{Autoscaler, BOUNDS};
pub use pending::Unscheduled;
pub use replicas::{Replicas, STATES};
pub use table::{Place, Table};

use self::{
    events::{Desk, Events, Ledger, Pulls, Tally, Tell},
    lingering::Lingering,
    pending::Pending,
    scoped::Scoped,
    table::Keeper,
};
use super::{
    Clocks,
    connect::{ConnectError, Connection},
    health::{Health, Snapshot},
    watch::keep,
};
use crate::config::PodScope;

/// What is watched, by plural names; pods twice: metadata of all, and whole those that do not run yet.
const RESOURCES: [&str; 12] = [
    "pods",
    "pods_pending",
    "events",
    "deployments",
    "statefulsets",
    "daemonsets",
    "replicasets",
    "leaderworkersets",
    "horizontalpodautoscalers",
    "resourcequotas",
    "limitranges",
    "nodes",
];

/// Pods that do not run yet, of which the creation is remembered, and for how long after they do. Not for longer, because
/// later their containers start again.
const STARTING: usize = 20_000;
/// See there.
const STARTED: u64 = 60_000_000_000;

/// Pods of which it is remembered whether they may be told of, and for how long after they are gone.
const PODS: usize = 200_000;
/// See there.
const GONE: u64 = 600_000_000_000;

/// How long events wait for the first list of pods.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of the cluster. Shared by who watches and who tells.
pub struct Cluster {
    deployments: Table<Replicas>,
    stateful_sets: Table<Replicas>,
    daemon_sets: Table<Replicas>,
    replica_sets: Table<Replicas>,
    leader_worker_sets: Table<Replicas>,
    autoscalers: Table<Autoscaler>,
    quotas: Table<Quota>,
    limits: Table<Limits>,
    nodes: Table<Capacity>,
    unscheduled: Table<Unscheduled>,
    births: Lingering<u64>,
    verdicts: Lingering<bool>,
    scope: Arc<PodScope>,
    ledger: Ledger,
    pulls: Pulls,
    tell: Tell,
    health: [Arc<Health>; RESOURCES.len()],
    wall: fn() -> u64,
}

/// What is told of the cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The moment, in nanoseconds of the wall clock.
    pub now: u64,
    /// By kind.
    pub replicas: Vec<(&'static str, Vec<(Place, Replicas)>)>,
    /// Autoscalers of pods.
    pub autoscalers: Vec<(Place, Autoscaler)>,
    /// Quotas of namespaces.
    pub quotas: Vec<(Place, Quota)>,
    /// Ranges for single containers, pods and volumes.
    pub limits: Vec<(Place, Limits)>,
    /// Nodes.
    pub nodes: Vec<(Place, Capacity)>,
    /// Pods without a node.
    pub unscheduled: Vec<(Place, Unscheduled)>,
    /// How often events came.
    pub events: Vec<(Tally, u64)>,
    /// Namespace, pod, container, and seconds from the pod's creation until the container's image was there.
    pub pulls: Vec<([String; 3], f64)>,
    /// What there was no room for, by what it would have been told of.
    pub refused: Vec<(&'static str, u64)>,
}

impl Cluster {
    /// Nothing is known yet, and nothing is told of what is not in `scope`. Events are counted apart by at most so many `tallies`, and passed on to `tell`.
    pub fn new(scope: PodScope, tallies: usize, tell: Tell, clocks: Clocks) -> Self {
        Self {
            deployments: Table::default(),
            stateful_sets: Table::default(),
            daemon_sets: Table::default(),
            replica_sets: Table::default(),
            leader_worker_sets: Table::default(),
            autoscalers: Table::default(),
            quotas: Table::default(),
            limits: Table::default(),
            nodes: Table::default(),
            unscheduled: Table::default(),
            births: Lingering::new(STARTING, STARTED, clocks.wall),
            verdicts: Lingering::new(PODS, GONE, clocks.wall),
            scope: Arc::new(scope),
            ledger: Ledger::new(tallies),
            pulls: Pulls::default(),
            tell,
            health: RESOURCES.map(|resource| Health::of(resource, clocks.monotonic)),
            wall: clocks.wall,
        }
    }

    /// Watches until it is dropped. Events that occurred until `mark`, in nanoseconds of the wall clock, were counted by
    /// whoever watched before.
    ///
    /// # Errors
    /// When no client can be made.
    pub async fn watch(&self, connection: &Connection, mark: u64) -> Result<(), ConnectError> {
        self.ledger.begin_term(mark);
        let [
            pods,
            pending,
            events,
            deployments,
            stateful_sets,
            daemon_sets,
            replica_sets,
            leader_worker_sets,
            autoscalers,
            quotas,
            limits,
            nodes,
        ] = &self.health;
        let groups: Api<DynamicObject> =
            Api::all_with(connection.client(leader_worker_sets)?, &leader_worker_set());
        let (synced, pods_synced) = watch::channel(false);
        let watches = vec![
            self.pods(connection, pods, synced)?,
            self.pending(connection, pending)?,
            self.events(connection, events, pods_synced)?,
            self.kind(connection, deployments, &self.deployments, |object| {
                Some(replicas::of_deployment(object))
            })?,
            self.kind(connection, stateful_sets, &self.stateful_sets, |object| {
                Some(replicas::of_stateful_set(object))
            })?,
            self.kind(connection, daemon_sets, &self.daemon_sets, replicas::of_daemon_set)?,
            self.kind(connection, replica_sets, &self.replica_sets, replicas::of_replica_set)?,
            self.rows(groups, leader_worker_sets, &self.leader_worker_sets, |object| {
                Some(replicas::of_leader_worker_set(object))
            }),
            self.kind(connection, autoscalers, &self.autoscalers, autoscalers::of)?,
            self.kind(connection, quotas, &self.quotas, |object| Some(amounts::of_quota(object)))?,
            self.kind(connection, limits, &self.limits, amounts::of_limit_range)?,
            self.kind(connection, nodes, &self.nodes, |object| Some(amounts::of_node(object)))?,
        ];
        join_all(watches).await;
        Ok(())
    }

    fn pods(
        &self,
        connection: &Connection,
        health: &Arc<Health>,
        synced: watch::Sender<bool>,
    ) -> Result<LocalBoxFuture<'static, ()>, ConnectError> {
        let api: Api<PartialObjectMeta<core::Pod>> = Api::all(connection.client(health)?);
        let health = Arc::clone(health);
        let mut keeper = Scoped { scope: Arc::clone(&self.scope), verdicts: self.verdicts.clone(), synced };
        Ok(async move { keep(api, Config::default(), health, &mut keeper).await }.boxed_local())
    }

    fn pending(
        &self,
        connection: &Connection,
        health: &Arc<Health>,
    ) -> Result<LocalBoxFuture<'static, ()>, ConnectError> {
        let api: Api<core::Pod> = Api::all(connection.client(health)?);
        let health = Arc::clone(health);
        let mut keeper = Pending {
            unscheduled: self.unscheduled.clone(),
            scope: Arc::clone(&self.scope),
            births: self.births.clone(),
        };
        let config = Config::default().fields("status.phase=Pending");
        Ok(async move { keep(api, config, health, &mut keeper).await }.boxed_local())
    }

    fn events<'a>(
        &'a self,
        connection: &Connection,
        health: &Arc<Health>,
        mut pods_synced: watch::Receiver<bool>,
    ) -> Result<LocalBoxFuture<'a, ()>, ConnectError> {
        let api: Api<core::Event> = Api::all(connection.client(health)?);
        let health = Arc::clone(health);
        Ok(async move {
            // What this gives keeps `synced` locked for as long as it is kept: it must not be.
            if timeout(PATIENCE, pods_synced.wait_for(|synced| *synced)).await.is_err() {
                warn!("pods are not known: whether events about them may be told is decided by kubernetes.unknown");
            }
            let desk = Desk {
                scope: &self.scope,
                verdicts: self.verdicts.clone(),
                births: self.births.clone(),
                ledger: &self.ledger,
                pulls: &self.pulls,
                tell: &self.tell,
            };
            let (mut keeper, later) = Events::new(&desk);
            tokio::join!(keep(api, Config::default(), health, &mut keeper), later);
        }
        .boxed_local())
    }

    fn kind<K, V>(
        &self,
        connection: &Connection,
        health: &Arc<Health>,
        table: &Table<V>,
        convert: fn(K) -> Option<V>,
    ) -> Result<LocalBoxFuture<'static, ()>, ConnectError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        V: Send + 'static,
    {
        Ok(self.rows(Api::all(connection.client(health)?), health, table, convert))
    }

    fn rows<K, V>(
        &self,
        api: Api<K>,
        health: &Arc<Health>,
        table: &Table<V>,
        convert: fn(K) -> Option<V>,
    ) -> LocalBoxFuture<'static, ()>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        V: Send + 'static,
    {
        let (health, scope) = (Arc::clone(health), Arc::clone(&self.scope));
        let mut keeper = Keeper { table: table.clone(), scope, convert };
        async move { keep(api, Config::default(), health, &mut keeper).await }.boxed_local()
    }

    /// Nothing is watched any more, so nothing is known but what was counted.
    pub fn clear(&self) {
        for table in [
            &self.deployments,
            &self.stateful_sets,
            &self.daemon_sets,
            &self.replica_sets,
            &self.leader_worker_sets,
        ] {
            table.clear();
        }
        self.autoscalers.clear();
        self.quotas.clear();
        self.limits.clear();
        self.nodes.clear();
        self.unscheduled.clear();
        self.births.clear();
        self.verdicts.clear();
        self.pulls.clear();
    }

    /// How far what is known can be trusted.
    pub fn health(&self) -> Vec<Snapshot> {
        self.health.iter().map(|health| health.snapshot()).collect()
    }

    /// What is told now.
    pub fn told(&self) -> Told {
        let replicas = self.replicas();
        let (events, events_refused) = self.ledger.counts();
        let (pulls, pulls_refused) = self.pulls.all();
        Told {
            now: (self.wall)(),
            autoscalers: self.autoscalers.rows(),
            quotas: self.quotas.rows(),
            limits: self.limits.rows(),
            nodes: self.nodes.rows(),
            unscheduled: self.unscheduled.rows(),
            events,
            pulls,
            refused: vec![
                ("llm_workload_replicas", replicas.iter().map(|(_, table)| table.refused()).sum()),
                ("llm_autoscaler_replicas", self.autoscalers.refused()),
                ("llm_resource_quota", self.quotas.refused()),
                ("llm_resource_limit_range", self.limits.refused()),
                ("llm_resource_node_allocatable", self.nodes.refused()),
                ("llm_pod_unscheduled_seconds", self.unscheduled.refused()),
                ("llm_events_total", events_refused),
                ("llm_container_start_phase_seconds", pulls_refused),
            ],
            replicas: replicas.into_iter().map(|(kind, table)| (kind, table.rows())).collect(),
        }
    }

    fn replicas(&self) -> [(&'static str, &Table<Replicas>); 5] {
        [
            ("Deployment", &self.deployments),
            ("StatefulSet", &self.stateful_sets),
            ("DaemonSet", &self.daemon_sets),
            ("ReplicaSet", &self.replica_sets),
            ("LeaderWorkerSet", &self.leader_worker_sets),
        ]
    }
}

fn leader_worker_set() -> ApiResource {
    let kind = GroupVersionKind::gvk("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet");
    ApiResource::from_gvk_with_plural(&kind, "leaderworkersets")
}
