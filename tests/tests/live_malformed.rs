//! What is broken on the wire marks its own exchange, and hurts no other.

use observer::exchange::{Outcome, RequestRecord};
use observer_tests::{
    agent::{Agent, Follower, wait_for},
    client::Client,
    live::privileged,
    workload::Workload,
};
use rustix::process::Signal;

fn body(model: &str, stream: bool, answer: &str) -> String {
    format!(
        r#"{{"model":"{model}","stream":{stream},"answer":"{answer}","gap_s":0.005,"events":3,"messages":[]}}"#
    )
}

/// One exchange of each kind on a connection that is kept all the time.
fn good(client: &mut Client, follower: &Follower, model: &str, when: &str) {
    for stream in [true, false] {
        let id = format!("{when}-{stream}");
        client.post(&id, "", &body(model, stream, if stream { "stream" } else { "plain" }));
        client.receive_until(if stream { b"0\r\n\r\n" } else { b"}" });
        let record = follower.wait(&id);
        assert_eq!(record.outcome, Some(Outcome::Ok), "{record:?}");
        assert!(record.partial.is_empty() && record.defects.is_empty(), "{record:?}");
        assert_eq!((record.tokens.input, record.tokens.output), (Some(7), Some(3)), "{record:?}");
        assert_eq!((record.ttft.is_some(), record.stream), (stream, stream), "{record:?}");
    }
}

fn marked(record: &RequestRecord) -> bool {
    !record.partial.is_empty() || !record.defects.is_empty()
}

#[test]
fn broken_answers_mark_their_exchange() {
    if !privileged() {
        return;
    }
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    let (server, port) = Workload::script("openai_server.py", &[]);
    let model = format!("broken-{}", server.pid());
    let mut kept = Client::connect(&port);
    good(&mut kept, &follower, &model, "before");
    for answer in ["bad_chunk", "bad_head", "bad_event"] {
        let mut client = Client::connect(&port);
        client.post(answer, "", &body(&model, true, answer));
        good(&mut kept, &follower, &model, &format!("beside-{answer}"));
        if answer == "bad_event" {
            client.receive_until(b"0\r\n\r\n");
        } else {
            client.receive_all();
        }
        drop(client);
        let record = follower.wait(answer);
        println!("{answer}: {:?} {:?} {:?}", record.outcome, record.partial, record.defects);
        assert!(marked(&record), "{record:?}");
        if answer != "bad_event" {
            assert_ne!(record.outcome, Some(Outcome::Ok), "{record:?}");
        }
        good(&mut kept, &follower, &model, &format!("after-{answer}"));
    }
    assert_at_rest(agent, &model);
}

#[test]
fn broken_requests_mark_their_exchange() {
    if !privileged() {
        return;
    }
    let agent = Agent::start(&[]);
    let follower = agent.follow();
    let (server, port) = Workload::script("openai_server.py", &[]);
    let model = format!("broken-{}", server.pid());
    let mut kept = Client::connect(&port);
    good(&mut kept, &follower, &model, "before");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n";
    let requests = [
        ("garbage", "\x00\x01\x02 what is this?\r\n\r\n".to_owned()),
        ("no-colon", format!("{head}X-Request-ID: no-colon\r\nthis line is no field\r\n\r\n")),
        ("bad-name", format!("{head}X-Request-ID: bad-name\r\n\x07\x08: x\r\n\r\n")),
        ("bad-length", format!("{head}X-Request-ID: bad-length\r\nContent-Length: many\r\n\r\n")),
        ("long", format!("{head}X-Request-ID: long\r\nX: {}\r\n\r\n", "x".repeat(200_000))),
        ("no-json", format!("{head}X-Request-ID: no-json\r\nContent-Length: 8\r\n\r\n{{\"model\"")),
    ];
    for (name, request) in &requests {
        let mut client = Client::connect(&port);
        client.send(request.as_bytes());
        let _ = client.receive();
        drop(client);
        good(&mut kept, &follower, &model, &format!("after-{name}"));
    }
    // A client that gives up in the middle of its request.
    let mut client = Client::connect(&port);
    client.send(format!("{head}X-Request-ID: half\r\nContent-Length: 1000\r\n\r\n{{\"mo").as_bytes());
    drop(client);
    good(&mut kept, &follower, &model, "after-half");
    assert_eq!(follower.wait("half").outcome, Some(Outcome::AbortedByClient));
    assert_eq!(follower.wait("no-json").outcome, Some(Outcome::ClientError));

    for record in follower.records().iter().filter(|record| record.pid == server.pid()) {
        let good = record.model.as_deref() == Some(&*model);
        println!("{:?}: {:?} {:?} {:?}", record.request_id, record.outcome, record.partial, record.defects);
        assert!(good || record.outcome != Some(Outcome::Ok), "{record:?}");
    }
    assert_at_rest(agent, &model);
}

/// Nothing stays open, nothing was dropped, and the agent ends well.
fn assert_at_rest(agent: Agent, model: &str) {
    let metrics = wait_for("no request in flight", || {
        let metrics = agent.metrics();
        (metrics.sum("llm_requests_in_flight", &[]) == Some(0)).then_some(metrics)
    });
    metrics.assert_lint();
    let labels = [("gen_ai_request_model", model), ("outcome", "ok")];
    assert!(metrics.sum("llm_requests_total", &labels) >= Some(14), "{}", metrics.0);
    assert_eq!(metrics.sum("observer_dropped_total", &[("stage", "user")]), Some(0), "{}", metrics.0);
    agent.end(Signal::INT).assert_prompt("SIGINT after broken exchanges");
}
