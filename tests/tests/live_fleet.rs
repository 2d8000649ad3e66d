//! Two nodes and a cluster role, all real programs: what was served on both is asked for in one place, from a laptop too.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use observer::exchange::RequestRecord;
use observer_tests::{
    agent::{Agent, assert_without, observer, program, unconfigured, wait_for},
    apiserver::{ApiServer, TOKEN},
    client::{Client, chat},
    live::privileged,
    pod_logs::{PodLogs, append, cri},
    receiver::Authority,
    workload::Workload,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAMESPACE: &str = "llm";
const API_TOKEN: &str = "sentinel-of-a-token";

/// An API server with a place for files.
struct Site {
    api: ApiServer,
    folder: TempDir,
}

impl Site {
    fn start() -> Self {
        let site = Self { api: ApiServer::start(), folder: tempfile::tempdir().expect("a folder") };
        site.api.kubeconfig(&site.path("kubeconfig"));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// What the controller writes for an agent behind the headless Service.
    fn announce(&self, node: &str, address: &str) {
        self.announce_at("http", node, address);
    }

    fn announce_at(&self, name: &str, node: &str, address: &str) {
        let (ip, port) = address.rsplit_once(':').expect("an address");
        self.api.put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": NAMESPACE, "name": format!("observer-agent-{node}"),
                "labels": {"kubernetes.io/service-name": "observer-agent"}},
            "ports": [{"name": name, "port": port.parse::<u16>().expect("a port"), "protocol": "TCP"}],
            "endpoints": [{"addresses": [ip], "nodeName": node, "conditions": {"ready": true}}],
        }));
    }

    /// The cluster role, and its pod.
    fn cluster(&self, settings: &[&str]) -> Agent {
        let kubeconfig = format!("kubernetes.kubeconfig={}", self.text("kubeconfig"));
        let mut args = vec!["cluster", "--listen", "127.0.0.1:0", "--set", &kubeconfig];
        let namespace = format!("cluster.namespace={NAMESPACE}");
        args.extend(["--set", &namespace]);
        args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let cluster = Agent::with(observer(&args));
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": NAMESPACE, "name": "observer-cluster-x",
                "labels": {"app.kubernetes.io/component": "cluster"}},
            "spec": {"containers": [{"name": "cluster", "ports": [{"name": "http", "containerPort": 9842}]}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }));
        self.api.forward(NAMESPACE, "observer-cluster-x", cluster.address.parse().expect("an address"));
        cluster
    }

    /// A command as an operator types it on a laptop whose kubeconfig this is.
    fn laptop(&self, line: &str) -> Output {
        self.command(line).output().expect("the command")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = unconfigured(Command::new(program()), line.split_whitespace());
        command.args(["--observer-namespace", NAMESPACE]).env("KUBECONFIG", self.path("kubeconfig"));
        command
    }
}

/// An agent that sees one server only.
fn agent(node: &str, server: &str) -> Agent {
    let only = format!("capture.processes.allow={server}");
    Agent::start(&["--node", node, "--set", &only, "--set", "kubernetes.mode=off"])
}

/// A server of a name of its own.
fn server(site: &Site, name: &str) -> (Workload, String) {
    // A process is called as its file is.
    let python = site.path(name);
    fs::copy("/usr/bin/python3", &python).expect("a copy of the interpreter");
    let mut command = Command::new(&python);
    let script = observer_tests::workload::folder("python").join("openai_server.py");
    command.arg("-u").arg(script).args(["--events", "6", "--gap", "0.01"]);
    Workload::start(command)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn remarks(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Records and the trailer of an answer in JSON.
fn parsed(lines: &str) -> (Vec<RequestRecord>, Value) {
    let mut lines: Vec<&str> = lines.lines().filter(|line| line.starts_with('{')).collect();
    let trailer = serde_json::from_str(lines.pop().expect("a trailer")).expect("JSON");
    (lines.iter().map(|line| serde_json::from_str(line).expect("a record")).collect(), trailer)
}

/// Node and request id of each.
fn told(records: &[RequestRecord]) -> Vec<(String, String)> {
    let of = |record: &RequestRecord| (record.node.clone(), record.request_id.clone().unwrap_or_default());
    records.iter().map(of).collect()
}

fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(node, id)| ((*node).to_owned(), (*id).to_owned())).collect()
}

