//! Who may see what, by how they authenticate, and who may send lines: the endpoint beside the fake API server.

mod encrypted;
mod intake;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use observer::{
    config::{KubernetesConfig, TlsConfig},
    exchange::RequestRecord,
    kube::{Connection, Reviews, of_reviews},
    serve::{
        Feed, Intake, LogFiles, NodeApi, REMEMBERED, RequestFeed, Reviewer, RowFeed, Server, Sources,
        TokenFile,
    },
    store::{Bounds, Store},
    timeline::{Kind, Row},
};
use observer_tests::{
    apiserver::{ApiServer, Grant, TOKEN, USER, granted},
    deploy::{Renderer, object},
    receiver::Authority,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

const NOW: i64 = 1_772_366_400_000_000_000;

/// What the server asks the time of: it stands still until a test moves it.
static CLOCK: AtomicU64 = AtomicU64::new(0);

const LOCAL: &str = "localhost";
/// A name by which nobody is at home, as if it came from elsewhere.
const ELSEWHERE: &str = "observer.example";

struct World {
    api: ApiServer,
    folder: TempDir,
    address: SocketAddr,
    /// Where TLS is spoken.
    encrypted: SocketAddr,
    authority: Authority,
    feed: Feed,
    rows: RowFeed,
    store: Store,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Roles and bindings: `ml-reader` reads logs in `ml`, `admin` everywhere, `scraper` may get /metrics, `nobody` nothing.
fn rules() -> Vec<Value> {
    let logs = json!([{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]);
    let reviews = json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}]);
    let role =
        |name: &str, rules: Value| json!({"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let binding = |role: &str, user: &str| {
        json!({"kind": "ClusterRoleBinding", "metadata": {"name": user}, "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}]})
    };
    let mut in_ml = binding("logs", "ml-reader");
    in_ml["kind"] = "RoleBinding".into();
    in_ml["metadata"]["namespace"] = "ml".into();
    vec![
        role("logs", logs),
        role("reviews", reviews),
        role("metrics", json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}])),
        binding("logs", "admin"),
        binding("metrics", "scraper"),
        binding("reviews", USER),
        in_ml,
    ]
}

