//! Two replicas, one leader.

use std::time::Duration;

use observer::capture::monotonic;
use observer_tests::{
    agent::{Agent, wait_for},
    apiserver::objects::{self, Event, Replicas, ago},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{World, wait_for_value, within};

fn leads(replica: &Agent) -> bool {
    replica.metrics().value("observer_leader", &[]) == Some(1.0)
}

fn tells_of_the_cluster(replica: &Agent) -> bool {
    replica.metrics().0.lines().any(|line| line.starts_with("llm_"))
}

/// Two replicas, of which the first leads and tells of the cluster.
fn two(world: &World) -> (Agent, Agent) {
    world.api.put(objects::deployment("ml", "d", Replicas::all(3)));
    let first = world.replica(&[]);
    wait_for("the workloads", || (leads(&first) && tells_of_the_cluster(&first)).then_some(()));
    let second = world.replica(&[]);
    assert!(!leads(&second));
    (first, second)
}

/// The longest that a Lease lasts that nobody renews, seen by one who looks every two seconds.
const EXPIRY: Duration = Duration::from_secs(18);

#[test]
fn one_tells_of_the_cluster_and_the_other_of_itself() {
    let world = World::start();
    let (first, second) = two(&world);
    std::thread::sleep(Duration::from_secs(3));
    assert!(leads(&first) && !leads(&second));
    let text = second.metrics().0;
    assert!(
        text.lines().filter(|line| !line.starts_with('#')).all(|line| line.starts_with("observer_")),
        "{text}"
    );
    second.metrics().assert_lint();
    // It watches nothing: one replica's watches, one list of each resource.
    let lists = world
        .api
        .requests()
        .iter()
        .filter(|seen| seen.request.verb == "list" && seen.request.is_for("nodes"))
        .count();
    assert_eq!((lists, world.api.watches("nodes")), (1, 1));
    let holder = world.api.get("leases", "default", "observer-cluster").expect("the lease");
    assert_eq!(holder["spec"]["leaseTransitions"], 0);
}

#[test]
fn a_leader_that_stops_leaves_the_lease_to_the_other() {
    let world = World::start();
    let (first, second) = two(&world);
    let begin = monotonic();
    let ended = first.end(Signal::TERM);
    ended.assert_prompt("SIGTERM");
    assert!(ended.log.contains("left the lease to others"), "{}", ended.log);
    within(Duration::from_secs(4), "the other one", || tells_of_the_cluster(&second).then_some(()));
    println!("taken over {:.1} s after SIGTERM", (monotonic() - begin) as f64 / 1e9);
    let lease = world.api.get("leases", "default", "observer-cluster").expect("the lease");
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
}

#[test]
fn a_leader_that_is_killed_is_followed_within_the_lease() {
    let world = World::start();
    let (first, second) = two(&world);
    // What occurs while nobody leads is counted once; what the first one counted, is not again.
    let counted = Event::new(("Pod", "ml", "a"), "BackOff", "old").warning();
    world.api.put(counted.count(1, &ago(Duration::ZERO)));
    wait_for_value(&first, "llm_events_total", &[("reason", "BackOff")], 1.0);
    // A renewal and its period lie between.
    std::thread::sleep(Duration::from_secs(5));
    let begin = monotonic();
    first.end(Signal::KILL);
    std::thread::sleep(Duration::from_secs(5));
    let meanwhile = Event::new(("Pod", "ml", "b"), "BackOff", "new").warning();
    let mut meanwhile = serde_json::Value::from(meanwhile.count(3, &ago(Duration::ZERO)));
    meanwhile["firstTimestamp"] = json!(ago(Duration::ZERO));
    world.api.put(meanwhile);
    within(EXPIRY, "the other one", || {
        let both = [leads(&second), tells_of_the_cluster(&second)];
        assert!(both[0] || !both[1], "only a leader tells");
        both[1].then_some(())
    });
    let took = (monotonic() - begin) as f64 / 1e9;
    println!("taken over {took:.1} s after SIGKILL");
    assert!(took > 9.0, "the lease was not waited for");
    wait_for_value(&second, "llm_events_total", &[("reason", "BackOff")], 3.0);
}

#[test]
fn a_leader_that_is_cut_off_tells_nothing_any_more_before_another_does() {
    let world = World::start();
    let (first, second) = two(&world);
    // It stands still for longer than its lease; the other one takes over; then it goes on.
    let pid = Pid::from_raw(first.running.pid().cast_signed()).expect("a pid");
    kill_process(pid, Signal::STOP).expect("SIGSTOP");
    within(EXPIRY, "the other one", || tells_of_the_cluster(&second).then_some(()));
    kill_process(pid, Signal::CONT).expect("SIGCONT");
    assert!(!tells_of_the_cluster(&first), "it has not yet looked at the lease, and knows by the clock");
    std::thread::sleep(Duration::from_secs(4));
    assert!(leads(&second) && !leads(&first) && !tells_of_the_cluster(&first));
}

#[test]
fn a_lease_that_was_deleted_or_taken_by_hand_is_respected() {
    let world = World::start();
    world.api.put(objects::deployment("ml", "d", Replicas::all(3)));
    let replica = world.replica(&["cluster.namespace=llm", "cluster.lease=mine"]);
    wait_for("the workloads", || tells_of_the_cluster(&replica).then_some(()));
    world.api.delete("leases", "llm", "mine");
    wait_for("a new lease", || world.api.get("leases", "llm", "mine"));
    wait_for("a leader", || leads(&replica).then_some(()));
    // Annotated by somebody between look and renewal: no reason to give it up.
    let mut lease = world.api.get("leases", "llm", "mine").expect("the lease");
    lease["metadata"]["annotations"] = json!({"who": "me"});
    world.api.put(lease.clone());
    lease["spec"]["holderIdentity"] = json!("somebody else");
    world.api.put(lease);
    within(Duration::from_secs(4), "the end of its term", || (!tells_of_the_cluster(&replica)).then_some(()));
    assert!(!leads(&replica));
}
