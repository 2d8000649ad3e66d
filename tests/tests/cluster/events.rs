//! Events: counted once each, by kind of matter, and passed on.

use std::time::Duration;

use observer_tests::{
    agent::{Agent, wait_for},
    apiserver::{
        ApiServer,
        objects::{Event, Pod, ago, micro_ago},
    },
    receiver::Receiver,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{World, wait_for_value};

const NOW: Duration = Duration::ZERO;

/// A replica that has listed the events that there are.
fn leader(world: &World) -> Agent {
    let replica = world.replica(&[]);
    wait_for("the list of events", || (world.api.watches("events") > 0).then_some(()));
    replica
}

fn put(api: &ApiServer, event: Event) {
    api.put(event);
}

#[test]
fn every_matter_has_its_category() {
    let world = World::start();
    let replica = leader(&world);
    let pod = ("Pod", "ml", "llama-0");
    let cases = [
        (pod, "BackOff", "Back-off restarting failed container server", "restart"),
        (pod, "BackOff", "Back-off pulling image \"x\"", "image"),
        (pod, "Killing", "Stopping container server", "restart"),
        (
            ("Deployment", "ml", "llama"),
            "ScalingReplicaSet",
            "Scaled up replica set llama-5d to 3",
            "scaling",
        ),
        (("HorizontalPodAutoscaler", "ml", "llama"), "SuccessfulRescale", "New size: 3", "scaling"),
        (pod, "FailedScheduling", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", "scheduling"),
        (pod, "FailedMount", "MountVolume.SetUp failed for volume \"weights\"", "volume"),
        (pod, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", "probe"),
        (pod, "Evicted", "The node was low on resource: memory.", "eviction"),
        (pod, "Preempted", "Preempted by pod x on node n1", "preemption"),
        (("Node", "", "n1"), "OOMKilling", "Memory cgroup out of memory: Killed process 1 (python3)", "oom"),
        (pod, "SomethingNobodyKnows", "", "other"),
        (("Gadget", "ml", "x"), "Started", "", "other"),
    ];
    for (about, reason, message, _) in &cases {
        put(&world.api, Event::new(*about, reason, message).warning().count(2, &ago(NOW)));
    }
    for ((kind, namespace, _), reason, _, category) in cases {
        let kind = if kind == "Gadget" { "other" } else { kind };
        let reason = if reason == "SomethingNobodyKnows" { "other" } else { reason };
        let labels = [
            ("namespace", namespace),
            ("kind", kind),
            ("category", category),
            ("reason", reason),
            ("type", "Warning"),
            ("pod", ""),
            ("container", ""),
        ];
        wait_for_value(&replica, "llm_events_total", &labels, 2.0);
    }
    replica.metrics().assert_lint();
}

#[test]
fn they_are_sent_as_log_records() {
    let (world, receiver) = (World::start(), Receiver::start());
    let endpoint = format!("otlp.endpoint={}", receiver.url());
    let replica = world.replica(&[&endpoint, "otlp.logs=true", "otlp.traces=false"]);
    wait_for("the list of events", || (world.api.watches("events") > 0).then_some(()));
    put(
        &world.api,
        Event::new(("Pod", "ml", "llama-0"), "BackOff", "Back-off restarting failed container server")
            .warning()
            .count(3, &ago(NOW)),
    );
    let log = wait_for("the log record", || {
        receiver.logs().into_iter().find(|log| log.attributes["k8s.event.reason"] == "BackOff")
    });
    assert_eq!(log.resource["k8s.namespace.name"], "ml");
    assert_eq!(log.resource["k8s.pod.name"], "llama-0");
    assert_eq!((log.item.event_name.as_str(), log.item.severity_text.as_str()), ("k8s.event", "Warning"));
    assert_eq!(
        (log.attributes["k8s.event.count"].as_str(), log.attributes["llm.event.category"].as_str()),
        ("3", "restart")
    );
    assert!(log.item.time_unix_nano > 0 && log.item.observed_time_unix_nano >= log.item.time_unix_nano);
    replica.metrics().assert_lint();
    wait_for_value(&replica, "observer_otlp_sent_total", &[("signal", "logs")], receiver.logs().len() as f64);
}

#[test]
fn what_is_repeated_counts_by_its_own_count_and_is_passed_on() {
    let world = World::start();
    let old = Event::new(("Pod", "ml", "a"), "BackOff", "old").warning();
    put(&world.api, old.clone().count(40, &ago(Duration::from_mins(10))));
    let replica = leader(&world);
    let told = replica.follow_feed("events");
    wait_for("the follower", || {
        // A follower is there once something reaches it.
        put(&world.api, Event::new(("Pod", "ml", "probe"), "Scheduled", &ago(NOW)));
        (!told.text().is_empty()).then_some(())
    });
    let value = |count: f64| wait_for_value(&replica, "llm_events_total", &[("reason", "BackOff")], count);
    put(&world.api, old.clone().count(43, &ago(NOW)));
    value(3.0);
    put(&world.api, old.count(44, &ago(NOW)));
    value(4.0);
    // The new interface's series, written there and read here.
    let start = micro_ago(NOW);
    let pod = ("Pod", "ml", "b");
    let scheduler = |event: Event| event.warning().by("default-scheduler", "default-scheduler-1");
    let failed = scheduler(Event::new(pod, "FailedScheduling", "0/1 nodes are available"));
    put(&world.api, failed.clone().once("Scheduling", &start));
    wait_for_value(&replica, "llm_events_total", &[("reason", "FailedScheduling")], 1.0);
    put(&world.api, failed.series("Scheduling", &start, 6, &micro_ago(NOW)));
    wait_for_value(&replica, "llm_events_total", &[("reason", "FailedScheduling")], 6.0);
    // What was passed on.
    let lines: Vec<Value> =
        told.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |reason: &str| -> Vec<&Value> { lines.iter().filter(|line| line["reason"] == reason).collect() };
    let backs: Vec<_> =
        of("BackOff").iter().map(|line| (line["new"].clone(), line["count"].clone())).collect();
    assert_eq!(backs, [(json!(3), json!(43)), (json!(1), json!(44))]);
    let series = of("FailedScheduling");
    assert_eq!(series.iter().map(|line| line["new"].as_u64().expect("a number")).sum::<u64>(), 6);
    let last = series.last().expect("a line");
    assert_eq!(
        (&last["pod"], &last["namespace"], &last["category"]),
        (&json!("b"), &json!("ml"), &json!("scheduling"))
    );
    assert!(last["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{last}");
}

#[test]
fn what_came_before_and_what_a_list_tells_again_is_not_counted() {
    let mut world = World::start();
    put(&world.api, Event::new(("Pod", "ml", "a"), "Killing", "old").count(9, &ago(Duration::from_mins(5))));
    let replica = leader(&world);
    put(&world.api, Event::new(("Pod", "ml", "b"), "Killing", "new").count(1, &ago(NOW)));
    let labels = [("reason", "Killing")];
    wait_for_value(&replica, "llm_events_total", &labels, 1.0);
    // Forgotten and listed again, with one more occurrence meanwhile and one event gone.
    world.api.stop();
    put(&world.api, Event::new(("Pod", "ml", "b"), "Killing", "new").count(3, &ago(NOW)));
    let gone: Value = Event::new(("Pod", "ml", "a"), "Killing", "old").into();
    world.api.delete("events", "ml", gone["metadata"]["name"].as_str().expect("a name"));
    world.api.compact();
    world.api.restart();
    wait_for_value(&replica, "llm_events_total", &labels, 3.0);
    assert_eq!(replica.metrics().value("observer_kube_objects", &[("resource", "events")]), Some(1.0));
    // A replica that is restarted goes on where the one before ended, by its lease.
    std::thread::sleep(Duration::from_millis(1100));
    replica.end(Signal::TERM).assert_prompt("SIGTERM");
    std::thread::sleep(Duration::from_millis(1100));
    put(&world.api, Event::new(("Pod", "ml", "b"), "Killing", "new").count(5, &ago(NOW)));
    let fresh = Event::new(("Pod", "ml", "c"), "Killing", "while nobody looked");
    let mut fresh = Value::from(fresh.count(2, &ago(NOW)));
    fresh["firstTimestamp"] = json!(ago(NOW));
    world.api.put(fresh);
    let replica = leader(&world);
    // Once for b, which occurred before and after; both of c's.
    wait_for_value(&replica, "llm_events_total", &labels, 3.0);
}

#[test]
fn the_image_of_a_new_pods_container_was_there_after() {
    let world = World::start();
    let replica = leader(&world);
    let created = ago(Duration::from_mins(2));
    let pod = |name: &str| Pod::new("ml", name).container("server", "vllm").created(&created);
    world.api.put(pod("llama-0").node("n1", &created));
    wait_for_value(&replica, "observer_kube_objects", &[("resource", "pods_pending")], 1.0);
    let pulled = |name: &str, message: &str, after: u64| {
        let at = ago(Duration::from_secs(120 - after));
        let event = Event::new(("Pod", "ml", name), "Pulled", message).container("server").count(1, &at);
        let mut event = Value::from(event);
        event["firstTimestamp"] = json!(at);
        event
    };
    world.api.put(pulled("llama-0", "Successfully pulled image \"vllm\" in 1m12s", 75));
    let labels =
        [("namespace", "ml"), ("pod", "llama-0"), ("container", "server"), ("phase", "image_pulled")];
    let seconds =
        wait_for("the pull", || replica.metrics().value("llm_container_start_phase_seconds", &labels));
    assert!((74.0..=76.0).contains(&seconds), "{seconds}");
    // It runs; a container that starts again pulls nothing that matters.
    world.api.put(pod("llama-0").node("n1", &created).running(&ago(NOW)));
    wait_for_value(&replica, "observer_kube_objects", &[("resource", "pods_pending")], 0.0);
    world.api.put(pulled("llama-0", "Container image \"vllm\" already present on machine", 119));
    // Of a pod that was not seen to start nothing is told.
    world.api.put(pulled("unknown", "Successfully pulled image", 10));
    wait_for_value(&replica, "llm_events_total", &[("reason", "Pulled")], 3.0);
    assert_eq!(replica.metrics().value("llm_container_start_phase_seconds", &labels), Some(seconds));
    assert_eq!(replica.metrics().0.matches("\nllm_container_start_phase_seconds{").count(), 1);
}

#[test]
fn events_of_pods_that_are_not_in_scope_are_not_told() {
    let world = World::start();
    let pod = |name: &str| {
        Pod::new("ml", name).container("server", "vllm").node("n1", &ago(NOW)).running(&ago(NOW))
    };
    let out = |name: &str| pod(name).annotation("llm-observer/observe", "false");
    world.api.put(out("out"));
    world.api.put(pod("in"));
    let replica = world.replica(&["kubernetes.namespaces.exclude=secret", "kubernetes.unknown=observe"]);
    wait_for("the list of events", || (world.api.watches("events") > 0).then_some(()));
    let told = replica.follow_feed("events");
    let back_off = |namespace: &str, name: &str| {
        put(
            &world.api,
            Event::new(("Pod", namespace, name), "BackOff", "said in public").count(1, &ago(NOW)),
        );
    };
    back_off("ml", "out");
    back_off("secret", "any");
    put(&world.api, Event::new(("Deployment", "secret", "d"), "ScalingReplicaSet", "").count(1, &ago(NOW)));
    // Its event comes before what says that it opted out; and one of which nothing is ever known.
    back_off("ml", "late");
    world.api.put(out("late"));
    back_off("ml", "unknown");
    back_off("ml", "in");
    let labels = [("reason", "BackOff"), ("namespace", "ml")];
    wait_for_value(&replica, "llm_events_total", &labels, 2.0);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(replica.metrics().sum("llm_events_total", &[]), Some(2));
    let text = told.text();
    assert!(!text.contains("out") && !text.contains("secret") && !text.contains("late"), "{text}");
    // It opts in again.
    world.api.put(pod("out"));
    std::thread::sleep(Duration::from_millis(500));
    put(&world.api, Event::new(("Pod", "ml", "out"), "BackOff", "said in public").count(2, &ago(NOW)));
    wait_for_value(&replica, "llm_events_total", &labels, 3.0);
}