impl World {
    fn start(metrics_guarded: bool) -> Self {
        let (api, folder) = (ApiServer::start(), tempfile::tempdir().expect("a folder"));
        for user in ["ml-reader", "admin", "scraper", "nobody"] {
            api.accept(&format!("token-of-{user}"), user);
        }
        api.accept(TOKEN, USER);
        api.enforce(&rules());
        let kubeconfig = folder.path().join("kubeconfig");
        api.kubeconfig(&kubeconfig);
        std::fs::write(folder.path().join("token"), "shared").expect("a token");
        let requests = RequestFeed::new(16, 1 << 20, 0);
        for (id, namespace) in [("of-ml", "ml"), ("of-prod", "prod"), ("of-none", "")] {
            let record = RequestRecord {
                id: id.into(),
                namespace: namespace.into(),
                node: "n".into(),
                ..Default::default()
            };
            requests.publish(record, NOW - 1_000_000_000);
        }
        let rows = RowFeed::new(16);
        let node = NodeApi {
            node: "n".to_owned(),
            feed: requests,
            running: Arc::new(Vec::new),
            wall: || NOW,
            rows: rows.clone(),
            store: None,
            stores_logs: false,
            files: LogFiles::default(),
        };
        let feed = Feed::new(16);
        let bounds =
            Bounds { path: folder.path().join("store"), bytes: 1 << 30, age: Duration::from_hours(24) };
        let (store, writer) = Store::open(bounds, || NOW).expect("a store");
        std::thread::spawn(move || writer.run(&AtomicBool::new(false)));
        let intake = Intake::new(store.clone(), true, || NOW);
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let authority = Authority::new();
        let pair = authority.write_pair(folder.path(), "server", &["localhost"]);
        let ca_file = folder.path().join("ca.crt");
        authority.write(&ca_file);
        let tls = TlsConfig {
            listen: Some("127.0.0.1:0".parse().expect("an address")),
            cert_file: Some(pair.certificate),
            key_file: Some(pair.key),
            ca_file: Some(ca_file),
        };
        let (token, events) = (folder.path().join("token"), feed.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let settings =
                    KubernetesConfig { kubeconfig: Some(kubeconfig), ..KubernetesConfig::default() };
                let connection =
                    Connection::find(&settings).await.expect("a kubeconfig").expect("a connection");
                let reviews = Reviews::over(&connection).expect("a client");
                let sources = Sources {
                    metrics: Arc::new(|| Ok("up 1\n".to_owned())),
                    ready: Arc::default(),
                    not_ready: "",
                    events: Some(events),
                    api: Arc::new(node),
                    token: Arc::new(TokenFile::at(Some(token))),
                    reviewer: Some(Arc::new(Reviewer::new(reviews, || CLOCK.load(Ordering::Relaxed)))),
                    intake: Some(intake),
                    metrics_guarded,
                };
                let server = Server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
                let server = server.beside(&tls).await.expect("another port");
                let encrypted = server.encrypted_address().expect("TLS");
                tell.send((server.address(), encrypted)).expect("whoever started it waits");
                let stopped = async move {
                    let _dropped_or_sent = stopped.await;
                };
                server.run(sources, stopped).await.expect("it serves");
            });
            runtime.shutdown_background();
        });
        let (address, encrypted) = told.recv().expect("it listens");
        Self { api, folder, address, encrypted, authority, feed, rows, store, running: Some((stop, thread)) }
    }

    fn open(&self, path: &str, host: &str, token: Option<&str>) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{token}Connection: close\r\n\r\n")
            .expect("a request");
        stream
    }

    fn get(&self, path: &str, host: &str, token: Option<&str>) -> (u16, String) {
        let mut text = String::new();
        self.open(path, host, token).read_to_string(&mut text).expect("an answer");
        (text.split(' ').nth(1).expect("a status").parse().expect("a number"), text)
    }

    /// The namespaces of the rows that somebody sees at a path, or the status of a refusal.
    fn sees(&self, path: &str, host: &str, token: Option<&str>) -> Result<BTreeSet<String>, u16> {
        let (status, text) = self.get(path, host, token);
        if status != 200 {
            return Err(status);
        }
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.filter_map(|line| line["namespace"].as_str().map(str::to_owned)).collect())
    }

    fn reviews(&self) -> usize {
        self.api.requests().iter().filter(|seen| seen.request.resource.ends_with("reviews")).count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ended_by_itself = stop.send(());
            let _panicked = thread.join();
        }
    }
}

fn these(namespaces: &[&str]) -> BTreeSet<String> {
    namespaces.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn who_sees_what() {
    let world = World::start(true);
    let all = Ok(these(&["ml", "prod", ""]));
    let table = [
        // Where from, with which token: requests and rows of top; the status of /metrics.
        (LOCAL, None, all.clone(), 200),
        (LOCAL, Some("wrong"), all.clone(), 200),
        (ELSEWHERE, None, Err(403), 403),
        (ELSEWHERE, Some("wrong"), Err(403), 403),
        (ELSEWHERE, Some("shared"), all.clone(), 200),
        (ELSEWHERE, Some("token-of-admin"), all, 403),
        (ELSEWHERE, Some("token-of-ml-reader"), Ok(these(&["ml"])), 403),
        (ELSEWHERE, Some("token-of-nobody"), Ok(these(&[])), 403),
        (ELSEWHERE, Some("token-of-scraper"), Ok(these(&[])), 200),
    ];
    for (host, token, sees, metrics) in table {
        for path in ["/api/v1/requests?since=1h", "/api/v1/top?since=1h", "/api/v1/explain?since=1h"] {
            assert_eq!(world.sees(path, host, token), sees, "{host} {token:?} {path}");
        }
        assert_eq!(world.get("/metrics", host, token).0, metrics, "{host} {token:?}");
    }
    let open = World::start(false);
    assert_eq!(open.get("/metrics", ELSEWHERE, None).0, 200, "unless they are guarded");
}

/// Lines of a stream, as they come.
fn lines(stream: TcpStream) -> impl Iterator<Item = Value> {
    use std::io::{BufRead as _, BufReader};
    BufReader::new(stream)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str(&line).ok())
        .filter(Value::is_object)
}

