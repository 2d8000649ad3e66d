//! Whose requests they were: real containers under a kubelet's cgroup paths, and the fake API server.

use std::{fs, time::Duration};

use observer::capture::monotonic;
use observer_tests::{
    agent::{Agent, Metrics, wait_for},
    client::{Client, chat},
    live::privileged,
    node::{Cluster, NODE, Place},
    pod_logs::{append, cri},
    workload::{Workload, quiet},
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Decisions are made again, and statistics taken, once a second.
const SECOND: Duration = Duration::from_millis(1500);

/// One request, answered; what it is called.
fn ask(port: &str, id: &str) {
    Client::connect(port).stream(id, &chat("m", true, 6));
}

/// Waits until as many requests were seen with these labels.
fn wait_for_requests(agent: &Agent, labels: &[(&str, &str)], count: u64) -> Metrics {
    wait_for(&format!("{count} requests of {labels:?}"), || {
        let metrics = agent.metrics();
        (metrics.sum("llm_requests_total", labels) == Some(count)).then_some(metrics)
    })
}

const SERVER: [(&str, &str); 3] = [("namespace", "ml"), ("pod", "llama-0"), ("container", "server")];

#[test]
fn requests_carry_the_names_of_their_pod() {
    if !privileged() {
        return;
    }
    let (cluster, place) = (Cluster::start(), Place::new(1));
    let agent = cluster.agent(&[]);
    let (_container, port) = place.server(&place.systemd());
    let (_outside, outside) = Workload::script("openai_server.py", &["--events", "6", "--gap", "0.02"]);
    cluster.api.put(place.pod("llama-0", &json!({})));
    // Not decided on before the pod is told.
    quiet(SECOND);
    ask(&port, "a");
    ask(&port, "b");
    ask(&outside, "c");
    let metrics = wait_for_requests(&agent, &SERVER, 2);
    let nowhere = [("namespace", ""), ("pod", ""), ("container", "python3")];
    wait_for_requests(&agent, &nowhere, 1);
    let count = metrics.value("gen_ai_server_time_to_first_token_seconds_count", &SERVER);
    assert_eq!(count, Some(2.0));
    quiet(SECOND);

    let metrics = agent.metrics();
    metrics.assert_lint();
    let pod = [("namespace", "ml"), ("pod", "llama-0"), ("container", "")];
    let with = |more: &[(&'static str, &'static str)]| [&SERVER[..], more].concat();
    let of_pod = |more: &[(&'static str, &'static str)]| [&pod[..], more].concat();
    let managed = of_pod(&[("workload_kind", "Deployment"), ("workload", "llama"), ("node", NODE)]);
    for (name, labels, value) in [
        ("llm_pod_info", managed, 1.0),
        ("llm_pod_status_phase", of_pod(&[("phase", "Running")]), 1.0),
        ("llm_pod_status_phase", of_pod(&[("phase", "Failed")]), 0.0),
        ("llm_pod_ready", of_pod(&[]), 1.0),
        ("llm_pod_container_restarts_total", with(&[]), 3.0),
        ("llm_pod_container_last_terminated", with(&[("reason", "OOMKilled"), ("exit_code", "137")]), 1.0),
        ("llm_resource_requests", with(&[("resource", "cpu"), ("unit", "core")]), 1.5),
        ("llm_resource_requests", with(&[("resource", "memory"), ("unit", "byte")]), 2_147_483_648.0),
        ("llm_resource_limits", with(&[("resource", "nvidia.com/gpu"), ("unit", "integer")]), 1.0),
        ("llm_resource_limits", with(&[("resource", "nvidia.com/mig-1g.10gb"), ("unit", "integer")]), 2.0),
    ] {
        assert_eq!(metrics.value(name, &labels), Some(value), "{name} {labels:?}\n{}", metrics.0);
    }
    assert!(metrics.value("llm_resource_cpu_seconds_total", &SERVER) > Some(0.0), "{}", metrics.0);
    assert!(metrics.value("llm_resource_memory_working_set_bytes", &SERVER) > Some(1e6), "{}", metrics.0);
    // From the end of the life before, 22 seconds before the pod was told.
    let phase = |phase: &'static str| {
        metrics.value("llm_container_start_phase_seconds", &with(&[("phase", phase)])).expect(phase)
    };
    assert!((phase("started") - 2.0).abs() < 0.01);
    let (exec, listening) = (phase("exec"), phase("listening"));
    let (success, token) = (phase("first_success"), phase("first_token"));
    println!("exec {exec}, listening {listening}, first success {success}, first token {token}");
    assert!(15.0 < exec && exec <= listening && listening <= success && success < token && token < 30.0);
    assert_eq!(metrics.value("observer_kube_objects", &[("resource", "pods")]), Some(1.0));
    assert!(metrics.value("observer_kube_watch_age_seconds", &[("resource", "pods")]) < Some(30.0));
    agent.end(Signal::INT).assert_prompt("SIGINT with Kubernetes");
}

