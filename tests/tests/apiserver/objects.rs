//! What the builders make is what the typed client reads.

use futures_util::StreamExt as _;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::{CronJob, Job},
        coordination::v1::Lease,
        core::v1::{self, LimitRange, Namespace, Node, ResourceQuota},
        discovery::v1::EndpointSlice,
        events::v1 as events,
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use observer_tests::apiserver::{
    ApiServer,
    objects::{self, CREATED, Event, Pod, Replicas},
};

use super::client;

async fn only<K>(client: &Client) -> K
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut list = Api::<K>::all(client.clone()).list(&ListParams::default()).await.expect("a list");
    assert_eq!(list.items.len(), 1);
    list.items.remove(0)
}

#[tokio::test]
async fn pods() {
    let server = ApiServer::start();
    let client = client(&server);
    let at = "2026-01-05T08:00:05Z";
    let pod = Pod::new("ml", "vllm-0")
        .owner("ReplicaSet", "vllm-7d9c")
        .init("download", "busybox")
        .sidecar("proxy", "envoy")
        .container("server", "vllm/vllm-openai:v0.11.0")
        .resource("server", "nvidia.com/gpu", "1", "1")
        .resource("server", "nvidia.com/mig-1g.10gb", "2", "2")
        .resource("server", "cpu", "500m", "")
        .port("server", "http", 8000)
        .ephemeral("debugger", "busybox")
        .node("n1", at)
        .running(at);
    let first = pod.id("server");
    server.put(pod.clone());
    let read = only::<v1::Pod>(&client).await;
    assert_eq!(read.uid(), Some(objects::uid("Pod", "ml", "vllm-0")));
    assert!(!read.managed_fields().is_empty());
    let owner = &read.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.clone()),
        ("ReplicaSet", objects::uid("ReplicaSet", "ml", "vllm-7d9c"))
    );
    let (spec, status) = (read.spec.expect("a spec"), read.status.expect("a status"));
    assert_eq!(spec.node_name.as_deref(), Some("n1"));
    let resources = spec.containers[0].resources.clone().expect("resources");
    assert_eq!(resources.limits.expect("limits")["nvidia.com/mig-1g.10gb"].0, "2");
    assert_eq!(resources.requests.expect("requests")["cpu"].0, "500m");
    let server_status = &status.container_statuses.expect("statuses")[0];
    assert_eq!(server_status.container_id, Some(first.clone()));
    assert!(first.strip_prefix("containerd://").is_some_and(|id| id.len() == 64));
    let inits = status.init_container_statuses.expect("statuses");
    let ended = |index: usize| inits[index].state.as_ref().expect("a state").terminated.is_some();
    assert_eq!((ended(0), ended(1)), (true, false), "the sidecar goes on");
    assert_eq!(status.ephemeral_container_statuses.expect("statuses")[0].name, "debugger");
    let ready =
        status.conditions.expect("conditions").into_iter().find(|condition| condition.type_ == "Ready");
    assert_eq!(ready.expect("a condition").status, "True");

    let again = pod.terminated("server", "OOMKilled", 137, at).restarted("server", at).waiting(
        "server",
        "CrashLoopBackOff",
        "back-off 40s",
    );
    assert_ne!(again.id("server"), first, "a restarted container is another");
    server.put(again);
    let status = only::<v1::Pod>(&client).await.status.expect("a status");
    let server_status = &status.container_statuses.expect("statuses")[0];
    let last =
        server_status.last_state.as_ref().and_then(|state| state.terminated.clone()).expect("the last state");
    assert_eq!(
        (last.reason.as_deref(), last.exit_code, server_status.restart_count),
        (Some("OOMKilled"), 137, 1)
    );
    let waiting = server_status.state.as_ref().and_then(|state| state.waiting.clone()).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
}

#[tokio::test]
async fn mirror_pods_and_unscheduled_ones() {
    let server = ApiServer::start();
    let client = client(&server);
    server.put(Pod::new("kube-system", "etcd-n1").container("etcd", "etcd").mirror("n1", "0a1b"));
    let mirror = only::<v1::Pod>(&client).await;
    assert_eq!(mirror.annotations()["kubernetes.io/config.hash"], "0a1b");
    assert_eq!(mirror.owner_references()[0].kind, "Node");
    server.delete("pods", "kube-system", "etcd-n1");
    server.put(
        Pod::new("ml", "big")
            .container("server", "x")
            .unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", CREATED),
    );
    let waits = only::<v1::Pod>(&client).await.status.expect("a status");
    let condition = &waits.conditions.expect("conditions")[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_deref()),
        ("PodScheduled", Some("Unschedulable"))
    );
}