#[test]
fn requests_of_all_nodes_are_asked_for_in_one_place() {
    if !privileged() {
        return;
    }
    let site = Site::start();
    let ((_one, port_a), (_two, port_b)) = (server(&site, "engine-a"), server(&site, "engine-b"));
    let (a, b) = (agent("node-a", "engine-a"), agent("node-b", "engine-b"));
    site.announce("node-a", &a.address);
    site.announce("node-b", &b.address);
    let cluster = site.cluster(&[]);

    let (mut client_a, mut client_b) = (Client::connect(&port_a), Client::connect(&port_b));
    for number in 1..=2 {
        client_a.stream(&format!("a{number}"), &chat("meta/Llama-3", true, 6));
        client_b.stream(&format!("b{number}"), &chat("gpt-oss", true, 6));
    }
    let all = own(&[("node-b", "b2"), ("node-a", "a2"), ("node-b", "b1"), ("node-a", "a1")]);
    let newest = wait_for("all four in one answer", || {
        let (records, trailer) = parsed(&cluster.get("/api/v1/requests?until=0s").1);
        assert_eq!(trailer["partial"], json!([]), "{trailer}");
        (records.len() == 4).then_some(records)
    });
    assert_eq!(told(&newest), all, "newest first, of both nodes");
    let (records, _) = parsed(&cluster.get("/api/v1/requests?model=llama&order=oldest").1);
    assert_eq!(told(&records), own(&[("node-a", "a1"), ("node-a", "a2")]));
    let (records, trailer) = parsed(&cluster.get("/api/v1/requests?limit=3").1);
    assert_eq!(told(&records), all[..3]);
    let next = trailer["next"].as_str().expect("there is more");
    let (records, _) = parsed(&cluster.get(&format!("/api/v1/requests?cursor={next}")).1);
    assert_eq!(told(&records), all[3..]);

    // From a laptop: nobody answers there, so the kubeconfig is the way.
    let shown = site.laptop("requests --since 15m --json");
    assert!(shown.status.success(), "{}", remarks(&shown));
    let (records, _) = parsed(&text(&shown));
    assert_eq!(told(&records), all.iter().rev().cloned().collect::<Vec<_>>(), "the newest is last");
    let shown = site.laptop("requests --model llama --since 15m");
    assert_eq!(text(&shown).lines().count(), 3, "{}", text(&shown));
    assert!(text(&shown).contains("engine-a") && text(&shown).contains("meta/Llama-3"), "{}", text(&shown));
    let shown = site.laptop("top --once");
    assert!(shown.status.success(), "{}", remarks(&shown));
    let rows = text(&shown);
    for words in [["node-a", "Llama-3", "engine-a"], ["node-b", "gpt-oss", "engine-b"]] {
        assert!(rows.lines().any(|row| words.iter().all(|word| row.contains(word))), "{rows}");
    }
    // What ended, and then what ends.
    let (mut following, first) =
        Workload::start(site.command("requests --since 1h --follow --json --node node-a"));
    let mut next = || -> RequestRecord {
        let line = following.line();
        serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"))
    };
    assert!(first.contains("tells of requests since"), "it is young: {first}");
    let ids: Vec<_> = [next(), next()].into_iter().map(|record| record.request_id).collect();
    assert_eq!(ids, [Some("a1".to_owned()), Some("a2".to_owned())], "the oldest first");
    client_b.stream("b3", &chat("gpt-oss", true, 6));
    client_a.stream("a3", &chat("meta/Llama-3", true, 6));
    assert_eq!(next().request_id.as_deref(), Some("a3"));
    drop(following);
    let forwarded = site.api.requests();
    let forwarded = forwarded.iter().filter(|seen| seen.request.subresource == "portforward").count();
    assert_eq!(forwarded, 4);

    b.end(Signal::KILL);
    let shown = site.laptop("requests --since 15m");
    assert!(shown.status.success());
    let said = remarks(&shown);
    let said: Vec<&str> = said.lines().collect();
    assert!(said[0].starts_with("partial: node node-a tells of requests since 20"), "it is young: {said:?}");
    assert_eq!(said[1..], ["partial: node node-b unreachable (connection refused)"]);
    assert_eq!(text(&shown).lines().count(), 4, "what the other node knows is shown");
    let (_, body) = cluster.get("/api/v1/top");
    assert!(body.contains("\"node-a\"") && body.contains("unreachable"), "{body}");
    site.api.delete("endpointslices", NAMESPACE, "observer-agent-node-b");
    wait_for("a fleet without the node that is gone", || {
        let (_, trailer) = parsed(&cluster.get("/api/v1/requests?limit=9").1);
        (trailer["partial"] == json!([])).then_some(())
    });
    cluster.end(Signal::TERM).assert_prompt("SIGTERM of the cluster role");
    a.end(Signal::TERM).assert_prompt("SIGTERM of an agent");
}

