use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::*;
use crate::exchange::RequestRecord;
use crate::recent;

/// Long enough that only a correct shutdown ends in time.
const FOREVER: Duration = Duration::from_hours(1);

struct Running {
    address: SocketAddr,
    sources: Sources,
    feed: RequestFeed,
    shutdown: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), ServeError>>,
}

/// 2026-03-01T12:00:00Z.
const NOW: i64 = 1_772_366_400_000_000_000;

/// What is served of these requests, and of one that runs.
fn sources(feed: &RequestFeed) -> Sources {
    let one = recent::Running {
        whose: ["ml", "llama-0", "server"].map(str::to_owned),
        model: "m".to_owned(),
        requests: 3,
        ..recent::Running::default()
    };
    let api = NodeApi {
        node: "a".to_owned(),
        feed: feed.clone(),
        running: Arc::new(move || vec![one.clone()]),
        wall: || NOW,
        rows: RowFeed::new(4),
        store: None,
        stores_logs: false,
        files: LogFiles::default(),
    };
    Sources {
        metrics: Arc::new(|| Ok("up 1\n".to_owned())),
        ready: Arc::default(),
        not_ready: "nothing runs yet",
        events: Some(Feed::new(4)),
        api: Arc::new(api),
        token: Arc::default(),
        reviewer: None,
        intake: None,
        metrics_guarded: false,
    }
}

impl Running {
    fn start(grace: Duration) -> Self {
        let feed = RequestFeed::new(4, 64 << 20, 0);
        Self::start_with(sources(&feed), feed, grace, "127.0.0.1:0")
    }

    fn start_with(sources: Sources, feed: RequestFeed, grace: Duration, listen: &str) -> Self {
        let listen = listen.parse().unwrap();
        let (shutdown, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let served = sources.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let result = runtime.block_on(async {
                let server = Server::bind(listen).await?;
                tell.send(server.address()).unwrap();
                let stopped = async {
                    let _dropped_or_sent = stopped.await;
                };
                server.run_with_grace(served, stopped, grace).await
            });
            runtime.shutdown_background();
            result
        });
        Self { address: told.recv().unwrap(), sources, feed, shutdown, thread }
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.get_as(path, "localhost")
    }

    fn get_as(&self, path: &str, host: &str) -> (u16, String, String) {
        self.get_with(path, &format!("Host: {host}\r\n"))
    }

    fn get_with(&self, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    /// Opens the stream and returns once the server follows the feed on its behalf.
    fn follow(&self, parameters: &str) -> BufReader<TcpStream> {
        self.follow_feed(&format!("requests{parameters}"))
    }

    fn follow_feed(&self, name: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET /api/v1/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        reader
    }

    fn publish(&self, id: &str) {
        self.publish_of("", id, 0.1);
    }

    fn publish_of(&self, namespace: &str, id: &str, ttft: f64) {
        let record = RequestRecord {
            id: id.to_owned(),
            node: "a".to_owned(),
            namespace: namespace.to_owned(),
            stream: true,
            ttft: Some(ttft),
            ..RequestRecord::default()
        };
        self.feed.publish(record, NOW - 1_000_000_000);
    }

    /// The lines of an answer.
    fn lines(&self, path: &str) -> Vec<serde_json::Value> {
        let (status, _, body) = self.get(path);
        assert_eq!(status, 200, "{body}");
        let lines = body.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

/// The next non-empty line of a chunked body that is not a chunk size.
fn line(reader: &mut impl BufRead) -> serde_json::Value {
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the stream ended");
        if line.starts_with('{') {
            return serde_json::from_str(&line).unwrap();
        }
    }
}

#[test]
fn metrics_health_and_readiness() {
    let server = Running::start(FOREVER);
    let (status, head, body) = server.get("/metrics");
    assert_eq!((status, body.as_str()), (200, "up 1\n"));
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(server.get("/healthz").0, 200);
    let (status, _, body) = server.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("nothing runs yet"), "{body}");
    server.sources.ready.store(true, Ordering::Release);
    assert_eq!(server.get("/readyz").0, 200);
    assert_eq!(server.get("/nothing").0, 404);
    server.stop();
}

#[test]
fn a_scrape_that_fails_says_so() {
    let feed = RequestFeed::new(1, 0, 0);
    let sources = Sources { metrics: Arc::new(|| Err("out of ink".to_owned())), ..sources(&feed) };
    let server = Running::start_with(sources, feed, FOREVER, "127.0.0.1:0");
    let (status, _, body) = server.get("/metrics");
    assert_eq!(status, 500);
    assert!(body.contains("out of ink"), "{body}");
    server.stop();
}

