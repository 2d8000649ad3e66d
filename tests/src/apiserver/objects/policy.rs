//! Nodes, and what bounds, names and coordinates.

use serde_json::{Value, json};

use super::{metadata, micro_ago};

/// A `Node` that is ready, with what can be allocated there: `[("cpu", "15800m"), ("nvidia.com/gpu", "8")]`.
pub fn node(name: &str, allocatable: &[(&str, &str)]) -> Value {
    let condition = |kind: &str, met: bool, reason: &str| {
        json!({"type": kind, "status": if met { "True" } else { "False" }, "reason": reason, "message": "",
            "lastHeartbeatTime": super::CREATED, "lastTransitionTime": super::CREATED})
    };
    let mut meta = metadata("Node", "", name);
    meta["labels"] =
        json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": meta,
        "spec": {"podCIDR": "10.1.0.0/24", "providerID": format!("kind://docker/kind/{name}")},
        "status": {
            "capacity": {"cpu": "16", "memory": "131905472Ki", "pods": "110", "ephemeral-storage": "129003516Ki"},
            "allocatable": {"cpu": "16", "memory": "131803072Ki", "pods": "110", "ephemeral-storage": "118889640103"},
            "conditions": [
                condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
                condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
                condition("PIDPressure", false, "KubeletHasSufficientPID"),
                condition("Ready", true, "KubeletReady")],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {"kubeletVersion": "v1.34.1", "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.0", "osImage": "Debian GNU/Linux 13 (trixie)", "operatingSystem": "linux", "architecture": "amd64",
                "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": ""}}});
    for (resource, quantity) in allocatable {
        node["status"]["allocatable"][*resource] = json!(quantity);
        node["status"]["capacity"][*resource] = json!(quantity);
    }
    node
}

/// A `Namespace`.
pub fn namespace(name: &str) -> Value {
    let mut meta = metadata("Namespace", "", name);
    meta["labels"] = json!({"kubernetes.io/metadata.name": name});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta, "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"}})
}

/// A `ResourceQuota`: resource, hard limit, used.
pub fn resource_quota(namespace: &str, name: &str, resources: &[(&str, &str, &str)]) -> Value {
    let mut quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": metadata("ResourceQuota", namespace, name), "spec": {"hard": {}}, "status": {"hard": {}, "used": {}}});
    for (resource, hard, used) in resources {
        quota["spec"]["hard"][*resource] = json!(hard);
        quota["status"]["hard"][*resource] = json!(hard);
        quota["status"]["used"][*resource] = json!(used);
    }
    quota
}

/// A `LimitRange`: type (`Container`, `Pod`), constraint (`max`, `min`, `default`, `defaultRequest`),
/// resource, quantity.
pub fn limit_range(namespace: &str, name: &str, limits: &[(&str, &str, &str, &str)]) -> Value {
    let mut items: Vec<Value> = Vec::new();
    for (kind, constraint, resource, quantity) in limits {
        let at = items.iter().position(|item| item["type"] == *kind).unwrap_or_else(|| {
            items.push(json!({"type": kind}));
            items.len() - 1
        });
        items[at][*constraint][*resource] = json!(quantity);
    }
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata("LimitRange", namespace, name),
        "spec": {"limits": items}})
}

/// A `Lease` that somebody holds and just renewed.
pub fn lease(namespace: &str, name: &str, holder: &str, seconds: u32) -> Value {
    let now = micro_ago(std::time::Duration::ZERO);
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata("Lease", namespace, name),
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "acquireTime": now, "renewTime": now,
            "leaseTransitions": 1}})
}

/// An `EndpointSlice` of a service: address, node, pod and whether it is ready, of each endpoint.
pub fn endpoint_slice(
    namespace: &str,
    service: &str,
    port: u16,
    endpoints: &[(&str, &str, &str, bool)],
) -> Value {
    let name = format!("{service}-x7k2p");
    let mut meta = metadata("EndpointSlice", namespace, &name);
    meta["labels"] = json!({"kubernetes.io/service-name": service, "service.kubernetes.io/headless": "",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
    let endpoint = |(address, node, pod, ready): &(&str, &str, &str, bool)| {
        json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready, "serving": ready, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod, "uid": super::uid("Pod", namespace, pod)}})
    };
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
        "endpoints": endpoints, "ports": [{"name": "http", "port": port, "protocol": "TCP"}]})
}