#[test]
fn bad_questions_and_refusals_say_what_to_do() {
    let site = Site::start();
    let cluster = site.cluster(&[]);
    for (line, words) in [
        ("requests --since yesterday", &["status 400", "`since` = \"yesterday\"", "15m"][..]),
        ("requests --outcome good", &["`outcome`", "aborted_by_client"]),
        ("top --limit 0", &["`limit`", "from 1 to 5000"]),
        ("requests --context nowhere", &["nowhere"]),
    ] {
        let output = site.laptop(line);
        let said = remarks(&output);
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        for word in words {
            assert!(said.contains(word), "{line}: no {word} in {said}");
        }
    }
    let (status, body) = cluster.get("/api/v1/requests?colour=red");
    assert!(status == 400 && body.contains("use since, until"), "{status} {body}");
    let none = site.laptop("requests --since 5m");
    assert_eq!(remarks(&none), "partial: there are no agents\n");

    // The role of the operator lacks a right, then the pod is gone, then its port does not answer.
    site.api.enforce(&[
        json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [
            {"apiGroups": ["*"], "resources": ["pods"], "verbs": ["list"]}]}),
        json!({"kind": "ClusterRoleBinding", "metadata": {"name": "r"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "Group", "name": "system:authenticated"}]}),
    ]);
    let said = remarks(&site.laptop("requests --since 5m"));
    assert!(
        said.contains("forwarding to pod llm/observer-cluster-x") && said.contains("pods/portforward"),
        "{said}"
    );
    site.api.enforce(&[
        json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
        json!({"kind": "ClusterRoleBinding", "metadata": {"name": "r"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "Group", "name": "system:authenticated"}]}),
    ]);
    site.api.forward(NAMESPACE, "observer-cluster-x", "127.0.0.1:1".parse().expect("an address"));
    let said = remarks(&site.laptop("requests --since 5m"));
    assert!(said.contains("the connection to pod llm/observer-cluster-x broke"), "{said}");
    assert!(said.contains("error forwarding port 9842"), "{said}");
    site.api.delete("pods", NAMESPACE, "observer-cluster-x");
    let said = remarks(&site.laptop("requests --since 5m"));
    assert!(said.contains("no pod of `observer cluster`") && said.contains("--observer-namespace"), "{said}");
    cluster.end(Signal::TERM).assert_prompt("SIGTERM of the cluster role");
}

