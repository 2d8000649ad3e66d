//! What the server says about itself: `/version`, `/api`, `/apis`, and each group's resources
//! (kubernetes: apiserver/pkg/endpoints/discovery).

use serde_json::{Value, json};

use super::{resources::Resource, seen::Request};

const VERBS: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

/// What a path of discovery says; nothing for a path that is none.
pub(super) fn discovery(resources: &[Resource], request: &Request, aggregated: bool) -> Option<Value> {
    let parts: Vec<_> = request.path.trim_matches('/').split('/').collect();
    let named = |resource: &&Resource| !resource.group.is_empty();
    match parts.as_slice() {
        ["version"] => {
            Some(json!({"major": "1", "minor": "34", "gitVersion": "v1.34.1", "gitCommit": "fake",
            "gitTreeState": "clean", "buildDate": "2025-09-09T00:00:00Z", "goVersion": "go1.24.6",
            "compiler": "gc", "platform": "linux/amd64"}))
        }
        ["api"] if aggregated => Some(aggregate(&resources.iter().filter(|resource| !named(resource)))),
        ["apis"] if aggregated => Some(aggregate(&resources.iter().filter(named))),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<_> =
                groups(resources.iter().filter(named)).into_iter().map(|(g, v)| group(g, v)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => {
            let (name, version) =
                groups(resources.iter().filter(named)).into_iter().find(|(group, _)| group == name)?;
            let mut group = group(name, version);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            Some(group)
        }
        ["api", version] => list(resources, "", version),
        ["apis", group, version] => list(resources, group, version),
        _ => None,
    }
}

/// Groups and their version, in the order of the resources.
fn groups<'a>(resources: impl Iterator<Item = &'a Resource>) -> Vec<(&'static str, &'static str)> {
    let mut groups = Vec::new();
    for resource in resources {
        if !groups.contains(&(resource.group, resource.version)) {
            groups.push((resource.group, resource.version));
        }
    }
    groups
}

fn group(name: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn list(resources: &[Resource], group: &str, version: &str) -> Option<Value> {
    let of_group: Vec<_> = resources.iter().filter(|r| r.group == group && r.version == version).collect();
    let first = of_group.first()?;
    let listed: Vec<_> = of_group
        .iter()
        .map(|r| {
            json!({"name": r.plural, "singularName": r.kind.to_lowercase(), "namespaced": r.namespaced,
                "kind": r.kind, "verbs": VERBS})
        })
        .collect();
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": listed}),
    )
}

/// All groups in one document (apidiscovery.k8s.io/v2).
fn aggregate<'a>(resources: &(impl Iterator<Item = &'a Resource> + Clone)) -> Value {
    let describe = |r: &Resource| {
        json!({"resource": r.plural, "responseKind": {"group": r.group, "version": r.version, "kind": r.kind},
            "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": r.kind.to_lowercase(), "verbs": VERBS})
    };
    let items: Vec<_> = groups(resources.clone())
        .into_iter()
        .map(|(group, version)| {
            let of_group: Vec<_> = resources.clone().filter(|r| r.group == group).map(describe).collect();
            json!({"metadata": {"name": group}, "versions": [
                {"version": version, "resources": of_group, "freshness": "Current"}]})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}
