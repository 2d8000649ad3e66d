//! Label and field selectors (kubernetes: apimachinery/pkg/labels/selector.go, pkg/fields/selector.go).

use serde_json::Value;

use super::resources::Resource;

/// Which objects of a resource a request asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    labels: Vec<Requirement>,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

#[derive(Clone, Debug)]
struct Field {
    path: String,
    value: String,
    equal: bool,
}

impl Selection {
    /// Reads both selectors; or says what the server would answer to a wrong one.
    pub(super) fn new(resource: &Resource, labels: &str, fields: &str) -> Result<Self, String> {
        let labels = split(labels).into_iter().map(requirement).collect::<Result<_, _>>()?;
        let fields = split(fields).into_iter().map(|term| field(resource, term)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Whether it selects everything.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.fields.iter().all(|field| (text(object, &field.path) == field.value) == field.equal)
    }
}

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        match self {
            Self::Exists(key) => labels.get(key).is_some(),
            Self::Absent(key) => labels.get(key).is_none(),
            Self::In(key, values) => has(labels, key, values),
            // A label that is not there is in no set.
            Self::NotIn(key, values) => !has(labels, key, values),
        }
    }
}

fn has(labels: &Value, key: &str, values: &[String]) -> bool {
    labels.get(key).and_then(Value::as_str).is_some_and(|label| values.iter().any(|value| value == label))
}

/// Terms between commas; those inside parentheses belong to a set.
fn split(selector: &str) -> Vec<&str> {
    let mut depth = 0;
    let terms = selector.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    terms.map(str::trim).filter(|term| !term.is_empty()).collect()
}

fn requirement(term: &str) -> Result<Requirement, String> {
    let wrong = || format!("unable to parse requirement: {term}");
    let one = |key: &str, value: &str| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(key.trim().to_owned()));
    }
    if let Some((key, set)) = term.split_once('(') {
        let values = set.strip_suffix(')').ok_or_else(wrong)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = key.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Requirement::In(key.to_owned(), values)),
            (Some(key), Some("notin"), None) => Ok(Requirement::NotIn(key.to_owned(), values)),
            _ => Err(wrong()),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        let (key, values) = one(key, value);
        return Ok(Requirement::NotIn(key, values));
    }
    if let Some((key, value)) = term.split_once('=') {
        let (key, values) = one(key, value.strip_prefix('=').unwrap_or(value));
        return Ok(Requirement::In(key, values));
    }
    if term.contains(char::is_whitespace) { Err(wrong()) } else { Ok(Requirement::Exists(term.to_owned())) }
}

fn field(resource: &Resource, term: &str) -> Result<Field, String> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once('=') {
        (path, value.strip_prefix('=').unwrap_or(value), true)
    } else {
        return Err(format!("invalid selector: '{term}'; can't understand '{term}'"));
    };
    let path = stored_field(resource, path.trim())
        .ok_or_else(|| format!("field label not supported: {}", path.trim()))?;
    Ok(Field { path, value: value.trim().to_owned(), equal })
}

/// The path in the stored object of a field that the server lets select by (kubernetes:
/// pkg/apis/*/v1/conversion.go).
fn stored_field(resource: &Resource, label: &str) -> Option<String> {
    let supported: &[&str] = match (resource.group, resource.plural) {
        (_, _) if matches!(label, "metadata.name" | "metadata.namespace") => return Some(label.to_owned()),
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("" | "events.k8s.io", "events") => return stored_event_field(resource, label),
        _ => &[],
    };
    supported.contains(&label).then(|| label.to_owned())
}

/// Both groups' events are stored in the core shape.
fn stored_event_field(resource: &Resource, label: &str) -> Option<String> {
    let label = match (resource.group, label) {
        ("events.k8s.io", "reportingController") => "reportingComponent".to_owned(),
        ("events.k8s.io", _) if label.starts_with("involvedObject") => return None,
        ("events.k8s.io", _) => label.replacen("regarding.", "involvedObject.", 1),
        _ => label.to_owned(),
    };
    match label.as_str() {
        "reason" | "reportingComponent" | "type" => Some(label),
        "source" => Some("source.component".to_owned()),
        _ => {
            let part = label.strip_prefix("involvedObject.")?;
            ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"]
                .contains(&part)
                .then(|| label.clone())
        }
    }
}

/// A field as selectors compare it: text, empty where it is missing.
fn text(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(other @ (Value::Bool(_) | Value::Number(_))) => other.to_string(),
        // `spec.hostNetwork` and `spec.unschedulable` are left out when they are false.
        _ if path.ends_with("hostNetwork") || path.ends_with("unschedulable") => "false".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::resources::BUILT_IN, *};

    fn pod_matches(labels: &str, fields: &str) -> bool {
        let pod = json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": "gpu"}},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        Selection::new(&BUILT_IN[0], labels, fields).expect("a selector").matches(&pod)
    }

    #[test]
    fn labels() {
        for yes in [
            "",
            "app=x",
            "app==x",
            "app!=y",
            "none!=y",
            "app in (y, x)",
            "app notin (y)",
            "none notin (y)",
            "app",
            "!none",
            "app=x,tier in (gpu,cpu),!none",
        ] {
            assert!(pod_matches(yes, ""), "{yes}");
        }
        for no in
            ["app=y", "app!=x", "none=x", "app in (y,z)", "app notin (x)", "none", "!app", "app=x,tier=cpu"]
        {
            assert!(!pod_matches(no, ""), "{no}");
        }
        for wrong in ["app in x", "app among (x)", "app in (x"] {
            assert!(Selection::new(&BUILT_IN[0], wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields() {
        for yes in [
            "spec.nodeName=n1",
            "spec.nodeName!=n2",
            "spec.nodeName!=",
            "status.phase==Running,metadata.name=a",
            "spec.hostNetwork=false",
        ] {
            assert!(pod_matches("", yes), "{yes}");
        }
        for no in ["spec.nodeName=", "spec.nodeName=n2", "status.phase!=Running"] {
            assert!(!pod_matches("", no), "{no}");
        }
        let wrong = Selection::new(&BUILT_IN[0], "", "spec.priority=1").expect_err("not selectable");
        assert_eq!(wrong, "field label not supported: spec.priority");
    }
}