/// Another address of this machine than loopback, if it has one. Nothing is sent to find out.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn beyond_loopback_it_takes_the_token_of_the_file() {
    if !privileged() {
        return;
    }
    let Some(outer) = outer_address() else {
        eprintln!("skipped: this machine has a loopback address only");
        return;
    };
    let site = Site::start();
    let token_file = format!("api.token_file={}", site.text("token"));
    let mut agent = Agent::with(observer([
        "agent",
        "--node",
        "node-a",
        "--listen",
        &format!("{outer}:0"),
        "--set",
        &token_file,
        "--set",
        "kubernetes.mode=off",
    ]));
    site.announce("node-a", &agent.address);
    let cluster = site.cluster(&[&token_file]);
    let partial = || parsed(&cluster.get("/api/v1/requests?since=1s").1).1["partial"].clone();
    let first_reason = || partial()[0]["reason"].as_str().unwrap_or_default().to_owned();

    // No file yet: refused on both sides, and said once.
    assert!(first_reason().contains("refused to answer (status 401"), "{}", partial());
    assert_eq!(agent.get("/api/v1/requests?limit=1").0, 401);
    fs::write(site.path("token"), format!("{API_TOKEN}\n")).expect("the token");
    assert!(first_reason().starts_with("tells of requests since"), "{}", partial());
    let ask = |file: Option<&str>| {
        let mut command = observer(["requests", "--limit", "1", "--address", &agent.address]);
        command.args(file.into_iter().flat_map(|file| ["--token-file", file]));
        command.output().expect("the command")
    };
    let refused = ask(None);
    assert!(remarks(&refused).contains("status 401") && remarks(&refused).contains("--token-file"));
    assert!(ask(Some(&site.text("token"))).status.success());
    fs::write(site.path("other"), "another").expect("a token");
    assert!(remarks(&ask(Some(&site.text("other")))).contains("status 401"));
    // A new token counts at once, here and there.
    fs::write(site.path("token"), "another\n").expect("the token");
    assert!(first_reason().starts_with("tells of requests since"), "{}", partial());
    assert!(ask(Some(&site.text("other"))).status.success());

    agent.running.assert_alive();
    let (of_agent, of_cluster) = (agent.end(Signal::TERM), cluster.end(Signal::TERM));
    for ended in [&of_agent, &of_cluster] {
        let times = ended.log.matches("api.token_file cannot be used").count();
        assert_eq!(times, 1, "said once: {}", ended.log);
        assert_without(&[API_TOKEN, TOKEN, "Bearer"], &[("the log", ended.log.as_bytes())]);
    }
}

#[test]
fn lines_of_all_nodes_are_found_and_counted_in_one_place() {
    if !privileged() {
        return;
    }
    let site = Site::start();
    let logs = [PodLogs::default(), PodLogs::default()];
    let mut agents = Vec::new();
    for (at, node) in ["node-a", "node-b"].into_iter().enumerate() {
        let file = logs[at].server("ml", &format!("llama-{at}")).join("0.log");
        for minutes in (1..=40).rev() {
            // They take turns.
            let time = logs[0].ago(2 * minutes + at as i64);
            append(&file, &cri(time, "stdout", &format!("INFO: line {}", 80 - 2 * minutes - at as i64)));
        }
        let pods = format!("kubernetes.pod_logs={}", logs[at].path().display());
        // One keeps lines, the other looks for them in files.
        let (store, kept) =
            (format!("store.path={}", site.text(node)), format!("logs.store={}", ["on", "off"][at]));
        let mut args = vec!["--node", node];
        for setting in ["kubernetes.mode=off", "store.enabled=true", "logs.all=true", &pods, &store, &kept] {
            args.extend(["--set", setting]);
        }
        let agent = Agent::start(&args);
        site.announce(node, &agent.address);
        agents.push(agent);
    }
    let _cluster = site.cluster(&[]);
    let numbers = |line: &str| -> Vec<i64> {
        let output = site.laptop(line);
        assert!(output.status.success(), "{line}: {}", remarks(&output));
        text(&output)
            .lines()
            .map(|line| line.rsplit(' ').next().unwrap().parse().expect("a number"))
            .collect()
    };
    let all: Vec<i64> = (-1..=78).collect();
    wait_for("all lines in one answer", || (numbers("logs --since 24h") == all).then_some(()));
    assert_eq!(numbers("logs --since 24h --limit 3"), [76, 77, 78]);
    assert_eq!(numbers("logs --since 24h --order oldest --limit 3"), [-1, 0, 1]);
    assert_eq!(numbers("logs --since 24h --pod llama-1 --limit 2"), [75, 77]);
    assert_eq!(numbers("logs --since 24h --node node-a --words 76"), [76]);
    let hits = site.laptop("logs --since 24h --bucket 24h");
    assert!(text(&hits).lines().all(|line| line.contains("T00:00:00Z all ")), "{}", text(&hits));
    assert_eq!(numbers("logs --since 24h --bucket 24h").iter().sum::<i64>(), 80);
    let by_minute = site.laptop("logs --since 24h --bucket 1m --json");
    let lines: Vec<Value> =
        text(&by_minute).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (trailer, spans) = lines.split_last().expect("a trailer");
    assert_eq!(spans.len(), 80, "each minute has one line");
    // What the first found in files that are older than its store is not all that ever was.
    let reasons =
        trailer["partial"].as_array().expect("a list").iter().map(|one| one["reason"].as_str().unwrap());
    assert!(reasons.clone().all(|reason| reason.starts_with("tells of what happened since")), "{trailer}");
    assert!(spans.iter().all(|span| span["hits"] == 1 && span["node"] == Value::Null), "{spans:?}");

    // A node that stands still is named; what the others have is told.
    kill_process(Pid::from_raw(agents[1].running.pid().cast_signed()).unwrap(), Signal::STOP)
        .expect("stopped");
    let output = site.laptop("logs --since 24h --limit 2");
    assert!(remarks(&output).contains("node node-b unreachable (no answer in 2 s)"), "{}", remarks(&output));
    assert_eq!(numbers("logs --since 24h --limit 2"), [76, 78]);
    kill_process(Pid::from_raw(agents[1].running.pid().cast_signed()).unwrap(), Signal::CONT)
        .expect("goes on");
}

