//! Pods.

use serde_json::{Value, json};

use super::{CREATED, container_id, managed, metadata, owner};

/// A pod that is built up: pending and on no node until it is said otherwise.
#[derive(Clone, Debug)]
pub struct Pod {
    value: Value,
}

/// Where the containers of a kind stand in `spec`, and their states in `status`.
const LISTS: [(&str, &str); 3] = [
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
];

impl Pod {
    /// A pod that was just created.
    pub fn new(namespace: &str, name: &str) -> Self {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata("Pod", namespace, name),
            "spec": {
                "containers": [],
                "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default", "serviceAccount": "default", "securityContext": {},
                "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
                "preemptionPolicy": "PreemptLowerPriority",
                "tolerations": [
                    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
            },
            "status": {"phase": "Pending", "qosClass": "BestEffort"}
        });
        Self { value }
    }

    /// Another incarnation of the same name.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.value["metadata"]["uid"] = json!(uid);
        self
    }

    /// When it was created.
    #[must_use]
    pub fn created(mut self, at: &str) -> Self {
        self.value["metadata"]["creationTimestamp"] = json!(at);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["labels"][key] = json!(value);
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["annotations"][key] = json!(value);
        self
    }

    /// The controller that it belongs to, in its namespace.
    #[must_use]
    pub fn owner(mut self, kind: &str, name: &str) -> Self {
        let namespace = self.value["metadata"]["namespace"].as_str().unwrap_or_default();
        self.value["metadata"]["ownerReferences"] = json!([owner(kind, namespace, name)]);
        self
    }

    /// Makes it the mirror of a static pod of a node: its uid in the kernel's paths is `hash`, not that of
    /// the server.
    #[must_use]
    pub fn mirror(self, node: &str, hash: &str) -> Self {
        let owned = self
            .annotation("kubernetes.io/config.hash", hash)
            .annotation("kubernetes.io/config.mirror", hash)
            .annotation("kubernetes.io/config.seen", CREATED)
            .annotation("kubernetes.io/config.source", "file")
            .owner("Node", node);
        owned.node(node, CREATED)
    }

    /// Adds a container, not started.
    #[must_use]
    pub fn container(self, name: &str, image: &str) -> Self {
        self.add(1, name, image)
    }

    /// Adds an init container, not started.
    #[must_use]
    pub fn init(self, name: &str, image: &str) -> Self {
        self.add(0, name, image)
    }

    /// Adds a sidecar: an init container that goes on.
    #[must_use]
    pub fn sidecar(self, name: &str, image: &str) -> Self {
        let mut pod = self.add(0, name, image);
        pod.spec(name)["restartPolicy"] = json!("Always");
        pod
    }

    /// Adds an ephemeral container, as `kubectl debug` does.
    #[must_use]
    pub fn ephemeral(self, name: &str, image: &str) -> Self {
        self.add(2, name, image)
    }

    fn add(mut self, list: usize, name: &str, image: &str) -> Self {
        let container = json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "kube-api-access", "readOnly": true,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]});
        let status = json!({"name": name, "image": image, "imageID": "", "ready": false, "started": false,
            "restartCount": 0, "lastState": {},
            "state": {"waiting": {"reason": if list == 0 { "PodInitializing" } else { "ContainerCreating" }}}});
        let (spec, statuses) = LISTS[list];
        push(&mut self.value["spec"][spec], container);
        push(&mut self.value["status"][statuses], status);
        self
    }

    /// What a container requests and is limited to: `("nvidia.com/gpu", "1", "1")`; empty for neither.
    #[must_use]
    pub fn resource(mut self, container: &str, resource: &str, request: &str, limit: &str) -> Self {
        for (kind, quantity) in [("requests", request), ("limits", limit)] {
            if !quantity.is_empty() {
                self.spec(container)["resources"][kind][resource] = json!(quantity);
                self.status(container)["resources"][kind][resource] = json!(quantity);
            }
        }
        self.value["status"]["qosClass"] = json!("Burstable");
        self
    }

    /// A port that a container declares.
    #[must_use]
    pub fn port(mut self, container: &str, name: &str, port: u16) -> Self {
        push(
            &mut self.spec(container)["ports"],
            json!({"name": name, "containerPort": port, "protocol": "TCP"}),
        );
        self
    }

    /// Binds it to a node.
    #[must_use]
    pub fn node(self, node: &str, at: &str) -> Self {
        let mut pod = self.condition("PodScheduled", true, at, "", "");
        pod.value["spec"]["nodeName"] = json!(node);
        pod.value["status"]["startTime"] = json!(at);
        pod.value["status"]["hostIP"] = json!("10.0.0.1");
        pod.value["status"]["hostIPs"] = json!([{"ip": "10.0.0.1"}]);
        pod
    }

    /// What the scheduler says while it finds no node.
    #[must_use]
    pub fn unschedulable(self, message: &str, at: &str) -> Self {
        self.condition("PodScheduled", false, at, "Unschedulable", message)
    }

    /// Sets a condition, with reason and message where they are not empty.
    #[must_use]
    pub fn condition(mut self, kind: &str, met: bool, at: &str, reason: &str, message: &str) -> Self {
        let mut condition = json!({"type": kind, "status": if met { "True" } else { "False" }, "lastProbeTime": null,
            "lastTransitionTime": at});
        for (name, text) in [("reason", reason), ("message", message)] {
            if !text.is_empty() {
                condition[name] = json!(text);
            }
        }
        let conditions = &mut self.value["status"]["conditions"];
        match conditions.as_array_mut().and_then(|all| all.iter_mut().find(|one| one["type"] == kind)) {
            Some(there) => *there = condition,
            None => push(conditions, condition),
        }
        self
    }

    /// Runs and is ready since a time: init containers have completed, sidecars and containers run.
    #[must_use]
    pub fn running(mut self, since: &str) -> Self {
        for container in self.names("initContainers") {
            let goes_on = self.spec(&container)["restartPolicy"] == "Always";
            self = if goes_on {
                self.started(&container, since)
            } else {
                self.terminated(&container, "Completed", 0, since)
            };
        }
        for container in self.names("containers") {
            self = self.started(&container, since);
        }
        self.value["status"]["podIP"] = json!("10.1.0.7");
        self.value["status"]["podIPs"] = json!([{"ip": "10.1.0.7"}]);
        self.phase("Running")
            .condition("PodReadyToStartContainers", true, since, "", "")
            .condition("Initialized", true, since, "", "")
            .condition("ContainersReady", true, since, "", "")
            .condition("Ready", true, since, "", "")
    }

    /// A container runs and is ready since a time.
    #[must_use]
    pub fn started(mut self, container: &str, since: &str) -> Self {
        let id = self.id(container);
        let status = self.status(container);
        status["containerID"] = json!(id);
        status["imageID"] = json!(format!("sha256:{}", container_id("", container, 0)));
        status["ready"] = json!(true);
        status["started"] = json!(true);
        status["state"] = json!({"running": {"startedAt": since}});
        self
    }

    /// A container runs and is not ready.
    #[must_use]
    pub fn unready(mut self, container: &str, at: &str) -> Self {
        self.status(container)["ready"] = json!(false);
        let message = format!("containers with unready status: [{container}]");
        self.condition("ContainersReady", false, at, "ContainersNotReady", &message).condition(
            "Ready",
            false,
            at,
            "ContainersNotReady",
            &message,
        )
    }

    /// A container waits: `ContainerCreating`, `CrashLoopBackOff`, `ImagePullBackOff`, …
    #[must_use]
    pub fn waiting(mut self, container: &str, reason: &str, message: &str) -> Self {
        let status = self.status(container);
        status["ready"] = json!(false);
        status["started"] = json!(false);
        status["state"] = json!({"waiting": {"reason": reason, "message": message}});
        self
    }

    /// A container has ended: `Completed`, `Error`, `OOMKilled`, …
    #[must_use]
    pub fn terminated(mut self, container: &str, reason: &str, exit_code: i32, at: &str) -> Self {
        let id = self.id(container);
        let status = self.status(container);
        let started = status["state"]["running"]["startedAt"].as_str().unwrap_or(at).to_owned();
        status["containerID"] = json!(id);
        status["ready"] = json!(exit_code == 0);
        status["started"] = json!(false);
        status["state"] = json!({"terminated": {"reason": reason, "exitCode": exit_code, "startedAt": started,
            "finishedAt": at, "containerID": id}});
        self
    }

    /// A container that has ended is started once more: what it was is its last state, its id is new.
    #[must_use]
    pub fn restarted(mut self, container: &str, since: &str) -> Self {
        let status = self.status(container);
        assert!(status["state"]["terminated"].is_object(), "{container} has not ended");
        status["lastState"] = status["state"].take();
        status["restartCount"] = json!(status["restartCount"].as_u64().unwrap_or(0) + 1);
        self.started(container, since)
    }

    /// Sets the phase.
    #[must_use]
    pub fn phase(mut self, phase: &str) -> Self {
        self.value["status"]["phase"] = json!(phase);
        self
    }

    /// Is being deleted: since a time, with 30 s of grace before it.
    #[must_use]
    pub fn terminating(mut self, deadline: &str) -> Self {
        self.value["metadata"]["deletionTimestamp"] = json!(deadline);
        self.value["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        self
    }

    /// The id of a container as the kubelet tells it.
    pub fn id(&self, container: &str) -> String {
        let restarts = LISTS.iter().find_map(|(_, statuses)| {
            let status =
                self.value["status"][statuses].as_array()?.iter().find(|one| one["name"] == container)?;
            status["restartCount"].as_u64()
        });
        let uid = self.value["metadata"]["uid"].as_str().unwrap_or_default();
        format!("containerd://{}", container_id(uid, container, restarts.expect("a container") as u32))
    }

    fn names(&self, list: &str) -> Vec<String> {
        let names = self.value["spec"][list].as_array().into_iter().flatten();
        names.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
    }

    fn spec(&mut self, container: &str) -> &mut Value {
        named(&mut self.value["spec"], container, LISTS.map(|(spec, _)| spec))
    }

    fn status(&mut self, container: &str) -> &mut Value {
        named(&mut self.value["status"], container, LISTS.map(|(_, status)| status))
    }
}

impl From<Pod> for Value {
    fn from(pod: Pod) -> Self {
        let mut value = pod.value;
        let parts = [("kube-controller-manager", "spec"), ("kubelet", "status")];
        value["metadata"]["managedFields"] =
            parts.map(|(who, part)| managed(&value, who, part)).to_vec().into();
        value
    }
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().expect("a list").push(item);
}

fn named<'a>(part: &'a mut Value, name: &str, lists: [&str; 3]) -> &'a mut Value {
    let list = lists
        .into_iter()
        .find(|list| part[*list].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == name)))
        .unwrap_or_else(|| panic!("no container {name}"));
    part[list].as_array_mut().into_iter().flatten().find(|one| one["name"] == name).expect("found before")
}
