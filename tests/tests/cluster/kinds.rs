//! Every kind of thing that is watched, on /metrics.

use std::time::Duration;

use observer_tests::{
    agent::wait_for,
    apiserver::{
        LEADER_WORKER_SETS,
        objects::{self, Pod, Replicas, ago},
    },
};
use rustix::process::Signal;
use serde_json::json;

use crate::{World, wait_for_value, within};

const COUNTS: Replicas = Replicas { desired: 5, current: 4, ready: 3, available: 2, updated: 1 };

/// The series of one object, without the empty pod and container.
fn assert_series(text: &str, name: &str, labels: &[(&str, &str)], value: f64) {
    let metrics = observer_tests::agent::Metrics(text.to_owned());
    let labels = [labels, &[("pod", ""), ("container", "")]].concat();
    assert_eq!(metrics.value(name, &labels), Some(value), "{name} {labels:?}\n{text}");
}

#[test]
fn replicas_of_every_kind() {
    let world = World::start();
    world.api.install(LEADER_WORKER_SETS);
    world.api.put(objects::deployment("ml", "d", COUNTS));
    world.api.put(objects::stateful_set("ml", "s", COUNTS));
    world.api.put(objects::daemon_set("ml", "n", COUNTS));
    world.api.put(objects::replica_set("ml", "d-1", "d", COUNTS));
    world.api.put(objects::owned_by(objects::replica_set("ml", "r", "", COUNTS), "Rollout", "x"));
    world.api.put(objects::leader_worker_set("ml", "g", 4, COUNTS));
    let replica = world.replica(&[]);
    wait_for_value(&replica, "llm_workload_replicas", &[("workload", "g"), ("state", "desired")], 5.0);
    let metrics = wait_for("the others", || {
        let metrics = replica.metrics();
        (metrics.sum("llm_workload_replicas", &[("state", "desired")]) == Some(25)).then_some(metrics)
    });
    let all = [("desired", 5.0), ("current", 4.0), ("ready", 3.0), ("available", 2.0), ("updated", 1.0)];
    for (kind, name, absent) in [
        ("Deployment", "d", ""),
        ("StatefulSet", "s", ""),
        ("DaemonSet", "n", ""),
        ("ReplicaSet", "r", "updated"),
        ("LeaderWorkerSet", "g", "available"),
    ] {
        for (state, value) in all {
            let labels = [("namespace", "ml"), ("workload_kind", kind), ("workload", name), ("state", state)];
            if state == absent {
                assert_eq!(metrics.value("llm_workload_replicas", &labels), None, "{labels:?}");
            } else {
                assert_series(&metrics.0, "llm_workload_replicas", &labels, value);
            }
        }
    }
    assert_eq!(metrics.sum("llm_workload_replicas", &[("workload", "d-1")]), None, "its Deployment tells it");
    metrics.assert_lint();

    // Scaled to nothing, which a server leaves out, and gone.
    world.api.put(objects::deployment("ml", "d", Replicas::default()));
    world.api.delete("statefulsets", "ml", "s");
    wait_for_value(&replica, "llm_workload_replicas", &[("workload", "d"), ("state", "available")], 0.0);
    wait_for("the end of the StatefulSet", || {
        replica.metrics().sum("llm_workload_replicas", &[("workload", "s")]).is_none().then_some(())
    });
    replica.end(Signal::TERM).assert_prompt("SIGTERM");
}

