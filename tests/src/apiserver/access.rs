//! Who a request comes from, and what RBAC lets it do.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::seen::Request;

/// Tokens, and the rules if they are enforced.
#[derive(Debug, Default)]
pub(super) struct Access {
    tokens: HashMap<String, String>,
    /// Roles and bindings of both scopes.
    rules: Option<Vec<Value>>,
}

/// A verb on a resource of a group; a subresource is part of the resource (`pods/log`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural, with the subresource.
    pub resource: String,
    /// Verb.
    pub verb: String,
}

impl Request {
    /// What a role must grant for this request.
    pub fn needs(&self) -> Grant {
        let resource = if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        Grant { group: self.group.clone(), resource, verb: self.verb.clone() }
    }
}

/// Everything that the roles among some objects grant, each combination by itself.
pub fn granted(objects: &[Value]) -> BTreeSet<Grant> {
    let mut grants = BTreeSet::new();
    let roles =
        objects.iter().filter(|object| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")));
    for rule in roles.flat_map(|role| list(&role["rules"])) {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    grants.insert(Grant {
                        group: group.into(),
                        resource: resource.into(),
                        verb: verb.into(),
                    });
                }
            }
        }
    }
    grants
}

impl Access {
    pub(super) fn accept(&mut self, token: &str, user: &str) {
        self.tokens.insert(token.to_owned(), user.to_owned());
    }

    pub(super) fn reject(&mut self, token: &str) {
        self.tokens.remove(token);
    }

    pub(super) fn user(&self, token: &str) -> Option<&str> {
        self.tokens.get(token).map(String::as_str)
    }

    pub(super) fn enforce(&mut self, objects: Option<Vec<Value>>) {
        self.rules = objects;
    }

    /// Whether a user may do what it asks for (kubernetes: plugin/pkg/auth/authorizer/rbac/rbac.go).
    pub(super) fn allows(&self, user: &str, request: &Request) -> bool {
        let Some(objects) = &self.rules else { return true };
        // Every authenticated user has system:discovery and system:basic-user.
        let discovery = request.resource.is_empty()
            && request.verb == "get"
            && ["/api", "/version", "/healthz", "/livez", "/readyz"]
                .iter()
                .any(|path| request.path.starts_with(path));
        let about_itself = request.group == "authorization.k8s.io" && request.resource.starts_with("self");
        if discovery || about_itself {
            return true;
        }
        let bindings = objects.iter().filter(|binding| match binding["kind"].as_str() {
            Some("ClusterRoleBinding") => true,
            Some("RoleBinding") => !request.namespace.is_empty() && namespace(binding) == request.namespace,
            _ => false,
        });
        bindings
            .filter(|binding| {
                list(&binding["subjects"]).iter().any(|subject| is(user, subject, namespace(binding)))
            })
            .flat_map(|binding| rules_of(objects, binding))
            .any(|rule| covers(rule, request))
    }
}

fn rules_of<'a>(objects: &'a [Value], binding: &Value) -> &'a [Value] {
    let role = objects.iter().find(|role| {
        role["kind"] == binding["roleRef"]["kind"]
            && role["metadata"]["name"] == binding["roleRef"]["name"]
            && (role["kind"] == "ClusterRole" || namespace(role) == namespace(binding))
    });
    role.map_or(&[], |role| list(&role["rules"]))
}

fn covers(rule: &Value, request: &Request) -> bool {
    let has = |field: &str, value: &str| texts(&rule[field]).any(|text| text == value || text == "*");
    if request.resource.is_empty() {
        let path = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => request.path.starts_with(start),
            None => request.path == pattern,
        };
        return has("verbs", &request.verb) && texts(&rule["nonResourceURLs"]).any(path);
    }
    let names = list(&rule["resourceNames"]);
    let needs = request.needs();
    let every = !request.subresource.is_empty() && has("resources", &format!("*/{}", request.subresource));
    has("verbs", &request.verb)
        && has("apiGroups", &request.group)
        && (has("resources", &needs.resource) || every)
        && (names.is_empty() || names.iter().any(|name| *name == request.name))
}

fn is(user: &str, subject: &Value, home: &str) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or(home);
            user == format!("system:serviceaccount:{namespace}:{name}")
        }
        Some("User") => user == name,
        Some("Group") => groups(user).iter().any(|group| group == name),
        _ => false,
    }
}

/// The groups that a user is in without anybody's doing.
pub(super) fn groups(user: &str) -> Vec<String> {
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some((namespace, _)) =
        user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
    {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).iter().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, Method};
    use serde_json::json;

    use super::*;

    #[test]
    fn roles_and_bindings() {
        let mut access = Access::default();
        access.enforce(Some(vec![
            json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [
                {"apiGroups": [""], "resources": ["pods", "*/status"], "verbs": ["list"]},
                {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "r"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "namespace": "o", "name": "a"}]}),
            json!({"kind": "Role", "metadata": {"name": "l", "namespace": "o"}, "rules": [
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["x"], "verbs": ["*"]}]}),
            json!({"kind": "RoleBinding", "metadata": {"name": "l", "namespace": "o"}, "roleRef": {"kind": "Role", "name": "l"},
                "subjects": [{"kind": "Group", "name": "system:serviceaccounts:o"}]}),
        ]));
        let allows = |user: &str, method, uri: &str| {
            access.allows(user, &Request::new(&method, &uri.parse().expect("a URI"), &HeaderMap::new()))
        };
        let a = "system:serviceaccount:o:a";
        let lease = "/apis/coordination.k8s.io/v1/namespaces/o/leases/x";
        for (yes, user, method, uri) in [
            (true, a, Method::GET, "/api/v1/pods"),
            (true, a, Method::GET, "/api/v1/namespaces/any/pods"),
            (false, a, Method::GET, "/api/v1/pods?watch=1"),
            (false, a, Method::GET, "/api/v1/nodes"),
            (false, a, Method::GET, "/apis/apps/v1/pods"),
            (false, "system:serviceaccount:p:a", Method::GET, "/api/v1/pods"),
            (true, a, Method::GET, "/metrics"),
            (false, a, Method::GET, "/logs"),
            (true, a, Method::GET, "/version"),
            (true, a, Method::PUT, lease),
            (true, "system:serviceaccount:o:b", Method::PUT, lease),
            (false, "system:serviceaccount:p:b", Method::PUT, lease),
            (false, a, Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/o/leases/y"),
            (false, a, Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/p/leases/x"),
        ] {
            assert_eq!(allows(user, method.clone(), uri), yes, "{user} {method} {uri}");
        }
    }
}
