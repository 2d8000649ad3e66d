//! What others ask the server about tokens and rights: `TokenReview`, `SubjectAccessReview`,
//! `SelfSubjectAccessReview`. Nothing of it is stored.

use serde_json::{Value, json};

use super::{access::Access, access::groups, seen::Request};

/// Answers in the place of the server's own tables: from the kind and the `spec` to the `status`, or not.
pub type Reviewer = Box<dyn Fn(&str, &Value) -> Option<Value> + Send>;

/// The kind of review that a path creates.
pub(super) fn kind(request: &Request) -> Option<&'static str> {
    match (request.group.as_str(), request.resource.as_str()) {
        _ if request.version != "v1" || request.verb != "create" => None,
        ("authentication.k8s.io", "tokenreviews") => Some("TokenReview"),
        ("authorization.k8s.io", "subjectaccessreviews") => Some("SubjectAccessReview"),
        ("authorization.k8s.io", "selfsubjectaccessreviews") => Some("SelfSubjectAccessReview"),
        _ => None,
    }
}

/// The review with its answer.
pub(super) fn answer(
    access: &Access,
    reviewer: Option<&Reviewer>,
    kind: &str,
    asks: &str,
    mut review: Value,
) -> Value {
    let spec = &review["spec"];
    let given = reviewer.and_then(|reviewer| reviewer(kind, spec));
    let status = given.unwrap_or_else(|| match kind {
        "TokenReview" => token(access, spec),
        "SubjectAccessReview" => allowed(access, spec["user"].as_str().unwrap_or_default(), spec),
        _ => allowed(access, asks, spec),
    });
    review["status"] = status;
    review
}

fn token(access: &Access, spec: &Value) -> Value {
    match spec["token"].as_str().and_then(|token| access.user(token)) {
        Some(user) => json!({"authenticated": true, "user": {"username": user, "groups": groups(user)},
            "audiences": spec["audiences"].as_array().cloned().unwrap_or_default()}),
        None => {
            json!({"authenticated": false, "user": {}, "error": "[invalid bearer token, token lookup failed]"})
        }
    }
}

fn allowed(access: &Access, user: &str, spec: &Value) -> Value {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let request = Request {
        verb: text(if path.is_object() { &path["verb"] } else { &resource["verb"] }),
        group: text(&resource["group"]),
        resource: text(&resource["resource"]),
        subresource: text(&resource["subresource"]),
        namespace: text(&resource["namespace"]),
        name: text(&resource["name"]),
        path: text(&path["path"]),
        ..Request::default()
    };
    json!({"allowed": access.allows(user, &request)})
}
