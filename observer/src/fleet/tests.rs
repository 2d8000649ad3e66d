use std::net::SocketAddr;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::exchange::{Outcome, RequestRecord};
use crate::kube::AgentAt;
use crate::recent::{Asked, Query, Running};
use crate::serve::{self, Api, Lines, LogFiles, NodeApi, RequestFeed, RowFeed, Server, Sources, TokenFile};
use crate::timeline::Kind;

const SECOND: i64 = 1_000_000_000;
const NOW: i64 = 1_772_366_400 * SECOND;

/// A node with requests that ended so many seconds before now.
struct Node {
    at: AgentAt,
    feed: RequestFeed,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn node(name: &str, ended: &[i64]) -> Node {
    let feed = RequestFeed::new(64, 1 << 20, 0);
    for ago in ended {
        publish(&feed, name, *ago);
    }
    let running = Running { whose: ["ml", "p", "c"].map(str::to_owned), requests: 1, ..Running::default() };
    let api = NodeApi {
        node: name.to_owned(),
        feed: feed.clone(),
        running: Arc::new(move || vec![running.clone()]),
        wall: || NOW,
        rows: RowFeed::new(4),
        store: None,
        stores_logs: false,
        files: LogFiles::default(),
    };
    let sources = Sources {
        metrics: Arc::new(|| Ok(String::new())),
        ready: Arc::default(),
        not_ready: "",
        events: None,
        api: Arc::new(api),
        token: Arc::default(),
        reviewer: None,
        intake: None,
        metrics_guarded: false,
    };
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _dropped_or_sent = stopped.await;
    };
    let task = tokio::spawn(async { server.run(sources, stopped).await.unwrap() });
    Node { at: AgentAt { node: name.to_owned(), address }, feed, stop, task }
}

fn publish(feed: &RequestFeed, node: &str, ago: i64) {
    let record = RequestRecord {
        id: format!("{ago:x}-0"),
        node: node.to_owned(),
        namespace: "ml".to_owned(),
        outcome: Some(if ago % 2 == 0 { Outcome::Ok } else { Outcome::ServerError }),
        ..RequestRecord::default()
    };
    feed.publish(record, NOW - ago * SECOND);
}

/// An agent that answers each connection with these bytes, and then waits.
async fn answering(name: &str, answer: String) -> AgentAt {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let _head = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.is_empty() {
                    sleep(Duration::from_mins(1)).await;
                }
            });
        }
    });
    AgentAt { node: name.to_owned(), address }
}

/// One where nobody listens.
async fn gone(name: &str) -> AgentAt {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    AgentAt { node: name.to_owned(), address: listener.local_addr().unwrap() }
}

/// Leaps, so that where the agents are is asked each time.
fn clock() -> u64 {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    CLOCK.fetch_add(10_000_000_000, Ordering::Relaxed)
}

fn fleet(agents: &Arc<Mutex<Vec<AgentAt>>>) -> Fleet {
    let agents = Arc::clone(agents);
    let directory: Directory = Arc::new(move || {
        let agents = agents.lock().unwrap().clone();
        Box::pin(async move { Ok(agents) })
    });
    Fleet::new(directory, Arc::new(TokenFile::default()), clock)
}

fn question(asked: Asked, text: &str) -> serve::Question {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    let pairs: Vec<_> = text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    serve::Question { query: Query::parse(asked, &pairs).unwrap(), text: text.to_owned() }
}

async fn read(lines: Lines) -> Vec<Value> {
    lines.map(|line| serde_json::from_slice(&line).unwrap()).collect().await
}

