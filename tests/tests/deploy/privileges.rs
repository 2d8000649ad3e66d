//! What the service accounts may do.

use observer_tests::deploy::granted;
use serde_json::{Value, json};

#[test]
fn rights_of_the_service_accounts() {
    let (Some(agent), Some(cluster)) = (granted("observer-agent"), granted("observer-cluster")) else {
        return;
    };
    assert_eq!(agent.own_namespace, Vec::<Value>::new());
    assert_eq!(
        agent.everywhere,
        [
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}),
            json!({"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get"]}),
            json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]}),
        ]
    );
    for rule in &cluster.everywhere {
        assert_eq!(
            rule["verbs"],
            json!(["list", "watch"]),
            "the cluster role changes nothing anywhere: {rule}"
        );
    }
    for rule in &cluster.own_namespace {
        assert_eq!(rule["resources"], json!(["leases"]), "{rule}");
    }
    for rule in agent.everywhere.iter().chain(&cluster.everywhere).chain(&cluster.own_namespace) {
        let rule = rule.to_string();
        for word in ["*", "secrets", "exec", "delete", "impersonate", "escalate", "bind"] {
            assert!(!rule.contains(&format!("\"{word}\"")), "{word}: {rule}");
        }
    }
}

#[test]
fn an_account_that_is_not_there_may_do_nothing() {
    let Some(nobody) = granted("observer-nobody") else { return };
    assert!(nobody.everywhere.is_empty() && nobody.own_namespace.is_empty(), "{nobody:?}");
}
