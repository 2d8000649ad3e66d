//! The pods of a node, kept up to date through everything that an API server does: no probes, no privileges.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use observer::{
    capture::{monotonic, wall},
    config::{KubernetesConfig, KubernetesMode, PodScope, Selector},
    kube::{Connection, Health, Snapshot, TellChange, watch_node},
    pods::{ContainerKind, Phase, Pod, Pods, State, Workload},
};
use observer_tests::{
    agent::wait_for,
    apiserver::{
        ApiServer, Fault,
        objects::{self, Replicas},
    },
};
use serde_json::json;
use tempfile::TempDir;

const NODE: &str = "node-a";
const AT: &str = "2026-01-05T08:00:07Z";

/// An API server, and the watch of one node as the agent runs it.
struct Watched {
    api: ApiServer,
    pods: Arc<Mutex<Pods>>,
    health: [Arc<Health>; 2],
    /// What was told to have happened: pod, reason, message.
    told: Arc<Mutex<Vec<[String; 3]>>>,
    _folder: TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Watched {
    fn start(scope: PodScope) -> Self {
        let (api, folder) = (ApiServer::start(), tempfile::tempdir().expect("a folder"));
        let kubeconfig = folder.path().join("kubeconfig");
        let token = folder.path().join("token");
        std::fs::write(&token, observer_tests::apiserver::TOKEN).expect("a token");
        api.kubeconfig_with(&kubeconfig, &json!({"tokenFile": token}));
        let pods = Arc::<Mutex<Pods>>::default();
        let health = ["pods", "owners"].map(|resource| Health::of(resource, monotonic));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (shared, of) = (Arc::clone(&pods), health.clone());
        let told = Arc::<Mutex<Vec<[String; 3]>>>::default();
        let into = Arc::clone(&told);
        let tell: TellChange = Arc::new(move |pod, change| {
            into.lock().expect("changes").push([pod.name.clone(), change.reason, change.message]);
        });
        let settings = KubernetesConfig {
            mode: KubernetesMode::On,
            kubeconfig: Some(kubeconfig),
            ..KubernetesConfig::default()
        };
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let connection = Connection::find(&settings).await.expect("settings").expect("a connection");
                tokio::select! {
                    ended = watch_node(&connection, NODE, scope, (shared, tell), of, wall) => ended.expect("a client"),
                    _ = stopped => {}
                }
            });
        });
        let watched = Self { api, pods, health, told, _folder: folder, stop: Some(stop) };
        wait_for("the first list", || watched.look(Pods::is_synced).then_some(()));
        watched
    }

    fn look<T>(&self, look: impl FnOnce(&Pods) -> T) -> T {
        look(&self.pods.lock().expect("pods"))
    }

    /// The pod of this name once it is as it should be.
    fn pod(&self, name: &str, is: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        wait_for(name, || self.look(|pods| pods.iter().find(|pod| pod.name == name && is(pod)).cloned()))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.look(|pods| pods.iter().map(|pod| pod.name.clone()).collect());
        names.sort();
        names
    }

    /// Reasons that were told of a pod, in that order.
    fn told(&self, name: &str) -> Vec<String> {
        let told = self.told.lock().expect("changes");
        told.iter().filter(|[pod, ..]| pod == name).map(|[_, reason, _]| reason.clone()).collect()
    }

    fn health(&self) -> Snapshot {
        self.health[0].snapshot()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

fn running(name: &str) -> objects::Pod {
    objects::Pod::new("ml", name).container("server", "vllm").node(NODE, AT).running(AT)
}

fn workload(kind: &str, name: &str) -> Workload {
    Workload { kind: kind.to_owned(), name: name.to_owned() }
}

#[test]
fn what_happens_to_a_pod_is_told_once_whatever_the_api_server_does() {
    let mut watched = Watched::start(PodScope::default());
    watched.api.put(running("llama"));
    watched.pod("llama", |pod| pod.ready);
    assert_eq!(watched.told("llama"), ["Scheduled", "Ready", "Started"]);
    let ended = running("llama").terminated("server", "OOMKilled", 137, AT).unready("server", AT);
    watched.api.put(ended.clone());
    watched.pod("llama", |pod| !pod.ready);
    assert_eq!(watched.told("llama")[3..], ["NotReady", "OOMKilled"]);
    watched.api.put(ended.restarted("server", AT));
    watched.pod("llama", |pod| pod.containers[0].restarts == 1);
    assert_eq!(watched.told("llama")[5..6], ["restart"]);
    let [_, _, said] = watched.told.lock().expect("changes")[5].clone();
    assert!(said.ends_with("it had ended: OOMKilled, exit code 137, signal 9"), "{said}");
    // Forgotten, and listed again as it was.
    let before = watched.told("llama");
    let lists = watched.health().lists;
    watched.api.stop();
    watched.api.put(running("other"));
    watched.api.compact();
    watched.api.restart();
    wait_for("another list", || (watched.health().lists > lists).then_some(()));
    watched.pod("other", |pod| pod.ready);
    assert_eq!(watched.told("llama"), before);
    // Of one that may not be told of nothing is.
    watched.api.put(running("secret").annotation("llm-observer/observe", "false"));
    watched.pod("secret", |pod| pod.ready);
    assert!(watched.told("secret").is_empty());
}

#[test]
fn every_state_of_a_pod() {
    let watched = Watched::start(PodScope::default());
    let put = |pod: objects::Pod| watched.api.put(pod);
    let of = |name: &str| watched.pod(name, |_| true);

    let full = running("full")
        .init("fetch", "curl")
        .sidecar("proxy", "envoy")
        .resource("server", "cpu", "1500m", "2")
        .resource("server", "nvidia.com/gpu", "1", "1")
        .running(AT);
    let id = full.id("server").trim_start_matches("containerd://").to_owned();
    put(full);
    let full = of("full");
    assert_eq!((full.phase, full.ready), (Phase::Running, true));
    assert!(
        full.created < full.scheduled && full.scheduled.is_some() && full.became_ready.is_some(),
        "{full:?}"
    );
    let container = |pod: &Pod, name: &str| {
        pod.containers.iter().find(|container| container.name == name).expect("a container").clone()
    };
    let server = container(&full, "server");
    assert_eq!((server.id.as_deref(), server.kind), (Some(id.as_str()), ContainerKind::Main));
    assert_eq!((server.requests["cpu"], server.limits["nvidia.com/gpu"]), (1.5, 1.0));
    assert!(matches!(server.state, State::Running { since: Some(_) }));
    assert_eq!(container(&full, "fetch").kind, ContainerKind::Init);
    assert!(watched.look(|pods| pods.find(Some(&id), None)).is_some());

    put(running("looping")
        .terminated("server", "Error", 1, AT)
        .restarted("server", AT)
        .unready("server", AT)
        .waiting("server", "CrashLoopBackOff", "back-off"));
    let looping = of("looping");
    let server = container(&looping, "server");
    assert_eq!(server.state, State::Waiting { reason: "CrashLoopBackOff".to_owned() });
    assert_eq!(server.restarts, 1);
    assert!(server.last.is_some() && !looping.ready, "{looping:?}");

    put(running("killed").terminated("server", "OOMKilled", 137, AT).phase("Failed"));
    let killed = of("killed");
    assert!(matches!(&container(&killed, "server").state,
        State::Terminated(end) if end.reason == "OOMKilled" && end.exit_code == 137));
    assert_eq!(killed.phase, Phase::Failed);

    put(running("leaving").terminating(AT));
    assert!(of("leaving").deleted.is_some());

    put(objects::Pod::new("kube-system", "proxy-node-a")
        .container("proxy", "p")
        .mirror(NODE, "0123456789abcdef0123456789abcdef"));
    let mirror = of("proxy-node-a");
    assert_eq!(mirror.static_hash.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    let found = watched.look(|pods| pods.find(None, Some("0123456789abcdef0123456789abcdef")));
    assert_eq!(found.expect("by its hash").pod.name, "proxy-node-a");

    put(running("debugged").ephemeral("shell", "busybox").running(AT));
    assert_eq!(container(&of("debugged"), "shell").kind, ContainerKind::Ephemeral);

    // Objects with next to nothing in them are taken for what they are.
    watched
        .api
        .put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "ml", "name": "bare"},
        "spec": {"nodeName": NODE, "containers": [{"name": "a"}]}}));
    let bare = of("bare");
    assert_eq!((bare.phase, bare.containers[0].state.clone()), (Phase::Unknown, State::Unknown));

    // Pods of other nodes and of none are not told at all.
    put(objects::Pod::new("ml", "elsewhere").container("a", "b").node("node-b", AT));
    put(objects::Pod::new("ml", "nowhere").container("a", "b"));
    put(running("last"));
    of("last");
    assert!(!watched.names().iter().any(|name| name == "elsewhere" || name == "nowhere"));
    let requests = watched.api.requests();
    let lists = requests.iter().filter(|seen| seen.request.resource == "pods");
    assert!(
        lists.clone().count() > 0
            && lists.clone().all(|seen| seen.request.field_selector() == format!("spec.nodeName={NODE}"))
    );
}

