//! Causes, made one by one, and what is said of them: each verdict names the layer that was at fault, or none where nobody
//! could know it from outside. Real processes, real sockets, a real engine; the GPU is the fake NVML.

use std::{fmt::Write as _, thread, time::Duration};

use fake_nvml::Process;
use observer::explain::{Explanation, Layer};
use observer_tests::{
    agent::{Agent, Follower, observer, wait_for},
    client::{Client, request},
    engine::{Engine, MODEL},
    gpu::{Driver, now, two_h100},
    live::privileged,
    scripted::Scripted,
    workload::{Workload, quiet},
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A reason for lower clocks (`nvmlClocksEventReasonHwThermalSlowdown`).
const HW_THERMAL: f64 = 64.0;

/// Requests of a kind before the one that matters.
const BEFORE: usize = 12;

/// A kind of requests: what makes a server answer in an ordinary way.
fn ordinary(model: &str) -> Value {
    json!({
        "model": model, "stream": true, "events": 12, "gap_s": 0.005, "delay_s": 0.02,
        "messages": [{"role": "user", "content": "hi"}],
    })
}

/// The same, but for these fields.
fn but(model: &str, change: &Value) -> String {
    let mut body = ordinary(model);
    for (name, value) in change.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body.to_string()
}

/// One streamed exchange on a connection of its own.
fn ask(port: &str, id: &str, body: &str) {
    Client::connect(port).stream(id, body);
}

/// What is usual of a model.
fn warm(port: &str, model: &str) {
    for number in 0..BEFORE {
        ask(port, &format!("{model}-{number}"), &ordinary(model).to_string());
    }
}

/// A case: the request's id, and the layers that are right; `Unknown` where nobody can know.
struct Case {
    id: &'static str,
    right: &'static [Layer],
    /// A word of the summary, which says more than the layer.
    says: &'static str,
}

struct Causes {
    agent: Agent,
    follower: Follower,
    cases: Vec<Case>,
    driver: Driver,
}

impl Causes {
    fn expect(&mut self, id: &'static str, right: &'static [Layer], says: &'static str) {
        self.follower.wait(id);
        self.cases.push(Case { id, right, says });
    }

    /// What a command prints.
    fn said(&self, args: &[&str]) -> String {
        let output = observer(args).args(["--address", &self.agent.address]).output().expect("the command");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn explanation(&self, id: &str) -> Explanation {
        let (status, text) = self.agent.get(&format!("/api/v1/explain?request={id}"));
        assert_eq!(status, 200, "{text}");
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let line = lines.next().expect("an explanation");
        assert_eq!(lines.next(), Some(r#"{"partial":[]}"#), "of one request, and nothing is missing");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

/// The client, the network's end of the server, and the gateway.
fn before_the_engine(causes: &mut Causes, port: &str) {
    warm(port, "upload");
    let body = request("upload", "", but("upload", &json!({})).as_bytes());
    let mut client = Client::connect(port);
    let (early, late) = body.split_at(body.len() - 20);
    client.send(early);
    quiet(Duration::from_millis(900));
    client.send(late);
    client.receive_until(b"0\r\n\r\n");
    causes.expect("upload", &[Layer::Client], "the client sent it");

    Client::connect(port).plain("refused", &but("upload", &json!({"answer": "refuse", "status": 422})));
    causes.expect("refused", &[Layer::Client], "refused what the client asked for");

    Client::connect(port).plain("full", &but("upload", &json!({"answer": "refuse", "status": 503})));
    causes.expect("full", &[Layer::Replica], "no replica had room");

    // It is bored in the middle of tokens that come as they do.
    let mut client = Client::connect(port);
    client.post("bored", "", &but("upload", &json!({"events": 12})));
    client.receive_head();
    client.receive();
    client.reset();
    causes.expect("bored", &[Layer::Client], "left before the end");

    // The server does something else before it reads on.
    warm(port, "socket");
    let mut client = Client::connect(port);
    client.stream("socket-before", &but("socket", &json!({"hold_s": 0.9})));
    client.stream("socket", &ordinary("socket").to_string());
    causes.expect("socket", &[Layer::Replica], "the server did not read it");

    // Nobody accepts while one is served.
    let (_inline, inline) = Workload::script("openai_server.py", &["--mode", "inline"]);
    warm(&inline, "accept");
    let long = inline.clone();
    let other = thread::spawn(move || ask(&long, "accept-before", &but("accept", &json!({"delay_s": 1.0}))));
    quiet(Duration::from_millis(150));
    ask(&inline, "accept", &ordinary("accept").to_string());
    other.join().expect("the other");
    causes.expect("accept", &[Layer::Replica], "backlog");
}

/// A gateway with one slot.
fn at_a_gateway(causes: &mut Causes) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("gateway.jsonl");
    let upstream = Scripted::start(&[]);
    let url = format!("http://127.0.0.1:{}", upstream.port);
    let (_gateway, port) = Workload::venv_script(
        "slot_gateway.py",
        &["--upstream", &url, "--slots", "1", "--log", log.to_str().expect("UTF-8")],
    );
    let body = |events: u32, gap: u32| {
        json!({
            "model": "gateway", "stream": true, "script": {"events": events, "gap_ms": gap},
            "messages": [{"role": "user", "content": "hi"}],
        })
        .to_string()
    };
    for number in 0..BEFORE {
        ask(&port, &format!("gateway-{number}"), &body(5, 10));
    }
    let (long, holds) = (port.clone(), body(10, 100));
    let other = thread::spawn(move || ask(&long, "gateway-before", &holds));
    quiet(Duration::from_millis(150));
    ask(&port, "gateway", &body(5, 10));
    other.join().expect("the other");
    // Its own hop; the engine's has the same id, and nothing unusual.
    wait_for("both hops", || {
        let records = causes.follower.records();
        (records.iter().filter(|record| record.request_id.as_deref() == Some("gateway")).count() == 2)
            .then_some(())
    });
    let (_, text) = causes.agent.get("/api/v1/explain?request=gateway");
    let told: Vec<Explanation> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let layers: Vec<Layer> = told.iter().map(|one| one.verdict.layer).collect();
    assert!(layers.contains(&Layer::Replica) && layers.contains(&Layer::Usual), "{text}");
}

/// The engine and whoever reads what it says.
fn in_the_engine(causes: &mut Causes, port: &str) {
    warm(port, "reported");
    let reported = json!({"fields": "x-compute-tokens: 7\r\nx-queue-time: 800\r\n", "delay_s": 0.82});
    ask(port, "reported", &but("reported", &reported));
    causes.expect("reported", &[Layer::EngineQueue], "engine's queue");

    warm(port, "prompt");
    ask(port, "prompt", &but("prompt", &json!({"prompt": 400, "delay_s": 1.0})));
    causes.expect("prompt", &[Layer::Prefill], "its prompt was long");

    warm(port, "answer");
    ask(port, "answer", &but("answer", &json!({"events": 200})));
    causes.expect("answer", &[Layer::Decode], "its answer was long");

    warm(port, "silent");
    ask(port, "silent", &but("silent", &json!({"pause_s": 2.6})));
    causes.expect("silent", &[Layer::Decode], "fell silent");

    warm(port, "reading");
    let mut client = Client::connect(port);
    let wide = json!({"events": 3000, "width": 3700, "gap_s": 0.0002});
    client.post("reading", "", &but("reading", &wide));
    client.receive_head();
    quiet(Duration::from_secs(6));
    client.receive_until(b"0\r\n\r\n");
    causes.expect("reading", &[Layer::ClientReading], "the client did not read");

    warm(port, "usual");
    ask(port, "usual", &ordinary("usual").to_string());
    causes.expect("usual", &[Layer::Usual], "nothing of it was unusual");
}

/// A real engine with more to do than slots.
fn in_a_real_engine(causes: &mut Causes) {
    let engine = Engine::start("llama.cpp");
    let port = engine.url.rsplit_once(':').expect("a port").1.to_owned();
    let ask = |id: &str, tokens: u32| {
        let question = json!({
            "model": MODEL, "stream": true, "max_tokens": tokens, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "Write a long story about the sea."}],
        });
        let mut client = Client::connect(&port);
        client.post(id, "", &question.to_string());
        // The head of llama.cpp's answers ends as a last chunk does.
        client.receive_until(b"[DONE]\n\n\r\n0\r\n\r\n");
    };
    for number in 0..BEFORE {
        ask(&format!("llama-{number}"), 16);
    }
    thread::scope(|scope| {
        // Beyond what its HTTP threads take they would wait in sockets.
        for number in 0..5 {
            let ask = &ask;
            scope.spawn(move || ask(&format!("crowd-{number}"), 160));
        }
        quiet(Duration::from_millis(200));
        ask("crowded", 16);
    });
    causes.expect("crowded", &[Layer::EngineQueue], "while its engine served others");
}

/// Processes that begin and end.
fn processes(causes: &mut Causes, port: &str) {
    // It is killed in the middle of a stream.
    let (victim, victims) = Workload::script("openai_server.py", &[]);
    warm(&victims, "killed");
    let mut client = Client::connect(&victims);
    client.post("killed", "", &but("killed", &json!({"events": 400, "gap_s": 0.02})));
    client.receive_head();
    quiet(Duration::from_millis(300));
    victim.kill();
    client.outlive();
    causes.expect("killed", &[Layer::Restart], "the process that served it ended");

    // Another one takes its place, and its first request is slow.
    let (_next, port_of_next) = Workload::script("openai_server.py", &[]);
    ask(&port_of_next, "cold", &but("killed", &json!({"delay_s": 1.5})));
    causes.expect("cold", &[Layer::Restart], "had just begun");

    // Of one that runs for long nobody says so.
    warm(port, "late");
    ask(port, "late", &but("late", &json!({"delay_s": 1.2})));
    causes.expect("late", &[Layer::Unknown], "nothing that was seen tells why");
}

/// The GPU is held back, fails, or is at fault for nothing.
fn at_the_gpu(causes: &mut Causes) {
    let (server, port) = Workload::script("openai_server.py", &[]);
    let process = Process { pid: server.pid(), memory: 1 << 30, sm: 50, mps: false };
    causes.driver.change(|scenario| scenario.devices[0].processes = vec![process]);
    let used = [("pid", &*server.pid().to_string())];
    let agent = &causes.agent;
    wait_for("its process", || agent.metrics().value("llm_gpu_process_memory_bytes", &used));
    warm(&port, "hot");
    let at = causes.driver.scenario.at(now());
    causes.driver.change(|scenario| scenario.devices[0].throttle = vec![[at, HW_THERMAL], [at + 8.0, 0.0]]);
    ask(&port, "hot", &but("hot", &json!({"gap_s": 0.3})));
    causes.expect("hot", &[Layer::Gpu], "its GPU was at fault");
    // The client alone was slow meanwhile.
    let body = request("hot-upload", "", but("hot", &json!({})).as_bytes());
    let mut client = Client::connect(&port);
    let (early, late) = body.split_at(body.len() - 20);
    client.send(early);
    quiet(Duration::from_secs(1));
    client.send(late);
    client.receive_until(b"0\r\n\r\n");
    causes.expect("hot-upload", &[Layer::Client], "the client sent it");
    let at = causes.driver.scenario.at(now());
    causes.driver.change(|scenario| {
        scenario.devices[0].throttle = vec![[0.0, 0.0]];
        scenario.devices[0].xids = vec![[at, 79.0]];
    });
    let mut client = Client::connect(&port);
    client.post("xid", "", &but("hot", &json!({"answer": "cut", "gap_s": 1.5})));
    client.outlive();
    causes.expect("xid", &[Layer::Gpu], "a GPU failed");
}

/// What nobody can tell from outside, or what is shared.
fn mixed(causes: &mut Causes, port: &str) {
    warm(port, "both");
    let body = request("both", "", but("both", &json!({"pause_s": 1.0})).as_bytes());
    let mut client = Client::connect(port);
    let (early, late) = body.split_at(body.len() - 20);
    client.send(early);
    quiet(Duration::from_secs(1));
    client.send(late);
    client.receive_until(b"0\r\n\r\n");
    causes.expect("both", &[Layer::Unknown], "none explains most of it");

    Client::connect(port).plain("failed", &but("both", &json!({"answer": "refuse", "status": 500})));
    causes.expect("failed", &[Layer::Unknown], "nothing that was seen tells why");

    ask(port, "alone", &but("nobody-else", &json!({"delay_s": 0.8})));
    causes.expect("alone", &[Layer::Unknown], "too little to compare");

    // A prompt that is longer, but far from long enough for that.
    warm(port, "longer");
    ask(port, "longer", &but("longer", &json!({"prompt": 12, "delay_s": 1.2})));
    causes.expect("longer", &[Layer::Unknown], "nothing that was seen tells why");

    // The client left while it waited, and nobody else was served.
    let mut client = Client::connect(port);
    client.post("left", "", &but("longer", &json!({"delay_s": 3.0})));
    quiet(Duration::from_millis(1200));
    client.reset();
    causes.expect("left", &[Layer::Unknown], "nothing that was seen tells why");

    let mut cut = Client::connect(port);
    cut.post("cut", "", &but("longer", &json!({"answer": "cut"})));
    cut.outlive();
    causes.expect("cut", &[Layer::Unknown], "nothing that was seen tells why");
}

#[test]
fn verdicts_are_right_or_there_is_none() {
    if !privileged() {
        return;
    }
    let (server, port) = Workload::script("openai_server.py", &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("store.path={}", folder.path().join("store").display());
    let driver = Driver::install(two_h100());
    let gpu = driver.setting();
    let agent = Agent::start(&["--set", "store.enabled=true", "--set", &store, "--set", &gpu]);
    let follower = agent.follow();
    let mut causes = Causes { agent, follower, cases: Vec::new(), driver };
    before_the_engine(&mut causes, &port);
    at_a_gateway(&mut causes);
    in_the_engine(&mut causes, &port);
    in_a_real_engine(&mut causes);
    processes(&mut causes, &port);
    at_the_gpu(&mut causes);
    mixed(&mut causes, &port);
    // What happened is on disk within a second, and may come so much later than the end.
    quiet(Duration::from_millis(2500));

    let (mut given, mut right, mut table) = (0, 0, String::new());
    for case in &causes.cases {
        let verdict = causes.explanation(case.id).verdict;
        let is_right = case.right.contains(&verdict.layer) && verdict.summary.contains(case.says);
        given += usize::from(verdict.layer != Layer::Unknown);
        right += usize::from(verdict.layer != Layer::Unknown && is_right);
        let mark = if is_right { " " } else { "!" };
        writeln!(table, "{mark} {:<10} {:<14} {}", case.id, verdict.layer.as_str(), verdict.summary)
            .expect("text");
        if !is_right {
            writeln!(
                table,
                "  expected {:?} {:?}: {:#?}",
                case.right,
                case.says,
                causes.explanation(case.id)
            )
            .expect("text");
        }
    }
    // As a person is told, and beside the time before.
    let told = causes.said(&["explain", "hot"]);
    assert!(told.contains("gpu (confidence medium): its GPU was at fault"), "{told}");
    assert!(told.contains("gpu_throttle: GPU 0") && told.contains("decode"), "{told}");
    let compared = causes.said(&["diff", "--since", "10m", "--model", "upload"]);
    assert!(compared.contains("upload, streamed: ") && compared.contains("too few to compare"), "{compared}");
    println!("{table}{right} of {given} verdicts are right, of {} cases", causes.cases.len());
    assert!(!table.contains('!'), "{table}");
    drop(server);
    causes.agent.end(Signal::INT).assert_prompt("SIGINT after explanations");
}