#[test]
fn nothing_is_observed_of_a_pod_that_opted_out_until_it_opts_in() {
    if !privileged() {
        return;
    }
    let (cluster, place) = (Cluster::start(), Place::new(2));
    let (_container, port) = place.server(&place.cgroupfs());
    cluster.api.put(place.pod("llama-0", &json!({"llm-observer/observe": "false"})));
    let agent = cluster.agent(&[]);
    quiet(SECOND);
    ask(&port, "before");
    quiet(SECOND);
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("llm_requests_total", &[("namespace", "ml")]), None, "{}", metrics.0);
    assert!(metrics.sum("observer_processes", &[("state", "out_of_scope")]) >= Some(1));
    cluster.api.put(place.pod("llama-0", &json!({})));
    quiet(2 * SECOND);
    ask(&port, "in");
    wait_for_requests(&agent, &SERVER, 1);
    cluster.api.put(place.pod("llama-0", &json!({"llm-observer/observe": "false"})));
    quiet(2 * SECOND);
    ask(&port, "out");
    quiet(SECOND);
    wait_for_requests(&agent, &SERVER, 1);
    agent.end(Signal::TERM).assert_prompt("SIGTERM");
}

#[test]
fn only_what_is_named_is_observed() {
    if !privileged() {
        return;
    }
    let (cluster, [inside, outside]) = (Cluster::start(), [3, 4].map(Place::new));
    let mut other = outside.pod("web-0", &json!({}));
    other["metadata"]["namespace"] = json!("web");
    cluster.api.put(inside.pod("llama-0", &json!({})));
    cluster.api.put(other);
    let agent = cluster.agent(&["kubernetes.namespaces.include=m*", "kubernetes.selector=app in (llama)"]);
    let (_one, one) = inside.server(&inside.systemd());
    let (_two, two) = outside.server(&outside.systemd());
    let (_none, none) = Workload::script("openai_server.py", &["--events", "6", "--gap", "0.02"]);
    quiet(SECOND);
    for port in [&one, &two, &none] {
        ask(port, "x");
    }
    let metrics = wait_for_requests(&agent, &SERVER, 1);
    assert_eq!(metrics.sum("llm_requests_started_total", &[]), Some(1), "{}", metrics.0);
    agent.end(Signal::TERM).assert_prompt("SIGTERM");
}

#[test]
fn without_an_api_server_names_come_from_the_kubelet_and_what_was_known_stays() {
    if !privileged() {
        return;
    }
    let (mut cluster, [known, unknown]) = (Cluster::start(), [5, 6].map(Place::new));
    cluster.api.put(known.pod("llama-0", &json!({})));
    let agent = cluster.agent(&[]);
    let (_one, one) = known.server(&known.systemd());
    quiet(SECOND);
    ask(&one, "before");
    wait_for_requests(&agent, &SERVER, 1);
    cluster.api.stop();
    fs::create_dir_all(cluster.logs().join(format!("ml_llama-1_{}", unknown.uid)))
        .expect("a kubelet's folder");
    let containers = cluster.logs().with_file_name("containers");
    fs::create_dir_all(&containers).expect("a kubelet's folder");
    fs::write(containers.join(format!("llama-1_ml_server-{}.log", unknown.id)), "")
        .expect("a kubelet's file");
    let (_two, two) = unknown.server(&unknown.systemd());
    ask(&one, "away");
    wait_for_requests(&agent, &SERVER, 2);
    // A pod of which nobody tells is waited for.
    quiet(SECOND);
    assert!(agent.metrics().sum("observer_processes", &[("state", "undecided")]) >= Some(1));
    let aside = [("namespace", "ml"), ("pod", "llama-1"), ("container", "server")];
    quiet(Duration::from_secs(16));
    ask(&two, "unknown");
    wait_for_requests(&agent, &aside, 1);
    let metrics = agent.metrics();
    let pods = [("resource", "pods")];
    assert!(metrics.value("observer_kube_watch_age_seconds", &pods) > Some(10.0), "{}", metrics.0);
    let refused = [("resource", "pods"), ("reason", "unreachable")];
    assert!(metrics.sum("observer_kube_watch_errors_total", &refused) >= Some(1), "{}", metrics.0);
    cluster.api.restart();
    // It is tried again every 30 seconds by then.
    let end = monotonic() + 40_000_000_000;
    while agent.metrics().value("observer_kube_watch_age_seconds", &pods) > Some(5.0) {
        assert!(monotonic() < end, "the API server was not heard again: {}", agent.running.log());
        quiet(SECOND);
    }
    agent.end(Signal::TERM).assert_prompt("SIGTERM");
}