#[test]
fn what_manages_a_pod() {
    let watched = Watched::start(PodScope::default());
    watched.api.put(objects::replica_set("ml", "llama-5d", "llama", Replicas::all(1)));
    watched.api.put(objects::owned_by(objects::job("ml", "nightly-1"), "CronJob", "nightly"));
    watched.api.put(objects::stateful_set("ml", "db", Replicas::all(1)));
    for (name, kind, owner) in [
        ("a", "ReplicaSet", "llama-5d"),
        ("b", "Job", "nightly-1"),
        ("c", "StatefulSet", "db"),
        ("d", "DaemonSet", "agent"),
        ("e", "ReplicaSet", "gone"),
    ] {
        watched.api.put(running(name).owner(kind, owner));
    }
    watched
        .api
        .put(running("f").owner("StatefulSet", "group-0").label("leaderworkerset.sigs.k8s.io/name", "group"));
    watched.api.put(running("g"));
    for (name, expected) in [
        ("a", Some(workload("Deployment", "llama"))),
        ("b", Some(workload("CronJob", "nightly"))),
        ("c", Some(workload("StatefulSet", "db"))),
        ("d", Some(workload("DaemonSet", "agent"))),
        ("e", Some(workload("ReplicaSet", "gone"))),
        ("f", Some(workload("LeaderWorkerSet", "group"))),
        ("g", None),
    ] {
        let pod = watched.pod(name, |pod| pod.workload == expected);
        assert_eq!(pod.workload, expected, "{name}");
    }
    // Another pod of a known owner costs no request.
    let asked =
        || watched.api.requests().iter().filter(|seen| seen.request.resource == "replicasets").count();
    wait_for("the one that is gone", || (asked() == 2).then_some(()));
    watched.api.put(running("h").owner("ReplicaSet", "llama-5d"));
    watched.pod("h", |pod| pod.workload == Some(workload("Deployment", "llama")));
    assert_eq!(asked(), 2);
}

