//! The cluster role, the real program beside the fake API server: no privileges.

mod election;
mod events;
mod faults;
mod kinds;
mod rights;
mod rows;
mod scale;

use std::{path::PathBuf, time::Duration};

use observer::capture::monotonic;
use observer_tests::{
    agent::{Agent, Metrics, observer},
    apiserver::{ApiServer, TOKEN},
};
use serde_json::json;
use tempfile::TempDir;

/// An API server and what replicas need to find it.
struct World {
    api: ApiServer,
    folder: TempDir,
}

impl World {
    fn start() -> Self {
        let (api, folder) = (ApiServer::start(), tempfile::tempdir().expect("a folder"));
        let world = Self { api, folder };
        std::fs::write(world.token(), TOKEN).expect("a token");
        world
            .api
            .kubeconfig_with(&world.folder.path().join("kubeconfig"), &json!({"tokenFile": world.token()}));
        world
    }

    /// The file that replicas read their token from.
    fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// A replica with these settings besides, which has read the lease.
    fn replica(&self, settings: &[&str]) -> Agent {
        let kubeconfig = format!("kubernetes.kubeconfig={}", self.folder.path().join("kubeconfig").display());
        let mut args = vec!["cluster", "--listen", "127.0.0.1:0", "--set", &kubeconfig];
        for setting in settings {
            args.extend(["--set", setting]);
        }
        Agent::with(observer(args))
    }
}

/// Waits, for longer than others need, until `look` finds something; panics with `what` after the limit.
fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = monotonic() + limit.as_nanos() as u64;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(monotonic() < end, "did not come in {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a series has a value.
fn wait_for_value(replica: &Agent, name: &str, labels: &[(&str, &str)], value: f64) -> Metrics {
    let mut last = None;
    let limit = Duration::from_secs(20);
    let end = monotonic() + limit.as_nanos() as u64;
    loop {
        let metrics = replica.metrics();
        let now = metrics.value(name, labels);
        if now == Some(value) {
            return metrics;
        }
        last = now.or(last);
        assert!(monotonic() < end, "{name} {labels:?} is {last:?}, not {value}\n{}", metrics.0);
        std::thread::sleep(Duration::from_millis(20));
    }
}
