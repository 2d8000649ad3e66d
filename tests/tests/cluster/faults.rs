//! What goes wrong with an API server, and what is told meanwhile.

use std::{collections::BTreeMap, time::Duration};

use observer::capture::monotonic;
use observer_tests::{
    agent::wait_for,
    apiserver::{
        Fault, TOKEN, USER,
        objects::{self, Event, Replicas, ago},
    },
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{World, wait_for_value, within};

#[test]
fn the_end_is_exact_after_fifty_restarts_under_churn() {
    let mut world = World::start();
    let replica = world.replica(&[]);
    wait_for("the watches", || (world.api.watches("events") == 1).then_some(()));
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u32| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % u64::from(below)) as u32
    };
    let (mut deployments, mut events) = (BTreeMap::new(), BTreeMap::<String, u32>::new());
    for round in 0..50 {
        for _ in 0..10 {
            let name = format!("d{}", next(40));
            if next(3) == 0 {
                world.api.delete("deployments", "ml", &name);
                deployments.remove(&name);
            } else {
                let replicas = next(9);
                world.api.put(objects::deployment("ml", &name, Replicas::all(replicas)));
                deployments.insert(name, replicas);
            }
            let about = format!("p{}", next(40));
            let count = events.entry(about.clone()).or_default();
            *count += 1 + next(3);
            let event = Event::new(("Pod", "ml", &about), "BackOff", "Back-off restarting").warning();
            let mut event = Value::from(event.count(*count, &ago(Duration::ZERO)));
            event["firstTimestamp"] = json!(ago(Duration::ZERO));
            world.api.put(event);
        }
        world.api.stop();
        if next(2) == 0 {
            world.api.compact();
        }
        if round % 10 == 9 {
            // Long enough to be noticed; mostly it is back before.
            std::thread::sleep(Duration::from_millis(300));
        }
        world.api.restart();
    }
    let expected: u32 = events.values().sum();
    let begin = monotonic();
    within(Duration::from_mins(1), "the end state", || {
        let metrics = replica.metrics();
        let told =
            |name: &str| metrics.value("llm_workload_replicas", &[("workload", name), ("state", "ready")]);
        let exact = deployments.iter().all(|(name, replicas)| told(name) == Some(f64::from(*replicas)));
        let many = metrics.0.matches("state=\"ready\"").count();
        let counted = metrics.sum("llm_events_total", &[]).unwrap_or(0);
        assert!(counted <= u64::from(expected), "{counted} events of {expected}: some counted twice");
        (exact && many == deployments.len() && counted == u64::from(expected)).then_some(())
    });
    println!(
        "{} deployments and {expected} events of 50 restarts exact after {:.1} s",
        deployments.len(),
        (monotonic() - begin) as f64 / 1e9
    );
    let metrics = replica.metrics();
    let relists =
        metrics.value("observer_kube_watch_lists_total", &[("resource", "deployments")]).expect("lists");
    assert!(relists > 1.0, "it was never forgotten: {relists}");
}

#[test]
fn one_resource_that_is_forbidden_hinders_no_other() {
    let world = World::start();
    world.api.inject(Fault::code(403).on("deployments"));
    world.api.put(objects::deployment("ml", "d", Replicas::all(2)));
    world.api.put(objects::stateful_set("ml", "s", Replicas::all(2)));
    let replica = world.replica(&[]);
    wait_for_value(&replica, "llm_workload_replicas", &[("workload", "s"), ("state", "ready")], 2.0);
    let refused = [("resource", "deployments"), ("reason", "forbidden")];
    wait_for_value(&replica, "observer_kube_watch_errors_total", &refused, 1.0);
    std::thread::sleep(Duration::from_secs(3));
    let metrics = replica.metrics();
    assert_eq!(metrics.value("observer_kube_watch_errors_total", &refused), Some(1.0), "asked for seldom");
    assert_eq!(metrics.sum("llm_workload_replicas", &[("workload", "d")]), None);
    assert_eq!(metrics.value("observer_kube_watch_age_seconds", &[("resource", "deployments")]), None);
    world.api.heal();
    within(Duration::from_secs(40), "the Deployment", || {
        replica.metrics().value("llm_workload_replicas", &[("workload", "d"), ("state", "ready")])
    });
    let log = replica.end(Signal::TERM).log;
    assert_eq!(log.matches("WARN").count(), 1, "said once: {log}");
    assert!(log.contains("deployments") && log.contains("grant"), "{log}");
}

