//! A real Prometheus, and what it scrapes beside agents.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{agent::wait_for, engine::free_port, workload::quiet};

/// A Prometheus of its own, which ends with the value.
pub struct Prometheus {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Prometheus {
    /// `jobs` are scrape configurations; a PodMonitor adds the labels of the scraped pod, as all of them do here.
    pub fn start(jobs: &[(&str, bool, &str)]) -> Self {
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
    pub fn query(&self, query: &str) -> Vec<(Value, String)> {
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        let Ok(mut answer) = ureq::get(url).query("query", query).call() else { return Vec::new() };
        let text = answer.body_mut().read_to_string().expect("text");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let samples = answer["data"]["result"].as_array().expect("a vector").iter();
        let value = |sample: &Value| sample["value"][1].as_str().expect("a value").to_owned();
        samples.map(|sample| (sample["metric"].clone(), value(sample))).collect()
    }

    /// The one sample of a query's answer, once there is one.
    pub fn sample(&self, query: &str) -> (Value, String) {
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

/// Serves what `text` says at each scrape; ends with the test's process. Its address.
pub fn exposition(text: impl Fn() -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let _request = stream.read(&mut [0; 4096]);
            let text = text();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                text.len()
            );
            let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
        }
    });
    address
}
