use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::*;
use crate::exchange::RequestRecord;

/// Long enough that only a correct shutdown ends in time.
const FOREVER: Duration = Duration::from_hours(1);

struct Running {
    address: SocketAddr,
    sources: Sources,
    shutdown: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    fn start(grace: Duration) -> Self {
        let sources = Sources {
            metrics: Arc::new(|| Ok("up 1\n".to_owned())),
            ready: Arc::default(),
            not_ready: "nothing runs yet",
            feeds: vec![("requests", Feed::new(4)), ("events", Feed::new(4))],
        };
        Self::start_with(sources, grace, "127.0.0.1:0")
    }

    fn start_with(sources: Sources, grace: Duration, listen: &str) -> Self {
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
        Self { address: told.recv().unwrap(), sources, shutdown, thread }
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.get_as(path, "localhost")
    }

    fn get_as(&self, path: &str, host: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    /// Opens the stream and returns once the server follows the feed on its behalf.
    fn follow(&self) -> BufReader<TcpStream> {
        self.follow_feed("requests")
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
        let record = RequestRecord { id: id.to_owned(), ..RequestRecord::default() };
        self.sources.feeds[0].1.publish(&record).unwrap();
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
    let sources = Sources {
        metrics: Arc::new(|| Err("out of ink".to_owned())),
        ready: Arc::default(),
        not_ready: "",
        feeds: vec![("requests", Feed::new(1))],
    };
    let server = Running::start_with(sources, FOREVER, "127.0.0.1:0");
    let (status, _, body) = server.get("/metrics");
    assert_eq!(status, 500);
    assert!(body.contains("out of ink"), "{body}");
    server.stop();
}

#[test]
fn requests_are_streamed_as_they_finish() {
    let server = Running::start(FOREVER);
    server.publish("before anybody follows");
    let (mut one, mut two) = (server.follow(), server.follow());
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
    let (mut requests, mut events) = (server.follow(), server.follow_feed("events"));
    server.sources.feeds[1].1.publish(&serde_json::json!({"reason": "BackOff"})).unwrap();
    server.publish("a");
    assert_eq!(line(&mut requests)["id"], "a");
    assert_eq!(line(&mut events)["reason"], "BackOff");
    assert_eq!(server.get("/api/v1/nothing").0, 404);
    server.stop();
}

#[test]
fn a_follower_that_lags_is_told_how_much_it_missed() {
    let feed = Feed::new(4);
    let mut lines = feed.follow();
    for n in 0..10 {
        feed.publish(&RequestRecord { id: n.to_string(), ..RequestRecord::default() }).unwrap();
    }
    assert!(matches!(lines.try_recv(), Err(tokio::sync::broadcast::error::TryRecvError::Lagged(6))));

    // The same through the server: it cannot write while it has no chance to run between two publications.
    let server = Running::start(FOREVER);
    let mut reader = server.follow();
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
    let sources = Sources {
        metrics: Arc::new(|| Ok("up 1\n".to_owned())),
        ready: Arc::default(),
        not_ready: "",
        feeds: vec![("requests", Feed::new(1))],
    };
    let mut server = Running::start_with(sources, FOREVER, "0.0.0.0:0");
    server.address.set_ip(outer);
    let (status, _, body) = server.get("/api/v1/requests");
    assert_eq!(status, 403);
    assert!(body.contains(&outer.to_string()) && body.contains("port-forward"), "{body}");
    assert_eq!(server.get("/metrics").0, 200);
    server.stop();
}

#[test]
fn streams_have_a_bound() {
    let server = Running::start(FOREVER);
    let open: Vec<_> = (0..STREAMS).map(|_| server.follow()).collect();
    let (status, _, body) = server.get("/api/v1/requests");
    assert_eq!(status, 503);
    assert!(body.contains("32 streams"), "{body}");
    drop(open);
    server.stop();
}

#[test]
fn an_open_stream_does_not_delay_shutdown() {
    let server = Running::start(FOREVER);
    let mut reader = server.follow();
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
