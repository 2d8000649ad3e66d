//! Events of Kubernetes as rows, and what this replica answers of them beside the agents.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};

use crate::agent::keeping::Keeping;
use crate::capture::wall;
use crate::kube::Leadership;
use crate::kube::cluster::events::{Category, Occurrence};
use crate::recent::{Asked, Partial, Trailer};
use crate::serve::{Api, Lines, LogFiles, NodeApi, Question, RequestFeed};
use crate::timeline::{Kind, Level, Row, nanos};

/// What stands for this role where others have a node.
const NAME: &str = "cluster";

/// The row of an event.
pub(super) fn row(event: &Occurrence<'_>) -> Row {
    let is_warning = event.severity == "Warning";
    let level = match event.category {
        Category::Oom | Category::Eviction if is_warning => Level::Error,
        _ if is_warning => Level::Warn,
        _ => Level::Info,
    };
    let times = if event.new > 1 { format!(" ({} times)", event.new) } else { String::new() };
    let message = match event.pod {
        Some(_) => format!("{}{times}", event.message),
        None => format!("{} {}: {}{times}", event.kind, event.name, event.message),
    };
    let is_workload = !matches!(event.kind, "Pod" | "Node");
    Row {
        // 0 is now.
        time: event.time.as_deref().and_then(|time| time.parse().ok()).map_or(0, nanos),
        node: event.node.unwrap_or_default().to_owned(),
        kind: Kind::Kubernetes,
        namespace: event.namespace.to_owned(),
        pod: event.pod.unwrap_or_default().to_owned(),
        container: event.container.unwrap_or_default().to_owned(),
        workload: if is_workload { event.name.to_owned() } else { String::new() },
        level: Some(level),
        reason: event.reason.to_owned(),
        message,
        ..Row::default()
    }
}

/// Answers by what was told here.
pub(super) struct Own {
    rows: NodeApi,
    leadership: Leadership,
}

impl Own {
    pub(super) fn new(keeping: &Keeping, leadership: Leadership) -> Self {
        let now = || wall().cast_signed();
        let rows = NodeApi {
            node: NAME.to_owned(),
            feed: RequestFeed::new(1, 0, now()),
            running: Arc::new(Vec::new),
            rows: keeping.rows.clone(),
            store: keeping.store.clone(),
            // There are no lines elsewhere that would have to be looked for.
            stores_logs: true,
            files: LogFiles::default(),
            wall: now,
        };
        Self { rows, leadership }
    }
}

impl Api for Own {
    /// What was told while this replica led. One that does not lead says so: it does not know what happened since.
    fn answer(&self, asked: Asked, question: Question) -> BoxFuture<'static, Lines> {
        let (lines, leadership) = (self.rows.answer(asked, question), self.leadership.clone());
        let told = move |line: Bytes| {
            if leadership.leads() {
                return line;
            }
            let Ok(mut trailer) = serde_json::from_slice::<Trailer>(&line) else { return line };
            let reason = "is a replica that does not lead: the one that does tells the events of Kubernetes";
            trailer.partial.push(Partial { node: NAME.to_owned(), reason: reason.to_owned() });
            crate::serve::line(&trailer).unwrap_or(line)
        };
        async move { lines.await.map(told).boxed() }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_whom_it_is_about() {
        let event = Occurrence {
            time: Some("1970-01-01T00:00:20Z".into()),
            namespace: "ml",
            kind: "Deployment",
            name: "llama",
            uid: "d",
            pod: None,
            container: None,
            node: None,
            category: Category::Scaling,
            reason: "ScalingReplicaSet",
            severity: "Normal",
            message: "Scaled up replica set llama-1 to 3",
            count: 4,
            new: 2,
        };
        let told = row(&event);
        assert_eq!(told.message, "Deployment llama: Scaled up replica set llama-1 to 3 (2 times)");
        assert_eq!((told.time, told.level), (20_000_000_000, Some(Level::Info)));
        assert_eq!((told.workload.as_str(), told.pod.as_str(), told.kind), ("llama", "", Kind::Kubernetes));
        let killed = Occurrence {
            kind: "Pod",
            name: "llama-0",
            pod: Some("llama-0"),
            container: Some("server"),
            node: Some("a"),
            category: Category::Oom,
            reason: "OOMKilling",
            severity: "Warning",
            message: "Memory cgroup out of memory",
            new: 1,
            ..event
        };
        let told = row(&killed);
        assert_eq!((told.message.as_str(), told.level), ("Memory cgroup out of memory", Some(Level::Error)));
        assert_eq!((told.node.as_str(), told.pod.as_str(), told.workload.as_str()), ("a", "llama-0", ""));
    }
}
