//! A real llama.cpp server with a small real model. In: a port; out: a server that answers there. A
//! `llama-server` on the PATH is preferred; without one, the same server runs inside a Python process.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::background::{Background, Stop, program};
use crate::command::{Moment, root, which};
use crate::setup::{Requirements, model, venv};

/// The model's name in the API.
pub(crate) const MODEL: &str = "smollm2";

/// Requests served at a time.
const SLOTS: u32 = 4;

/// Tokens of context for each of them.
const CONTEXT: u32 = 2048;

/// How long the model may take to load.
const LOADING: Duration = Duration::from_mins(1);

/// A running engine; dropped, it is ended.
pub(crate) struct Engine {
    /// Its process.
    pub(crate) process: Background,
    /// Where its API is, with `/v1` at the end.
    pub(crate) base_url: String,
}

impl Engine {
    /// Starts the engine on loopback and waits until its model is loaded.
    pub(crate) fn start(port: u16, log: &Path, stop: &Stop) -> Result<Self> {
        let model = model()?;
        let (port_text, slots) = (port.to_string(), SLOTS.to_string());
        // Half of the machine: the client, the agent and the rest need some of it.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / 2).max(1).to_string();

        let (mut command, how) = if let Some(server) = which("llama-server") {
            let how = format!("{}, from the PATH", server.display());
            let mut command = program(server);
            command.args(["--host", "127.0.0.1", "--metrics", "--parallel", &slots]);
            command.args(["--ctx-size", &(CONTEXT * SLOTS).to_string()]);
            (command, how)
        } else {
            let venv = venv(&[Requirements::TESTS, Requirements::DEMO])?;
            let mut command = program(venv.join("bin/python"));
            command.arg(root().join("xtask/demo/engine.py"));
            command.args(["--slots", &slots, "--context", &CONTEXT.to_string()]);
            (command, "llama.cpp's server in a Python process (xllamacpp)".to_owned())
        };
        command.arg("--model").arg(&model);
        command.args(["--alias", MODEL, "--port", &port_text, "--threads", &threads]);

        let begun = Moment::now();
        let mut process = Background::start_logged("the engine", &mut command, log)?;
        let health = format!("http://127.0.0.1:{port}/health");
        stop.wait_until("the engine's model is loaded", LOADING, &mut process, || Ok(answers(&health)))?;
        println!("demo: engine: {how}, ready in {:.1} s (pid {})", begun.ago().as_secs_f64(), process.pid());
        Ok(Self { process, base_url: format!("http://127.0.0.1:{port}/v1") })
    }
}

/// Fails if something listens there already.
pub(crate) fn port_is_free(port: u16) -> Result<()> {
    TcpListener::bind(("127.0.0.1", port))
        .map(drop)
        .with_context(|| format!("port {port} of 127.0.0.1 cannot be used; `ss -ltnp` shows who has it"))
}

/// Whether a GET of `url` is answered with 2xx.
pub(crate) fn answers(url: &str) -> bool {
    get(url).is_ok()
}

/// The body of a 2xx answer to a GET of `url`.
pub(crate) fn get(url: &str) -> Result<String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).proxy(None).build().into();
    let mut answer = agent.get(url).call().with_context(|| format!("GET {url}"))?;
    answer.body_mut().read_to_string().with_context(|| format!("GET {url}"))
}
