//! Agents come and go while streams go on: the streams do not notice, and what is told of them is true.

use std::{collections::HashSet, sync::mpsc::sync_channel, time::Duration};

use observer::{
    capture::monotonic,
    exchange::{Outcome, RequestRecord},
};
use observer_tests::{
    agent::{Agent, Follower, report},
    client::{Client, chat},
    live::privileged,
    workload::{Workload, quiet},
};
use rustix::process::Signal;

const STREAMS: usize = 64;
const RESTARTS: usize = 20;

/// Events of each stream, and the time between them: longer than all restarts together take.
const EVENTS: usize = 350;
const GAP: Duration = Duration::from_millis(100);

/// Above the server's own gap, what a stream's client may wait for an event. The machine's two cores also run the
/// 64 streams' threads, and load the probes twenty times.
const LATE: Duration = Duration::from_millis(400);

/// What a client saw of its stream.
struct Stream {
    /// The client's end of its connection.
    peer: String,
    /// All of it.
    response: String,
    /// The longest that it waited for bytes after the first.
    longest: Duration,
    /// When its first token came, after the request was sent.
    first: Duration,
}

fn stream(port: &str, id: &str) -> Stream {
    let mut client = Client::connect(port);
    let (peer, begin) = (client.name(), monotonic());
    client.post(id, "", &chat("restart", true, EVENTS));
    let mut response = client.receive_until(b"\n\n\r\n").into_bytes();
    let mut last = monotonic();
    let first = Duration::from_nanos(last - begin);
    let mut longest = Duration::ZERO;
    while !response.ends_with(b"0\r\n\r\n") {
        response.extend(client.receive());
        let now = monotonic();
        longest = longest.max(Duration::from_nanos(now - last));
        last = now;
    }
    Stream { peer, response: String::from_utf8(response).expect("UTF-8"), longest, first }
}

#[test]
fn twenty_restarts_during_long_streams() {
    if !privileged() {
        return;
    }
    let (server, port) = Workload::script("openai_server.py", &["--gap", &GAP.as_secs_f64().to_string()]);
    let (done, ended) = sync_channel(STREAMS);
    let mut agent = Agent::start(&[]);
    let mut followers: Vec<Follower> = vec![agent.follow()];
    for number in 0..STREAMS {
        let (port, done) = (port.clone(), done.clone());
        std::thread::spawn(move || {
            let _ = done.send((number, stream(&port, &format!("long-{number}"))));
        });
    }
    drop(done);
    quiet(10 * GAP);
    let (mut ends, begin) = (Vec::new(), monotonic());
    for number in 0..RESTARTS {
        // Half of them have no time to tidy up.
        let signal = if number % 2 == 0 { Signal::TERM } else { Signal::KILL };
        ends.push(agent.end(signal));
        agent = Agent::start(&[]);
        followers.push(agent.follow());
        // Long enough to see some of every stream.
        quiet(3 * GAP);
    }
    report("twenty restarts", Duration::from_nanos(monotonic() - begin));
    assert!(ended.try_recv().is_err(), "a stream was over before the last restart: nothing was tested");

    let streams: Vec<(usize, Stream)> = ended.iter().collect();
    assert_eq!(streams.len(), STREAMS, "streams that came to their end");
    let expected: Vec<String> = (0..EVENTS).map(|number| format!("t{number}")).collect();
    let mut longest = Duration::ZERO;
    for (number, stream) in &streams {
        let lines = stream.response.lines();
        let contents: Vec<&str> =
            lines.filter_map(|line| line.split_once(r#""content": ""#)?.1.split('"').next()).collect();
        assert_eq!(contents, expected, "stream {number}");
        longest = longest.max(stream.longest);
    }
    report("longest wait of a client for an event", longest);
    assert!(longest < GAP + LATE, "{longest:?}");

    // An exchange that a later agent sees from the start, whole: nothing of before stands in its way.
    let mut client = Client::connect(&port);
    client.stream("after", &chat("restart", true, 3));
    followers[RESTARTS].wait("after");
    let of_server = |record: &RequestRecord| record.pid == server.pid();
    let told: Vec<Vec<RequestRecord>> =
        followers.iter().map(|follower| follower.records().into_iter().filter(of_server).collect()).collect();
    let (mut whole, mut partial) = (vec![0; STREAMS], 0);
    for record in told.iter().flatten() {
        if record.request_id.as_deref() == Some("after") {
            assert!(record.is_complete() && record.tokens.output == Some(3), "{record:?}");
            continue;
        }
        // Its first token was seen by the first agent alone, which was gone at its end.
        assert!(!record.is_complete(), "claims to be whole: {record:?}");
        partial += 1;
        assert_ne!(record.outcome, Some(Outcome::AbortedByClient), "{record:?}");
        if let Some(number) =
            record.request_id.as_deref().and_then(|id| id.strip_prefix("long-")?.parse().ok())
        {
            let number: usize = number;
            whole[number] += 1;
            let stream = streams.iter().find(|(of, _)| *of == number).map(|(_, stream)| stream).expect("it");
            let ttft = Duration::from_secs_f64(record.ttft.unwrap_or_default());
            assert!(ttft <= stream.first, "{record:?}");
        } else {
            assert_eq!(record.ttft, None, "adopted in the middle: {record:?}");
        }
    }
    println!(
        "{partial} partial records by {} agents: {:?} each; {} with their request",
        told.len(),
        told.iter().map(Vec::len).collect::<Vec<_>>(),
        whole.iter().sum::<usize>()
    );
    // Each agent tells of a stream at most once.
    for of_agent in &told {
        let mut peers: Vec<_> = of_agent.iter().filter_map(|record| record.peer.as_deref()).collect();
        peers.sort_unstable();
        let all = peers.len();
        peers.dedup();
        assert_eq!(peers.len(), all, "one agent tells of a stream twice");
    }
    let peers: HashSet<&str> = told.iter().flatten().filter_map(|record| record.peer.as_deref()).collect();
    let untold = streams.iter().filter(|(_, stream)| !peers.contains(&*stream.peer)).count();
    assert_eq!(untold, 0, "streams that no agent tells of");
    let metrics = agent.metrics();
    assert_eq!(
        metrics
            .sum("gen_ai_server_time_to_first_token_seconds_count", &[("gen_ai_request_model", "restart")]),
        Some(1),
        "{}",
        metrics.0
    );
    ends.push(agent.end(Signal::TERM));
    for end in &ends {
        end.wait_unloaded();
    }
}
