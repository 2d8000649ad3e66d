//! WATCH: what changed, to who selects, bookmarks, ends and what is too old.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
};
use observer_tests::apiserver::{ApiServer, Fault};
use tokio::time::timeout;

use super::{LIMIT, client, pod, refused, told, until};

type Events = std::pin::Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Pod>>> + Send>>;

async fn watch(pods: &Api<Pod>, params: &WatchParams, version: u64) -> Events {
    pods.watch(params, &version.to_string()).await.expect("a watch").boxed()
}

/// All that comes until the watch ends.
async fn all(events: Events) -> Vec<String> {
    let events: Vec<_> = timeout(LIMIT, events.try_collect()).await.expect("it ends").expect("no error");
    events.iter().map(told).collect()
}

async fn next(events: &mut Events) -> String {
    told(&timeout(LIMIT, events.next()).await.expect("it comes").expect("it goes on").expect("no error"))
}

#[tokio::test]
async fn every_change_once_in_order_then_a_bookmark() {
    let server = ApiServer::start();
    server.put(pod("a", "n"));
    let pods: Api<Pod> = Api::all(client(&server));
    let begin = server.version();
    let events = watch(&pods, &WatchParams::default().timeout(1), begin).await;
    server.put(pod("b", "n"));
    let changed = server.put(pod("b", "n").phase("Failed"));
    // What changes nothing makes no version.
    server.put(changed);
    server.delete("pods", "ml", "a");
    server.put(observer_tests::apiserver::objects::node("n", &[]));
    let expected =
        ["added b", "modified b", "deleted a", &format!("bookmark {}", server.version())].map(str::to_owned);
    assert_eq!(all(events).await, expected);
    assert_eq!(server.version(), begin + 4);
    // The same from where the first one began, and again what came later.
    let again = watch(&pods, &WatchParams::default().timeout(1), begin + 1).await;
    assert_eq!(all(again).await, expected[1..]);
}

#[tokio::test]
async fn a_deletion_has_a_version_of_its_own() {
    let server = ApiServer::start();
    server.put(pod("a", "n"));
    let pods: Api<Pod> = Api::all(client(&server));
    let mut events = watch(&pods, &WatchParams::default(), server.version()).await;
    server.delete("pods", "ml", "a");
    let event = events.next().await.expect("an event").expect("no error");
    let WatchEvent::Deleted(gone) = event else { panic!("{event:?}") };
    assert_eq!(gone.metadata.resource_version, Some(server.version().to_string()));
    assert_eq!(gone.status.expect("as it was").phase.as_deref(), Some("Running"));
}

#[tokio::test]
async fn into_and_out_of_a_selection() {
    let server = ApiServer::start();
    let pods: Api<Pod> = Api::namespaced(client(&server), "ml");
    let begin = server.version();
    server.put(pod("a", ""));
    server.put(pod("a", "n1"));
    server.put(pod("a", "n1").label("app", "x"));
    server.put(pod("a", "n2").label("app", "x"));
    server.put(pod("a", "n1").label("app", "x"));
    server.delete("pods", "ml", "a");
    server.put(
        observer_tests::apiserver::objects::Pod::new("other", "b")
            .label("app", "x")
            .node("n1", "2026-01-05T08:00:05Z"),
    );
    let brief = || WatchParams::default().timeout(1).disable_bookmarks();
    let (node, label) = tokio::join!(
        async { all(watch(&pods, &brief().fields("spec.nodeName=n1"), begin).await).await },
        async { all(watch(&pods, &brief().labels("app"), begin).await).await },
    );
    assert_eq!(node, ["added a", "modified a", "deleted a", "added a", "deleted a"]);
    assert_eq!(label, ["added a", "modified a", "modified a", "deleted a"]);
}