#[test]
fn a_resource_whose_crd_comes_later_is_picked_up() {
    let world = World::start();
    world.api.put(objects::deployment("ml", "d", COUNTS));
    let replica = world.replica(&[]);
    wait_for_value(&replica, "llm_workload_replicas", &[("workload", "d"), ("state", "desired")], 5.0);
    let missing = [("resource", "leaderworkersets"), ("reason", "not_found")];
    wait_for_value(&replica, "observer_kube_watch_errors_total", &missing, 1.0);
    world.api.install(LEADER_WORKER_SETS);
    world.api.put(objects::leader_worker_set("ml", "g", 4, COUNTS));
    within(Duration::from_secs(40), "the LeaderWorkerSet", || {
        replica.metrics().value("llm_workload_replicas", &[("workload", "g"), ("state", "desired")])
    });
    // It goes away again with its objects.
    world.api.uninstall("leaderworkersets");
    within(Duration::from_secs(40), "the end of it", || {
        replica.metrics().sum("llm_workload_replicas", &[("workload", "g")]).is_none().then_some(())
    });
    let log = replica.end(Signal::TERM).log;
    assert!(!log.contains("WARN"), "a CRD that is not there is no trouble: {log}");
}

#[test]
fn autoscalers_quotas_ranges_and_nodes() {
    let world = World::start();
    world.api.put(objects::autoscaler("ml", "a", ("Deployment", "d"), (2, 8), 3, 8));
    let quota = [("requests.nvidia.com/gpu", "16", "12"), ("limits.memory", "1Ti", "512Gi")];
    world.api.put(objects::resource_quota("ml", "q", &quota));
    let limits =
        [("Container", "max", "nvidia.com/gpu", "2"), ("Container", "defaultRequest", "cpu", "500m")];
    world.api.put(objects::limit_range("ml", "l", &limits));
    world.api.put(objects::node(
        "n1",
        &[("nvidia.com/gpu", "8"), ("nvidia.com/mig-1g.10gb", "7"), ("cpu", "15800m")],
    ));
    let mut sick = objects::node("n2", &[]);
    sick["status"]["conditions"][3]["status"] = json!("Unknown");
    sick["spec"]["unschedulable"] = json!(true);
    world.api.put(sick);
    let replica = world.replica(&[]);
    wait_for("all of them", || {
        let metrics = replica.metrics();
        let names = [
            "llm_autoscaler_replicas",
            "llm_resource_quota",
            "llm_resource_limit_range",
            "llm_node_condition",
        ];
        names.iter().all(|name| metrics.0.contains(&format!("\n{name}{{"))).then_some(())
    });
    let metrics = replica.metrics();
    let scaled =
        [("namespace", "ml"), ("autoscaler", "a"), ("workload_kind", "Deployment"), ("workload", "d")];
    for (bound, value) in [("min", 2.0), ("max", 8.0), ("current", 3.0), ("desired", 8.0)] {
        assert_series(
            &metrics.0,
            "llm_autoscaler_replicas",
            &[&scaled[..], &[("bound", bound)]].concat(),
            value,
        );
    }
    let limited = [("autoscaler", "a"), ("condition", "ScalingLimited"), ("status", "True")];
    assert_series(&metrics.0, "llm_autoscaler_condition", &limited, 1.0);
    for (resource, kind, value) in [
        ("requests.nvidia.com/gpu", "hard", 16.0),
        ("requests.nvidia.com/gpu", "used", 12.0),
        ("limits.memory", "hard", 1_099_511_627_776.0),
        ("limits.memory", "used", 549_755_813_888.0),
    ] {
        let labels = [("namespace", "ml"), ("resourcequota", "q"), ("resource", resource), ("type", kind)];
        assert_series(&metrics.0, "llm_resource_quota", &labels, value);
    }
    for (constraint, resource, value) in [("max", "nvidia.com/gpu", 2.0), ("defaultRequest", "cpu", 0.5)] {
        let labels =
            [("limitrange", "l"), ("type", "Container"), ("constraint", constraint), ("resource", resource)];
        assert_series(&metrics.0, "llm_resource_limit_range", &labels, value);
    }
    for (resource, unit, value) in [
        ("cpu", "core", 15.8),
        ("memory", "byte", 134_966_345_728.0),
        ("pods", "integer", 110.0),
        ("nvidia.com/gpu", "integer", 8.0),
        ("nvidia.com/mig-1g.10gb", "integer", 7.0),
    ] {
        let labels = [("node", "n1"), ("resource", resource), ("unit", unit), ("namespace", "")];
        assert_series(&metrics.0, "llm_resource_node_allocatable", &labels, value);
    }
    assert_eq!(metrics.sum("llm_node_condition", &[("node", "n1")]), None);
    assert_series(
        &metrics.0,
        "llm_node_condition",
        &[("node", "n2"), ("condition", "Ready"), ("status", "Unknown")],
        1.0,
    );
    assert_series(&metrics.0, "llm_node_condition", &[("node", "n2"), ("condition", "Unschedulable")], 1.0);
    metrics.assert_lint();
}

