use std::io::{BufRead, BufReader};
use std::net::TcpListener;

use super::*;
use crate::cli::lacks;
use crate::config::cli::{ReachArgs, WhichArgs, WhoseArgs};

fn args(address: String, json: bool) -> RequestsArgs {
    let reach = ReachArgs { address: Some(address), ..ReachArgs::default() };
    RequestsArgs { json, reach, ..RequestsArgs::default() }
}

/// An agent that answers once with these bytes.
fn agent(answer: String) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            reader.read_line(&mut request).unwrap();
        }
        // The client may have gone already: that is what some tests are about.
        let _sent = stream.write_all(answer.as_bytes());
        request
    });
    (address, thread)
}

fn stream(lines: &[&str]) -> String {
    let chunk = |line: &&str| format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
    let chunks = lines.iter().map(chunk).collect::<Vec<_>>().concat();
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

fn record_line() -> String {
    let record = RequestRecord { process: "vllm".to_owned(), ttft: Some(0.25), ..RequestRecord::default() };
    serde_json::to_string(&record).unwrap()
}

#[test]
fn records_become_lines_until_the_agent_stops() {
    let (address, thread) = agent(stream(&[&record_line(), "{\"lagged\":7}", &record_line()]));
    let (mut output, mut remarks) = (Vec::new(), Vec::new());
    let error = show(&args(address.clone(), false), false, &mut output, &mut remarks).unwrap_err();
    assert!(matches!(&error, Failure::Ended { .. }), "{error}");
    assert!(error.to_string().contains(&address) && error.to_string().contains("start it again"));
    let output = String::from_utf8(output).unwrap();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert!(lines[0].starts_with("TIME") && lines[1].contains("vllm") && lines[1].contains("250.0ms"));
    assert_eq!(lines[1], lines[2]);
    assert!(String::from_utf8(remarks).unwrap().starts_with("7 requests are not shown"));
    assert!(thread.join().unwrap().starts_with("GET /api/v1/requests HTTP/1.1\r\n"));
}

/// Hands each flushed text over, so that a test can wait for it.
struct Handover(Vec<u8>, std::sync::mpsc::SyncSender<String>);

impl Write for Handover {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.1.send(String::from_utf8(std::mem::take(&mut self.0)).unwrap()).unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_real_endpoint_is_followed_live() {
    use crate::serve::{LogFiles, NodeApi, RequestFeed, RowFeed, Server, Sources};
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let args = args(server.address().to_string(), false);
    let requests = RequestFeed::new(8, 1 << 20, 0);
    let api = NodeApi {
        node: "a".to_owned(),
        feed: requests.clone(),
        running: std::sync::Arc::new(Vec::new),
        wall: || 0,
        rows: RowFeed::new(4),
        store: None,
        stores_logs: false,
        files: LogFiles::default(),
    };
    let sources = Sources {
        metrics: std::sync::Arc::new(|| Ok(String::new())),
        ready: std::sync::Arc::default(),
        not_ready: "",
        events: None,
        api: std::sync::Arc::new(api),
        token: std::sync::Arc::default(),
        reviewer: None,
        intake: None,
        metrics_guarded: false,
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let client = std::thread::spawn(move || {
        let (sender, texts) = std::sync::mpsc::sync_channel(8);
        let follower =
            std::thread::spawn(move || show(&args, false, Handover(Vec::new(), sender), io::sink()));
        assert!(texts.recv().unwrap().starts_with("TIME"));
        requests.publish(serde_json::from_str(&record_line()).unwrap(), 0);
        assert!(texts.recv().unwrap().contains("vllm"), "a request is shown while the stream is open");
        stop.send(()).unwrap();
        follower.join().unwrap()
    });
    let stopped = async {
        let _dropped_or_sent = stopped.await;
    };
    server.run(sources, stopped).await.unwrap();
    assert!(matches!(client.join().unwrap(), Err(Failure::Ended { .. })));
}

#[test]
fn json_is_passed_on_as_it_is() {
    let lines = ["{\"id\":\"a\",\"new_field\":1}", "{\"lagged\":7}"];
    let (address, thread) = agent(stream(&lines));
    let mut output = Vec::new();
    let error = show(&args(address, true), false, &mut output, io::sink()).unwrap_err();
    assert!(matches!(error, Failure::Ended { .. }), "{error}");
    assert_eq!(String::from_utf8(output).unwrap(), lines.join("\n") + "\n");
    thread.join().unwrap();
}

#[test]
fn the_newest_of_an_answer_is_last_and_what_is_missing_is_said() {
    let line = |second: u8, process: &str| {
        let started_at = Some(format!("2026-03-01T12:00:{second:02}.000000000Z"));
        serde_json::to_string(&RequestRecord {
            process: process.to_owned(),
            started_at,
            ..RequestRecord::default()
        })
        .unwrap()
    };
    let trailer = r#"{"partial":[{"node":"b","reason":"unreachable (\u001b[2J)"}],"next":"1,a,0-0"}"#;
    let lines = [&*line(2, "newest"), &*line(1, "oldest"), trailer];
    let past = |address: String, json| RequestsArgs {
        which: WhichArgs {
            whose: WhoseArgs { namespace: Some("ml&x".to_owned()), ..WhoseArgs::default() },
            slow: true,
            ..WhichArgs::default()
        },
        ..args(address, json)
    };
    let (address, thread) = agent(stream(&lines));
    let (mut output, mut remarks) = (Vec::new(), Vec::new());
    show(&past(address, false), false, &mut output, &mut remarks).unwrap();
    let (output, remarks) = (String::from_utf8(output).unwrap(), String::from_utf8(remarks).unwrap());
    let shown: Vec<_> = output.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(shown, ["SERVER", "oldest", "newest"]);
    assert_eq!(
        remarks,
        "partial: node b unreachable (\u{fffd}[2J)\nthere are more than these 2: --limit shows more of them\n"
    );
    assert!(
        thread.join().unwrap().starts_with("GET /api/v1/requests?namespace=ml%26x&slow=true HTTP/1.1\r\n")
    );
    let (address, thread) = agent(stream(&lines));
    let mut output = Vec::new();
    show(&past(address, true), false, &mut output, io::sink()).unwrap();
    let output = String::from_utf8(output).unwrap();
    assert_eq!(output.lines().collect::<Vec<_>>()[..2], [&*line(1, "oldest"), &*line(2, "newest")]);
    assert!(output.ends_with("\"next\":\"1,a,0-0\"}\n"), "{output}");
    thread.join().unwrap();
}

#[test]
fn a_thousand_nodes_are_not_named_one_by_one() {
    let partial = |n: u32| crate::recent::Partial { node: n.to_string(), reason: "is away".to_owned() };
    let mut text = Vec::new();
    lacks(&mut text, &(0..1000).map(partial).collect::<Vec<_>>()).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), 11);
    assert!(text.ends_with("partial: node 9 is away\npartial: and 990 more, which --json names\n"), "{text}");
}

#[test]
fn an_answer_without_an_end_is_none() {
    let (address, thread) = agent(stream(&[&record_line()]));
    let which = WhichArgs { slow: true, ..WhichArgs::default() };
    let past = RequestsArgs { which, ..args(address, false) };
    let error = show(&past, false, io::sink(), io::sink()).unwrap_err();
    assert!(matches!(error, Failure::Ended { .. }), "{error}");
    thread.join().unwrap();
}

#[test]
fn the_token_of_the_file_is_presented() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "of-the-tests\n").unwrap();
    let (address, thread) = agent(stream(&[]));
    let mut args = args(address, false);
    args.reach.token_file = Some(file.path().to_owned());
    assert!(show(&args, false, io::sink(), io::sink()).is_err(), "it ended");
    assert!(thread.join().unwrap().contains("Bearer of-the-tests\r\n"));
    std::fs::write(file.path(), "").unwrap();
    let error = show(&args, false, io::sink(), io::sink()).unwrap_err().to_string();
    assert!(error.contains("no token in") && error.contains("--token-file"), "{error}");
}