/// Nodes and seconds ago of an answer, what is missing in it, and its cursor.
async fn ask_all(agents: Vec<AgentAt>, text: &str) -> (Vec<(String, i64)>, Vec<String>, Option<String>) {
    let fleet = fleet(&Arc::new(Mutex::new(agents)));
    let mut lines = read(fleet.answer(Asked::Requests, question(Asked::Requests, text)).await).await;
    let trailer: crate::recent::Trailer = serde_json::from_value(lines.pop().unwrap()).unwrap();
    let told = lines.iter().map(|line| {
        let id = line["id"].as_str().unwrap();
        let ago = i64::from_str_radix(id.strip_suffix("-0").unwrap(), 16).unwrap();
        (line["node"].as_str().unwrap().to_owned(), ago)
    });
    (told.collect(), trailer.partial.iter().map(ToString::to_string).collect(), trailer.next)
}

fn named(node: &str, ago: i64) -> (String, i64) {
    (node.to_owned(), ago)
}

#[tokio::test]
async fn requests_of_all_nodes_come_in_the_order_of_their_ends() {
    let (a, b) = (node("a", &[50, 30, 10]).await, node("b", &[40, 30, 20]).await);
    let agents = vec![a.at.clone(), b.at.clone()];
    let newest =
        [named("a", 10), named("b", 20), named("b", 30), named("a", 30), named("b", 40), named("a", 50)];
    let (told, partial, next) = ask_all(agents.clone(), "since=1h").await;
    assert_eq!((told, partial, next), (newest.to_vec(), Vec::new(), None));
    let (told, ..) = ask_all(agents.clone(), "order=oldest&limit=2").await;
    assert_eq!(told, [named("a", 50), named("b", 40)]);
    let (told, ..) = ask_all(agents.clone(), "node=b&outcome=ok").await;
    assert_eq!(told, [named("b", 20), named("b", 30), named("b", 40)]);
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let (told, _, next) = ask_all(agents.clone(), &format!("limit=1{cursor}")).await;
        all.extend(told);
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(all, newest);
}

#[tokio::test]
async fn whoever_does_not_answer_is_named_and_the_others_answer() {
    let a = node("a", &[20, 10]).await;
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n";
    let refusal = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nwho?\n".to_owned();
    let record = format!("{ok}{{\"id\":\"f-0\",\"node\":\"cut\",\"ended_at\":\"2026-03-01T11:59:45Z\"}}\n");
    let agents = vec![
        a.at.clone(),
        gone("dead").await,
        answering("hung", String::new()).await,
        answering("other", refusal).await,
        answering("cut", record).await,
        answering("old", format!("{ok}<html>\n")).await,
        answering("ssh", "SSH-2.0\r\n\r\n".to_owned()).await,
    ];
    let (told, partial, _) = timeout(Duration::from_secs(10), ask_all(agents, "limit=9")).await.unwrap();
    assert_eq!(told, [named("a", 10), named("cut", 15), named("a", 20)], "what came counts");
    let mut told = partial.iter().map(String::as_str);
    let mut next = || told.next().unwrap();
    let cut = next();
    assert!(cut.starts_with("node cut unreachable ("), "{cut}");
    assert_eq!(next(), "node dead unreachable (connection refused)");
    assert_eq!(next(), "node hung unreachable (no answer in 2 s)");
    assert!(next().starts_with("node old sent what is no line of an answer"));
    assert_eq!(next(), "node other refused to answer (status 401: who?)");
    assert!(next().starts_with("node ssh unreachable ("));
    assert_eq!(told.next(), None);
}

#[tokio::test]
async fn however_many_there_are_an_answer_is_bounded() {
    let one = node("n", &(1..=40).collect::<Vec<_>>()).await;
    let agents = vec![one.at.clone(); 200];
    let fleet = fleet(&Arc::new(Mutex::new(agents)));
    let lines = read(fleet.answer(Asked::Requests, question(Asked::Requests, "limit=30")).await).await;
    assert_eq!(lines.len(), 31);
    assert!(lines[30]["next"].is_string());
}

