//! What the service accounts may do.

use std::collections::BTreeSet;

use observer::kube::{Right, of_agent, of_cluster};
use observer_tests::{
    apiserver::{Grant, granted},
    deploy::rights,
};
use serde_json::{Value, json};

/// Rules of the roles of a kind.
fn rules(rights: &[Value], kind: &str) -> Vec<Value> {
    let roles = rights.iter().filter(|one| one["kind"] == kind);
    roles.flat_map(|role| role["rules"].as_array().expect("rules").clone()).collect()
}

#[test]
fn rights_of_the_service_accounts() {
    let (Some(agent), Some(cluster)) = (rights("observer-agent"), rights("observer-cluster")) else { return };
    assert_eq!(rules(&agent, "Role"), Vec::<Value>::new());
    assert_eq!(
        rules(&agent, "ClusterRole"),
        [
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}),
            json!({"apiGroups": ["apps"], "resources": ["replicasets", "statefulsets"], "verbs": ["get"]}),
            json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]}),
        ]
    );
    for rule in rules(&cluster, "ClusterRole") {
        assert_eq!(
            rule["verbs"],
            json!(["list", "watch"]),
            "the cluster role changes nothing anywhere: {rule}"
        );
    }
    for rule in rules(&cluster, "Role") {
        let resource = rule["resources"][0].as_str().expect("a resource");
        assert!(["leases", "endpointslices"].contains(&resource), "{rule}");
    }
    for one in agent.iter().chain(&cluster) {
        let rules = one["rules"].to_string();
        for word in ["*", "secrets", "exec", "delete", "impersonate", "escalate", "bind"] {
            assert!(!rules.contains(&format!("\"{word}\"")), "{word}: {rules}");
        }
    }
}

#[test]
fn the_doctor_asks_for_what_is_granted() {
    let (Some(agent), Some(cluster)) = (rights("observer-agent"), rights("observer-cluster")) else { return };
    let grants = |rights: Vec<Right>| -> BTreeSet<Grant> {
        let grant = |right: Right| Grant {
            group: right.group.to_owned(),
            resource: right.resource.to_owned(),
            verb: right.verb.to_owned(),
        };
        rights.into_iter().map(grant).collect()
    };
    assert_eq!(grants(of_agent()), granted(&agent));
    assert_eq!(grants(of_cluster("observer", "observer-cluster")), granted(&cluster));
}

#[test]
fn an_account_that_is_not_there_may_do_nothing() {
    assert!(rights("observer-nobody").is_none_or(|rights| rights.is_empty()));
}
