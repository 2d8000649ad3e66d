//! Exchanges that go wrong in every way at once: each is told as its script has it, and nothing is left of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use observer::{
    capture::monotonic,
    exchange::{Outcome, RequestRecord},
};
use observer_tests::{
    agent::{Agent, Follower, wait_for},
    client::Client,
    live::privileged,
    workload::{Workload, quiet},
};
use proptest::{
    sample::select,
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rustix::process::Signal;

/// Exchanges of a round.
const EXCHANGES: usize = 1000;

/// At a time.
const WORKERS: usize = 16;

/// For a server to have read a request: one that it has not read, nobody sees.
const READ: Duration = Duration::from_millis(50);

/// Tokens of a stream that goes well.
const TOKENS: u64 = 5;

/// How a client goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Leave {
    Close,
    Reset,
}

/// What happens to an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Case {
    Stream,
    Plain,
    Stall,
    Error,
    ErrorAtEnd,
    Refused(u16),
    Cut,
    Unterminated,
    PlainAbort(Leave),
    AbortBefore(Leave),
    AbortAfter(Leave),
    KillBefore,
    KillAfter,
}

use Case::{
    AbortAfter, AbortBefore, Cut, Error, ErrorAtEnd, KillAfter, KillBefore, Plain, PlainAbort, Refused,
    Stall, Stream, Unterminated,
};

impl Case {
    const ALL: [Self; 19] = [
        Stream,
        Plain,
        Stall,
        Error,
        ErrorAtEnd,
        Refused(400),
        Refused(429),
        Refused(500),
        Refused(503),
        Cut,
        Unterminated,
        PlainAbort(Leave::Close),
        PlainAbort(Leave::Reset),
        AbortBefore(Leave::Close),
        AbortBefore(Leave::Reset),
        AbortAfter(Leave::Close),
        AbortAfter(Leave::Reset),
        KillBefore,
        KillAfter,
    ];

    /// The fields of a request that make the server do its part.
    fn script(self) -> String {
        let events = format!(r#""stream":true,"events":{TOKENS},"gap_s":0.002"#);
        // Far more than the client waits for.
        let endless = r#""stream":true,"events":2000,"gap_s":0.02"#;
        match self {
            Stream => events,
            Plain => format!(r#""events":{TOKENS}"#),
            Stall => format!(r#"{events},"pause_s":0.3"#),
            Error => format!(r#"{events},"answer":"error""#),
            ErrorAtEnd => format!(r#"{events},"answer":"error_at_end""#),
            Refused(status) => format!(r#"{events},"answer":"refuse","status":{status}"#),
            Cut => format!(r#"{events},"answer":"cut""#),
            Unterminated => format!(r#"{events},"answer":"unterminated""#),
            PlainAbort(_) => r#""delay_s":0.2"#.into(),
            AbortBefore(_) | KillBefore => r#""stream":true,"delay_s":0.2"#.into(),
            AbortAfter(_) | KillAfter => endless.into(),
        }
    }

    /// The client's part, up to the end of the exchange.
    fn play(self, id: &str, victim: &Mutex<Victim>, port: &str) {
        let body = format!(r#"{{"model":"chaos",{},"messages":[]}}"#, self.script());
        let start = |port: &str| {
            let mut client = Client::connect(port);
            client.post(id, "", &body);
            client
        };
        let leave = |client: Client, leave| match leave {
            Leave::Close => drop(client),
            Leave::Reset => client.reset(),
        };
        match self {
            Stream | Stall | Error | ErrorAtEnd | Unterminated => {
                start(port).receive_until(b"0\r\n\r\n");
            }
            Plain | Refused(_) => {
                start(port).receive_until(b"}");
            }
            Cut => start(port).outlive(),
            PlainAbort(how) | AbortBefore(how) => {
                let client = start(port);
                quiet(READ);
                leave(client, how);
            }
            AbortAfter(how) => {
                let mut client = start(port);
                client.receive_until(b"\n\n\r\n");
                leave(client, how);
            }
            KillBefore | KillAfter => {
                let mut victim = victim.lock().expect("a victim");
                let mut client = start(&victim.port);
                if self == KillAfter {
                    client.receive_until(b"\n\n\r\n");
                } else {
                    quiet(READ);
                }
                victim.kill_and_restart();
                client.outlive();
            }
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Stream | Plain | Stall => Outcome::Ok,
            Error | ErrorAtEnd => Outcome::StreamError,
            Refused(429 | 503) => Outcome::Rejected,
            Refused(500..) => Outcome::ServerError,
            Refused(_) => Outcome::ClientError,
            Cut | KillBefore | KillAfter => Outcome::AbortedByServer,
            Unterminated => Outcome::Unterminated,
            PlainAbort(_) | AbortBefore(_) | AbortAfter(_) => Outcome::AbortedByClient,
        }
    }

    /// What in a record differs from this script, if anything does.
    fn differs(self, record: &RequestRecord) -> Option<String> {
        if record.outcome != Some(self.outcome()) {
            return Some(format!("outcome {:?}, not {:?}", record.outcome, self.outcome()));
        }
        // A process that is killed calls close for nothing: what it did last may not have been seen.
        let killed = matches!(self, KillBefore | KillAfter);
        if record.partial.iter().any(|cause| !killed || cause != "end_not_seen") {
            return Some(format!("partial {:?}", record.partial));
        }
        let begun = matches!(
            self,
            Stream | Stall | Error | ErrorAtEnd | Cut | Unterminated | AbortAfter(_) | KillAfter
        );
        if record.ttft.is_some() != begun {
            return Some(format!("ttft {:?}", record.ttft));
        }
        let whole = matches!(self, Stream | Plain | Stall);
        if whole && record.tokens.output != Some(TOKENS) {
            return Some(format!("{:?}", record.tokens));
        }
        let paused = record.gaps.as_ref().is_some_and(|gaps| gaps.max >= 0.3);
        if (self == Stall) != paused {
            return Some(format!("gaps {:?}", record.gaps));
        }
        let status = match self {
            Refused(status) => Some(status),
            PlainAbort(_) | AbortBefore(_) | KillBefore => None,
            _ => Some(200),
        };
        (record.status != status).then(|| format!("status {:?}", record.status))
    }
}

/// A server that is killed, and comes back on its port.
struct Victim {
    server: Option<Workload>,
    port: String,
}

impl Victim {
    fn start() -> Self {
        let (server, port) = Workload::script("openai_server.py", &[]);
        Self { server: Some(server), port }
    }

    fn kill_and_restart(&mut self) {
        self.server.take().expect("it runs").kill();
        let (server, port) = Workload::script("openai_server.py", &["--port", &self.port]);
        assert_eq!(port, self.port);
        self.server = Some(server);
    }
}

/// The cases of a round.
fn cases(runner: &mut TestRunner) -> Vec<Case> {
    let cases = proptest::collection::vec(select(&Case::ALL[..]), EXCHANGES);
    cases.new_tree(runner).expect("cases").current()
}

/// Plays a round, and returns what differed from its script.
fn round(name: &str, cases: &[Case], follower: &Follower, victim: &Mutex<Victim>, port: &str) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let id = |number: usize| format!("{name}-{number}");
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { break };
                    case.play(&id(number), victim, port);
                }
            });
        }
    });
    let records = wait_for("every exchange's record", || {
        let records = follower.records();
        let of_round = |record: &&RequestRecord| {
            record.request_id.as_deref().is_some_and(|id| id.starts_with(&format!("{name}-")))
        };
        (records.iter().filter(of_round).count() >= cases.len()).then_some(records)
    });
    let mut by_id: HashMap<&str, Vec<&RequestRecord>> = HashMap::new();
    for record in &records {
        by_id.entry(record.request_id.as_deref().unwrap_or_default()).or_default().push(record);
    }
    let mut differing = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let found = by_id.get(id(number).as_str()).map_or(&[][..], Vec::as_slice);
        let [record] = found else {
            differing.push(format!("{case:?} {}: {} records", id(number), found.len()));
            continue;
        };
        if let Some(what) = case.differs(record) {
            let record = serde_json::to_string(record).expect("JSON");
            differing.push(format!("{case:?}: {what}: {record}"));
        }
    }
    differing
}

/// Connections that are followed, whatever their state.
fn followed(agent: &Agent) -> u64 {
    agent.metrics().sum("observer_connections", &[]).expect("connections")
}

/// Memory of the agent, bytes.
fn resident(agent: &Agent) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", agent.running.pid())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("kB");
    kib << 10
}

