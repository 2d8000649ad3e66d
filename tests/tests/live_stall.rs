//! Stalls while they happen, told apart from clients that do not read.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    time::Duration,
};

use observer::{capture::monotonic, exchange::RequestRecord};
use observer_tests::{
    agent::{Agent, wait_for},
    live::privileged,
    scripted::Scripted,
};

const PAUSE: Duration = Duration::from_secs(3);

/// Asks for a stream by a script and reads its head.
fn ask(address: &str, name: &str, script: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).expect("the server listens");
    let body = format!("{{\"model\":\"scripted\",\"stream\":true,\"messages\":[],\"script\":{script}}}");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Request-Id: {name}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(format!("{head}{body}").as_bytes()).expect("the server reads");
    let mut byte = [0];
    client.read_exact(&mut byte).expect("the server answers");
    client
}

fn read_to_end(mut client: TcpStream) {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("the whole answer");
    client.shutdown(Shutdown::Both).ok();
    assert!(String::from_utf8_lossy(&answer).contains("[DONE]"));
}

#[test]
fn a_pause_is_a_stall_while_it_lasts() {
    if !privileged() {
        return;
    }
    let server = Scripted::start(&[]);
    let agent = Agent::start(&[]);
    let requests = agent.follow();
    let begin = monotonic();
    let script = format!(r#"{{"events":20,"gap_ms":20,"pause_after":10,"pause_s":{}}}"#, PAUSE.as_secs());
    let client = ask(&server.address(), "pause", &script);
    let in_flight = |phase| agent.metrics().sum("llm_requests_in_flight", &[("phase", phase)]);
    wait_for("a stream that stalls", || (in_flight("stalled") == Some(1)).then_some(()));
    println!("stalled after {} ms", (monotonic() - begin) / 1_000_000);
    let text = agent.metrics().0;
    let oldest = text.lines().filter(|line| line.starts_with("llm_requests_oldest_age_seconds{"));
    let ages: Vec<f64> = oldest
        .filter(|line| line.contains("phase=\"stalled\""))
        .map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number"))
        .collect();
    assert!(ages.iter().any(|age| (2.0..4.0).contains(age)), "{ages:?}");
    assert_eq!((in_flight("generating"), in_flight("waiting")), (Some(0), Some(0)));
    assert_eq!(agent.metrics().sum("llm_stream_stalls_total", &[]), Some(1), "counted while it lasts");

    wait_for("tokens again", || (in_flight("generating") == Some(1)).then_some(()));
    read_to_end(client);
    let record = requests.wait("pause");
    assert_eq!((record.stalls, record.client_stalls), (Some(1), Some(0)), "{record:?}");
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("llm_stream_stalls_total", &[]), Some(1));
    assert_eq!(metrics.sum("llm_requests_in_flight", &[]), Some(0));
}

/// An agent sees a client that stops reading for longer than a stall takes, in the middle of large events.
fn client_that_does_not_read(address: &str, name: &str, script: &str) -> RequestRecord {
    let agent = Agent::start(&[]);
    let requests = agent.follow();
    let client = ask(address, name, script);
    std::thread::sleep(PAUSE);
    let stalls = agent.metrics().sum("llm_stream_stalls_total", &[]);
    let stalled = agent.metrics().sum("llm_requests_in_flight", &[("phase", "stalled")]);
    assert_eq!((stalls, stalled), (Some(0), Some(0)), "the server would write if it could");
    read_to_end(client);
    let record = requests.wait(name);
    assert_eq!(agent.metrics().sum("llm_stream_stalls_total", &[]), Some(0), "{record:?}");
    record
}

/// What waits while the socket is full is written at once then, too much to be copied: of the record nothing is
/// checked. Until then every event is copied, so that the silence would be taken for a stall.
#[test]
fn a_client_that_does_not_read_is_no_stall_of_an_event_loop() {
    if !privileged() {
        return;
    }
    for event_loop in ["asyncio", "uvloop"] {
        let server = Scripted::start(&["--loop", event_loop]);
        let script = r#"{"events":5000,"bytes_per_event":3800,"max_rate":true,"first_token_delay_s":0.2}"#;
        client_that_does_not_read(&server.address(), event_loop, script);
    }
}

/// Answers one request with so many large events, by a thread that blocks in each write.
fn blocking_server(events: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = [0; 4096];
        let read = stream.read(&mut request).expect("a request");
        assert!(request[..read].ends_with(b"}"), "the request comes in one piece");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("a client that reads");
        let text = "x".repeat(3900);
        let event =
            format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        for number in 0..events {
            // The agent gets its verdict out, and its turn: nothing is to be lost.
            match number {
                1 => std::thread::sleep(Duration::from_millis(200)),
                _ if number % 10 == 0 => std::thread::sleep(Duration::from_millis(1)),
                _ => {}
            }
            stream.write_all(event.as_bytes()).expect("a client that reads");
        }
        stream.write_all(b"data: [DONE]\n\n").expect("a client that reads");
    });
    address
}

#[test]
fn a_client_that_does_not_read_is_no_stall_of_a_thread_that_writes() {
    if !privileged() {
        return;
    }
    let record = client_that_does_not_read(&blocking_server(4000), "blocking", "{}");
    assert!(record.is_complete(), "{record:?}");
    assert_eq!((record.stalls, record.client_stalls), (Some(0), Some(1)), "{record:?}");
    assert!(record.gaps.is_some_and(|gaps| gaps.max > 2.0), "the client made a gap");
}
