//! The scripted server and its own clock, against what the observer says.

use std::{collections::HashMap, fs, path::Path};

use observer::exchange::RequestRecord;
use serde_json::Value;
use tempfile::TempDir;

use crate::workload::{Workload, folder, venv};

/// A running scripted server (real `FastAPI` under real uvicorn).
pub struct Scripted {
    /// The process.
    pub server: Workload,
    /// Where it listens.
    pub port: String,
    folder: TempDir,
}

/// Send times of one stream by the server's own clock, and their sizes.
pub type Sends = Vec<(u64, u64)>;

impl Scripted {
    /// Starts the server.
    pub fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the server's log");
        let log = folder.path().join("server.jsonl");
        let log = log.to_str().expect("UTF-8 path");
        let (server, line) = Workload::venv_script("scripted_server.py", &[&["--log", log], args].concat());
        let port = line.rsplit(':').next().expect("port").to_owned();
        Self { server, port, folder }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs streams against it, and returns what the client saw of each by request id.
    pub fn load(&self, args: &[&str]) -> HashMap<String, Value> {
        self.load_at(&self.port, args)
    }

    /// Runs streams against what stands before it at a port.
    pub fn load_at(&self, port: &str, args: &[&str]) -> HashMap<String, Value> {
        let out = self.folder.path().join("client.jsonl");
        let status = std::process::Command::new(venv().join("bin/python"))
            .arg(folder("python").join("load.py"))
            .args(["--port", port, "--out"])
            .arg(&out)
            .args(args)
            .status()
            .expect("load.py");
        assert!(status.success(), "load.py ended with {status}");
        by_request(&out).into_iter().map(|(id, mut lines)| (id, lines.remove(0))).collect()
    }

    /// The server's own clock: sends by request id.
    pub fn sends(&self) -> HashMap<String, Sends> {
        by_request(&self.folder.path().join("server.jsonl"))
            .into_iter()
            .map(|(id, lines)| {
                let field = |line: &Value, name: &str| line[name].as_u64().expect("a number");
                (id, lines.iter().map(|line| (field(line, "ns"), field(line, "bytes"))).collect())
            })
            .collect()
    }
}

/// Lines of JSON by the request id in them.
pub fn by_request(path: &Path) -> HashMap<String, Vec<Value>> {
    let mut requests: HashMap<String, Vec<Value>> = HashMap::new();
    for line in fs::read_to_string(path).expect("lines of JSON").lines() {
        let value: Value = serde_json::from_str(line).expect("JSON");
        if let Some(id) = value["request_id"].as_str() {
            requests.entry(id.to_owned()).or_default().push(value);
        }
    }
    requests
}

/// Records by the request id that the client sent.
pub fn by_id(records: &[RequestRecord]) -> HashMap<&str, &RequestRecord> {
    records.iter().filter_map(|record| Some((record.request_id.as_deref()?, record))).collect()
}

/// The value at a quantile, nearest rank.
pub fn quantile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (quantile * values.len() as f64).ceil().max(1.0) as usize - 1;
    values[rank]
}