#[tokio::test]
async fn explanations_of_all_nodes_in_the_order_of_their_requests() {
    let (a, b) = (node("a", &[5]).await, node("b", &[9, 3]).await);
    let fleet = fleet(&Arc::new(Mutex::new(vec![a.at.clone(), b.at.clone()])));
    let lines = read(fleet.answer(Asked::Explain, question(Asked::Explain, "limit=2")).await).await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["node"].as_str(), line["verdict"]["layer"].as_str(), line["next"].is_string()))
        .collect();
    let unknown = Some("unknown");
    assert_eq!(told[..2], [(Some("b"), unknown, false), (Some("a"), unknown, false)]);
    assert_eq!(told[2], (None, None, true), "there is one more");
}

#[tokio::test]
async fn rows_of_all_nodes_the_busiest_first() {
    let (a, b) = (node("a", &[5]).await, node("b", &[9, 8, 7]).await);
    let agents = Arc::new(Mutex::new(vec![a.at.clone(), gone("c").await, b.at.clone()]));
    let fleet = fleet(&agents);
    let lines = read(fleet.answer(Asked::Top, question(Asked::Top, "")).await).await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["node"].as_str(), line["requests"].as_u64(), line["failed"].as_u64()))
        .collect();
    assert_eq!(
        told,
        [
            (Some("b"), Some(3), Some(2)),
            (Some("a"), Some(1), Some(1)),
            (Some("a"), Some(0), Some(0)),
            (Some("b"), Some(0), Some(0)),
            (None, None, None)
        ]
    );
    assert_eq!(lines[4]["partial"][0]["node"], "c");
    let lines = read(fleet.answer(Asked::Top, question(Asked::Top, "limit=3&since=30s")).await).await;
    assert_eq!((lines.len(), lines[0]["window"].as_f64()), (4, Some(30.0)));
    assert_eq!(lines[3]["partial"][0]["reason"], "1 rows more are left out");
}

#[tokio::test]
async fn all_are_followed_and_what_is_missed_is_said() {
    let (a, b) = (node("a", &[20]).await, node("b", &[10]).await);
    let agents = Arc::new(Mutex::new(vec![a.at.clone(), b.at.clone()]));
    let mut lines =
        fleet(&agents).answer(Asked::Requests, question(Asked::Requests, "since=1h&follow=true")).await;
    let mut next = async || -> Value {
        let line = timeout(Duration::from_secs(10), lines.next()).await.expect("a line in time").unwrap();
        serde_json::from_slice(&line).unwrap()
    };
    let mut past = [next().await["node"].clone(), next().await["node"].clone()];
    past.sort_by_key(ToString::to_string);
    assert_eq!(past, ["a", "b"]);
    publish(&b.feed, "b", 1);
    assert_eq!(next().await["id"], "1-0");
    b.stop.send(()).unwrap();
    b.task.await.unwrap();
    let told = next().await;
    let reason = &told["partial"][0]["reason"];
    assert_eq!((&told["partial"][0]["node"], reason), (&"b".into(), &"unreachable (it ended)".into()));
    publish(&a.feed, "a", 2);
    assert_eq!(next().await["id"], "2-0");
    // Another one comes; what it remembers was not asked of it.
    let c = node("c", &[30]).await;
    *agents.lock().unwrap() = vec![a.at.clone(), c.at.clone()];
    wait_for(&c.feed).await;
    publish(&c.feed, "c", 3);
    assert_eq!(next().await["id"], "3-0");
    drop(lines);
    for _ in 0..500 {
        if a.feed.followers() == 0 && c.feed.followers() == 0 {
            return;
        }
        publish(&a.feed, "a", 4);
        publish(&c.feed, "c", 4);
        sleep(Duration::from_millis(10)).await;
    }
    panic!("agents are still followed");
}

