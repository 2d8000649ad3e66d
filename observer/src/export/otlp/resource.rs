//! Whose something is, as resource attributes (OpenTelemetry: resource conventions for k8s, service, host, process).

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::attribute::Attributes;
use crate::exchange::RequestRecord;
use crate::pods::Workload;

/// What manages pods, and the attribute with its name.
pub(super) const WORKLOADS: [(&str, &str); 6] = [
    ("Deployment", "k8s.deployment.name"),
    ("StatefulSet", "k8s.statefulset.name"),
    ("DaemonSet", "k8s.daemonset.name"),
    ("ReplicaSet", "k8s.replicaset.name"),
    ("Job", "k8s.job.name"),
    ("CronJob", "k8s.cronjob.name"),
];

/// What a span or log record is about. Empty: not known, or not applicable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct About {
    /// Node.
    pub node: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Its uid.
    pub pod_uid: String,
    /// Container, or what stands for it outside Kubernetes.
    pub container: String,
    /// Process id.
    pub pid: u32,
    /// Process name.
    pub process: String,
    /// What manages the pod.
    pub workload: Workload,
}

/// What is known of a pod beside its names: its uid and what manages it.
pub type PodKnown = (String, Option<Workload>);

impl About {
    /// Who served a request.
    pub fn of(record: &RequestRecord, pod: Option<PodKnown>) -> Self {
        let (pod_uid, workload) = pod.unwrap_or_default();
        Self {
            node: record.node.clone(),
            namespace: record.namespace.clone(),
            pod: record.pod.clone(),
            pod_uid,
            container: record.container.clone(),
            pid: record.pid,
            process: record.process.clone(),
            workload: workload.unwrap_or_default(),
        }
    }

    /// The service that this is: what manages the pod, else what the container or the process is called.
    fn service(&self) -> &str {
        [&self.workload.name, &self.container, &self.process]
            .into_iter()
            .find(|name| !name.is_empty())
            .map_or("unknown_service", String::as_str)
    }

    pub(super) fn resource(&self) -> Resource {
        let mut attributes = Attributes::default();
        let in_kubernetes = !self.namespace.is_empty();
        attributes.text("service.name", self.service());
        if in_kubernetes {
            attributes.text("service.namespace", &self.namespace);
            attributes.text("k8s.namespace.name", &self.namespace);
            attributes.text("k8s.pod.name", &self.pod);
            attributes.text("k8s.pod.uid", &self.pod_uid);
            attributes.text("k8s.container.name", &self.container);
            attributes.text("k8s.node.name", &self.node);
            if let Some((_, name)) = WORKLOADS.into_iter().find(|(kind, _)| *kind == self.workload.kind) {
                attributes.text(name, &self.workload.name);
            }
        }
        attributes.text("host.name", &self.node);
        attributes.text("process.executable.name", &self.process);
        attributes.count("process.pid", (self.pid > 0).then_some(u64::from(self.pid)));
        Resource { attributes: attributes.0, ..Resource::default() }
    }
}