#[test]
fn lines_that_agents_sent_outlive_their_files() {
    if !privileged() {
        return;
    }
    let (site, logs) = (Site::start(), PodLogs::default());
    fs::write(site.path("token"), API_TOKEN).expect("a token");
    let token = format!("api.token_file={}", site.text("token"));
    let kept = format!("store.path={}", site.text("kept"));
    let cluster = site.cluster(&["cluster.logs=true", "store.enabled=true", &kept, &token]);
    let settings = [
        "kubernetes.mode=off".to_owned(),
        "store.enabled=true".to_owned(),
        format!("store.path={}", site.text("store")),
        format!("kubernetes.pod_logs={}", logs.path().display()),
        "logs.store=off".to_owned(),
        "logs.all=true".to_owned(),
        format!("logs.cluster=http://{}", cluster.address),
        format!("api.token_file={}", site.text("token")),
    ];
    let agent = || {
        let args = ["--node", "node-a"].into_iter();
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        Agent::start(&args.chain(settings).collect::<Vec<_>>())
    };
    let first = agent();
    site.announce("node-a", &first.address);
    let (stays, goes) = (logs.server("ml", "llama-0"), logs.server("ml", "llama-1"));
    for number in 0..40 {
        for (pod, folder) in [("stays", &stays), ("goes", &goes)] {
            append(
                &folder.join("0.log"),
                &cri(logs.ago(30), "stderr", &format!("ERROR: {pod} number{number}")),
            );
        }
    }
    let received = |count: f64| {
        wait_for("the lines", || {
            let value =
                cluster.metrics().value("observer_received_log_records_total", &[("outcome", "kept")]);
            (value >= Some(count)).then_some(())
        });
    };
    received(80.0);
    let asked = |question: &str| {
        let (status, text) = cluster.get(&format!("/api/v1/logs?since=1h&limit=5000&{question}"));
        assert_eq!(status, 200, "{text}");
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>()
    };
    let messages = |question: &str| {
        let rows = asked(question);
        let mut told: Vec<_> =
            rows.iter().filter_map(|row| row["message"].as_str().map(str::to_owned)).collect();
        told.sort_unstable();
        told
    };
    let expected = |pods: &[&str], numbers: usize| {
        let of = |pod: &&str| {
            (0..numbers).map(|number| format!("ERROR: {pod} number{number}")).collect::<Vec<_>>()
        };
        let mut all = pods.iter().flat_map(of).collect::<Vec<_>>();
        all.sort_unstable();
        all
    };
    let hits = |question: &str| asked(question).iter().filter_map(|row| row["hits"].as_u64()).sum::<u64>();
    // Both know them: each is told once, and counted once.
    wait_for("all of them, written", || (hits("bucket=1h") == 80).then_some(()));
    assert_eq!(messages(""), expected(&["goes", "stays"], 40));
    let row = &asked("pod=llama-1")[0];
    assert_eq!(
        ["node", "namespace", "pod", "container", "level", "stream"].map(|name| row[name].as_str()),
        ["node-a", "ml", "llama-1", "server", "error", "stderr"].map(Some)
    );

    // A pod goes, with its files; the agent, too, without being told.
    fs::remove_dir_all(goes.parent().expect("the pod's folder")).expect("deleted");
    assert_eq!(messages("pod=llama-1"), expected(&["goes"], 40));
    first.end(Signal::KILL);
    assert_eq!(messages(""), expected(&["goes", "stays"], 40));
    let partial = asked("").pop().expect("a trailer")["partial"].to_string();
    assert!(partial.contains("node-a"), "{partial}");

    // What was sent is not sent again, and what was written meanwhile is.
    append(&stays.join("0.log"), &cri(logs.ago(20), "stderr", "ERROR: stays number40"));
    let second = agent();
    site.announce("node-a", &second.address);
    received(81.0);
    wait_for("the new line", || (hits("bucket=1h") == 81).then_some(()));
    let metrics = cluster.metrics();
    metrics.assert_lint();
    let sent_again =
        metrics.value("observer_received_log_records_total", &[("outcome", "kept")]).unwrap_or(0.0) - 81.0;
    println!("{sent_again} lines were sent again");
    assert!(sent_again <= 0.0, "all that was sent had been noted");
    second.metrics().assert_lint();
    assert_eq!(second.metrics().sum("observer_otlp_dropped_total", &[]), Some(0));
}

