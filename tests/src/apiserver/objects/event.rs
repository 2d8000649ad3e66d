//! Events, as both kinds of recorders write them.

use serde_json::{Value, json};

use super::{CREATED, hex};

/// An event about an object; written by the older recorder (`count`, `lastTimestamp`) as the kubelet's and
/// the controllers' are, until [`Self::series`] or [`Self::once`] make it one of the newer, as the
/// scheduler's are.
#[derive(Clone, Debug)]
pub struct Event {
    value: Value,
}

impl Event {
    /// An event about an object that the builders made: `("Pod", "ml", "vllm-0")`.
    pub fn new((kind, namespace, name): (&str, &str, &str), reason: &str, message: &str) -> Self {
        let version = match kind {
            "Pod" | "Node" => "v1",
            "HorizontalPodAutoscaler" => "autoscaling/v2",
            _ => "apps/v1",
        };
        let home = if namespace.is_empty() { "default" } else { namespace };
        let own = format!("{name}.{}", hex::<1>(&(kind, namespace, name, reason, message)));
        let uid = super::uid("Event", home, &own);
        Self {
            value: json!({"apiVersion": "v1", "kind": "Event",
                "metadata": {"name": own, "namespace": home, "uid": uid, "creationTimestamp": CREATED},
                "involvedObject": {"apiVersion": version, "kind": kind, "namespace": namespace, "name": name,
                    "uid": super::uid(kind, namespace, name), "resourceVersion": "900"},
                "reason": reason, "message": message, "type": "Normal", "count": 1,
                "source": {"component": "kubelet", "host": "n1"},
                "firstTimestamp": CREATED, "lastTimestamp": CREATED, "eventTime": null,
                "reportingComponent": "kubelet", "reportingInstance": "n1"}),
        }
    }

    /// The type `Warning`.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.value["type"] = json!("Warning");
        self
    }

    /// Which container it is about.
    #[must_use]
    pub fn container(mut self, name: &str) -> Self {
        self.value["involvedObject"]["fieldPath"] = json!(format!("spec.containers{{{name}}}"));
        self
    }

    /// The uid of the object, where it is another incarnation of a name.
    #[must_use]
    pub fn about_uid(mut self, uid: &str) -> Self {
        self.value["involvedObject"]["uid"] = json!(uid);
        self
    }

    /// Who writes it: component and host.
    #[must_use]
    pub fn by(mut self, component: &str, instance: &str) -> Self {
        self.value["source"] = json!({"component": component, "host": instance});
        self.value["reportingComponent"] = json!(component);
        self.value["reportingInstance"] = json!(instance);
        self
    }

    /// How often it happened until when.
    #[must_use]
    pub fn count(mut self, count: u32, last: &str) -> Self {
        self.value["count"] = json!(count);
        self.value["lastTimestamp"] = json!(last);
        self
    }

    /// As the newer recorder writes what happened once, at a time with microseconds.
    #[must_use]
    pub fn once(mut self, action: &str, at: &str) -> Self {
        let event = &mut self.value;
        event["eventTime"] = json!(at);
        event["action"] = json!(action);
        event["source"] = json!({});
        event["firstTimestamp"] = Value::Null;
        event["lastTimestamp"] = Value::Null;
        event.as_object_mut().expect("an object").remove("count");
        self
    }

    /// As the newer recorder writes what goes on: it happened so often until a time with microseconds.
    #[must_use]
    pub fn series(self, action: &str, first: &str, count: u32, last: &str) -> Self {
        let mut event = self.once(action, first);
        event.value["series"] = json!({"count": count, "lastObservedTime": last});
        event
    }
}

impl From<Event> for Value {
    fn from(event: Event) -> Self {
        event.value
    }
}
