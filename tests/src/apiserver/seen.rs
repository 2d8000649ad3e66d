//! What a request asks for, in the words of RBAC, and the record of every request that came.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
};

use axum::{
    extract::Query,
    http::{HeaderMap, Method, Uri, header},
};

/// One request (kubernetes: apiserver/pkg/endpoints/request/requestinfo.go). What does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for a path that is
    /// no resource the HTTP method in lower case.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// What is asked of the object, as `status`.
    pub subresource: String,
    /// Namespace; empty for all and for what is cluster-wide.
    pub namespace: String,
    /// Name of the object; for `list` and `watch` the only one that the field selector lets through.
    pub name: String,
    /// The whole path.
    pub path: String,
    /// Parameters after the path.
    pub query: HashMap<String, String>,
    /// Whether only metadata is asked for (`PartialObjectMetadata`).
    pub metadata_only: bool,
    /// What the client calls itself.
    pub user_agent: String,
    /// Who it is, by its token; empty if the token is wrong.
    pub user: String,
}

impl Request {
    pub(super) fn new(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let query = Query::<HashMap<String, String>>::try_from_uri(uri)
            .map_or_else(|_| HashMap::new(), |query| query.0);
        let mut request = Self {
            verb: method.as_str().to_ascii_lowercase(),
            path: uri.path().to_owned(),
            query,
            metadata_only: header(header::ACCEPT).contains("as=PartialObjectMetadata"),
            user_agent: header(header::USER_AGENT).to_owned(),
            ..Self::default()
        };
        let path = request.path.clone();
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let place = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => Some(("", *version, rest)),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => Some((*group, *version, rest)),
            _ => None,
        };
        if let Some((group, version, rest)) = place {
            group.clone_into(&mut request.group);
            version.clone_into(&mut request.version);
            request.fill(method, rest);
        }
        request
    }

    fn fill(&mut self, method: &Method, rest: &[&str]) {
        let rest = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                (*namespace).clone_into(&mut self.namespace);
                rest
            }
            _ => rest,
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        (self.resource, self.name, self.subresource) =
            (part(0), part(1), rest.get(2..).unwrap_or_default().join("/"));
        if self.resource == "namespaces" {
            self.namespace.clone_from(&self.name);
        }
        let collection = self.name.is_empty();
        let verb = match *method {
            Method::GET if !collection => "get",
            Method::GET if matches!(self.parameter("watch"), "true" | "1") => "watch",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if collection => "deletecollection",
            Method::DELETE => "delete",
            _ => return,
        };
        verb.clone_into(&mut self.verb);
        if matches!(verb, "list" | "watch")
            && let Some(name) =
                self.parameter("fieldSelector").split(',').find_map(|t| t.strip_prefix("metadata.name="))
        {
            self.name = name.trim_start_matches('=').to_owned();
        }
    }

    /// A parameter, empty if it is not given.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// The parameter `fieldSelector`.
    pub fn field_selector(&self) -> &str {
        self.parameter("fieldSelector")
    }

    /// Whether it asks for a resource by a name as kubectl takes it: `pods`, `events.events.k8s.io`;
    /// `events.` for that of the core group alone.
    pub fn is_for(&self, resource: &str) -> bool {
        resource == self.resource
            || resource.strip_prefix(&self.resource).and_then(|rest| rest.strip_prefix('.'))
                == Some(&self.group)
    }
}

/// A request that came, and what became of it.
#[derive(Debug)]
pub struct Seen {
    /// What was asked for.
    pub request: Request,
    code: AtomicU16,
    bytes: AtomicU64,
    open: AtomicBool,
    cut: AtomicBool,
    bookmark: AtomicBool,
}

impl Seen {
    pub(super) fn new(request: Request) -> Self {
        Self {
            request,
            code: AtomicU16::new(0),
            bytes: AtomicU64::new(0),
            open: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            bookmark: AtomicBool::new(false),
        }
    }

    /// The status code of the answer; 0 if there is none yet.
    pub fn code(&self) -> u16 {
        self.code.load(Ordering::Relaxed)
    }

    /// Bytes of the answer's body so far, without the framing of HTTP.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it is a watch that goes on.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn answered(&self, code: u16) {
        self.code.store(code, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    pub(super) fn order_cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(super) fn order_bookmark(&self) {
        self.bookmark.store(true, Ordering::Release);
    }

    pub(super) fn take_bookmark(&self) -> bool {
        self.bookmark.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(method: &Method, uri: &str) -> [String; 6] {
        let r = Request::new(method, &uri.parse().expect("a URI"), &HeaderMap::new());
        [r.verb, r.group, r.resource, r.subresource, r.namespace, r.name]
    }

    #[test]
    fn in_the_words_of_rbac() {
        for (method, uri, expected) in [
            (Method::GET, "/api/v1/pods", ["list", "", "pods", "", "", ""]),
            (Method::GET, "/api/v1/pods?watch=true", ["watch", "", "pods", "", "", ""]),
            (Method::GET, "/api/v1/namespaces/ml/pods/a", ["get", "", "pods", "", "ml", "a"]),
            (Method::GET, "/api/v1/namespaces/ml/pods/a/log", ["get", "", "pods", "log", "ml", "a"]),
            (Method::GET, "/api/v1/namespaces/ml", ["get", "", "namespaces", "", "ml", "ml"]),
            (
                Method::GET,
                "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1",
                ["watch", "", "nodes", "", "", "n1"],
            ),
            (
                Method::POST,
                "/apis/coordination.k8s.io/v1/namespaces/o/leases",
                ["create", "coordination.k8s.io", "leases", "", "o", ""],
            ),
            (
                Method::PATCH,
                "/apis/coordination.k8s.io/v1/namespaces/o/leases/x",
                ["patch", "coordination.k8s.io", "leases", "", "o", "x"],
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/o/deployments",
                ["deletecollection", "apps", "deployments", "", "o", ""],
            ),
            (Method::GET, "/apis/apps/v1", ["get", "", "", "", "", ""]),
            (Method::GET, "/version", ["get", "", "", "", "", ""]),
        ] {
            assert_eq!(words(&method, uri), expected, "{uri}");
        }
    }
}