#[test]
fn requests_are_streamed_as_they_finish() {
    let server = Running::start(FOREVER);
    server.publish("before anybody follows");
    let (mut one, mut two) = (server.follow(""), server.follow(""));
    server.publish("a");
    server.publish("b");
    for reader in [&mut one, &mut two] {
        assert_eq!(line(reader)["id"], "a");
        assert_eq!(line(reader)["id"], "b");
    }
    server.stop();
}

#[test]
fn each_feed_has_a_stream_of_its_own() {
    let server = Running::start(FOREVER);
    let (mut requests, mut events) = (server.follow(""), server.follow_feed("events"));
    server.sources.events.as_ref().unwrap().publish(&serde_json::json!({"reason": "BackOff"})).unwrap();
    server.publish("a");
    assert_eq!(line(&mut requests)["id"], "a");
    assert_eq!(line(&mut events)["reason"], "BackOff");
    assert_eq!(server.get("/api/v1/nothing").0, 404);
    server.stop();
}

#[test]
fn a_follower_that_lags_is_told_how_much_it_missed() {
    let feed = RequestFeed::new(4, 0, 0);
    let mut lines = feed.follow();
    for n in 0..10 {
        feed.publish(RequestRecord { id: n.to_string(), ..RequestRecord::default() }, 0);
    }
    assert!(matches!(lines.try_recv(), Err(tokio::sync::broadcast::error::TryRecvError::Lagged(6))));

    // The same through the server: it cannot write while it has no chance to run between two publications.
    let server = Running::start(FOREVER);
    let mut reader = server.follow("");
    let mut lagged = 0;
    let mut seen = 0;
    let published = 10_000;
    for n in 0..published {
        server.publish(&n.to_string());
    }
    server.publish("last");
    loop {
        let line = line(&mut reader);
        if line["id"] == "last" {
            break;
        }
        match line["lagged"].as_u64() {
            Some(missed) => lagged += missed,
            None => seen += 1,
        }
    }
    assert_eq!(lagged + seen, published, "every record was shown or counted");
    server.stop();
}

#[test]
fn the_api_is_for_this_machine() {
    let server = Running::start(FOREVER);
    let (status, _, body) = server.get_as("/api/v1/requests", "rebound.example");
    assert_eq!(status, 403);
    assert!(body.contains("localhost"), "{body}");
    assert_eq!(server.get_as("/metrics", "node-7.example").0, 200, "metrics are for everybody");
    server.stop();
}

/// Another address of this machine than loopback, if it has one. Nothing is sent to find out.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn the_api_is_not_for_other_peers() {
    let Some(outer) = outer_address() else {
        eprintln!("skipped: this machine has a loopback address only");
        return;
    };
    let feed = RequestFeed::new(1, 0, 0);
    let mut server = Running::start_with(sources(&feed), feed, FOREVER, "0.0.0.0:0");
    server.address.set_ip(outer);
    let (status, _, body) = server.get("/api/v1/requests");
    assert_eq!(status, 403);
    assert!(body.contains(&outer.to_string()) && body.contains("port-forward"), "{body}");
    assert_eq!(server.get("/api/v1/top").0, 403);
    assert_eq!(server.get("/metrics").0, 200);
    server.stop();
}

