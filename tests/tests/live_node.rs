//! A node full of pods: what the agent needs for it, and what is left of it while the API server is away.

use std::time::Duration;

use observer::capture::monotonic;
use observer_tests::{
    agent::wait_for,
    apiserver::objects::Pod,
    live::privileged,
    node::{Cluster, NODE},
    workload::quiet,
};
use rustix::process::Signal;

const PODS: usize = 250;
const AT: &str = "2026-01-05T08:00:07Z";

/// How long the API server is away: `OUTAGE_SECONDS`, or 5.
fn outage() -> Duration {
    let asked =
        std::env::var("OUTAGE_SECONDS").map_or(5, |asked| asked.parse().expect("OUTAGE_SECONDS: a number"));
    Duration::from_secs(asked)
}

#[test]
fn two_hundred_and_fifty_pods_and_an_api_server_that_is_away() {
    if !privileged() {
        return;
    }
    let mut cluster = Cluster::start();
    let pod = |number: usize| {
        let pod = Pod::new("ml", &format!("p{number}")).container("server", "vllm");
        pod.resource("server", "cpu", "1", "2").owner("ReplicaSet", "llama-5d").node(NODE, AT).running(AT)
    };
    // Others may serve on this machine meanwhile: what is remembered of their requests is to be small.
    let agent = cluster.agent(&["kubernetes.pods=all", "api.recent=1MiB"]);
    let empty = agent.running.resident()[0];
    for number in 0..PODS {
        cluster.api.put(pod(number));
    }
    let known = |number: usize| {
        let name = format!("p{number}");
        agent.metrics().value("llm_pod_info", &[("pod", &name), ("workload", "llama")]).is_some()
    };
    let all = || {
        let metrics = agent.metrics();
        metrics.value("observer_kube_objects", &[("resource", "pods")]) == Some(PODS as f64)
    };
    wait_for("all pods", || (all() && known(PODS - 1)).then_some(()));
    let full = agent.running.resident();
    let scrape = agent.metrics().0;
    let series = scrape.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < 20_000 && scrape.len() < 2 << 20, "{series} series in {} bytes", scrape.len());
    for number in 0..2 * PODS {
        cluster.api.delete("pods", "ml", &format!("p{number}"));
        cluster.api.put(pod(number + PODS));
    }
    wait_for("500 others", || (all() && known(3 * PODS - 1)).then_some(()));
    let churned = agent.running.resident();
    cluster.api.stop();
    let begin = monotonic();
    quiet(outage());
    let away = (monotonic() - begin) as f64 / 1e9;
    let pods = [("resource", "pods")];
    let age = agent.metrics().value("observer_kube_watch_age_seconds", &pods).expect("it was heard");
    assert!((away..away + 30.0).contains(&age), "{age} s after {away} s");
    assert!(all() && known(3 * PODS - 1), "what was known stays");
    let failures = agent.metrics().sum("observer_kube_watch_errors_total", &pods);
    let silent = agent.running.resident();
    cluster.api.put(pod(0));
    cluster.api.delete("pods", "ml", &format!("p{}", 3 * PODS - 1));
    cluster.api.compact();
    let back = monotonic();
    cluster.api.restart();
    let end = back + 90_000_000_000;
    while !(all() && known(0)) {
        assert!(monotonic() < end, "not known again: {}", agent.running.log());
        quiet(Duration::from_millis(100));
    }
    println!(
        "resident KiB, now and at most: {empty} without pods, {full:?} with {PODS} ({series} series in {} KiB), {churned:?} after 500 \
         others, {silent:?} after {away:.0} s alone with {failures:?} failures; known again {:.1} s after the return",
        scrape.len() >> 10,
        (monotonic() - back) as f64 / 1e9
    );
    assert!(silent[1] < empty + (32 << 10), "{silent:?} KiB, {empty} without pods");
    agent.end(Signal::TERM).assert_prompt("SIGTERM");
}