#[test]
fn an_api_server_that_is_away_for_a_while() {
    let mut world = World::start();
    world.api.put(objects::deployment("ml", "d", Replicas::all(2)));
    let replica = world.replica(&[]);
    let ready = [("workload", "d"), ("state", "ready")];
    wait_for_value(&replica, "llm_workload_replicas", &ready, 2.0);
    let age = |resource: &str| {
        replica.metrics().value("observer_kube_watch_age_seconds", &[("resource", resource)])
    };
    assert!(age("leases").is_some_and(|age| age < 5.0));
    world.api.stop();
    // The lease cannot be renewed, so another replica may lead: nothing is told of the cluster any more.
    let begin = monotonic();
    within(Duration::from_secs(13), "the end of its term", || {
        (replica.metrics().value("observer_leader", &[]) == Some(0.0)).then_some(())
    });
    let led = (monotonic() - begin) as f64 / 1e9;
    assert!(led > 5.0, "led for {led:.1} s more");
    let metrics = replica.metrics();
    assert_eq!(metrics.sum("llm_workload_replicas", &[]), None);
    assert!(age("leases").is_some_and(|age| age > 8.0), "{:?}", age("leases"));
    let failed = [("resource", "leases"), ("reason", "unreachable")];
    assert!(metrics.value("observer_kube_watch_errors_total", &failed).is_some_and(|count| count > 2.0));
    assert_eq!(replica.get("/healthz").0, 200);
    world.api.put(objects::deployment("ml", "d", Replicas::all(7)));
    world.api.restart();
    within(Duration::from_secs(20), "the cluster again", || {
        (replica.metrics().value("llm_workload_replicas", &ready) == Some(7.0)).then_some(())
    });
    assert!(age("leases").is_some_and(|age| age < 5.0));
    assert!(age("deployments").is_some_and(|age| age < 60.0));
}

#[test]
fn quiet_watches_are_heard_by_their_bookmarks() {
    let world = World::start();
    world.api.bookmark_every(Duration::from_secs(1));
    world.api.put(objects::node("n1", &[]));
    let replica = world.replica(&[]);
    wait_for_value(&replica, "observer_kube_objects", &[("resource", "nodes")], 1.0);
    let age = || {
        replica.metrics().value("observer_kube_watch_age_seconds", &[("resource", "nodes")]).expect("an age")
    };
    std::thread::sleep(Duration::from_secs(4));
    assert!(age() < 2.0, "{}", age());
    world.api.inject(Fault::silence().on("nodes"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(age() > 2.0, "{}", age());
    world.api.heal();
    world.api.bookmark("nodes");
    wait_for("a bookmark", || (age() < 1.5).then_some(()));
}

#[test]
fn a_watch_that_is_too_old_lists_again() {
    let world = World::start();
    world.api.put(objects::deployment("ml", "d", Replicas::all(2)));
    let replica = world.replica(&[]);
    let ready = [("workload", "d"), ("state", "ready")];
    wait_for_value(&replica, "llm_workload_replicas", &ready, 2.0);
    let gone = [("resource", "deployments"), ("reason", "gone")];
    // Told in a frame by a server with a watch cache, in the status code by one without.
    for (round, fault) in [(1, None), (2, Some(Fault::gone_in_head().on("deployments")))] {
        if let Some(fault) = fault {
            world.api.inject(fault);
        }
        world.api.inject(Fault::delay(Duration::from_secs(1)).on("deployments").verb("watch").times(1));
        assert_eq!(world.api.cut_watches("deployments"), 1);
        world.api.put(objects::deployment("ml", "d", Replicas::all(3 + round)));
        world.api.put(objects::stateful_set("ml", "s", Replicas::all(1)));
        world.api.compact();
        wait_for_value(&replica, "llm_workload_replicas", &ready, f64::from(3 + round));
        assert_eq!(
            replica.metrics().value("observer_kube_watch_errors_total", &gone),
            Some(f64::from(round))
        );
        world.api.heal();
    }
}

#[test]
fn a_token_that_is_rotated_on_disk_is_read_again() {
    let world = World::start();
    let replica = world.replica(&[]);
    world.api.put(objects::deployment("ml", "d", Replicas::all(2)));
    let ready = [("workload", "d"), ("state", "ready")];
    wait_for_value(&replica, "llm_workload_replicas", &ready, 2.0);
    std::fs::write(world.token(), "another").expect("a token");
    world.api.accept("another", USER);
    world.api.reject(TOKEN);
    world.api.cut_watches("deployments");
    let refused = [("resource", "leases"), ("reason", "unauthorized")];
    wait_for("a refusal", || replica.metrics().value("observer_kube_watch_errors_total", &refused));
    world.api.put(objects::deployment("ml", "d", Replicas::all(5)));
    // The client reads it again within a minute; its lease has run out meanwhile.
    within(Duration::from_secs(90), "the new token", || {
        (replica.metrics().value("llm_workload_replicas", &ready) == Some(5.0)).then_some(())
    });
}

#[test]
fn a_server_that_is_slow_or_throttles_is_waited_for() {
    let world = World::start();
    world.api.put(objects::deployment("ml", "d", Replicas::all(2)));
    world.api.inject(Fault::delay(Duration::from_secs(2)).verb("list"));
    world.api.inject(Fault::too_many_requests(1).on("deployments").times(2));
    let replica = world.replica(&[]);
    wait_for_value(&replica, "llm_workload_replicas", &[("workload", "d"), ("state", "ready")], 2.0);
    let metrics = replica.metrics();
    let throttled = [("resource", "deployments"), ("reason", "throttled")];
    assert_eq!(metrics.value("observer_kube_watch_errors_total", &throttled), Some(2.0));
    assert_eq!(metrics.value("observer_leader", &[]), Some(1.0), "who is slow to list is not slow to renew");
}

#[test]
fn without_an_api_server_it_says_what_to_do() {
    let ended =
        observer_tests::agent::observer(["cluster", "--listen", "127.0.0.1:0"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains("kubernetes.kubeconfig"), "{said}");
}