async fn wait_for(feed: &RequestFeed) {
    for _ in 0..1000 {
        if feed.followers() > 0 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("not followed");
}

#[tokio::test]
async fn the_token_is_presented() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        String::from_utf8_lossy(&head[..read]).into_owned()
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "of-the-tests\n").unwrap();
    let token = Arc::new(TokenFile::at(Some(file.path().to_owned())));
    let directory: Directory =
        Arc::new(move || Box::pin(async move { Ok(vec![AgentAt { node: "a".to_owned(), address }]) }));
    let fleet = Fleet::new(directory, token, || 0);
    let lines = read(fleet.answer(Asked::Top, question(Asked::Top, "since=1m")).await).await;
    let head = heard.await.unwrap();
    assert!(head.starts_with("GET /api/v1/top?since=1m HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Bearer of-the-tests\r\n"), "{head}");
    assert!(!lines[0].to_string().contains("of-the-tests"), "{lines:?}");
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n";

#[tokio::test]
async fn counts_of_all_nodes_are_added_up() {
    let hits = |node: &str, spans: &[(u32, u64)]| {
        let line = |(minute, hits): &(u32, u64)| {
            format!("{{\"time\":\"2026-03-01T12:{minute:02}:00Z\",\"node\":\"{node}\",\"hits\":{hits}}}\n")
        };
        let lines = spans.iter().map(line).collect::<Vec<_>>().concat();
        format!("{HEAD}{lines}{{\"partial\":[]}}\n")
    };
    let agents = vec![
        answering("a", hits("a", &[(1, 2), (3, 5)])).await,
        answering("b", hits("b", &[(0, 1), (3, 7)])).await,
        gone("c").await,
    ];
    let fleet = fleet(&Arc::new(Mutex::new(agents)));
    let lines = read(fleet.answer(Asked::Logs, question(Asked::Logs, "bucket=1m")).await).await;
    let told: Vec<_> =
        lines[..3].iter().map(|line| (line["time"].as_str().unwrap(), line["hits"].as_u64())).collect();
    let expected = [
        ("2026-03-01T12:00:00Z", Some(1)),
        ("2026-03-01T12:01:00Z", Some(2)),
        ("2026-03-01T12:03:00Z", Some(12)),
    ];
    assert_eq!(told, expected);
    assert!(lines[..3].iter().all(|line| line["node"] == Value::Null), "of no node alone: {lines:?}");
    assert_eq!(lines[3]["partial"][0]["node"], "c");
    assert_eq!(lines[3]["next"], Value::Null);
}

#[tokio::test]
async fn an_agent_that_searches_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = stream.read(&mut [0; 1024]).await.unwrap();
        stream.write_all(HEAD.as_bytes()).await.unwrap();
        // Longer than it may take to begin.
        sleep(Duration::from_millis(2500)).await;
        stream
            .write_all(b"{\"id\":\"1-0\",\"node\":\"a\",\"time\":\"2026-03-01T12:00:00Z\"}\n")
            .await
            .unwrap();
        stream.write_all(b"{\"partial\":[]}\n").await.unwrap();
    });
    let agents = vec![AgentAt { node: "a".to_owned(), address }];
    let fleet = fleet(&Arc::new(Mutex::new(agents)));
    let lines = read(fleet.answer(Asked::Logs, question(Asked::Logs, "since=1h")).await).await;
    assert_eq!((lines.len(), &lines[1]["partial"]), (2, &serde_json::json!([])));
}

/// Answers with the same lines to everybody, and notes what it was asked about.
struct Kept {
    lines: String,
    asked: Mutex<Vec<Vec<Kind>>>,
}

impl Api for Kept {
    fn answer(&self, _: Asked, question: serve::Question) -> BoxFuture<'static, Lines> {
        self.asked.lock().unwrap().push(question.query.kinds().to_vec());
        let lines: Vec<_> = self.lines.lines().map(|line| Bytes::from(format!("{line}\n"))).collect();
        async move { stream::iter(lines).boxed() }.boxed()
    }
}

fn row(second: u32, node: &str, id: &str) -> String {
    format!(
        "{{\"time\":\"2026-03-01T12:00:{second:02}Z\",\"node\":\"{node}\",\"id\":\"{id}\",\"kind\":\"log\",\"message\":\"x\"}}\n"
    )
}