#[test]
fn other_peers_present_the_token() {
    let Some(outer) = outer_address() else {
        eprintln!("skipped: this machine has a loopback address only");
        return;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let feed = RequestFeed::new(1, 0, 0);
    let token = Arc::new(TokenFile::at(Some(file.path().to_owned())));
    let sources = Sources { token, ..sources(&feed) };
    let mut server = Running::start_with(sources, feed, FOREVER, "0.0.0.0:0");
    let status = |server: &Running, token: &str| {
        let (status, head, _) =
            server.get_with("/api/v1/top", &format!("Host: x\r\nAuthorization: Bearer {token}\r\n"));
        assert_eq!(status == 401, head.contains("www-authenticate: bearer"), "{head}");
        status
    };
    assert_eq!(server.get("/api/v1/top").0, 200, "loopback needs none");
    server.address.set_ip(outer);
    assert_eq!(server.get("/api/v1/top").0, 401);
    assert_eq!(status(&server, "first"), 401, "the file is empty");
    std::fs::write(file.path(), "first\n").unwrap();
    assert_eq!((status(&server, "first"), status(&server, "second")), (200, 401));
    std::fs::write(file.path(), "second\n").unwrap();
    assert_eq!((status(&server, "first"), status(&server, "second")), (401, 200));
    std::fs::remove_file(file.path()).unwrap();
    assert_eq!(status(&server, "second"), 401);
    assert_eq!(server.get("/metrics").0, 200);
    server.stop();
}

#[test]
fn past_requests_are_answered_with_a_trailer() {
    let server = Running::start(FOREVER);
    for n in 0..5 {
        server.publish_of(if n == 3 { "web" } else { "ml" }, &n.to_string(), f64::from(n));
    }
    let ids = |lines: &[serde_json::Value]| -> Vec<String> {
        lines.iter().filter_map(|line| line["id"].as_str().map(str::to_owned)).collect()
    };
    let lines = server.lines("/api/v1/requests?namespace=ml&limit=3");
    assert_eq!(ids(&lines), ["4", "2", "1"]);
    let trailer = lines.last().unwrap();
    assert_eq!(trailer["partial"], serde_json::json!([]));
    let next = trailer["next"].as_str().unwrap();
    let lines = server.lines(&format!("/api/v1/requests?namespace=ml&cursor={next}"));
    assert_eq!((ids(&lines), lines.last().unwrap().get("next")), (vec!["0".to_owned()], None));
    assert_eq!(ids(&server.lines("/api/v1/requests?min_ttft=3s&order=oldest&since=1s")), ["3", "4"]);
    assert_eq!(ids(&server.lines("/api/v1/requests?since=1ms")), [""; 0]);
    let lines = server.lines("/api/v1/requests?since=1970-01-01T00:00:00Z");
    assert_eq!((ids(&lines).len(), &lines[5]["partial"]), (5, &serde_json::json!([])));
    for (parameters, words) in [("?since=soon", "`since` = \"soon\""), ("?colour=red", "use since, until")] {
        let (status, _, body) = server.get(&format!("/api/v1/requests{parameters}"));
        assert!(status == 400 && body.contains(words), "{parameters}: {status} {body}");
    }
    server.stop();
}

#[test]
fn followers_get_what_they_asked_for_each_once() {
    let server = Running::start(FOREVER);
    server.publish_of("ml", "before", 1.0);
    server.publish_of("web", "elsewhere", 1.0);
    let mut past = server.follow("?namespace=ml&since=1h&follow=true");
    let mut slow = server.follow("?follow=true&min_ttft=2s");
    server.publish_of("web", "elsewhere too", 1.0);
    server.publish_of("ml", "after", 3.0);
    assert_eq!([line(&mut past), line(&mut past)].map(|line| line["id"].clone()), ["before", "after"]);
    assert_eq!(line(&mut slow)["id"], "after");
    server.stop();
}

#[test]
fn rows_of_what_is_served() {
    let server = Running::start(FOREVER);
    server.publish_of("ml", "x", 1.5);
    let lines = server.lines("/api/v1/top");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(
        (&lines[0]["pod"], &lines[0]["in_flight"], &lines[0]["node"]),
        (&"llama-0".into(), &3.into(), &"a".into())
    );
    assert_eq!((&lines[1]["requests"], &lines[1]["ttft_p50"]), (&1.into(), &1.5.into()));
    assert_eq!(lines[2], serde_json::json!({"partial": []}));
    assert_eq!(server.lines("/api/v1/top?pod=llama-*&since=5m").len(), 2);
    assert_eq!(server.get("/api/v1/top?slow=true").0, 400);
    server.stop();
}

#[test]
fn streams_have_a_bound() {
    let server = Running::start(FOREVER);
    let open: Vec<_> = (0..STREAMS).map(|_| server.follow("")).collect();
    let (status, _, body) = server.get("/api/v1/requests");
    assert_eq!(status, 503);
    assert!(body.contains("32 streams"), "{body}");
    drop(open);
    server.stop();
}

#[test]
fn an_open_stream_does_not_delay_shutdown() {
    let server = Running::start(FOREVER);
    let mut reader = server.follow("");
    server.publish("a");
    assert_eq!(line(&mut reader)["id"], "a");
    server.stop();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the body was ended properly: {rest:?}");
}

#[test]
fn a_client_that_does_not_finish_its_request_is_cut() {
    let server = Running::start(Duration::ZERO);
    let mut stuck = TcpStream::connect(server.address).unwrap();
    write!(stuck, "GET /metrics HTTP/1.1\r\nHost:").unwrap();
    server.stop();
}

#[tokio::test]
async fn a_port_in_use_names_listen_and_the_remedy() {
    let first = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = Server::bind(first.address()).await.err().unwrap();
    let message = error.to_string();
    assert!(message.contains(&first.address().to_string()) && message.contains("`listen`"), "{message}");
    assert!(message.contains("set `listen` to a free port"), "{message}");
}