/// Where an observer speaks TLS, by its log.
fn encrypted_address(agent: &Agent) -> String {
    wait_for("TLS", || {
        let log = agent.running.log();
        let line = log.lines().find(|line| line.contains("serving over TLS"))?;
        Some(line.split("tls=").nth(1)?.trim().to_owned())
    })
}

#[test]
fn roles_know_each_other_by_their_certificates() {
    if !privileged() {
        return;
    }
    let (site, logs, known) = (Site::start(), PodLogs::default(), Authority::new());
    known.write(&site.path("ca.crt"));
    let (agents, clusters) = ("observer-agent.llm.svc", "localhost");
    let settings = |name: &str, of: &str| {
        let pair = known.write_pair(site.folder.path(), name, &[of]);
        [
            "tls.listen=127.0.0.1:0".to_owned(),
            format!("tls.cert_file={}", pair.certificate.display()),
            format!("tls.key_file={}", pair.key.display()),
            format!("tls.ca_file={}", site.text("ca.crt")),
            "store.enabled=true".to_owned(),
            format!("store.path={}", site.text(&format!("{name}-store"))),
        ]
    };
    let mut of_cluster = settings("cluster", clusters).to_vec();
    of_cluster.push("cluster.logs=true".to_owned());
    let cluster = site.cluster(&of_cluster.iter().map(String::as_str).collect::<Vec<_>>());
    let port = encrypted_address(&cluster).rsplit_once(':').expect("a port").1.to_owned();
    let mut of_agent = settings("agent", agents).to_vec();
    of_agent.extend([
        "kubernetes.mode=off".to_owned(),
        "logs.store=off".to_owned(),
        "logs.all=true".to_owned(),
        format!("kubernetes.pod_logs={}", logs.path().display()),
        format!("logs.cluster=https://localhost:{port}"),
    ]);
    let mut args = vec!["--node", "node-a"];
    args.extend(of_agent.iter().flat_map(|setting| ["--set", setting]));
    let agent = Agent::start(&args);
    site.announce_at("https", "node-a", &encrypted_address(&agent));
    append(&logs.server("ml", "llama-0").join("0.log"), &cri(logs.ago(5), "stdout", "over TLS"));
    // Nobody has a token: the agent's certificate lets its lines in, the cluster's lets it ask.
    wait_for("the line", || {
        let kept = cluster.metrics().value("observer_received_log_records_total", &[("outcome", "kept")]);
        (kept >= Some(1.0)).then_some(())
    });
    let asked = |question: &str| cluster.get(&format!("/api/v1/{question}")).1;
    let answer =
        wait_for("the line, told", || Some(asked("logs?since=1h")).filter(|text| text.contains("over TLS")));
    assert_eq!(answer.matches("over TLS").count(), 1, "{answer}");
    let answer = asked("requests?since=1h");
    assert!(!answer.contains("unreachable"), "{answer}");
    // An agent with a certificate for another name is not believed.
    known.write_pair(site.folder.path(), "agent", &["observer-agent.other.svc"]);
    std::thread::sleep(std::time::Duration::from_secs(6));
    let answer = asked("requests?since=1h");
    assert!(answer.contains("node-a") && answer.contains("certificate"), "{answer}");
    agent.metrics().assert_lint();
}
