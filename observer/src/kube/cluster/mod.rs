//! What must be watched once per cluster: replicas, autoscalers, what bounds and offers resources, pods without a node,
//! and events.
//!
//! In: a connection, and the moment up to which somebody else did this. Out: [`Told`], a snapshot for the exporter, and each
//! event that occurs. Of every object only what is told is kept.

mod amounts;
mod autoscalers;
mod births;
pub mod events;
mod pending;
mod replicas;
mod table;

use std::sync::Arc;

use futures_util::future::{FutureExt as _, LocalBoxFuture, join_all};
use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, core::v1 as core};
use kube::{
    Api, Resource,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::Config,
};
use serde::de::DeserializeOwned;

pub use amounts::{Capacity, Limits, Quota};
pub use autoscalers::{Autoscaler, BOUNDS};
pub use pending::Unscheduled;
pub use replicas::{Replicas, STATES};
pub use table::{Place, Table};

use self::{
    births::Births,
    events::{Events, Ledger, Pulls, Tally, Tell},
    pending::Pending,
    table::Keeper,
};
use super::{
    Clocks,
    connect::{ConnectError, Connection},
    health::{Health, Snapshot},
    watch::keep,
};

/// What is watched, by plural names.
const RESOURCES: [&str; 11] = [
    "pods",
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
    births: Births,
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
    /// Nothing is known yet. Events are counted apart by at most so many `tallies`, and passed on to `tell`.
    pub fn new(tallies: usize, tell: Tell, clocks: Clocks) -> Self {
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
            births: Births::new(clocks.wall),
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
            events,
            deployments,
            stateful,
            daemons,
            replica_sets,
            groups,
            autoscalers,
            quotas,
            limits,
            nodes,
        ] = &self.health;
        let leader_worker_sets = leader_worker_sets();
        let groups_api: Api<DynamicObject> = Api::all_with(connection.client(groups)?, &leader_worker_sets);
        let watches = vec![
            self.pending(connection, pods)?,
            self.events(connection, events)?,
            of_kind(connection, deployments, &self.deployments, |object| {
                Some(replicas::of_deployment(object))
            })?,
            of_kind(connection, stateful, &self.stateful_sets, |object| {
                Some(replicas::of_stateful_set(object))
            })?,
            of_kind(connection, daemons, &self.daemon_sets, replicas::of_daemon_set)?,
            of_kind(connection, replica_sets, &self.replica_sets, replicas::of_replica_set)?,
            rows(groups_api, groups, &self.leader_worker_sets, |object| {
                Some(replicas::of_leader_worker_set(object))
            }),
            of_kind::<HorizontalPodAutoscaler, _>(
                connection,
                autoscalers,
                &self.autoscalers,
                autoscalers::of,
            )?,
            of_kind(connection, quotas, &self.quotas, |object| Some(amounts::of_quota(object)))?,
            of_kind(connection, limits, &self.limits, amounts::of_limit_range)?,
            of_kind(connection, nodes, &self.nodes, |object| Some(amounts::of_node(object)))?,
        ];
        join_all(watches).await;
        Ok(())
    }

    fn pending<'a>(
        &'a self,
        connection: &Connection,
        health: &Arc<Health>,
    ) -> Result<LocalBoxFuture<'a, ()>, ConnectError> {
        let api: Api<core::Pod> = Api::all(connection.client(health)?);
        let health = Arc::clone(health);
        let mut keeper = Pending { unscheduled: self.unscheduled.clone(), births: self.births.clone() };
        let config = Config::default().fields("status.phase=Pending");
        Ok(async move { keep(api, config, health, &mut keeper).await }.boxed_local())
    }

    fn events<'a>(
        &'a self,
        connection: &Connection,
        health: &Arc<Health>,
    ) -> Result<LocalBoxFuture<'a, ()>, ConnectError> {
        let api: Api<core::Event> = Api::all(connection.client(health)?);
        let health = Arc::clone(health);
        let mut keeper = Events {
            ledger: &self.ledger,
            pulls: &self.pulls,
            births: self.births.clone(),
            tell: &self.tell,
        };
        Ok(async move { keep(api, Config::default(), health, &mut keeper).await }.boxed_local())
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

fn leader_worker_sets() -> ApiResource {
    let kind = GroupVersionKind::gvk("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet");
    ApiResource::from_gvk_with_plural(&kind, "leaderworkersets")
}

fn of_kind<K, V>(
    connection: &Connection,
    health: &Arc<Health>,
    table: &Table<V>,
    convert: fn(K) -> Option<V>,
) -> Result<LocalBoxFuture<'static, ()>, ConnectError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    V: Send + 'static,
{
    Ok(rows(Api::all(connection.client(health)?), health, table, convert))
}

fn rows<K, V>(
    api: Api<K>,
    health: &Arc<Health>,
    table: &Table<V>,
    convert: fn(K) -> Option<V>,
) -> LocalBoxFuture<'static, ()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    V: Send + 'static,
{
    let (health, mut keeper) = (Arc::clone(health), Keeper { table: table.clone(), convert });
    async move { keep(api, Config::default(), health, &mut keeper).await }.boxed_local()
}
