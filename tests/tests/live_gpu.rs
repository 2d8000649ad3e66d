//! GPUs beside real requests: a real llama.cpp server, another process of its container that has the GPU, and the fake
//! NVML. What energy comes to is arithmetic on the fake's scenario, and no claim about hardware.

use std::{collections::BTreeMap, fs, time::Duration};

use fake_nvml::{Device, Process, integral};
use observer::{
    capture::monotonic,
    exchange::{Outcome, RequestRecord, UsedBy},
};
use observer_tests::{
    agent::{Agent, wait_for},
    client::{Client, chat},
    engine::{Engine, MODEL},
    gpu::{Cgroup, Driver, Reading, idler, two_h100},
    live::privileged,
    prometheus::{Prometheus, exposition},
    workload::{Workload, quiet},
};
use rustix::process::Signal;
use serde_json::json;

/// Power that goes up and down every three seconds.
fn ramps() -> Vec<[f64; 2]> {
    (0..200).map(|at| [f64::from(at) * 3.0, if at % 2 == 0 { 150.0 } else { 650.0 }]).collect()
}

fn device(pid: u32) -> Device {
    let [device, _] = <[Device; 2]>::try_from(two_h100()).expect("two");
    Device {
        power: ramps(),
        processes: vec![Process { pid, memory: 30 << 30, sm: 70, mps: false }],
        ..device
    }
}

/// One streamed answer of so many tokens.
fn ask(port: &str, id: &str, tokens: u32) {
    let question = json!({
        "model": MODEL, "stream": true, "max_tokens": tokens, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "Write a long story about the sea."}],
    });
    let mut client = Client::connect(port);
    client.post(id, "", &question.to_string());
    // The head of llama.cpp's answers ends as a last chunk does.
    client.receive_until(b"[DONE]\n\n\r\n0\r\n\r\n");
}

/// From when to when a request was in flight, seconds after the scenario's origin.
fn span(driver: &Driver, record: &RequestRecord) -> (f64, f64) {
    let began: jiff::Timestamp = record.started_at.as_ref().expect("a start").parse().expect("a time");
    let from = began.as_nanosecond() as f64 / 1e9 - driver.scenario.origin as f64 / 1e6;
    (from, from + record.duration.expect("a duration"))
}

fn near(what: &str, value: f64, expected: f64) {
    let off = (value - expected).abs() / expected;
    println!("{what}: {value:.3}, by the scenario {expected:.3}, {:.3} % off", off * 100.0);
    assert!(off < 0.01, "{what}: {value}, not {expected}");
}

