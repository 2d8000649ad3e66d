//! Events of Kubernetes: what they are about, which of them are new, and how often each kind came.
//!
//! Only the core group's `events` are watched: an event that was written through `events.k8s.io` is the same object
//! there, with `series` in place of `count` (kubernetes: `pkg/registry/events/rest/storage_events.go` shares the
//! storage of the core group), so that watching both would count it twice.

mod category;
mod ledger;
mod pulls;

use std::time::Duration;

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

pub use category::{Category, known_kind, known_reason, known_type};
pub use ledger::{Ledger, Tally};
pub use pulls::Pulls;

use super::{lingering::Lingering, table::admits};
use crate::{
    config::PodScope,
    kube::{Keep, pods::nanos},
};

/// Characters of a message that are passed on.
const MESSAGE: usize = 1024;

/// Reason of the event that tells that an image is there.
const PULLED: &str = "Pulled";

/// One event, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its own uid.
    pub uid: String,
    /// Namespace of what it is about; empty for what is cluster-wide.
    pub namespace: String,
    /// Kind of that.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub about: String,
    /// Which container of a pod, if it is about one.
    pub container: Option<String>,
    /// The node whose kubelet tells it.
    pub node: Option<String>,
    /// Such as `BackOff`.
    pub reason: String,
    /// `Normal` or `Warning`.
    pub severity: String,
    /// Text for people.
    pub message: String,
    /// How often it occurred.
    pub count: u64,
    /// When first and when last, in nanoseconds of the wall clock of who told it.
    pub first: Option<u64>,
    /// See `first`.
    pub last: Option<u64>,
}

/// What is passed on of an event that occurred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Occurrence<'a> {
    /// When it occurred last, RFC 3339.
    pub time: Option<String>,
    /// Namespace of what it is about; empty for what is cluster-wide.
    pub namespace: &'a str,
    /// Kind of that.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The pod, if it is one.
    pub pod: Option<&'a str>,
    /// Its container, if it is about one.
    pub container: Option<&'a str>,
    /// The node whose kubelet tells it.
    pub node: Option<&'a str>,
    /// What it is a matter of.
    pub category: Category,
    /// Such as `BackOff`.
    pub reason: &'a str,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub severity: &'a str,
    /// Text for people.
    pub message: &'a str,
    /// How often it occurred in all, as whoever told it counts.
    pub count: u64,
    /// How often since it was last passed on.
    pub new: u64,
}

impl Event {
    /// `None` without a uid, by which it could be told from others.
    pub(crate) fn of(object: core::Event) -> Option<Self> {
        let about = object.involved_object;
        let series = object.series.unwrap_or_default();
        let created = object.metadata.creation_timestamp.as_ref().and_then(nanos);
        let event_time = object.event_time.as_ref().and_then(micros);
        let first = object.first_timestamp.as_ref().and_then(nanos).or(event_time).or(created);
        let last = series.last_observed_time.as_ref().and_then(micros);
        let last = last.or_else(|| object.last_timestamp.as_ref().and_then(nanos)).or(event_time).or(first);
        let counts =
            [object.count, series.count].map(|count| count.and_then(|count| u64::try_from(count).ok()));
        Some(Self {
            uid: object.metadata.uid.filter(|uid| !uid.is_empty())?,
            namespace: about.namespace.unwrap_or_default(),
            kind: about.kind.unwrap_or_default(),
            name: about.name.unwrap_or_default(),
            about: about.uid.unwrap_or_default(),
            container: about.field_path.as_deref().and_then(container),
            node: object.source.and_then(|source| source.host).filter(|host| !host.is_empty()),
            reason: object.reason.unwrap_or_default(),
            severity: object.type_.unwrap_or_default(),
            message: object.message.unwrap_or_default().chars().take(MESSAGE).collect(),
            count: counts.into_iter().flatten().max().unwrap_or(1).max(1),
            first,
            last,
        })
    }

    /// What is passed on, if it occurred so often since it last was.
    pub fn occurrence(&self, new: u64) -> Occurrence<'_> {
        let time = self.last.and_then(|last| Timestamp::from_nanosecond(last.into()).ok());
        Occurrence {
            time: time.map(|time| time.to_string()),
            namespace: &self.namespace,
            kind: &self.kind,
            name: &self.name,
            uid: &self.about,
            pod: (self.kind == "Pod").then_some(self.name.as_str()),
            container: self.container.as_deref(),
            node: self.node.as_deref(),
            category: Category::of(self),
            reason: &self.reason,
            severity: &self.severity,
            message: &self.message,
            count: self.count,
            new,
        }
    }
}

fn micros(time: &MicroTime) -> Option<u64> {
    u64::try_from(time.0.as_nanosecond()).ok()
}

/// `spec.containers{server}`, `spec.initContainers{load}` → the name.
fn container(path: &str) -> Option<String> {
    let (list, name) = path.split_once('{')?;
    list.to_ascii_lowercase().ends_with("containers").then(|| name.trim_end_matches('}').to_owned())
}

/// Whom occurrences are passed on to.
pub type Tell = Box<dyn Fn(&Occurrence<'_>) + Send + Sync>;

/// Where events are decided on, counted and passed on.
pub(super) struct Desk<'a> {
    pub(super) scope: &'a PodScope,
    /// Which pods may be told of.
    pub(super) verdicts: Lingering<bool>,
    pub(super) births: Lingering<u64>,
    pub(super) ledger: &'a Ledger,
    pub(super) pulls: &'a Pulls,
    pub(super) tell: &'a Tell,
}