#[test]
fn pods_without_a_node_and_what_stands_in_their_way() {
    let world = World::start();
    let pod =
        |name: &str| Pod::new("ml", name).container("server", "vllm").created(&ago(Duration::from_mins(5)));
    let full = "0/101 nodes are available: 1 Insufficient nvidia.com/gpu, 100 node(s) didn't match Pod's node \
                affinity/selector. preemption: 0/101 nodes are available: 1 No preemption victims found for incoming pod.";
    world.api.put(pod("waits").unschedulable(full, &ago(Duration::from_mins(4))));
    world.api.put(pod("new"));
    world.api.put(pod("pulls").node("n1", &ago(Duration::from_mins(4))));
    world.api.put(pod("runs").node("n1", &ago(Duration::from_mins(4))).running(&ago(Duration::from_mins(1))));
    let replica = world.replica(&[]);
    let metrics = wait_for("both", || {
        let metrics = replica.metrics();
        (metrics.0.matches("\nllm_pod_unscheduled_seconds{").count() == 2).then_some(metrics)
    });
    for (name, reason) in [("waits", "insufficient_gpu"), ("new", "not_tried")] {
        let labels = [("namespace", "ml"), ("pod", name), ("container", ""), ("reason", reason)];
        let seconds = metrics.value("llm_pod_unscheduled_seconds", &labels).expect("a pod that waits");
        assert!((300.0..330.0).contains(&seconds), "{name}: {seconds}");
    }
    // Of pods that run only metadata is asked for.
    for seen in world.api.requests().iter().filter(|seen| seen.request.is_for("pods")) {
        let request = &seen.request;
        assert!(request.metadata_only || request.field_selector() == "status.phase=Pending", "{request:?}");
    }
    let objects = |resource: &str| metrics.value("observer_kube_objects", &[("resource", resource)]);
    assert_eq!((objects("pods"), objects("pods_pending")), (Some(4.0), Some(3.0)));
    // One finds a node, one is deleted.
    world.api.put(pod("waits").node("n1", &ago(Duration::ZERO)));
    world.api.delete("pods", "ml", "new");
    wait_for("none that waits", || {
        (!replica.metrics().0.contains("llm_pod_unscheduled_seconds{")).then_some(())
    });
}

#[test]
fn labels_as_opentelemetry_spells_them() {
    let world = World::start();
    world.api.put(objects::deployment("ml", "d", COUNTS));
    world.api.put(Pod::new("ml", "new").container("server", "vllm"));
    let replica = world.replica(&["metrics.labels=otel"]);
    let labels =
        [("k8s_namespace_name", "ml"), ("k8s_pod_name", ""), ("k8s_container_name", ""), ("workload", "d")];
    wait_for_value(&replica, "llm_workload_replicas", &[&labels[..], &[("state", "ready")]].concat(), 3.0);
    wait_for("the pod", || {
        let labels = [("k8s_pod_name", "new"), ("k8s_container_name", "")];
        replica.metrics().value("llm_pod_unscheduled_seconds", &labels)
    });
}

