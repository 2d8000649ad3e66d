//! The fake API server, by the real client of Kubernetes.

mod access;
mod faults;
mod lease;
mod lists;
mod objects;
mod reflector;
mod watches;
mod writes;

use std::time::Duration;

use kube::{Client, Config, api::WatchEvent, core::Resource};
use observer_tests::apiserver::{ApiServer, TOKEN, objects::Pod};
use tokio::time::{sleep, timeout};

/// Far longer than anything takes, unless it never comes.
const LIMIT: Duration = Duration::from_secs(20);

fn client(server: &ApiServer) -> Client {
    client_with(server, TOKEN)
}

fn client_with(server: &ApiServer, token: &str) -> Client {
    let mut config = Config::new(format!("http://{}", server.address()).parse().expect("a URI"));
    config.auth_info.token = Some(token.to_owned().into());
    Client::try_from(config).expect("a client")
}

/// A pod that runs on a node.
fn pod(name: &str, node: &str) -> Pod {
    let at = "2026-01-05T08:00:05Z";
    Pod::new("ml", name).container("server", "vllm/vllm-openai:v0.11.0").node(node, at).running(at)
}

/// What a client is refused with: code and reason.
fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("not refused by a status: {other:?}"),
    }
}

/// An event of a watch in a word, with the object's name.
fn told<K: Resource>(event: &WatchEvent<K>) -> String {
    let name = |object: &K| object.meta().name.clone().expect("a name");
    match event {
        WatchEvent::Added(object) => format!("added {}", name(object)),
        WatchEvent::Modified(object) => format!("modified {}", name(object)),
        WatchEvent::Deleted(object) => format!("deleted {}", name(object)),
        WatchEvent::Bookmark(bookmark) => format!("bookmark {}", bookmark.metadata.resource_version),
        WatchEvent::Error(status) => format!("error {}", status.code),
    }
}

/// Waits until something is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let looks = async {
        while !so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(LIMIT, looks).await.is_ok(), "never: {what}");
}
