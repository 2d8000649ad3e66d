//! What occurs to GPUs, as rows beside requests and logs. The GPUs are the fake NVML's.

use std::time::Duration;

use fake_nvml::Process;
use observer::timeline::{Kind, Level, Row};
use observer_tests::{
    agent::{Agent, wait_for},
    client::{Client, chat},
    gpu::{Cgroup, Driver, idler, now, two_h100},
    live::privileged,
    node::{Cluster, Place},
    workload::{Workload, quiet},
};
use rustix::process::Signal;
use serde_json::json;

const HW_THERMAL: f64 = 64.0;
const SW_POWER_CAP: f64 = 4.0;

/// Rows about GPUs that are answered to a question, the first first.
fn rows(agent: &Agent, question: &str) -> Vec<Row> {
    let (status, text) = agent.get(&format!("/api/v1/events?order=oldest&kind=gpu{question}"));
    assert_eq!(status, 200, "{text}");
    let lines = text.lines().filter(|line| line.contains("\"kind\""));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The rows of a device.
fn of<'a>(all: &'a [Row], uuid: &str) -> Vec<&'a Row> {
    all.iter().filter(|row| row.gpu.as_deref() == Some(uuid)).collect()
}

/// The device that is one container's: too hot for 2.2 s, two errors, lost and back.
fn assert_one_containers(rows: &[&Row], name: &str) {
    let mut told: Vec<_> = rows.iter().map(|row| said(row)).collect();
    let seconds = told.iter().find(|(reason, ..)| reason == "throttle_end").expect("an end").2.clone();
    let (_, seconds) = seconds.rsplit_once(" for ").expect("how long");
    let lasted: f64 = seconds.trim_end_matches(" s").parse().expect("seconds");
    assert!((1.0..3.3).contains(&lasted), "2.2 s, seen once a second: {lasted}");
    told.sort();
    let one = |reason: &str, level, text: &str| (reason.to_owned(), Some(level), format!("{name} {text}"));
    let held = "held back by its hardware, for heat (hw_thermal)";
    let mut expected = vec![
        one("throttle_begin", Level::Warn, &format!("is {held}")),
        one("xid", Level::Warn, "told of XID 31: a program used memory that is not mapped"),
        one("xid", Level::Error, "told of XID 79: the GPU has fallen off the bus"),
        one("throttle_end", Level::Info, &format!("was {held} for {seconds}")),
        one("lost", Level::Error, "has fallen off the bus, or has to be reset: it is not read any more"),
        one("returned", Level::Info, "is read again"),
    ];
    expected.sort();
    assert_eq!(told, expected);
    for row in rows {
        let whose = [row.namespace.as_str(), &row.pod, &row.container];
        assert_eq!((row.kind, whose), (Kind::Gpu, ["ml", "llama-0", "server"]), "{row:?}");
    }
}

/// The one that two share: a power limit for a while, and an error that comes three times.
fn assert_shared(rows: &[&Row]) {
    let told: Vec<_> = rows.iter().map(|row| (row.reason.as_str(), row.level)).collect();
    let expected = [
        ("throttle_begin", Some(Level::Info)),
        ("xid", Some(Level::Warn)),
        ("throttle_end", Some(Level::Info)),
        ("xid", Some(Level::Warn)),
    ];
    assert_eq!(told, expected, "{rows:#?}");
    assert!(rows[3].message.ends_with(", 2 times"), "what repeats within ten seconds is told together");
    assert!(rows.iter().all(|row| (row.pod.as_str(), row.container.as_str()) == ("", "")), "it is shared");
}

fn said(row: &Row) -> (String, Option<Level>, String) {
    (row.reason.clone(), row.level, row.message.clone())
}

