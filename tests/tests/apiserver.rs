//! The fake API server, by the real client of Kubernetes.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use observer_tests::apiserver::{ApiServer, TOKEN};
use serde_json::{Value, json};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

fn client(api: &ApiServer, token: &str) -> Client {
    let mut config = Config::new(format!("http://{}", api.address()).parse().expect("a URI"));
    config.auth_info.token = Some(token.to_owned().into());
    Client::try_from(config).expect("a client")
}

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ml"},
        "spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running"}})
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_version() {
    let server = ApiServer::start();
    for number in 0..7 {
        server.put(pod(&format!("p{number}"), "n"));
    }
    let pods: Api<Pod> = Api::all(client(&server, TOKEN));
    let mut params = ListParams::default().limit(3);
    let first = pods.list(&params).await.expect("a page");
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    // What is written between the pages is not in them.
    server.put(pod("p8", "n"));
    server.delete("pods", "ml", "p5");
    let mut names: Vec<_> = first.items.iter().map(Pod::name_any).collect();
    let mut next = first.metadata.continue_.clone();
    while let Some(token) = next.filter(|token| !token.is_empty()) {
        params = ListParams::default().limit(3).continue_token(&token);
        let page = pods.list(&params).await.expect("a page");
        assert_eq!(page.metadata.resource_version, first.metadata.resource_version);
        names.extend(page.items.iter().map(Pod::name_any));
        next = page.metadata.continue_;
    }
    assert_eq!(names, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    server.compact();
    let late = ListParams::default().limit(3).continue_token(&first.metadata.continue_.expect("more"));
    let error = pods.list(&late).await.expect_err("too old");
    assert!(matches!(error, kube::Error::Api(status) if status.code == 410 && status.reason == "Expired"));
}

#[tokio::test]
async fn a_watch_tells_every_change_once_and_bookmarks() {
    let server = ApiServer::start();
    server.put(pod("a", "n"));
    let pods: Api<Pod> = Api::all(client(&server, TOKEN));
    let version = pods
        .list(&ListParams::default())
        .await
        .expect("a list")
        .metadata
        .resource_version
        .expect("a version");
    let params = WatchParams::default().timeout(1);
    let events = pods.watch(&params, &version).await.expect("a watch").boxed();
    server.put(pod("b", "n"));
    let changed = server.put({
        let mut pod = pod("b", "n");
        pod["status"]["phase"] = json!("Failed");
        pod
    });
    server.put(changed);
    server.delete("pods", "ml", "a");
    server.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}));
    let events: Vec<_> = timeout(LIMIT, events.try_collect()).await.expect("it ends").expect("no error");
    let told: Vec<_> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(pod) => format!("added {}", pod.name_any()),
            WatchEvent::Modified(pod) => format!("modified {}", pod.name_any()),
            WatchEvent::Deleted(pod) => {
                format!("deleted {} {}", pod.name_any(), pod.resource_version().expect("one"))
            }
            WatchEvent::Bookmark(bookmark) => format!("bookmark {}", bookmark.metadata.resource_version),
            WatchEvent::Error(status) => format!("error {}", status.code),
        })
        .collect();
    let last = server.version();
    assert_eq!(
        told,
        [
            "added b".to_owned(),
            "modified b".into(),
            format!("deleted a {}", last - 1),
            format!("bookmark {last}")
        ]
    );
}