#[test]
fn owners_that_may_not_be_seen_keep_their_own_name() {
    let watched = Watched::start(PodScope::default());
    watched.api.put(objects::replica_set("ml", "llama-5d", "llama", Replicas::all(1)));
    watched.api.inject(Fault::code(403).on("replicasets"));
    watched.api.put(running("a").owner("ReplicaSet", "llama-5d"));
    let owners = || watched.health[1].snapshot().failures;
    wait_for("the refusal", || (owners() == [("forbidden", 1)]).then_some(()));
    watched.pod("a", |pod| pod.workload == Some(workload("ReplicaSet", "llama-5d")));
    watched.api.put(running("b"));
    watched.pod("b", |_| true);
}

#[test]
fn scope_follows_labels_and_annotations() {
    let watched = Watched::start(PodScope {
        selector: Selector::parse("app=llama").expect("a selector"),
        ..PodScope::default()
    });
    watched.api.put(running("a").label("app", "llama"));
    watched.api.put(running("b").label("app", "web"));
    assert!(watched.pod("a", |_| true).in_scope);
    assert!(!watched.pod("b", |_| true).in_scope);
    watched.api.put(running("a").label("app", "llama").annotation("llm-observer/observe", "false"));
    watched.pod("a", |pod| !pod.in_scope);
    watched.api.put(running("b").label("app", "llama"));
    watched.pod("b", |pod| pod.in_scope);
}

#[test]
fn a_name_that_is_used_again_is_another_pod() {
    let watched = Watched::start(PodScope::default());
    watched.api.put(running("llama-0").uid("7d0b1f5e-3c1a-4a52-9f0e-000000000001"));
    let first = watched.pod("llama-0", |_| true);
    watched.api.put(running("llama-0").uid("7d0b1f5e-3c1a-4a52-9f0e-000000000002"));
    let second = watched.pod("llama-0", |pod| pod.uid != first.uid);
    assert_eq!(watched.names(), ["llama-0"]);
    // What still ends in the first one is found for a while.
    let still = watched.look(|pods| pods.find(None, Some(&first.uid))).expect("the first");
    assert_eq!((still.pod.uid.as_str(), second.uid.len()), (first.uid.as_str(), 36));
}