/// Waits until nothing of a round is left in the agent.
fn assert_nothing_left(agent: &Agent, before: u64) {
    wait_for("no connection that was not there before", || (followed(agent) <= before).then_some(()));
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("llm_requests_in_flight", &[]), Some(0), "{}", metrics.0);
    assert_eq!(metrics.sum("observer_dropped_total", &[]), Some(0), "{}", metrics.0);
    assert_eq!(metrics.sum("observer_evicted_connections_total", &[]), Some(0), "{}", metrics.0);
}

#[test]
fn a_thousand_exchanges_that_may_go_wrong() {
    if !privileged() {
        return;
    }
    let seed =
        std::env::var("CHAOS_SEED").map_or_else(|_| monotonic(), |seed| seed.parse().expect("a number"));
    println!("CHAOS_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));

    // What is remembered on purpose is full after the first round.
    let agent = Agent::start(&["--set", "api.recent=1MiB"]);
    let follower = agent.follow();
    let (_server, port) = Workload::script("openai_server.py", &[]);
    let victim = Mutex::new(Victim::start());
    let before = followed(&agent);
    let mut memory = Vec::new();
    for name in ["first", "second"] {
        let cases = cases(&mut runner);
        let mut counts = BTreeMap::new();
        for case in &cases {
            *counts.entry(*case).or_insert(0) += 1;
        }
        let begin = monotonic();
        let differing = round(name, &cases, &follower, &victim, &port);
        let took = Duration::from_nanos(monotonic() - begin);
        println!("{name}: {} exchanges in {took:.1?}, {} differ: {counts:?}", cases.len(), differing.len());
        assert!(differing.is_empty(), "seed {seed}:\n{}", differing.join("\n"));
        assert_nothing_left(&agent, before);
        memory.push(resident(&agent));
    }
    println!("resident: {memory:?}");
    // A record or a connection that stayed would be thousands of bytes for each exchange of the second round.
    assert!(memory[1] <= memory[0] + (1 << 20), "resident bytes after each round: {memory:?}");
    agent.end(Signal::INT).assert_prompt("SIGINT after chaos");
}