#[tokio::test]
async fn workloads_and_what_bounds_them() {
    let server = ApiServer::start();
    let client = client(&server);
    let replicas = Replicas { desired: 3, current: 2, ready: 1, available: 1, updated: 2 };
    server.put(objects::deployment("ml", "vllm", replicas));
    server.put(objects::replica_set("ml", "vllm-7d9c", "vllm", replicas));
    server.put(objects::stateful_set("ml", "db", replicas));
    server.put(objects::daemon_set("ml", "agent", replicas));
    server.put(objects::owned_by(objects::job("ml", "run-1"), "CronJob", "run"));
    server.put(objects::cron_job("ml", "run"));
    server.put(objects::autoscaler("ml", "vllm", ("Deployment", "vllm"), (1, 4), 2, 4));
    server.put(objects::resource_quota("ml", "gpus", &[("requests.nvidia.com/gpu", "8", "6")]));
    server.put(objects::limit_range(
        "ml",
        "limits",
        &[("Container", "max", "memory", "64Gi"), ("Container", "default", "memory", "8Gi")],
    ));
    server.put(objects::node("n1", &[("nvidia.com/gpu", "8")]));
    server.put(objects::namespace("ml"));
    server.put(objects::lease("o", "observer-cluster", "a", 15));
    server.put(objects::endpoint_slice(
        "o",
        "observer-agent",
        9842,
        &[("10.1.0.7", "n1", "observer-agent-x", true)],
    ));

    let status = only::<Deployment>(&client).await.status.expect("a status");
    assert_eq!(
        (status.replicas, status.ready_replicas, status.unavailable_replicas),
        (Some(2), Some(1), Some(2))
    );
    let set = only::<ReplicaSet>(&client).await;
    assert_eq!(
        (set.owner_references()[0].kind.clone(), set.status.expect("a status").replicas),
        ("Deployment".to_owned(), 2)
    );
    assert_eq!(only::<StatefulSet>(&client).await.status.expect("a status").updated_replicas, Some(2));
    assert_eq!(only::<DaemonSet>(&client).await.status.expect("a status").desired_number_scheduled, 3);
    assert_eq!(
        only::<Job>(&client).await.owner_references()[0].uid,
        only::<CronJob>(&client).await.uid().expect("a uid")
    );
    let scaler = only::<HorizontalPodAutoscaler>(&client).await;
    let limited = scaler
        .status
        .expect("a status")
        .conditions
        .expect("conditions")
        .into_iter()
        .find(|c| c.type_ == "ScalingLimited");
    assert_eq!((scaler.spec.max_replicas, limited.expect("a condition").status.as_str()), (4, "True"));
    let quota = only::<ResourceQuota>(&client).await.status.expect("a status");
    assert_eq!(quota.used.expect("used")["requests.nvidia.com/gpu"].0, "6");
    let limits = only::<LimitRange>(&client).await.spec.expect("a spec").limits;
    assert_eq!((limits.len(), limits[0].max.as_ref().expect("max")["memory"].0.as_str()), (1, "64Gi"));
    assert_eq!(only::<Node>(&client).await.status.expect("a status").allocatable.expect("allocatable")["nvidia.com/gpu"].0, "8");
    assert_eq!(only::<Namespace>(&client).await.name_any(), "ml");
    assert!(only::<Lease>(&client).await.spec.expect("a spec").renew_time.is_some());
    let slice = only::<EndpointSlice>(&client).await;
    assert_eq!(slice.endpoints.expect("endpoints")[0].node_name.as_deref(), Some("n1"));
}

#[tokio::test]
async fn an_event_is_one_in_both_groups() {
    let server = ApiServer::start();
    let client = client(&server);
    let newer = Api::<events::Event>::all(client.clone());
    let mut watch =
        newer.watch(&WatchParams::default(), &server.version().to_string()).await.expect("a watch").boxed();
    let about = ("Pod", "ml", "vllm-0");
    server.put(
        Event::new(about, "BackOff", "Back-off restarting failed container")
            .warning()
            .container("server")
            .count(3, "2026-01-05T08:10:00Z"),
    );
    let core = only::<v1::Event>(&client).await;
    let shown = only::<events::Event>(&client).await;
    assert_eq!(
        (core.count, core.reason.as_deref(), core.type_.as_deref()),
        (Some(3), Some("BackOff"), Some("Warning"))
    );
    assert_eq!(core.involved_object.field_path.as_deref(), Some("spec.containers{server}"));
    assert_eq!(
        (shown.deprecated_count, shown.note.clone(), shown.uid()),
        (Some(3), core.message.clone(), core.uid())
    );
    assert_eq!(
        shown.regarding.clone().and_then(|about| about.uid),
        Some(objects::uid("Pod", "ml", "vllm-0"))
    );
    let watched = watch.next().await.expect("an event").expect("no error");
    assert!(matches!(watched, WatchEvent::Added(event) if event.note == shown.note));

    // Written by the newer recorder through the newer group, it is the same object in the other.
    let at = "2026-01-05T08:00:05.000000Z";
    let series = Event::new(about, "BackOff", "Back-off restarting failed container").series(
        "Backoff",
        at,
        5,
        "2026-01-05T08:20:00.000000Z",
    );
    server.put(series);
    let shown = only::<events::Event>(&client).await;
    assert_eq!((shown.series.clone().map(|series| series.count), shown.deprecated_count), (Some(5), None));
    let mut changed = shown.clone();
    changed.series.as_mut().expect("a series").count = 6;
    let by_name = Api::<events::Event>::namespaced(client.clone(), "ml");
    by_name.replace(&shown.name_any(), &kube::api::PostParams::default(), &changed).await.expect("replaced");
    assert_eq!(only::<v1::Event>(&client).await.series.expect("a series").count, Some(6));
    let of_pod = ListParams::default().fields("regarding.name=vllm-0,regarding.kind=Pod,type!=Warning");
    assert_eq!(newer.list(&of_pod).await.expect("a list").items.len(), 1);
    let of_pod = ListParams::default().fields("involvedObject.name=other");
    assert_eq!(Api::<v1::Event>::all(client).list(&of_pod).await.expect("a list").items.len(), 0);
}