impl Desk<'_> {
    /// Whether an event may be told; none if nothing is known of its pod.
    fn admits(&self, event: &Event) -> Option<bool> {
        if !admits(self.scope, &event.namespace) {
            return Some(false);
        }
        if event.kind == "Pod" { self.verdicts.of(&event.about) } else { Some(true) }
    }

    /// Of an event that occurred so often since it was last told, if it may be told.
    fn process(&self, event: &Event, new: u64) {
        if !self.admits(event).unwrap_or_else(|| self.scope.admits_unknown()) {
            return;
        }
        if event.reason == PULLED {
            self.pulls.note(event, &self.births);
        }
        if new > 0 {
            self.ledger.count(event, new);
            (self.tell)(&event.occurrence(new));
        }
    }
}

/// How long an event waits for what is told of its pod, which comes by another watch.
const PATIENCE: Duration = Duration::from_secs(1);

/// Events that wait.
const WAITING: usize = 1024;

/// Keeps count of events.
pub(super) struct Events<'a> {
    desk: &'a Desk<'a>,
    waiting: mpsc::Sender<(Instant, Event, u64)>,
}

impl<'a> Events<'a> {
    /// And what has to go on beside, for ever.
    pub(super) fn new(desk: &'a Desk<'a>) -> (Self, impl Future<Output = ()> + 'a) {
        let (waiting, mut late) = mpsc::channel::<(Instant, Event, u64)>(WAITING);
        let later = async move {
            while let Some((until, event, new)) = late.recv().await {
                sleep_until(until).await;
                desk.process(&event, new);
            }
        };
        (Self { desk, waiting }, later)
    }
}

impl Keep<core::Event> for Events<'_> {
    fn begin(&mut self) {
        self.desk.ledger.begin();
    }

    fn apply(&mut self, object: core::Event) {
        let Some(event) = Event::of(object) else { return };
        let new = self.desk.ledger.note(&event);
        // A first list comes after that of pods: what is not known of then is gone.
        if self.desk.admits(&event).is_some() || self.desk.ledger.is_first_list() {
            self.desk.process(&event, new);
            return;
        }
        if let Err(full) = self.waiting.try_send((Instant::now() + PATIENCE, event, new)) {
            let (_, event, new) = full.into_inner();
            self.desk.process(&event, new);
        }
    }

    fn delete(&mut self, object: core::Event) {
        if let Some(uid) = object.metadata.uid {
            self.desk.ledger.forget(&uid);
            if object.reason.as_deref() == Some(PULLED) {
                self.desk.pulls.forget(&uid);
            }
        }
    }

    fn told(&mut self) {
        self.desk.ledger.told();
        self.desk.pulls.retain(|uid| self.desk.ledger.knows(uid));
    }

    fn len(&self) -> usize {
        self.desk.ledger.len()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn event(object: &Value) -> Event {
        Event::of(serde_json::from_value(object.clone()).unwrap()).unwrap()
    }

    #[test]
    fn of_the_old_and_of_the_new_interface() {
        let about = json!({"kind": "Pod", "namespace": "ml", "name": "llama-0", "uid": "p",
            "fieldPath": "spec.containers{server}"});
        let old = json!({"metadata": {"name": "e", "namespace": "ml", "uid": "e"}, "involvedObject": about,
            "reason": "BackOff", "message": "Back-off restarting failed container", "type": "Warning", "count": 7,
            "firstTimestamp": "1970-01-01T00:00:10Z", "lastTimestamp": "1970-01-01T00:00:20Z",
            "source": {"component": "kubelet", "host": "node-a"}});
        let told = event(&old);
        assert_eq!((told.count, told.first, told.last), (7, Some(10 * SECOND), Some(20 * SECOND)));
        assert_eq!((told.container.as_deref(), told.node.as_deref()), (Some("server"), Some("node-a")));
        let shown = serde_json::to_value(told.occurrence(2)).unwrap();
        assert_eq!(
            shown,
            json!({"time": "1970-01-01T00:00:20Z", "namespace": "ml", "kind": "Pod", "name": "llama-0", "uid": "p",
                "pod": "llama-0", "container": "server", "node": "node-a", "category": "restart", "reason": "BackOff",
                "type": "Warning", "message": "Back-off restarting failed container", "count": 7, "new": 2})
        );
        let new = json!({"metadata": {"name": "e", "namespace": "ml", "uid": "e"}, "involvedObject": about,
            "reason": "FailedScheduling", "eventTime": "1970-01-01T00:00:10.500000Z",
            "series": {"count": 3, "lastObservedTime": "1970-01-01T00:00:30.000000Z"},
            "reportingComponent": "default-scheduler", "firstTimestamp": null, "lastTimestamp": null});
        let told = event(&new);
        assert_eq!((told.count, told.first, told.last), (3, Some(10_500_000_000), Some(30 * SECOND)));
    }

    #[test]
    fn what_is_missing() {
        let told = event(&json!({"metadata": {"uid": "e", "creationTimestamp": "1970-01-01T00:00:05Z"}}));
        assert_eq!((told.count, told.first, told.last), (1, Some(5 * SECOND), Some(5 * SECOND)));
        assert_eq!(told.occurrence(1).pod, None);
        let odd = event(
            &json!({"metadata": {"uid": "e"}, "count": -4, "involvedObject": {"fieldPath": "spec.x{y}"},
            "message": "x".repeat(5000)}),
        );
        assert_eq!((odd.count, odd.last, odd.container, odd.message.len()), (1, None, None, MESSAGE));
        assert!(Event::of(serde_json::from_value(json!({"metadata": {"name": "e"}})).unwrap()).is_none());
    }
}