#[test]
fn streams_are_filtered_as_long_as_they_are_open() {
    let world = World::start(false);
    let open = |token: &str| {
        let before = world.feed.followers();
        let stream = world.open("/api/v1/events", ELSEWHERE, Some(token));
        observer_tests::agent::wait_for("the stream", || (world.feed.followers() > before).then_some(()));
        lines(stream)
    };
    let (mut ml, mut admin) = (open("token-of-ml-reader"), open("token-of-admin"));
    let rows = [
        json!({"namespace": "prod", "n": 1}),
        json!({"namespace": "", "n": 2}),
        json!({"n": 3}),
        json!({"namespace": ["ml"], "n": 4}),
        json!({"namespace": "ml", "n": 5}),
    ];
    for row in &rows {
        world.feed.publish(row).expect("JSON");
    }
    assert_eq!(
        ml.next().expect("a line")["n"],
        5,
        "of other namespaces, of the cluster, of nobody knows whom: hidden"
    );
    let seen: Vec<_> = (0..5).map(|_| admin.next().expect("a line")["n"].as_u64()).collect();
    assert_eq!(seen, (1..=5).map(Some).collect::<Vec<_>>());
}

#[test]
fn events_of_an_agent_are_filtered_as_those_of_the_cluster() {
    let world = World::start(false);
    let mut stream = world.open("/api/v1/events?follow=true", ELSEWHERE, Some("token-of-ml-reader"));
    // The head tells that it is followed: what happens from now on is shown.
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("a head");
    for namespace in ["prod", "", "ml"] {
        let row = Row {
            kind: Kind::Process,
            namespace: namespace.to_owned(),
            id: "x".to_owned(),
            time: NOW,
            ..Row::default()
        };
        world.rows.publish(&row);
    }
    assert_eq!(lines(stream).next().expect("a line")["namespace"], "ml");
}

#[test]
fn answers_of_the_api_server_are_remembered_and_not_for_long() {
    let mut world = World::start(false);
    let (path, token) = ("/api/v1/requests?since=1h", Some("token-of-ml-reader"));
    assert_eq!(world.sees(path, ELSEWHERE, token), Ok(these(&["ml"])));
    let asked = world.reviews();
    // Whose it is; all namespaces; `ml`; `prod`.
    assert_eq!(asked, 4);
    for _ in 0..5 {
        assert_eq!(world.sees(path, ELSEWHERE, token), Ok(these(&["ml"])));
    }
    assert_eq!(world.reviews(), asked);
    // What is taken away is gone when that is over.
    world.api.reject("token-of-ml-reader");
    CLOCK.fetch_add(REMEMBERED.as_nanos() as u64, Ordering::Relaxed);
    assert_eq!(world.sees(path, ELSEWHERE, token), Err(403));
    // Nothing is shown to those whom nobody can tell of; those who need nobody for it go on.
    world.api.stop();
    assert_eq!(world.sees(path, ELSEWHERE, Some("token-of-admin")), Err(503));
    assert_eq!(world.sees(path, ELSEWHERE, Some("shared")), Ok(these(&["ml", "prod", ""])));
    assert!(world.folder.path().exists());
}

#[test]
fn the_chart_grants_what_is_asked_for_and_no_more() {
    let Some(renderer) = Renderer::find() else { return };
    let world = World::start(true);
    for path in ["/api/v1/requests?since=1h", "/metrics"] {
        world.get(path, ELSEWHERE, Some("token-of-ml-reader"));
    }
    let requests = world.api.requests();
    let asked: BTreeSet<Grant> = requests.iter().map(|seen| seen.request.needs()).collect();
    let examined = of_reviews().into_iter().map(|right| Grant {
        group: right.group.to_owned(),
        resource: right.resource.to_owned(),
        verb: right.verb.to_owned(),
    });
    assert_eq!(examined.collect::<BTreeSet<_>>(), asked, "what the doctor asks for");
    let [with, without] = [true, false]
        .map(|kubernetes| renderer.helm(&json!({"api": {"kubernetes": kubernetes}})).expect("objects"));
    for name in ["observer-agent", "observer-cluster"] {
        let grants = |objects: &[Value]| granted(&[object(objects, "ClusterRole", name).clone()]);
        let more: BTreeSet<Grant> = grants(&with).difference(&grants(&without)).cloned().collect();
        assert_eq!(more, asked, "{name}");
    }
}