#[test]
fn faults_leave_what_is_known_and_are_told() {
    let mut watched = Watched::start(PodScope::default());
    watched.api.put(running("a"));
    watched.pod("a", |_| true);
    // The server forgets the past while it is away: 410, and a new list.
    let lists = watched.health().lists;
    watched.api.stop();
    watched.api.put(running("b"));
    watched.api.delete("pods", "ml", "a");
    watched.api.compact();
    wait_for("the silence", || {
        watched.health().failures.iter().any(|(why, _)| *why == "unreachable").then_some(())
    });
    assert_eq!(watched.names(), ["a"], "what was known stays");
    watched.api.restart();
    watched.pod("b", |_| true);
    wait_for("the end of a", || (watched.names() == ["b"]).then_some(()));
    assert!(watched.health().lists > lists);
    // 429 is waited for by the library itself; what is forbidden is asked for again half a minute later.
    for (code, why) in [(500, "server"), (403, "forbidden")] {
        // Ends the watch, so that it is asked for again; whatever is being asked is cut, and does not use the fault up.
        watched.api.stop();
        watched.api.inject(Fault::code(code).on("pods").times(1));
        watched.api.restart();
        wait_for(why, || watched.health().failures.iter().any(|(told, _)| *told == why).then_some(()));
        if code == 500 {
            watched.api.put(running(why));
            watched.pod(why, |_| true);
        }
    }
    let text = format!("{:?}", watched.health());
    println!("{text}");
    assert!(watched.health().age < Some(10.0), "{text}");
}

#[test]
fn the_end_is_exact_after_fifty_restarts_under_churn() {
    let mut watched = Watched::start(PodScope::default());
    let mut expected = BTreeMap::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..50 {
        for _ in 0..10 {
            let name = format!("p{}", next(60));
            match next(3) {
                0 => {
                    watched.api.delete("pods", "ml", &name);
                    expected.remove(&name);
                }
                kind => {
                    // A new uid: the name is used again.
                    let uid = format!("7d0b1f5e-3c1a-4a52-9f0e-{:012x}", next(1 << 40));
                    let uid = if kind == 1 { uid } else { expected.get(&name).cloned().unwrap_or(uid) };
                    watched.api.put(running(&name).uid(&uid));
                    expected.insert(name, uid);
                }
            }
        }
        watched.api.stop();
        if next(2) == 0 {
            watched.api.compact();
        }
        if round % 10 == 9 {
            // Long enough for the watch to notice; mostly it is back before.
            std::thread::sleep(Duration::from_millis(300));
        }
        watched.api.restart();
    }
    let told = || -> BTreeMap<String, String> {
        watched.look(|pods| pods.iter().map(|pod| (pod.name.clone(), pod.uid.clone())).collect())
    };
    let end = monotonic() + 45_000_000_000;
    while told() != expected {
        assert!(monotonic() < end, "{:?}\n{expected:?}", told());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("{} pods, {:?}", expected.len(), watched.health());
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("KiB")
}

#[test]
fn two_hundred_and_fifty_pods_and_five_hundred_new_ones_a_minute() {
    let watched = Watched::start(PodScope::default());
    let before = resident();
    for number in 0..250 {
        watched.api.put(running(&format!("p{number}")).resource("server", "cpu", "1", "2"));
    }
    wait_for("250 pods", || (watched.names().len() == 250).then_some(()));
    let full = resident();
    // A minute's churn as fast as it goes.
    let begin = monotonic();
    for number in 0..500 {
        watched.api.delete("pods", "ml", &format!("p{number}"));
        watched.api.put(running(&format!("p{}", number + 250)));
    }
    wait_for("the last", || {
        watched
            .look(|pods| pods.iter().any(|pod| pod.name == "p749") && pods.iter().count() == 250)
            .then_some(())
    });
    let took = monotonic() - begin;
    let bytes: u64 =
        watched.api.requests().iter().filter(|seen| seen.request.resource == "pods").map(|r| r.bytes()).sum();
    println!(
        "250 pods: {} KiB with the server's own copy; 500 replaced in {:.2} s; {} KiB of watch, {:.0} bytes for each of \
         1250 changes; {} KiB after",
        full.saturating_sub(before),
        took as f64 / 1e9,
        bytes / 1024,
        bytes as f64 / 1250.0,
        resident().saturating_sub(before),
    );
    // The one before is known for a minute, and then forgotten.
    let mut pods = watched.pods.lock().expect("pods");
    assert!(pods.find(None, Some(&objects::uid("Pod", "ml", "p0"))).is_some());
    pods.expire(wall() + 61_000_000_000);
    assert!(pods.find(None, Some(&objects::uid("Pod", "ml", "p0"))).is_none());
    assert!(resident().saturating_sub(before) < 64 << 10, "KiB");
}
