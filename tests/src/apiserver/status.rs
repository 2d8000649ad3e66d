//! The `Status` objects that a server answers instead of what was asked for
//! (kubernetes: apimachinery/pkg/api/errors/errors.go).

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::{apply::Conflict, resources::Resource, seen::Request};

/// Why a request fails: the `Status`, its code in it.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Value);

impl Failure {
    fn new(code: u16, reason: &str, message: &str) -> Self {
        Self(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code}))
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.0["details"] = json!({"name": name, "group": resource.group, "kind": resource.plural});
        self
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn forbidden(request: &Request, user: &str) -> Self {
        let what = match request.subresource.as_str() {
            "" => request.resource.clone(),
            part => format!("{}/{part}", request.resource),
        };
        let place = match request.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        let qualified =
            if request.group.is_empty() { what.clone() } else { format!("{what}.{}", request.group) };
        let named = if request.name.is_empty() { String::new() } else { format!(" \"{}\"", request.name) };
        let message = if request.resource.is_empty() {
            format!("forbidden: User \"{user}\" cannot {} path \"{}\"", request.verb, request.path)
        } else {
            format!(
                "{qualified}{named} is forbidden: User \"{user}\" cannot {} resource \"{what}\" in API group \"{}\" {place}",
                request.verb, request.group
            )
        };
        let mut failure = Self::new(403, "Forbidden", &message);
        failure.0["details"] =
            json!({"name": request.name, "group": request.group, "kind": request.resource});
        failure
    }

    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", &format!("{} \"{name}\" not found", resource.qualified()))
            .about(resource, name)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(super) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::new(409, "AlreadyExists", &message).about(resource, name)
    }

    pub(super) fn stale(resource: &Resource, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes \
             to the latest version and try again",
            resource.qualified()
        );
        Self::new(409, "Conflict", &message).about(resource, name)
    }

    pub(super) fn owned(conflicts: &[Conflict]) -> Self {
        let listed: Vec<_> =
            conflicts.iter().map(|c| format!("conflict with \"{}\": {}", c.manager, c.path)).collect();
        let number = listed.len();
        let mut failure = Self::new(
            409,
            "Conflict",
            &format!(
                "Apply failed with {number} conflict{}: {}",
                if number == 1 { "" } else { "s" },
                listed.join("\n")
            ),
        );
        let causes: Vec<_> = conflicts
            .iter()
            .map(|c| {
                json!({"reason": "FieldManagerConflict", "field": c.path,
                "message": format!("conflict with \"{}\"", c.manager)})
            })
            .collect();
        failure.0["details"] = json!({"causes": causes});
        failure
    }

    /// A watch or an exact list of a version that is forgotten.
    pub(super) fn too_old(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", &format!("too old resource version: {asked} ({oldest})"))
    }

    /// A page of a list whose version is forgotten.
    pub(super) fn page_too_old() -> Self {
        Self::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter.",
        )
    }

    pub(super) fn unsupported_media_type(given: &str) -> Self {
        let message = format!("the body of the request was in an unknown format: {given}");
        Self::new(415, "UnsupportedMediaType", &message)
    }

    pub(super) fn invalid(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{}.{} \"{name}\" is invalid: {why}", resource.kind, resource.group);
        Self::new(422, "Invalid", &message).about(resource, name)
    }

    /// A list at a version that is not reached yet.
    pub(super) fn too_large(asked: u64, current: u64) -> Self {
        let mut failure = Self::new(
            504,
            "Timeout",
            &format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        failure.0["details"] = json!({"causes": [{"reason": "ResourceVersionTooLarge",
            "message": "Too large resource version"}], "retryAfterSeconds": 1});
        failure
    }

    /// What a test ordered.
    pub(super) fn ordered(code: u16) -> Self {
        match code {
            403 => Self::new(403, "Forbidden", "forbidden: not allowed by the test"),
            429 => Self::new(429, "TooManyRequests", "Too many requests, please try again later."),
            500 => Self::new(500, "InternalError", "Internal error occurred: etcdserver: request timed out"),
            503 => {
                Self::new(503, "ServiceUnavailable", "the server is currently unable to handle the request")
            }
            _ => Self::new(code, "Unknown", "ordered by the test"),
        }
    }

    pub(super) fn code(&self) -> u16 {
        self.0["code"].as_u64().map_or(500, |code| code as u16)
    }

    pub(super) fn response(&self) -> Response {
        answer(self.code(), self.0.to_string())
    }
}

/// A JSON answer.
pub(super) fn answer(code: u16, json: String) -> Response {
    let code = StatusCode::from_u16(code).expect("a status code");
    (code, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(json))
        .into_response()
}

/// What the router of a server says about a path that no API serves; no `Status`.
pub(super) fn no_such_path() -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
    (StatusCode::NOT_FOUND, kind, "404 page not found\n").into_response()
}
