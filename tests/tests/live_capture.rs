//! One exchange of each kind, from a real socket to a request record.

use std::time::Duration;

use observer::exchange::{Outcome, TokenSource};
use observer_tests::{
    client::Client,
    live::{Live, privileged},
    workload::Workload,
};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn streamed_and_plain_on_one_connection() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (server, port) = Workload::script("openai_server.py", &["--events", "5", "--gap", "0.02"]);
    let mut client = Client::connect(&port);
    client.stream(
        "r1",
        r#"{"model":"tiny","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
    );
    client.plain("r2", r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#);
    drop(client);
    live.wait_until("two exchanges", LIMIT, |seen| seen.records.len() == 2);
    let report = live.stop();
    let [streamed, plain] = &report.seen.records[..] else { unreachable!("waited for two") };
    println!("{}", serde_json::to_string_pretty(streamed).expect("json"));
    println!("{}", serde_json::to_string_pretty(plain).expect("json"));
    assert_eq!(streamed.pid, server.pid());
    assert_eq!(streamed.outcome, Some(Outcome::Ok));
    assert_eq!(streamed.model.as_deref(), Some("tiny"));
    assert_eq!(streamed.max_tokens, Some(9));
    assert_eq!((streamed.tokens.input, streamed.tokens.output), (Some(7), Some(5)));
    assert_eq!(streamed.tokens.source, Some(TokenSource::Usage));
    assert_eq!((streamed.token_events, streamed.deliveries), (5, 5));
    assert_eq!(streamed.request_id.as_deref(), Some("r1"));
    let ttft = streamed.ttft.expect("streamed");
    assert!((0.02..0.2).contains(&ttft), "{ttft}");
    let tpot = streamed.tpot.expect("streamed");
    assert!((0.02..0.05).contains(&tpot), "{tpot}");
    assert!(streamed.started_at.is_some() && streamed.clocks.accepted.is_some());
    assert_eq!(plain.outcome, Some(Outcome::Ok));
    assert_eq!((plain.ttft, plain.tpot), (None, None));
    assert_eq!(plain.tokens.output, Some(5));
    assert!(plain.partial.is_empty() && plain.defects.is_empty(), "{plain:?}");
    assert!(report.counts.balanced(), "{:?}", report.counts);
    assert!(report.detach < Duration::from_secs(1), "{:?}", report.detach);
}
