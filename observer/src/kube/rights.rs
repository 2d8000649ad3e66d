//! What each role asks the API server for, and whether it may.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use super::connect::Connection;
use super::health::{Failure, Health, chain};

/// Something that a role asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Plural name.
    pub resource: &'static str,
    /// Verb.
    pub verb: &'static str,
    /// The only namespace that it is asked in; all without one.
    pub namespace: Option<String>,
    /// The only object that it is asked of.
    pub name: Option<String>,
}

impl Right {
    const fn everywhere(group: &'static str, resource: &'static str, verb: &'static str) -> Self {
        Self { group, resource, verb, namespace: None, name: None }
    }

    /// As an operator would say it.
    pub fn shown(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let place = self.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in {namespace}"));
        format!("{} {}{group}{place}", self.verb, self.resource)
    }
}

/// Of `observer agent`.
pub fn of_agent() -> Vec<Right> {
    vec![
        Right::everywhere("", "pods", "list"),
        Right::everywhere("", "pods", "watch"),
        Right::everywhere("apps", "replicasets", "get"),
        Right::everywhere("apps", "statefulsets", "get"),
        Right::everywhere("batch", "jobs", "get"),
    ]
}

/// What `observer cluster` lists and watches.
const WATCHED: [(&str, &str); 11] = [
    ("", "pods"),
    ("", "events"),
    ("", "resourcequotas"),
    ("", "limitranges"),
    ("", "nodes"),
    ("apps", "deployments"),
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("apps", "replicasets"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets"),
    ("autoscaling", "horizontalpodautoscalers"),
];

/// Of `observer cluster`, with its lease and its agents in this namespace.
pub fn of_cluster(namespace: &str, lease: &str) -> Vec<Right> {
    let watched = WATCHED
        .into_iter()
        .flat_map(|(group, resource)| ["list", "watch"].map(|verb| Right::everywhere(group, resource, verb)));
    let here = |group, resource, verb, name: Option<&str>| Right {
        namespace: Some(namespace.to_owned()),
        name: name.map(str::to_owned),
        ..Right::everywhere(group, resource, verb)
    };
    let leases = "coordination.k8s.io";
    watched
        .chain([
            here(leases, "leases", "create", None),
            here(leases, "leases", "get", Some(lease)),
            here(leases, "leases", "update", Some(lease)),
            here("discovery.k8s.io", "endpointslices", "list", None),
        ])
        .collect()
}

/// Of either, where `api.kubernetes` has them ask about those who ask.
pub fn of_reviews() -> Vec<Right> {
    vec![
        Right::everywhere("authentication.k8s.io", "tokenreviews", "create"),
        Right::everywhere("authorization.k8s.io", "subjectaccessreviews", "create"),
    ]
}

/// Which of these rights whoever asks does not have.
///
/// # Errors
/// Why the API server does not tell.
pub async fn missing(connection: &Connection, rights: Vec<Right>) -> Result<Vec<Right>, (Failure, String)> {
    let failed = |error: kube::Error| (Failure::of_request(&error), chain(&error));
    let client = connection
        .client(&Health::of("selfsubjectaccessreviews", || 0))
        .map_err(|error| (Failure::Other, error.to_string()))?;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    let mut missing = Vec::new();
    for right in rights {
        let attributes = ResourceAttributes {
            group: Some(right.group.to_owned()),
            resource: Some(right.resource.to_owned()),
            verb: Some(right.verb.to_owned()),
            namespace: right.namespace.clone(),
            name: right.name.clone(),
            ..ResourceAttributes::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(failed)?;
        if !answer.status.is_some_and(|status| status.allowed) {
            missing.push(right);
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_shown_as_they_are_granted() {
        let all = of_cluster("llm", "observer-cluster");
        let shown: Vec<String> = all.iter().map(Right::shown).collect();
        for right in ["watch nodes", "list deployments.apps", "update leases.coordination.k8s.io in llm"] {
            assert!(shown.iter().any(|one| one == right), "{right}: {shown:?}");
        }
    }
}
