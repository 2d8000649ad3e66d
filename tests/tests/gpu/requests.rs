//! Requests beside a GPU whose scenario is known: what they cost, and what is to be looked at. The observer's own ledger,
//! fed with the rounds that its reading of the fake makes.

use std::{sync::mpsc::RecvTimeoutError, time::Duration};

use fake_nvml::integral;
use observer::{
    capture::monotonic,
    exchange::{Clocks, ExchangeId, Outcome, Phase, RequestRecord, Tokens},
    export::prometheus::GpuTold,
    gpus::Ledger,
};
use observer_tests::gpu::{Driver, Reading, now, owner, two_h100};

/// The server of the requests: it has a context on the first GPU.
const SERVER: u32 = 101;

fn id(sequence: u32) -> ExchangeId {
    ExchangeId { connection: 1, sequence }
}

/// A request of the server that took so many seconds until now.
fn record(duration: f64, partial: bool) -> Box<RequestRecord> {
    Box::new(RequestRecord {
        pid: SERVER,
        namespace: "ml".into(),
        pod: "llama".into(),
        container: "server".into(),
        model: Some("m".into()),
        outcome: Some(Outcome::Ok),
        duration: Some(duration),
        clocks: Clocks {
            request_end: Some(0.0),
            first_token: Some(duration / 2.0),
            last_token: Some(duration),
            ..Clocks::default()
        },
        tokens: Tokens { input: Some(20), output: Some(80), ..Tokens::default() },
        partial: if partial { vec!["ring_data".into()] } else { Vec::new() },
        ..RequestRecord::default()
    })
}

/// A request that waits from 3 to 5 s for its first token, and one that is not seen completely.
enum Act {
    Start,
    Wait,
    Generate,
    End,
    StartUnseen,
    EndUnseen,
}

#[test]
fn what_requests_cost_and_what_is_to_be_looked_at() {
    let mut devices = two_h100();
    // Held back from 1.5 to 2.5 s and, while nobody asks, from 6.5 on; idle from 3 to 5.5 s.
    devices[0].throttle = vec![[0.0, 0.0], [1.5, 64.0], [2.5, 0.0], [6.5, 64.0]];
    devices[0].utilization = vec![[0.0, 80.0], [3.0, 0.0], [5.5, 80.0]];
    devices[0].power = vec![[0.0, 300.0], [3.0, 600.0], [8.0, 200.0]];
    devices[1].utilization = vec![[0.0, 0.0]];
    let driver = Driver::install(devices);
    let reading = Reading::start(&driver.library());
    let mut ledger = Ledger::default();
    ledger.process(owner(SERVER));
    // What happens at which second of the scenario, the last first.
    let at = || driver.scenario.at(now());
    let mut script = vec![
        (6.1, Act::EndUnseen),
        (6.05, Act::StartUnseen),
        (6.0, Act::End),
        (5.0, Act::Generate),
        (3.0, Act::Wait),
        (1.0, Act::Start),
    ];
    let (mut began, mut span, mut records) = (0, (0.0, 0.0), Vec::new());
    while at() < 8.0 {
        if let Some((_, act)) = script.pop_if(|(second, _)| *second <= at()) {
            let now = monotonic();
            match act {
                Act::Start => {
                    (began, span.0) = (now, at());
                    ledger.started(id(0), SERVER, now);
                }
                Act::Wait => ledger.phase(id(0), Phase::Waiting),
                Act::Generate => ledger.phase(id(0), Phase::Generating),
                Act::End => {
                    let lasted = (now - began) as f64 / 1e9;
                    span.1 = span.0 + lasted;
                    assert!(ledger.finished(id(0), record(lasted, false), now).is_none());
                }
                Act::StartUnseen => ledger.started(id(1), SERVER, now),
                Act::EndUnseen => assert!(ledger.finished(id(1), record(0.05, true), now).is_none()),
            }
        }
        match reading.rounds.recv_timeout(Duration::from_millis(5)) {
            Ok(round) => ledger.read(round),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("nothing is read any more"),
        }
        records.extend(std::iter::from_fn(|| ledger.poll(monotonic())));
    }
    assert_eq!(records.len(), 2);
    let metrics = reading.metrics_with(GpuTold { requests: ledger.told().clone(), ..GpuTold::default() });
    metrics.assert_lint();
    let seconds = |name: &str, gpu: &str| metrics.value(name, &[("gpu", gpu)]);
    // Each edge is as exact as rounds are, which come every 0.2 s.
    for (name, expected) in [
        ("llm_gpu_throttled_while_serving_seconds_total", 1.0),
        ("llm_gpu_idle_while_waiting_seconds_total", 2.0),
        ("llm_gpu_busy_without_request_seconds_total", 1.0 + 2.0),
    ] {
        let told = seconds(name, "0").expect(name);
        println!("{name}: {told:.2} s, by the scenario {expected} s");
        assert!((told - expected).abs() < 0.6, "{name}: {told}, not {expected}");
        assert_eq!(seconds(name, "1"), Some(0.0), "{name} of the other, which is idle and serves nobody");
    }
    let whose =
        [("namespace", "ml"), ("pod", "llama"), ("container", "server"), ("gen_ai_request_model", "m")];
    let of = |name: &str| metrics.value(name, &whose);
    let drawn = integral(&driver.scenario.devices[0].power, span.0, span.1);
    let joules = of("llm_gpu_apportioned_joules_total").expect("joules");
    println!("{joules:.1} J, by the scenario {drawn:.1} J");
    assert!((joules - drawn).abs() < 0.01 * drawn, "{joules} J, not {drawn}");
    let took = of("llm_gpu_apportioned_seconds_total").expect("seconds");
    assert!((took - (span.1 - span.0)).abs() < 1e-3, "{took}");
    assert_eq!(of("llm_gpu_apportioned_requests_total"), Some(1.0));
    let tokens = |kind| metrics.value("llm_gpu_apportioned_tokens_total", &[whose[1], ("type", kind)]);
    assert_eq!((tokens("input"), tokens("output")), (Some(20.0), Some(80.0)));
    assert_eq!(metrics.value("observer_gpu_requests_unsettled_total", &[]), Some(1.0));
}