#[test]
fn requests_of_a_real_server_carry_the_gpu_of_another_process_of_its_container() {
    if !privileged() {
        return;
    }
    let engine = Engine::start("llama.cpp");
    let (cgroup, core) = (Cgroup::container(1), idler());
    cgroup.add(engine.process.pid());
    cgroup.add(core.pid());
    assert_ne!(engine.process.pid(), core.pid());
    let driver = Driver::install(vec![device(core.pid())]);
    let agent = Agent::start(&["--set", &driver.setting()]);
    let follower = agent.follow();
    wait_for("readings", || agent.metrics().value("llm_gpu_power_watts", &[]));
    quiet(Duration::from_secs(2));
    let port = engine.url.rsplit_once(':').expect("a port").1.to_owned();
    for id in ["alone-1", "alone-2"] {
        ask(&port, id, 48);
    }
    let both = ["both-1", "both-2"].map(|id| {
        let port = port.clone();
        std::thread::spawn(move || ask(&port, id, 64))
    });
    for client in both {
        client.join().expect("a client");
    }
    let power = &driver.scenario.devices[0].power;
    let (mut joules, mut tokens) = (0.0, 0);
    let mut expected = 0.0;
    for id in ["alone-1", "alone-2"] {
        let record = follower.wait(id);
        assert_eq!((record.outcome, record.pid), (Some(Outcome::Ok), engine.process.pid()), "{record:?}");
        let [gpu] = record.gpu.as_slice() else { panic!("{record:?}") };
        assert_eq!(
            (gpu.uuid.as_str(), gpu.by),
            (driver.scenario.devices[0].uuid.as_str(), UsedBy::Container)
        );
        let (from, to) = span(&driver, &record);
        let drawn = integral(power, from, to);
        near(id, gpu.apportioned_joules.expect("joules"), drawn);
        near("its time", gpu.apportioned_seconds.expect("seconds"), to - from);
        let clocks = &record.clocks;
        let (first, last) = (clocks.first_token.expect("a token"), clocks.last_token.expect("a token"));
        let prefill = record.timings.prefill.expect("llama.cpp tells how long the prompt took");
        println!("{id}: prompt {prefill:.3} s, first token {first:.3} s, last {last:.3} s: {gpu:?}");
        for (what, window, from_at, to_at) in [
            ("whole", gpu.whole, 0.0, to - from),
            ("queue", gpu.queue, 0.0, first - prefill),
            ("prefill", gpu.prefill, first - prefill, first),
            ("decode", gpu.decode, first, last),
        ] {
            let window = window.unwrap_or_else(|| panic!("no {what}"));
            let mean = integral(power, from + from_at, from + to_at) / (to_at - from_at);
            near(what, window.power.expect("power").mean, mean);
            let utilization = window.utilization.expect("utilization");
            assert!(
                (utilization.mean - 0.8).abs() < 1e-9 && (utilization.max - 0.8).abs() < 1e-9,
                "{window:?}"
            );
            assert_eq!(window.memory.map(|memory| memory.max), Some((40_u64 << 30) as f64));
        }
        joules += gpu.apportioned_joules.expect("joules");
        expected += drawn;
        tokens += record.tokens.output_total().expect("tokens");
    }
    let records = ["both-1", "both-2"].map(|id| follower.wait(id));
    let spans = records.each_ref().map(|record| span(&driver, record));
    let (from, to) = (spans[0].0.min(spans[1].0), spans[0].1.max(spans[1].1));
    assert!(spans[0].0.max(spans[1].0) < spans[0].1.min(spans[1].1), "they overlap: {spans:?}");
    let shared: f64 = records.iter().map(|record| record.gpu[0].apportioned_joules.expect("joules")).sum();
    let drawn = integral(power, from, to);
    near("two at a time, together", shared, drawn);
    let each = records.each_ref().map(|record| record.gpu[0].apportioned_joules.expect("joules"));
    println!("two at a time, each: {each:?}");
    assert!(each.iter().all(|joules| *joules > 0.1 * shared), "{each:?}");
    joules += shared;
    expected += drawn;
    tokens += records.iter().map(|record| record.tokens.output_total().expect("tokens")).sum::<u64>();

    quiet(Duration::from_millis(1500));
    let metrics = agent.metrics();
    metrics.assert_lint();
    let model = [("gen_ai_request_model", MODEL)];
    let total = metrics.value("llm_gpu_apportioned_joules_total", &model).expect("joules");
    let counted = metrics.value("llm_gpu_apportioned_tokens_total", &[model[0], ("type", "output")]);
    assert_eq!(counted, Some(tokens as f64));
    near("joules of all", joules, total);
    near("joules per output token", total / tokens as f64, expected / tokens as f64);
    assert_eq!(metrics.value("llm_gpu_apportioned_requests_total", &model), Some(4.0));
    assert_eq!(metrics.sum("observer_gpu_requests_unsettled_total", &[]), Some(0), "{}", metrics.0);
    assert!(metrics.value("llm_gpu_busy_without_request_seconds_total", &[]) >= Some(1.0));
    agent.end(Signal::INT).assert_prompt("SIGINT with a GPU");
}

