//! Real engines with a small real model, and what real clients saw of them.

use std::{collections::BTreeMap, net::TcpListener, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    agent::wait_for,
    workload::{Workload, folder, venv},
};

/// The model's name in their APIs.
pub const MODEL: &str = "smollm2";

/// A running engine.
pub struct Engine {
    /// Its process.
    pub process: Workload,
    /// Where it answers, without `/v1`.
    pub url: String,
}

/// A port that nobody listens at.
pub fn free_port() -> u16 {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    taken.local_addr().expect("an address").port()
}

impl Engine {
    /// Starts `llama.cpp` or `fastllm` as `cargo xtask engine` does, and waits until its model is loaded.
    pub fn start(kind: &str) -> Self {
        let built = folder("../target/debug/xtask");
        let xtask = std::env::var_os("OBSERVER_XTASK").map_or(built, PathBuf::from);
        let port = free_port();
        let mut command = Command::new(xtask);
        command.args(["engine", kind, "--port", &port.to_string()]);
        let (process, _) = Workload::start(command);
        let url = format!("http://127.0.0.1:{port}");
        wait_for("the engine's model", || ureq::get(format!("{url}/v1/models")).call().ok());
        Self { process, url }
    }
}

/// What a client library saw of requests to an engine: `tests/python/clients.py`.
///
/// A request to llama.cpp has a connection of its own: on a kept one it and these libraries sometimes disagree where a
/// stream has ended, and the next request comes to a closed connection.
pub fn drive(url: &str, model: &str, library: &str, prefix: &str, kinds: &str, is_fresh: bool) -> Vec<Value> {
    let mut command = Command::new(venv().join("bin/python"));
    command.arg(folder("python").join("clients.py")).arg(library);
    command.args(["--url", url, "--model", model, "--prefix", prefix, "--kinds", kinds]);
    command.args(is_fresh.then_some("--fresh"));
    let output = command.stderr(std::process::Stdio::inherit()).output().expect("clients.py");
    assert!(output.status.success(), "{library}: {}", output.status);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// One number of the client's beside the observer's, milliseconds, by what they are of.
#[derive(Default)]
pub struct Beside(BTreeMap<String, Vec<(f64, f64)>>);

impl Beside {
    /// Adds a pair: the client's and the observer's, seconds.
    pub fn add(&mut self, what: &str, client: f64, observer: f64) {
        self.0.entry(what.to_owned()).or_default().push((client * 1e3, observer * 1e3));
    }

    /// Prints a table of medians, and returns those of the client's and of the differences, milliseconds.
    pub fn print(&self) -> BTreeMap<&str, (f64, f64)> {
        println!("{:<40} {:>4} {:>10} {:>10} {:>11}", "median, ms", "n", "client", "observer", "difference");
        let median = |values: &mut dyn Iterator<Item = f64>| {
            let mut values: Vec<f64> = values.collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let line = |(what, pairs): (&'_ String, &Vec<(f64, f64)>)| {
            let client = median(&mut pairs.iter().map(|pair| pair.0));
            let observer = median(&mut pairs.iter().map(|pair| pair.1));
            let difference = median(&mut pairs.iter().map(|pair| pair.0 - pair.1));
            println!("{what:<40} {:>4} {client:>10.2} {observer:>10.2} {difference:>11.2}", pairs.len());
            (client, difference)
        };
        self.0.iter().map(|entry| (entry.0.as_str(), line(entry))).collect()
    }
}
