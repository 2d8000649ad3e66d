//! A node of a cluster as tests need it: pods with real containers, and an agent that asks the fake API server.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{agent::Agent, apiserver::ApiServer, container::Container};

/// The node's name.
pub const NODE: &str = "node-a";

/// A pod of its own for each test, which run beside each other.
pub struct Place {
    /// Its uid.
    pub uid: String,
    /// Id of its container.
    pub id: String,
}

impl Place {
    /// Another one for each number.
    pub fn new(test: u8) -> Self {
        let number = u64::from(std::process::id()) << 8 | u64::from(test);
        Self { uid: format!("7d0b1f5e-3c1a-4a52-9f0e-{number:012x}"), id: format!("{number:064x}") }
    }

    /// As the systemd driver and containerd name it; runc makes it of cgroupfs, which reads the same from /proc.
    pub fn systemd(&self) -> String {
        let uid = self.uid.replace('-', "_");
        let slice = format!("kubepods-burstable-pod{uid}.slice");
        format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{}.scope", self.id)
    }

    /// As the cgroupfs driver names it.
    pub fn cgroupfs(&self) -> String {
        format!("/kubepods/burstable/pod{}/{}", self.uid, self.id)
    }

    /// A server of LLM requests in a container of this cgroup, and its port.
    pub fn server(&self, cgroup: &str) -> (Container, String) {
        let container = Container::script(
            &self.id[50..],
            cgroup,
            "openai_server.py",
            &["--events", "6", "--gap", "0.02"],
        );
        let port = container.first.clone();
        (container, port)
    }

    /// The pod as a kubelet tells it once its container runs.
    pub fn pod(&self, name: &str, annotations: &Value) -> Value {
        let now = jiff::Timestamp::now();
        let before = |seconds: i64| {
            let time = now.checked_sub(jiff::SignedDuration::from_secs(seconds)).expect("a time");
            time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": "ml", "name": name, "uid": self.uid, "creationTimestamp": before(40),
                "labels": {"app": "llama"}, "annotations": annotations,
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-5d", "uid": "r", "controller": true},
                ],
            },
            "spec": {
                "nodeName": NODE,
                "initContainers": [{"name": "fetch"}],
                "containers": [{
                    "name": "server",
                    "resources": {
                        "requests": {"cpu": "1500m", "memory": "2Gi", "nvidia.com/gpu": "1"},
                        "limits": {"cpu": "4", "memory": "4Gi", "nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": "2"},
                    },
                }],
            },
            "status": {
                "phase": "Running",
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": before(39)},
                    {"type": "Initialized", "status": "True", "lastTransitionTime": before(30)},
                    {"type": "Ready", "status": "True", "lastTransitionTime": before(5)},
                ],
                "initContainerStatuses": [{
                    "name": "fetch", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
                }],
                "containerStatuses": [{
                    "name": "server", "image": "", "imageID": "", "ready": true, "restartCount": 3,
                    "containerID": format!("containerd://{}", self.id),
                    "state": {"running": {"startedAt": before(20)}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": before(22)}},
                }],
            },
        })
    }
}

/// An API server, and an agent that asks it.
pub struct Cluster {
    /// The API server.
    pub api: ApiServer,
    folder: TempDir,
}

impl Cluster {
    /// With a Deployment `llama` whose ReplicaSet is `llama-5d`, and no pods.
    pub fn start() -> Self {
        let (api, folder) = (ApiServer::start(), tempfile::tempdir().expect("a folder"));
        api.kubeconfig(&folder.path().join("kubeconfig"));
        api.put(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"namespace": "ml", "name": "llama-5d", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama", "uid": "d", "controller": true},
            ]},
        }));
        Self { api, folder }
    }

    /// The kubelet's folder of pods' logs; not there yet.
    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs/pods")
    }

    /// An agent with these settings besides.
    pub fn agent(&self, settings: &[&str]) -> Agent {
        let kubeconfig = format!("kubernetes.kubeconfig={}", self.folder.path().join("kubeconfig").display());
        let logs = format!("kubernetes.pod_logs={}", self.logs().display());
        let mut args =
            vec!["--node", NODE, "--set", &kubeconfig, "--set", &logs, "--set", "metrics.profile=full"];
        for setting in settings {
            args.extend(["--set", setting]);
        }
        Agent::start(&args)
    }
}