#[test]
fn objects_with_missing_fields_are_told_as_far_as_they_go() {
    let world = World::start();
    world.api.install(LEADER_WORKER_SETS);
    let bare = |version: &str, kind: &str, name: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": "ml", "name": name}});
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("v1", "ResourceQuota"),
        ("v1", "LimitRange"),
        ("v1", "Pod"),
        ("v1", "Event"),
        ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
    ] {
        world.api.put(bare(version, kind, "bare"));
    }
    world.api.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bare"}}));
    world.api.put(objects::leader_worker_set("ml", "z", 2, COUNTS));
    world.api.put(objects::deployment("ml", "z", COUNTS));
    world.api.put(objects::node("z", &[]));
    let replica = world.replica(&[]);
    for kind in ["Deployment", "LeaderWorkerSet"] {
        let labels = [("workload_kind", kind), ("workload", "z"), ("state", "ready")];
        wait_for_value(&replica, "llm_workload_replicas", &labels, 3.0);
    }
    let metrics = wait_for_value(
        &replica,
        "llm_resource_node_allocatable",
        &[("node", "z"), ("resource", "cpu")],
        16.0,
    );
    let bare = [("workload_kind", "Deployment"), ("workload", "bare")];
    assert_eq!(
        metrics.sum("llm_workload_replicas", &bare),
        Some(1),
        "one is desired unless it is said otherwise"
    );
    assert!(!metrics.0.contains("reason=\"other\""), "{}", metrics.0);
}

#[test]
fn series_have_a_bound_and_what_is_left_out_is_counted() {
    let world = World::start();
    for number in 0..50 {
        world.api.put(objects::deployment("ml", &format!("d{number}"), COUNTS));
    }
    let replica = world.replica(&["metrics.max_series=100", "metrics.max_series_per_process=100"]);
    let left_out = [("metric", "llm_workload_replicas")];
    wait_for("what is left out", || {
        replica.metrics().value("observer_series_limited_total", &left_out).filter(|count| *count >= 150.0)
    });
    let told = replica.metrics();
    assert_eq!(told.0.lines().filter(|line| line.starts_with("llm_")).count(), 100);
}

#[test]
fn what_is_not_in_scope_is_not_told() {
    let world = World::start();
    for namespace in ["ml", "ml-secret", "web"] {
        world.api.put(objects::deployment(namespace, "d", COUNTS));
        world.api.put(objects::resource_quota(namespace, "q", &[("pods", "10", "1")]));
        world.api.put(objects::autoscaler(namespace, "a", ("Deployment", "d"), (2, 8), 3, 8));
        world.api.put(objects::limit_range(namespace, "l", &[("Pod", "max", "cpu", "2")]));
        world.api.put(Pod::new(namespace, "waits").label("app", "vllm").container("server", "vllm"));
    }
    world.api.put(Pod::new("ml", "other").label("app", "web").container("server", "nginx"));
    let out = Pod::new("ml", "out").label("app", "vllm").annotation("llm-observer/observe", "false");
    world.api.put(out.container("server", "vllm"));
    world.api.put(objects::node("n1", &[]));
    let settings = [
        "kubernetes.namespaces.include=ml*",
        "kubernetes.namespaces.exclude=*-secret",
        "kubernetes.selector=app=vllm",
    ];
    let replica = world.replica(&settings);
    let metrics = wait_for("what is in scope", || {
        let metrics = replica.metrics();
        let families = [
            "llm_workload_replicas",
            "llm_resource_quota",
            "llm_pod_unscheduled_seconds",
            "llm_autoscaler_condition",
            "llm_resource_limit_range",
            "llm_resource_node_allocatable",
        ];
        families.iter().all(|family| metrics.0.contains(&format!("\n{family}{{"))).then_some(metrics)
    });
    let told: Vec<_> =
        metrics.0.lines().filter(|line| line.starts_with("llm_") && !line.contains("node=")).collect();
    assert!(told.iter().all(|line| line.contains("namespace=\"ml\"")), "{told:#?}");
    let waiting = metrics.0.lines().filter(|line| line.starts_with("llm_pod_unscheduled_seconds{")).count();
    assert_eq!(waiting, 1, "{}", metrics.0);
}