#[test]
fn no_agent_says_how_to_start_one() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let error = show(&args(address.clone(), false), false, io::sink(), io::sink()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Failure::NoAgent { .. }), "{message}");
    assert!(message.contains(&format!("no agent answers at {address}")), "{message}");
    assert!(message.contains("observer agent") && message.contains("--address"), "{message}");
}

#[test]
fn a_nonsensical_address_is_refused() {
    let error = show(&args("no where".to_owned(), false), false, io::sink(), io::sink()).unwrap_err();
    assert!(error.to_string().contains("no agent answers at no where"), "{error}");
}

#[test]
fn a_refusal_is_shown() {
    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 12\r\n\r\nnot for you\n".to_owned();
    let (address, thread) = agent(answer);
    let error = show(&args(address.clone(), false), false, io::sink(), io::sink()).unwrap_err();
    assert_eq!(error.to_string(), format!("{address} answers with status 403: not for you"));
    thread.join().unwrap();
}

#[test]
fn what_is_no_record_is_named() {
    let (address, thread) = agent(stream(&["<html>"]));
    let error = show(&args(address, false), false, io::sink(), io::sink()).unwrap_err();
    assert!(matches!(error, Failure::NoLine { .. }), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_broken_connection_is_not_a_stopped_agent() {
    let cut = stream(&[&record_line()]).replace("0\r\n\r\n", "ff\r\nhalf");
    let (address, thread) = agent(cut);
    let error = show(&args(address, false), false, io::sink(), io::sink()).unwrap_err();
    assert!(matches!(error, Failure::Broken { .. }), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_reader_that_has_had_enough_ends_it_well() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (address, thread) = agent(stream(&[&record_line()]));
    show(&args(address, false), false, Closed, io::sink()).unwrap();
    thread.join().unwrap();
}
