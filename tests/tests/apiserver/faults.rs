//! What goes wrong when a test orders it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{ListParams, WatchParams},
};
use observer_tests::apiserver::{ApiServer, Fault, TOKEN};
use tokio::time::{Instant, timeout};

use super::{client, client_with, pod, refused, told, until};

#[tokio::test]
async fn codes_by_resource_and_verb_and_number() {
    let server = ApiServer::start();
    let client = client(&server);
    let (pods, nodes) = (Api::<Pod>::all(client.clone()), Api::<Node>::all(client));
    let list = ListParams::default();
    server.inject(Fault::code(403).on("pods"));
    assert_eq!(refused(pods.list(&list).await), (403, "Forbidden".into()));
    assert!(nodes.list(&list).await.is_ok());
    server.heal();
    server.inject(Fault::code(500).verb("watch").times(1));
    assert!(pods.list(&list).await.is_ok());
    assert_eq!(
        refused(pods.watch(&WatchParams::default(), "0").await.map(|_| ())),
        (500, "InternalError".into())
    );
    assert!(pods.watch(&WatchParams::default(), "0").await.is_ok());
    server.accept("other", "other");
    server.inject(Fault::code(403).from("other"));
    assert!(pods.list(&list).await.is_ok());
    let others: Api<Pod> = Api::all(client_with(&server, "other"));
    assert_eq!(refused(others.list(&list).await), (403, "Forbidden".into()));
}

/// What a raw request for pods is answered with, until the connection ends. The client of the other tests
/// would try again for minutes after 429, 503 and 504.
fn raw(server: &ApiServer, query: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    write!(stream, "GET /api/v1/pods{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn too_many_requests_says_when_to_come_again() {
    let server = ApiServer::start();
    server.inject(Fault::too_many_requests(7).times(1));
    let answer = raw(&server, "");
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nretry-after: 7\r\n"), "{answer}");
    assert!(raw(&server, "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_version_that_is_not_reached_is_too_large() {
    let server = ApiServer::start();
    let answer = raw(&server, &format!("?resourceVersion={}", server.version() + 1));
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("ResourceVersionTooLarge"), "{answer}");
}

#[test]
fn frames_are_lines_in_chunks_and_a_watch_is_cut_within_one() {
    let server = ApiServer::start();
    server.put(pod("a", "n"));
    let whole = raw(&server, "?watch=1&timeoutSeconds=1");
    assert!(whole.contains("\r\ntransfer-encoding: chunked\r\n"), "{whole}");
    assert!(whole.contains("{\"object\":{") && whole.ends_with("}\n\r\n0\r\n\r\n"), "{whole}");

    let cut = std::thread::scope(|scope| {
        let watch = scope.spawn(|| raw(&server, "?watch=1"));
        while server.cut_watches("pods") == 0 {
            std::thread::yield_now();
        }
        watch.join().expect("it ends")
    });
    assert!(cut.contains("chunked") && !cut.ends_with("0\r\n\r\n") && !cut.ends_with("\n\r\n"), "{cut}");
}

#[tokio::test]
async fn a_delay_and_a_silence() {
    let server = ApiServer::start();
    let pods: Api<Pod> = Api::all(client(&server));
    server.inject(Fault::delay(Duration::from_millis(300)));
    let begin = Instant::now();
    pods.list(&ListParams::default()).await.expect("a list");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    server.heal();

    let mut events = pods
        .watch(&WatchParams::default().timeout(1), &server.version().to_string())
        .await
        .expect("a watch")
        .boxed();
    server.inject(Fault::silence().on("pods"));
    server.put(pod("a", "n"));
    let silent = timeout(Duration::from_millis(1300), events.next()).await;
    assert!(silent.is_err(), "neither the change nor the end");
    server.heal();
    assert_eq!(told(&events.next().await.expect("it goes on").expect("no error")), "added a");
}

#[tokio::test]
async fn away_and_back_at_the_same_port_with_the_same_state() {
    let mut server = ApiServer::start();
    server.put(pod("a", "n"));
    let (address, version) = (server.address(), server.version());
    let pods: Api<Pod> = Api::all(client(&server));
    let mut events =
        pods.watch(&WatchParams::default(), &version.to_string()).await.expect("a watch").boxed();
    server.stop();
    let broken = timeout(super::LIMIT, events.next()).await.expect("it breaks");
    assert!(broken.is_none_or(|event| event.is_err()), "no event");
    assert!(TcpStream::connect(address).is_err(), "refused");
    assert!(pods.list(&ListParams::default()).await.is_err());
    server.put(pod("b", "n"));
    server.restart();
    assert_eq!(server.address(), address);
    let mut events =
        pods.watch(&WatchParams::default(), &version.to_string()).await.expect("a watch").boxed();
    assert_eq!(told(&events.next().await.expect("an event").expect("no error")), "added b");
    until("the old watch is forgotten", || server.watches("pods") == 1).await;
}
