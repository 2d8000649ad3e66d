//! How a stored object is shown: by the resource that is asked, whole or its metadata only.

use serde_json::{Map, Value, json};

use super::resources::Resource;

/// The event's fields that the groups name differently: in core, in events.k8s.io
/// (kubernetes: pkg/apis/events/v1/conversion.go).
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// How objects are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) resource: Resource,
    pub(super) metadata_only: bool,
}

impl Shape {
    /// A stored object as it is asked for, with its kind.
    pub(super) fn show(&self, stored: &Value) -> Value {
        if self.metadata_only {
            return json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": stored["metadata"]});
        }
        let mut shown = stored.clone();
        if self.resource.group == "events.k8s.io" {
            rename(&mut shown, |core, events| (core, events));
        }
        shown["kind"] = json!(self.resource.kind);
        shown["apiVersion"] = json!(self.resource.api_version());
        shown
    }

    /// An item of a list: those of built-in resources have no kind.
    pub(super) fn item(&self, stored: &Value) -> Value {
        let mut shown = self.show(stored);
        if !self.metadata_only && !self.resource.custom {
            let members = shown.as_object_mut().expect("an object");
            members.remove("kind");
            members.remove("apiVersion");
        }
        shown
    }

    pub(super) fn list(&self, metadata: &Value, items: Vec<Value>) -> Value {
        let (kind, version) = if self.metadata_only {
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            (format!("{}List", self.resource.kind), self.resource.api_version())
        };
        let mut list = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        list["items"] = Value::Array(items);
        list
    }

    /// What a bookmark shows: a version, and whether the initial events end here.
    pub(super) fn bookmark(&self, version: u64, ends_initial: bool) -> Value {
        let mut shown = self.show(&json!({"metadata": {"resourceVersion": version.to_string(),
            "creationTimestamp": null}}));
        if ends_initial {
            shown["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        shown
    }

    /// An object that a client or a test wrote, as it is stored.
    pub(super) fn stored(&self, mut written: Value) -> Value {
        if self.resource.group == "events.k8s.io" {
            rename(&mut written, |core, events| (events, core));
            written["apiVersion"] = json!("v1");
        }
        written
    }
}

fn rename(event: &mut Value, direction: fn(&'static str, &'static str) -> (&'static str, &'static str)) {
    let members: &mut Map<String, Value> = event.as_object_mut().expect("an object");
    for (core, events) in EVENT_FIELDS {
        let (from, to) = direction(core, events);
        if let Some(value) = members.remove(from) {
            members.insert(to.to_owned(), value);
        }
    }
}
