//! A cluster of 5,000 pods on 100 nodes with 500 Deployments: what it takes to know it.

use std::{fs, time::Duration};

use observer::capture::monotonic;
use observer_tests::apiserver::objects::{self, Event, Pod, Replicas, ago};
use serde_json::{Value, json};

use crate::{World, within};

const PODS: usize = 5_000;
const DEPLOYMENTS: usize = 500;
const NODES: usize = 100;
/// Events of the last hour.
const EVENTS: usize = 5_000;

/// Resident memory of a process in KiB: now, and at most so far.
fn resident(pid: u32) -> [u64; 2] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    ["VmRSS:", "VmHWM:"].map(|field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect(field);
        line.trim_end_matches("kB").trim().parse().expect("a number")
    })
}

fn seconds_since(begin: u64) -> f64 {
    (monotonic() - begin) as f64 / 1e9
}

#[test]
fn five_thousand_pods() {
    let world = World::start();
    let namespace = |number: usize| format!("team-{}", number % 50);
    for number in 0..NODES {
        world.api.put(objects::node(&format!("n{number}"), &[("nvidia.com/gpu", "8")]));
    }
    for number in 0..DEPLOYMENTS {
        let (namespace, name) = (namespace(number), format!("d{number}"));
        world.api.put(objects::deployment(&namespace, &name, Replicas::all(10)));
        // Each has been rolled out before.
        for old in 0..3 {
            let replicas = Replicas::all(if old == 2 { 10 } else { 0 });
            world.api.put(objects::replica_set(&namespace, &format!("{name}-{old}"), &name, replicas));
        }
        if number % 5 == 0 {
            world.api.put(objects::autoscaler(&namespace, &name, ("Deployment", &name), (1, 10), 10, 10));
        }
    }
    for number in 0..50 {
        let namespace = namespace(number);
        world.api.put(objects::resource_quota(&namespace, "q", &[("requests.nvidia.com/gpu", "64", "60")]));
    }
    let long_ago = ago(Duration::from_mins(30));
    for number in 0..PODS {
        let pod = Pod::new(&namespace(number), &format!("d{}-{number}", number % DEPLOYMENTS))
            .container("server", "vllm")
            .created(&long_ago);
        // One in a hundred waits for a node.
        world.api.put(if number % 100 == 0 {
            pod.unschedulable("0/100 nodes are available: 100 Insufficient nvidia.com/gpu.", &long_ago)
        } else {
            pod.node(&format!("n{}", number % NODES), &long_ago).running(&long_ago)
        });
    }
    for number in 0..EVENTS {
        let about = format!("d{}-{number}", number % DEPLOYMENTS);
        let event = Event::new(("Pod", &namespace(number), &about), "Scheduled", "Successfully assigned");
        world.api.put(event.count(1, &long_ago));
    }
    let begin = monotonic();
    let replica = world.replica(&[]);
    let pid = replica.running.pid();
    let idle = resident(pid)[0];
    within(Duration::from_secs(20), "everything", || {
        let metrics = replica.metrics();
        let known = |resource: &str| metrics.value("observer_kube_objects", &[("resource", resource)]);
        let all = [
            ("pods", PODS),
            ("pods_pending", PODS / 100),
            ("events", EVENTS),
            ("deployments", DEPLOYMENTS),
            ("nodes", NODES),
        ];
        let all = all.iter().all(|(resource, count)| known(resource) == Some(*count as f64));
        (all && world.api.watches("replicasets") == 1).then_some(())
    });
    let synced = seconds_since(begin);
    let [now, most] = resident(pid);
    let listed: u64 = world.api.requests().iter().map(|seen| seen.bytes()).sum();
    let scrape = monotonic();
    let text = replica.metrics().0;
    let (scraped, series) =
        (seconds_since(scrape), text.lines().filter(|line| !line.starts_with('#')).count());
    println!(
        "{PODS} pods, {DEPLOYMENTS} Deployments, {NODES} nodes, {EVENTS} events: known after {synced:.1} s; {} KiB listed; \
         {} MiB resident, at most {} MiB, {} MiB before; {series} series in {} KiB, scraped in {:.0} ms",
        listed / 1024,
        now / 1024,
        most / 1024,
        idle / 1024,
        text.len() / 1024,
        scraped * 1e3,
    );
    // A minute's churn of a busy cluster, as fast as it goes: 500 pods come and go, with four events each.
    let begin = monotonic();
    for number in 0..500 {
        let (namespace, name) = (namespace(number), format!("new-{number}"));
        let pod = Pod::new(&namespace, &name).container("server", "vllm");
        world.api.put(pod.clone());
        let pod = pod.node("n1", &ago(Duration::ZERO));
        world.api.put(pod.clone());
        world.api.put(pod.running(&ago(Duration::ZERO)));
        for reason in ["Scheduled", "Pulled", "Created", "Started"] {
            let event = Event::new(("Pod", &namespace, &name), reason, "").container("server");
            let mut event = Value::from(event.count(1, &ago(Duration::ZERO)));
            event["firstTimestamp"] = json!(ago(Duration::ZERO));
            world.api.put(event);
        }
    }
    within(Duration::from_secs(20), "the churn", || {
        (replica.metrics().sum("llm_events_total", &[]) == Some(2000)).then_some(())
    });
    let watched: u64 = world.api.requests().iter().map(|seen| seen.bytes()).sum::<u64>() - listed;
    let [now, most] = resident(pid);
    println!(
        "500 pods and 2000 events more in {:.1} s: {} KiB of watches, {:.0} bytes for each of 3500 changes; {} MiB resident, at \
         most {} MiB",
        seconds_since(begin),
        watched / 1024,
        watched as f64 / 3500.0,
        now / 1024,
        most / 1024,
    );
    assert!(most < 128 << 10, "{most} KiB resident");
    assert!(series < 12_000, "{series} series");
    assert!(listed + watched < 64 << 20, "{listed} and {watched} bytes");
}
