//! What the service account may do is what the program does: no more, no less.

use std::collections::BTreeSet;

use observer_tests::{
    agent::wait_for,
    apiserver::{Grant, LEADER_WORKER_SETS, TOKEN, granted},
    deploy::rights,
};
use rustix::process::Signal;

use crate::World;

#[test]
fn the_cluster_role_uses_every_right_that_it_has_and_no_other() {
    let Some(rules) = rights("observer-cluster") else { return };
    let world = World::start();
    world.api.install(LEADER_WORKER_SETS);
    world.api.accept(TOKEN, "system:serviceaccount:observer:observer-cluster");
    world.api.enforce(&rules);
    let used = || -> BTreeSet<Grant> {
        let requests = world.api.requests();
        let refused: Vec<_> =
            requests.iter().filter(|seen| seen.code() == 403).map(|seen| &seen.request).collect();
        assert!(refused.is_empty(), "{refused:?}");
        requests
            .iter()
            .filter(|seen| !seen.request.resource.is_empty())
            .map(|seen| seen.request.needs())
            .collect()
    };
    let replica = world.replica(&["cluster.namespace=observer"]);
    assert_eq!(replica.get("/api/v1/top").0, 200, "where the agents are is asked when somebody asks");
    wait_for("a renewal and all watches", || {
        let verbs: Vec<String> = world.api.requests().iter().map(|seen| seen.request.verb.clone()).collect();
        let watches = verbs.iter().filter(|verb| *verb == "watch").count();
        (verbs.iter().any(|verb| verb == "update") && watches == 12).then_some(())
    });
    assert_eq!(used(), granted(&rules));
    replica.end(Signal::TERM).assert_prompt("SIGTERM");
    assert_eq!(used(), granted(&rules));
}
