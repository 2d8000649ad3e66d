//! What the agent's service account may do is what the agent does: no more, no less.

use std::collections::BTreeSet;

use observer_tests::{
    agent::wait_for,
    apiserver::{ApiServer, Grant, granted, objects},
    deploy::rights,
    live::privileged,
    node::{Cluster, NODE},
};
use rustix::process::Signal;

const AT: &str = "2026-01-05T08:00:07Z";

/// What was asked for; panics if anything was refused.
fn used(api: &ApiServer) -> BTreeSet<Grant> {
    let requests = api.requests();
    let refused: Vec<_> =
        requests.iter().filter(|seen| seen.code() == 403).map(|seen| &seen.request).collect();
    assert!(refused.is_empty(), "{refused:?}");
    requests
        .iter()
        .filter(|seen| !seen.request.resource.is_empty())
        .map(|seen| seen.request.needs())
        .collect()
}

#[test]
fn the_agent_uses_every_right_that_it_has_and_no_other() {
    if !privileged() {
        return;
    }
    let Some(rules) = rights("observer-agent") else { return };
    let cluster = Cluster::start();
    cluster.api.accept(observer_tests::apiserver::TOKEN, "system:serviceaccount:observer:observer-agent");
    cluster.api.enforce(&rules);
    for (name, kind, owner) in
        [("a", "ReplicaSet", "llama-5d"), ("b", "StatefulSet", "db"), ("c", "Job", "nightly")]
    {
        let pod = objects::Pod::new("ml", name).container("server", "vllm").owner(kind, owner);
        cluster.api.put(pod.node(NODE, AT).running(AT));
    }
    let agent = cluster.agent(&["kubernetes.pods=all"]);
    wait_for("the pods and their owners", || {
        let managed = [("pod", "a"), ("workload_kind", "Deployment"), ("workload", "llama")];
        let metrics = agent.metrics();
        (metrics.value("llm_pod_info", &managed).is_some() && used(&cluster.api).len() >= 5).then_some(())
    });
    assert_eq!(used(&cluster.api), granted(&rules));
    agent.end(Signal::TERM).assert_prompt("SIGTERM");
}