#[tokio::test]
async fn a_line_that_is_kept_here_too_is_told_once() {
    let told = [row(5, "a", "1"), row(7, "a", "2"), row(9, "a", "3")].concat();
    let agents = vec![answering("a", format!("{HEAD}{told}{{\"partial\":[]}}\n")).await];
    let trailer = "{\"partial\":[]}\n".to_owned();
    // The second has not come yet, the files of the fourth are gone.
    let kept = [row(4, "gone", "4"), row(5, "a", "1"), row(9, "a", "3"), trailer].concat();
    let own = Arc::new(Kept { lines: kept, asked: Mutex::default() });
    let fleet = fleet(&Arc::new(Mutex::new(agents))).beside(Arc::clone(&own) as Arc<dyn Api>, true);
    for (text, expected) in [
        ("order=oldest", vec!["4", "1", "2", "3"]),
        ("order=newest", vec!["3", "2", "1", "4"]),
        ("limit=2", vec!["3", "2"]),
    ] {
        let lines = read(fleet.answer(Asked::Logs, question(Asked::Logs, text)).await).await;
        let ids: Vec<_> = lines.iter().filter_map(|line| line["id"].as_str()).collect();
        assert_eq!(ids, expected, "{text}");
    }
    let lines = read(fleet.answer(Asked::Logs, question(Asked::Logs, "limit=4")).await).await;
    assert!(
        lines.len() == 5 && lines[4]["next"].is_null(),
        "what is told twice is no more than there is: {lines:?}"
    );
    assert!(own.asked.lock().unwrap().drain(..).all(|kinds| kinds == [Kind::Log]));
    // Agents tell them as they come.
    drop(fleet.answer(Asked::Logs, question(Asked::Logs, "follow=true")).await);
    assert_eq!(own.asked.lock().unwrap().len(), 0);
    let lines = read(fleet.answer(Asked::Requests, question(Asked::Requests, "since=1h")).await).await;
    assert_eq!((lines.len(), own.asked.lock().unwrap().len()), (4, 0), "{lines:?}");
}

#[tokio::test]
async fn lines_that_are_kept_here_are_counted_here_alone() {
    let (seen, heard) = (Arc::new(Mutex::new(Vec::new())), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let at = AgentAt { node: "a".to_owned(), address: heard.local_addr().unwrap() };
    let paths = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = heard.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            paths.lock().unwrap().push(head.split(' ').nth(1).unwrap_or_default().to_owned());
            let hits = "{\"time\":\"2026-03-01T12:01:00Z\",\"node\":\"a\",\"hits\":2}\n{\"partial\":[]}\n";
            stream.write_all(format!("{HEAD}{hits}").as_bytes()).await.unwrap();
        }
    });
    let kept = "{\"time\":\"2026-03-01T12:01:00Z\",\"node\":\"cluster\",\"hits\":40}\n{\"partial\":[]}\n";
    let own = Arc::new(Kept { lines: kept.to_owned(), asked: Mutex::default() });
    let fleet = fleet(&Arc::new(Mutex::new(vec![at]))).beside(Arc::clone(&own) as Arc<dyn Api>, true);
    for (asked, text, hits, path) in [
        (Asked::Logs, "bucket=1m", 40, None),
        (
            Asked::Events,
            "bucket=1m&kind=log,stall&level=warn",
            42,
            Some("/api/v1/events?bucket=1m&level=warn&kind=stall"),
        ),
        (Asked::Events, "kind=stall&bucket=1m", 2, Some("/api/v1/events?bucket=1m&kind=stall")),
    ] {
        let lines = read(fleet.answer(asked, question(asked, text)).await).await;
        assert_eq!(lines[0]["hits"], hits, "{text}");
        assert_eq!(seen.lock().unwrap().pop().as_deref(), path, "{text}");
    }
}