#[test]
fn errors_throttling_and_losses_are_told_once_with_whose_it_was() {
    if !privileged() {
        return;
    }
    let (cluster, place) = (Cluster::start(), Place::new(1));
    cluster.api.put(place.pod("llama-0", &json!({})));
    let cgroup = Cgroup::at(&place.cgroupfs());
    let (server, port) = Workload::script("openai_server.py", &["--events", "60", "--gap", "0.1"]);
    let (core, others) = (idler(), [idler(), idler()]);
    cgroup.add(server.pid());
    cgroup.add(core.pid());
    let process = |pid| Process { pid, memory: 1 << 30, sm: 50, mps: false };
    let mut devices = two_h100();
    devices[0].processes = vec![process(core.pid())];
    // Two containers that share it: nobody's.
    devices[1].mig.clear();
    devices[1].processes = others.iter().map(|other| process(other.pid())).collect();
    let shared = [2, 3].map(|number| {
        let place = Place::new(number);
        cluster.api.put(place.pod(&format!("other-{number}"), &json!({})));
        Cgroup::at(&place.cgroupfs())
    });
    for (cgroup, other) in shared.iter().zip(&others) {
        cgroup.add(other.pid());
    }
    let uuids = [devices[0].uuid.clone(), devices[1].uuid.clone()];
    let mut driver = Driver::install(devices);
    let store = tempfile::tempdir().expect("a folder");
    let path = format!("store.path={}", store.path().join("store").display());
    let agent = cluster.agent(&[&driver.setting(), &path, "store.enabled=true"]);
    let (requests, follower) = (agent.follow(), agent.follow_feed("events?follow=true&kind=gpu"));
    let named = [("pod", "llama-0"), ("source", "nvml")];
    wait_for("whose the GPU is", || agent.metrics().value("llm_gpu_allocation_info", &named));
    // A request whose GPU grows hot, tells of errors and falls off the bus.
    let client = std::thread::spawn(move || Client::connect(&port).stream("unlucky", &chat("m", true, 60)));
    quiet(Duration::from_millis(300));
    let at = driver.scenario.at(now());
    driver.change(|scenario| {
        let [first, second] = &mut scenario.devices[..] else { panic!("two") };
        first.throttle = vec![[at, HW_THERMAL], [at + 2.2, 0.0]];
        first.xids = vec![[at + 0.5, 31.0], [at + 2.3, 79.0]];
        first.lost_at = Some(at + 3.5);
        second.throttle = vec![[at, SW_POWER_CAP], [at + 4.2, 0.0], [at + 12.0, 1.0]];
        second.xids = vec![[at + 1.6, 13.0], [at + 3.1, 13.0], [at + 4.6, 13.0]];
    });
    client.join().expect("a client");
    quiet(Duration::from_secs(2));
    driver.change(|scenario| scenario.devices[0].lost_at = None);
    let returned = || rows(&agent, "").into_iter().find(|row| row.reason == "returned");
    wait_for("its return, stored", returned);
    let ended = || {
        let ends = rows(&agent, "").into_iter().filter(|row| row.reason == "throttle_end");
        (ends.count() == 2).then_some(())
    };
    wait_for("the end of throttling", ended);
    wait_for("the repeated errors", || (rows(&agent, "&words=XID").len() == 4).then_some(()));
    quiet(Duration::from_secs(3));

    let all = rows(&agent, "");
    for row in &all {
        println!("{} {:?} {} {:?} {}", row.reason, row.level, row.message, row.gpu, row.pod);
    }
    let of = |gpu: usize| of(&all, &uuids[gpu]);
    assert_eq!(of(0).len() + of(1).len(), all.len(), "each says which GPU");
    assert_one_containers(&of(0), &format!("GPU 0 ({})", uuids[0]));
    assert_shared(&of(1));
    let begin = of(0).into_iter().find(|row| row.reason == "throttle_begin").expect("a beginning");
    let seen = begin.time as f64 / 1e9 - driver.scenario.origin as f64 / 1e6 - at;
    assert!((0.0..1.5).contains(&seen), "its time is when the first round saw it: after {seen} s");

    // The request's record leads to the rows: same UUID, and within its time.
    let record = requests.wait("unlucky");
    assert_eq!(record.gpu.len(), 1, "{record:?}");
    assert_eq!(record.gpu[0].uuid, uuids[0], "although it was lost before the request ended");
    let began: jiff::Timestamp = record.started_at.as_deref().expect("a start").parse().expect("a time");
    let (from, to) = (
        began.as_nanosecond() as i64,
        began.as_nanosecond() as i64 + (record.duration.expect("its length") * 1e9) as i64,
    );
    let during: Vec<&str> = of(0)
        .into_iter()
        .filter(|row| (from..to).contains(&row.time))
        .map(|row| row.reason.as_str())
        .collect();
    assert!(["throttle_begin", "xid", "lost"].iter().all(|reason| during.contains(reason)), "{during:?}");

    // They are asked for as other rows are.
    let count = |question: &str| rows(&agent, question).len();
    assert_eq!(count("&level=error"), 2);
    assert_eq!(count("&pod=llama-0"), 6);
    assert_eq!(count(&format!("&phrase={}", uuids[1])), 4, "by the device");
    let followed = follower.text();
    assert_eq!(followed.lines().filter(|line| line.contains("\"kind\":\"gpu\"")).count(), all.len());
    agent.end(Signal::INT).assert_prompt("SIGINT with events of GPUs");
}
