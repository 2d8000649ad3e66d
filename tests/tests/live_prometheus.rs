//! What becomes of the workload labels in a real Prometheus, by how it scrapes.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use observer_tests::{
    agent::wait_for,
    client::{Client, chat},
    live::privileged,
    node::{Cluster, Place},
    workload::{Workload, quiet},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A Prometheus of its own, which ends with the value.
struct Prometheus {
    child: Child,
    port: u16,
    _folder: TempDir,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

impl Prometheus {
    /// `jobs` are scrape configurations; a PodMonitor adds the labels of the scraped pod, as all of them do here.
    fn start(jobs: &[(&str, bool, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs: Vec<Value> = jobs
            .iter()
            .map(|(job, honor, address)| {
                let labels =
                    json!({"namespace": "observer", "pod": "observer-agent-x", "container": "agent"});
                let targets = json!([{"targets": [address], "labels": labels}]);
                json!({"job_name": job, "honor_labels": honor, "static_configs": targets})
            })
            .collect();
        // JSON is YAML.
        let config = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs});
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("its configuration");
        let port = free_port();
        let log = fs::File::create(folder.path().join("log")).expect("its log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus: `cargo xtask setup` installs it");
        Self { child, port, _folder: folder }
    }

    /// The labels and values of a query's answer; none while it does not answer yet.
    fn query(&self, query: &str) -> Vec<(Value, String)> {
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        let Ok(mut answer) = ureq::get(url).query("query", query).call() else { return Vec::new() };
        let text = answer.body_mut().read_to_string().expect("text");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let samples = answer["data"]["result"].as_array().expect("a vector").iter();
        let value = |sample: &Value| sample["value"][1].as_str().expect("a value").to_owned();
        samples.map(|sample| (sample["metric"].clone(), value(sample))).collect()
    }

    /// The one sample of a query's answer, once there is one.
    fn sample(&self, query: &str) -> (Value, String) {
        wait_for(query, || {
            quiet(Duration::from_millis(200));
            let mut samples = self.query(query);
            assert!(samples.len() < 2, "{query}: {samples:?}");
            samples.pop()
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves what kube-state-metrics says of pods; ends with the test's process.
fn kube_state_metrics(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let _request = stream.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                text.len()
            );
            let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
        }
    });
    address
}

#[test]
fn workload_labels_survive_or_are_spelt_so_that_they_do() {
    if !privileged() {
        return;
    }
    let (cluster, place) = (Cluster::start(), Place::new(7));
    cluster.api.put(place.pod("llama-0", &json!({})));
    let (plain, otel) = (cluster.agent(&[]), cluster.agent(&["metrics.labels=otel"]));
    let (_container, port) = place.server(&place.systemd());
    let (_outside, outside) = Workload::script("openai_server.py", &["--events", "6", "--gap", "0.02"]);
    quiet(Duration::from_millis(1500));
    for port in [&port, &port, &outside] {
        Client::connect(port).stream("x", &chat("m", true, 6));
    }
    let state = kube_state_metrics(
        "# TYPE kube_pod_info gauge\n\
         kube_pod_info{namespace=\"ml\",pod=\"llama-0\",uid=\"u\",node=\"node-a\",host_ip=\"10.0.0.1\"} 1\n",
    );
    let prometheus = Prometheus::start(&[
        ("honored", true, &plain.address),
        ("overridden", false, &plain.address),
        ("otel", false, &otel.address),
        ("kube-state-metrics", true, &state),
    ]);
    let requests = |labels: &str| {
        let (metric, value) =
            prometheus.sample(&format!("llm_requests_total{{outcome=\"ok\",{labels}}} > 0"));
        let label = |name: &str| metric[name].as_str().map(str::to_owned);
        (value, ["namespace", "pod", "container"].map(label))
    };
    let named = |labels: [&str; 3]| labels.map(|label| Some(label.to_owned()));
    let own = named(["observer", "observer-agent-x", "agent"]);

    assert_eq!(requests("job='honored',pod!=''"), ("2".to_owned(), named(["ml", "llama-0", "server"])));
    // Outside of Kubernetes the labels are empty, and not those of whoever was scraped.
    let outside = requests("job='honored',pod=''");
    assert_eq!(outside, ("1".to_owned(), [None, None, Some("python3".to_owned())]));
    // Without honorLabels they are those of the agent's own pod, which is why the PodMonitor sets it …
    assert_eq!(requests("job='overridden',exported_pod='llama-0'"), ("2".to_owned(), own.clone()));
    // … and those who cannot have another spelling.
    let otel_labels = "job='otel',k8s_namespace_name='ml',k8s_pod_name='llama-0',k8s_container_name='server'";
    assert_eq!(requests(otel_labels), ("2".to_owned(), own.clone()));

    let joined = prometheus.sample(
        "sum by (node, namespace, pod) (llm_requests_total{job='honored'} * on (namespace, pod) group_left (node) \
         kube_pod_info)",
    );
    assert_eq!(joined, (json!({"namespace": "ml", "pod": "llama-0", "node": "node-a"}), "2".to_owned()));
    let managed = prometheus.sample(
        "sum by (workload_kind, workload) (llm_requests_total{job='honored'} * on (namespace, pod) \
         group_left (workload_kind, workload) max without (container) (llm_pod_info{job='honored'}))",
    );
    assert_eq!(managed, (json!({"workload_kind": "Deployment", "workload": "llama"}), "2".to_owned()));
    // What the agent says of itself is about its own pod, however it is scraped.
    let (metric, _) = prometheus.sample("observer_build_info{job='honored'}");
    assert_eq!(metric["pod"], json!("observer-agent-x"), "{metric}");
}
