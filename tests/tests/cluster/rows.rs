//! Events of Kubernetes as rows: kept in a store of this role's own, and answered beside what agents tell.

use std::time::Duration;

use observer_tests::{
    agent::{Agent, wait_for},
    apiserver::objects::{Event, Pod, ago},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{World, wait_for_value};

const NOW: Duration = Duration::ZERO;

/// A replica with a store in this folder.
fn replica(world: &World, folder: &str) -> Agent {
    let path = format!("store.path={}", world.folder.path().join(folder).display());
    world.replica(&["store.enabled=true", &path])
}

fn leader(world: &World) -> Agent {
    let replica = replica(world, "store");
    wait_for("the list of events", || (world.api.watches("events") > 0).then_some(()));
    replica
}

/// Rows of an answer, and its trailer.
fn ask(replica: &Agent, question: &str) -> (Vec<Value>, Value) {
    let (status, text) = replica.get(&format!("/api/v1/events?{question}"));
    assert_eq!(status, 200, "{text}");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let trailer = lines.pop().expect("a trailer");
    (lines, trailer)
}

/// Rows about Kubernetes once there are so many.
fn rows(replica: &Agent, question: &str, count: usize) -> Vec<Value> {
    wait_for("the rows", || {
        let (rows, _) = ask(replica, &format!("kind=kubernetes&order=oldest&{question}"));
        (rows.len() == count).then_some(rows)
    })
}

#[test]
fn events_are_kept_and_found_by_what_they_are_about() {
    let world = World::start();
    let kept = leader(&world);
    let followed = kept.follow_feed("events?follow=true&kind=kubernetes&namespace=ml");
    let pod = ("Pod", "ml", "llama-0");
    let put = |event: Event| world.api.put(event);
    put(Event::new(
        ("Deployment", "ml", "llama"),
        "ScalingReplicaSet",
        "Scaled up replica set llama-5d to 3",
    )
    .count(1, &ago(Duration::from_secs(40))));
    put(Event::new(pod, "BackOff", "Back-off restarting failed container server")
        .warning()
        .container("server")
        .count(3, &ago(Duration::from_secs(30))));
    put(Event::new(("Node", "", "n1"), "SystemOOM", "System OOM encountered, victim process: python3")
        .warning()
        .count(1, &ago(Duration::from_secs(20))));
    let all = rows(&kept, "", 3);
    let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let told: Vec<_> = all
        .iter()
        .map(|row| ["reason", "level", "workload", "pod", "container"].map(|name| field(row, name)))
        .collect();
    assert_eq!(
        told,
        [
            ["ScalingReplicaSet", "info", "llama", "", ""],
            ["BackOff", "warn", "", "llama-0", "server"],
            ["SystemOOM", "error", "", "", ""],
        ]
    );
    assert_eq!(all[0]["message"], "Deployment llama: Scaled up replica set llama-5d to 3");
    assert_eq!(all[1]["message"], "Back-off restarting failed container server (3 times)");
    assert_eq!(rows(&kept, "pod=llama-0", 1)[0]["reason"], "BackOff");
    assert_eq!(rows(&kept, "workload=llama", 1)[0]["reason"], "ScalingReplicaSet");
    assert_eq!(rows(&kept, "words=python3", 1)[0]["reason"], "SystemOOM");
    let (first, trailer) = ask(&kept, "kind=kubernetes&limit=2");
    assert_eq!(first.len(), 2);
    let next = trailer["next"].as_str().expect("a cursor");
    let (rest, trailer) = ask(&kept, &format!("kind=kubernetes&limit=2&cursor={next}"));
    assert_eq!((rest.len(), &rest[0]["reason"]), (1, &Value::from("ScalingReplicaSet")));
    assert!(trailer["next"].is_null(), "{trailer}");
    let told = wait_for("the follower", || {
        let text = followed.text();
        text.contains("BackOff").then_some(text)
    });
    assert!(told.contains("ScalingReplicaSet") && !told.contains("SystemOOM"), "{told}");
    wait_for_value(&kept, "observer_store_rows_written_total", &[("kind", "kubernetes")], 3.0);
    kept.metrics().assert_lint();
    // They are there after a restart, and once.
    std::thread::sleep(Duration::from_millis(1100));
    kept.end(Signal::TERM).assert_prompt("SIGTERM");
    let again = leader(&world);
    let fresh = Event::new(pod, "Killing", "Stopping container server").count(1, &ago(NOW));
    put(fresh);
    let told: Vec<_> = rows(&again, "", 4).iter().map(|row| field(row, "reason")).collect();
    assert_eq!(told, ["ScalingReplicaSet", "BackOff", "SystemOOM", "Killing"]);
}

#[test]
fn a_replica_that_does_not_lead_says_so() {
    let world = World::start();
    let first = leader(&world);
    let second = replica(&world, "other");
    let partial = |replica: &Agent| ask(replica, "kind=kubernetes").1["partial"].to_string();
    assert!(!partial(&first).contains("does not lead"), "{}", partial(&first));
    assert!(partial(&second).contains("does not lead"), "{}", partial(&second));
    // Requests are what agents tell, whoever leads.
    let (_, text) = second.get("/api/v1/requests?until=0s");
    assert!(!text.contains("does not lead"), "{text}");
    let own = wait_for("the row of its term", || ask(&first, "kind=observer").0.pop());
    assert_eq!(own["reason"], "leads");
}

#[test]
fn of_pods_that_opted_out_nothing_is_kept() {
    let world = World::start();
    let out = Pod::new("ml", "out").container("server", "vllm").node("n1", &ago(NOW)).running(&ago(NOW));
    world.api.put(out.annotation("llm-observer/observe", "false"));
    let kept = leader(&world);
    for name in ["out", "in"] {
        let about = Pod::new("ml", name).container("server", "vllm").node("n1", &ago(NOW)).running(&ago(NOW));
        if name == "in" {
            world.api.put(about);
        }
        let event = Event::new(("Pod", "ml", name), "BackOff", "said in public").count(1, &ago(NOW));
        world.api.put(event);
    }
    assert_eq!(rows(&kept, "", 1)[0]["pod"], "in");
}