/// From the end of a request to when it is counted, the median of several, milliseconds.
fn until_counted(agent: &Agent, port: &str) -> f64 {
    let count = || agent.metrics().sum("llm_requests_total", &[("outcome", "ok")]).unwrap_or(0);
    let mut took: Vec<f64> = (0..15)
        .map(|_| {
            let before = count();
            Client::connect(port).stream("x", &chat("m", true, 6));
            let begun = monotonic();
            wait_for("the count", || (count() > before).then_some(()));
            (monotonic() - begun) as f64 / 1e6
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// Waits until the agent says where reading GPUs stands.
fn wait_for_state(agent: &Agent, state: &str) {
    wait_for(state, || {
        quiet(Duration::from_millis(50));
        (agent.metrics().value("observer_gpu_state", &[("state", state)]) == Some(1.0)).then_some(())
    });
}

#[test]
fn requests_are_observed_as_fast_whatever_becomes_of_the_driver() {
    const DRIVER_NOT_LOADED: u32 = 9;
    const VERSION_MISMATCH: u32 = 18;
    if !privileged() {
        return;
    }
    let (server, port) = Workload::script("openai_server.py", &["--events", "6", "--gap", "0.002"]);
    let mut driver = Driver::install(vec![device(server.pid())]);
    let (there, good) = (driver.library(), fs::read(driver.library()).expect("the library"));
    let agent = Agent::start(&["--set", &driver.setting()]);
    let follower = agent.follow();
    wait_for("readings", || agent.metrics().value("llm_gpu_power_watts", &[]));
    let before = until_counted(&agent, &port);
    println!("from the end of a request until it is counted: {before:.2} ms while GPUs are read");
    let check = |what: &str| {
        let during = until_counted(&agent, &port);
        println!("{what}: {during:.2} ms");
        assert!(during < 2.0 * before + 20.0, "{what}: {before} {during}");
    };
    driver.change(|scenario| {
        scenario.fail.insert("*".into(), DRIVER_NOT_LOADED);
    });
    wait_for_state(&agent, "failed");
    check("the driver is unloaded");
    driver.change(|scenario| {
        scenario.fail = BTreeMap::from([("nvmlInit_v2".to_owned(), VERSION_MISMATCH)]);
    });
    quiet(Duration::from_secs(6));
    wait_for_state(&agent, "failed");
    check("the library is of another version");
    fs::remove_file(&there).expect("removed");
    wait_for_state(&agent, "absent");
    check("there is no library");
    // It is looked for every five seconds, and that is said once.
    quiet(Duration::from_secs(6));
    assert_eq!(agent.running.log().matches("no library of a GPU's driver").count(), 1);
    fs::write(&there, "no library").expect("a file");
    wait_for_state(&agent, "failed");
    check("the library cannot be loaded");
    fs::remove_file(&there).expect("removed");
    driver.change(|scenario| scenario.fail.clear());
    fs::write(&there, good).expect("the library");
    wait_for_state(&agent, "reading");
    check("the driver is back");
    driver.change(|scenario| {
        scenario.hang = BTreeMap::from([("nvmlDeviceGetTemperature".to_owned(), 600.0)]);
    });
    wait_for("old readings", || {
        agent.metrics().value("observer_gpu_sample_age_seconds", &[]).filter(|age| *age > 3.0)
    });
    check("a call into the driver hangs");
    let begun = monotonic();
    Client::connect(&port).stream("hung", &chat("m", true, 6));
    let record = follower.wait("hung");
    let took = (monotonic() - begun) as f64 / 1e6;
    println!("until its record is told, while NVML hangs: {took:.1} ms");
    assert!(took < 1000.0, "nobody waits for readings that do not come");
    assert!(record.gpu.is_empty(), "{record:?}");
    assert!(agent.metrics().value("observer_gpu_sample_age_seconds", &[]) > Some(3.0));
    // The hanging thread does not hold up the end, either.
    agent.end(Signal::INT).assert_prompt("SIGINT while a call into the driver hangs");
}

#[test]
fn sums_and_joins_in_a_real_prometheus() {
    if !privileged() {
        return;
    }
    let mut devices = two_h100();
    // For two reasons at once, of which a join takes one or the highest.
    devices[0].throttle = vec![[0.0, 8.0 + 64.0]];
    let driver = Driver::install(devices);
    let reading = Reading::start(&driver.library());
    reading.wait("readings", |metrics| metrics.value("llm_gpu_power_watts", &[("gpu", "1")]).is_some());
    let address = exposition(move || reading.metrics().0);
    let prometheus = Prometheus::start(&[("gpus", true, &address)]);
    // The first is shared by two pods, of the second there are two instances: 300 W and 200 W.
    assert_eq!(prometheus.sample("sum(llm_gpu_power_watts)").1, "500");
    assert_eq!(prometheus.sample("sum(llm_gpu_memory_bytes)").1, (160_u64 << 30).to_string());
    let pods_of =
        "max by (namespace, pod, container, UUID) (llm_gpu_allocation_info) * on (UUID) group_left ()";
    for throttled in ["reason='hw_thermal'", "reason=~'hw_thermal|hw_slowdown'"] {
        let joined = format!("{pods_of} max by (UUID) (llm_gpu_throttled_seconds_total{{{throttled}}} > 1)");
        let pods = wait_for("pods on a throttled GPU", || {
            quiet(Duration::from_millis(200));
            let pods = prometheus.query(&joined);
            (pods.len() == 2).then_some(pods)
        });
        for (metric, seconds) in pods {
            println!("{throttled}: {metric}: {seconds}");
            assert!(["pod-101", "pod-102"].contains(&metric["pod"].as_str().expect("a pod")), "{metric}");
        }
    }
    // By way of the join each watt would count once for each pod: that is why power carries none.
    let by_pod = "sum(llm_gpu_allocation_info{source='nvml'} * on (UUID) group_left () llm_gpu_power_watts)";
    assert_eq!(prometheus.sample(by_pod).1, "800");
}
