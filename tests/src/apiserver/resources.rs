//! The resources that the fake serves: those of a real server that are asked for, and what a test installs.

/// A resource as discovery names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version of the group.
    pub version: &'static str,
    /// The name in paths and rules.
    pub plural: &'static str,
    /// Kind of its objects.
    pub kind: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Defined by a CRD: items of its lists bear kind and version, those of the others do not.
    pub custom: bool,
}

/// Where objects are stored: group and plural. Resources that show the same objects share one.
pub(super) type Collection = (&'static str, &'static str);

impl Resource {
    const fn namespaced(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self { group, version, plural, kind, namespaced: true, custom: false }
    }

    const fn cluster_wide(version: &'static str, plural: &'static str, kind: &'static str) -> Self {
        Self { group: "", version, plural, kind, namespaced: false, custom: false }
    }

    /// Group and version as objects bear them.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The name in messages of errors: `leases.coordination.k8s.io`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether a name as kubectl takes it (`pods`, `events.events.k8s.io`) means this resource.
    pub fn is_named(&self, name: &str) -> bool {
        name == self.plural || name == self.qualified()
    }

    pub(super) fn collection(&self) -> Collection {
        match (self.group, self.plural) {
            // Both groups show the same objects (kubernetes: pkg/registry/events/rest/storage_events.go).
            ("events.k8s.io", plural) => ("", plural),
            stored => stored,
        }
    }
}

/// `LeaderWorkerSet`: served only after [`super::ApiServer::install`], as on a cluster with its CRD.
pub const LEADER_WORKER_SETS: Resource = Resource {
    group: "leaderworkerset.x-k8s.io",
    version: "v1",
    plural: "leaderworkersets",
    kind: "LeaderWorkerSet",
    namespaced: true,
    custom: true,
};

/// What every server has.
pub(super) const BUILT_IN: [Resource; 17] = [
    Resource::namespaced("", "v1", "pods", "Pod"),
    Resource::cluster_wide("v1", "nodes", "Node"),
    Resource::cluster_wide("v1", "namespaces", "Namespace"),
    Resource::namespaced("", "v1", "services", "Service"),
    Resource::namespaced("", "v1", "events", "Event"),
    Resource::namespaced("", "v1", "resourcequotas", "ResourceQuota"),
    Resource::namespaced("", "v1", "limitranges", "LimitRange"),
    Resource::namespaced("apps", "v1", "deployments", "Deployment"),
    Resource::namespaced("apps", "v1", "statefulsets", "StatefulSet"),
    Resource::namespaced("apps", "v1", "daemonsets", "DaemonSet"),
    Resource::namespaced("apps", "v1", "replicasets", "ReplicaSet"),
    Resource::namespaced("batch", "v1", "jobs", "Job"),
    Resource::namespaced("batch", "v1", "cronjobs", "CronJob"),
    Resource::namespaced("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource::namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Resource::namespaced("events.k8s.io", "v1", "events", "Event"),
];
