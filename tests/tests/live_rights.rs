//! What the service accounts may do is what the program does: no more, no less.

use std::{collections::BTreeSet, time::Duration};

use observer::capture::monotonic;
use observer_tests::{
    agent::{Running, observer, wait_for},
    apiserver::{ApiServer, Grant, LEADER_WORKER_SETS, granted, objects},
    deploy::rights,
    live::privileged,
    node::{Cluster, NODE},
    workload::quiet,
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

#[test]
fn the_cluster_role_uses_every_right_that_it_has_and_no_other() {
    let Some(rules) = rights("observer-cluster") else { return };
    let (api, folder) = (ApiServer::start(), tempfile::tempdir().expect("a folder"));
    api.kubeconfig(&folder.path().join("kubeconfig"));
    api.install(LEADER_WORKER_SETS);
    api.accept(observer_tests::apiserver::TOKEN, "system:serviceaccount:observer:observer-cluster");
    api.enforce(&rules);
    let kubeconfig = format!("kubernetes.kubeconfig={}", folder.path().join("kubeconfig").display());
    let settings = ["--set", &kubeconfig, "--set", "cluster.namespace=observer"];
    let cluster = Running::start(observer(["cluster", "--listen", "127.0.0.1:0"].iter().chain(&settings)));
    let wanted = granted(&rules);
    let begin = monotonic();
    // The lease is renewed every few seconds.
    while used(&api) != wanted {
        let (unused, used) = (wanted.difference(&used(&api)).cloned().collect::<Vec<_>>(), used(&api));
        assert!(monotonic() - begin < 20_000_000_000, "unused {unused:?}; used {used:?}; {}", cluster.log());
        quiet(Duration::from_millis(100));
    }
    assert!(cluster.end(Signal::TERM).status.success());
    assert_eq!(used(&api), wanted, "with the release of the lease");
}