#[tokio::test]
async fn bookmarks_only_to_who_allows_them() {
    let server = ApiServer::start();
    let pods: Api<Pod> = Api::all(client(&server));
    let mut with = watch(&pods, &WatchParams::default(), server.version()).await;
    let mut without = watch(&pods, &WatchParams::default().disable_bookmarks(), server.version()).await;
    // Nothing of this resource.
    server.put(observer_tests::apiserver::objects::node("n", &[]));
    assert_eq!(server.bookmark("pods"), 2);
    assert_eq!(next(&mut with).await, format!("bookmark {}", server.version()));
    server.put(pod("a", "n"));
    assert_eq!(next(&mut without).await, "added a");
    server.bookmark_every(Duration::from_millis(20));
    let mut often = watch(&pods, &WatchParams::default(), server.version()).await;
    for _ in 0..3 {
        assert_eq!(next(&mut often).await, format!("bookmark {}", server.version()));
    }
}

#[tokio::test]
async fn a_list_as_a_stream_ends_with_a_bookmark_that_says_so() {
    let server = ApiServer::start();
    server.put(pod("a", "n"));
    server.put(pod("b", "n"));
    let pods: Api<Pod> = Api::all(client(&server));
    let events = watch(&pods, &WatchParams::streaming_lists().timeout(1), 0).await;
    let events: Vec<_> =
        timeout(LIMIT, events.take(3).try_collect()).await.expect("they come").expect("no error");
    assert_eq!(events[..2].iter().map(told).collect::<Vec<_>>(), ["added a", "added b"]);
    let WatchEvent::Bookmark(end) = &events[2] else { panic!("{:?}", events[2]) };
    assert_eq!(end.metadata.annotations["k8s.io/initial-events-end"], "true");
    assert_eq!(end.metadata.resource_version, server.version().to_string());
}

#[tokio::test]
async fn what_is_forgotten_is_gone() {
    let server = ApiServer::start();
    let pods: Api<Pod> = Api::all(client(&server));
    let begin = server.version();
    server.put(pod("a", "n"));
    server.compact();
    // In the stream, as servers with a watch cache do, or in its head.
    assert_eq!(all(watch(&pods, &WatchParams::default(), begin).await).await, ["error 410"]);
    server.inject(Fault::gone_in_head().times(1));
    let head = pods.watch(&WatchParams::default(), &begin.to_string()).await.map(|_| ());
    assert_eq!(refused(head), (410, "Expired".into()));
    let goes_on =
        watch(&pods, &WatchParams::default().timeout(1).disable_bookmarks(), server.version()).await;
    server.remember(3);
    for phase in ["Failed", "Running"] {
        server.put(pod("a", "n").phase(phase));
    }
    assert_eq!(all(goes_on).await, ["modified a", "modified a"], "what is remembered is told");
    let version = server.version();
    for phase in ["Failed", "Running", "Failed", "Running"] {
        server.put(pod("a", "n").phase(phase));
    }
    assert_eq!(all(watch(&pods, &WatchParams::default(), version).await).await, ["error 410"]);
}

#[tokio::test]
async fn a_watch_is_counted_in_bytes_and_ends_with_its_client() {
    let server = ApiServer::start();
    let pods: Api<Pod> = Api::all(client(&server));
    let version =
        pods.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("one");
    let mut events = pods
        .watch(&WatchParams::default().fields("spec.nodeName=n"), &version)
        .await
        .expect("a watch")
        .boxed();
    server.put(pod("a", "n"));
    events.next().await.expect("an event").expect("no error");
    let requests = server.requests();
    let [list, watch] = requests.as_slice() else { panic!("two requests: {requests:?}") };
    assert_eq!((list.request.verb.as_str(), list.code()), ("list", 200));
    assert_eq!((watch.request.verb.as_str(), watch.code(), watch.is_open()), ("watch", 200, true));
    assert_eq!(watch.request.field_selector(), "spec.nodeName=n");
    assert!(watch.bytes() > 1000, "a pod is {} bytes", watch.bytes());
    assert_eq!(server.watches("pods"), 1);
    drop(events);
    until("the watch ends", || server.watches("pods") == 0).await;
}