#[test]
fn a_container_that_comes_back_is_told_with_the_kubelets_count() {
    if !privileged() {
        return;
    }
    let (cluster, place) = (Cluster::start(), Place::new(9));
    let agent = cluster.agent(&[]);
    let told = agent.follow_feed("events?kind=process,kubernetes&pod=llama-0&follow=true");
    cluster.api.put(place.pod("llama-0", &json!({})));
    let rows = |reason: &str| -> Vec<Value> {
        let text = told.text();
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        rows.filter(|row| row["reason"] == reason).collect()
    };
    let (container, port) = place.server(&place.cgroupfs());
    quiet(SECOND);
    ask(&port, "a");
    wait_for("its process", || (!rows("observed").is_empty()).then_some(()));
    // Killed, and started again.
    drop(container);
    let exit = wait_for("its end", || rows("exit").pop());
    assert!(exit["message"].as_str().expect("a message").ends_with("ended by signal 9"), "{exit}");
    assert_eq!(rows("restart"), [Value::Null; 0]);
    let (_container, port) = place.server(&place.cgroupfs());
    quiet(SECOND);
    ask(&port, "b");
    let restart = wait_for("its return", || rows("restart").pop());
    assert_eq!((&restart["kind"], &restart["restart"]), (&json!("process"), &json!(3)), "{restart}");
    assert_eq!((&restart["namespace"], &restart["container"]), (&json!("ml"), &json!("server")), "{restart}");
    // The kubelet tells later, and of the next life before.
    let mut pod = place.pod("llama-0", &json!({}));
    pod["status"]["containerStatuses"][0]["restartCount"] = json!(4);
    pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["finishedAt"] =
        json!("2026-01-05T08:00:07Z");
    cluster.api.put(pod);
    let told = wait_for("what the kubelet tells", || {
        rows("restart").into_iter().find(|row| row["kind"] == "kubernetes")
    });
    assert_eq!((&told["restart"], &told["workload"]), (&json!(4), &json!("llama")), "{told}");
    let said = "server was started again (4 times by now); it had ended: OOMKilled, exit code 137, signal 9";
    assert_eq!(told["message"], said);
    assert_eq!(rows("OOMKilled").len(), 1, "of the life before the first telling nothing is known");
    let labels = [&SERVER[..], &[("reason", "killed")]].concat();
    wait_for("the metric", || {
        (agent.metrics().sum("llm_process_exits_total", &labels) == Some(1)).then_some(())
    });
}

#[test]
fn rows_say_what_manages_their_pod_and_logs_that_are_gone_are_said_to_be() {
    if !privileged() {
        return;
    }
    let (cluster, place) = (Cluster::start(), Place::new(3));
    let folder = cluster.logs().join(format!("ml_llama-0_{}", place.uid));
    fs::create_dir_all(folder.join("server")).unwrap();
    append(&folder.join("server/3.log"), &cri(jiff::Timestamp::now(), "stdout", "INFO: line"));
    let store = tempfile::tempdir().unwrap();
    let path = format!("store.path={}", store.path().display());
    let (_container, port) = place.server(&place.systemd());
    cluster.api.put(place.pod("llama-0", &json!({})));
    for kept in ["logs.store=on", "logs.store=auto"] {
        let agent = cluster.agent(&["store.enabled=true", &path, kept]);
        quiet(SECOND);
        ask(&port, "w");
        let rows = |path: &str| {
            let (status, text) = agent.get(path);
            assert_eq!(status, 200, "{text}");
            let mut lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let trailer = lines.pop().expect("a trailer");
            (lines, trailer["partial"].clone())
        };
        let line = wait_for("the line of a pod that serves", || {
            rows("/api/v1/logs?workload=llama&since=1h").0.pop()
        });
        assert_eq!(
            (&line["message"], &line["workload"], &line["restart"]),
            (&json!("INFO: line"), &json!("llama"), &json!(3))
        );
        let request = wait_for("its request", || {
            rows("/api/v1/events?kind=request&request_id=w&workload=llama&since=1m").0.pop()
        });
        assert_eq!(request["workload"], "llama");
        assert!(rows("/api/v1/logs?workload=other&since=1h").0.is_empty());
        if kept == "logs.store=auto" {
            fs::remove_dir_all(&folder).unwrap();
            let (lines, partial) = rows("/api/v1/logs?pod=llama-0&since=1h");
            assert_eq!(
                (lines.len(), &partial[0]["reason"]),
                (0, &json!("had pod llama-0, whose logs are gone with it"))
            );
            let (_, unknown) = rows("/api/v1/logs?pod=never-seen&since=1h");
            assert_eq!(unknown, json!([]));
        }
        assert!(agent.end(Signal::TERM).status.success());
    }
}
