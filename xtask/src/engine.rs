//! Real engines with a small real model. In: a port; out: a server that answers there. `cargo xtask engine` runs
//! one in its own place, which is how tests start them.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::background::{Background, Stop, program};
use crate::command::{Moment, command, quietly, root, shown, state, which};
use crate::setup::{Environment, model};

/// The model's name in the API.
pub(crate) const MODEL: &str = "smollm2";

/// Requests served at a time.
const SLOTS: u32 = 4;

/// Tokens of context for each of them.
const CONTEXT: u32 = 2048;

/// How long the model may take to load.
const LOADING: Duration = Duration::from_mins(1);

/// Options of `cargo xtask engine`.
#[derive(Args)]
pub(crate) struct Options {
    /// Which one.
    kind: Kind,
    /// Its port on 127.0.0.1.
    #[arg(long)]
    port: u16,
}

/// Engines that run on a small machine.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// llama.cpp: a C++ server. A `llama-server` on the PATH is preferred; without one, the same server runs
    /// inside a Python process.
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// fastllm: a C++ engine behind FastAPI and uvicorn, as vLLM and SGLang serve.
    Fastllm,
}

impl Kind {
    /// Its command line and, in words, where it comes from.
    fn command(self, port: u16, start: fn(&Path) -> Command) -> Result<(Command, String)> {
        let port = port.to_string();
        // Half of the machine: the client, the agent and the rest need some of it.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / 2).max(1).to_string();
        match self {
            Self::LlamaCpp => {
                let slots = SLOTS.to_string();
                let (mut command, how) = if let Some(server) = which("llama-server") {
                    let how = format!("{}, from the PATH", server.display());
                    let mut command = start(&server);
                    command.args(["--host", "127.0.0.1", "--metrics", "--parallel", &slots]);
                    command.args(["--ctx-size", &(CONTEXT * SLOTS).to_string()]);
                    (command, how)
                } else {
                    let mut command = start(&Environment::MAIN.ready()?.join("bin/python"));
                    command.arg(root().join("xtask/demo/engine.py"));
                    command.args(["--slots", &slots, "--context", &CONTEXT.to_string()]);
                    (command, "llama.cpp's server in a Python process (xllamacpp)".to_owned())
                };
                command.arg("--model").arg(model()?);
                command.args(["--alias", MODEL, "--port", &port, "--threads", &threads]);
                Ok((command, how))
            }
            Self::Fastllm => {
                let model = requantized()?;
                let mut command = start(&Environment::FASTLLM.ready()?.join("bin/python"));
                command.args(["-m", "ftllm.cli", "server"]).arg(model);
                command.args(["--host", "127.0.0.1", "--port", &port, "--model_name", MODEL]);
                command.args(["--device", "cpu", "--threads", &threads]);
                Ok((command, "fastllm".to_owned()))
            }
        }
    }
}

/// The model in a quantization that fastllm knows.
pub(crate) fn requantized() -> Result<PathBuf> {
    let (model, venv) = (model()?, Environment::FASTLLM.ready()?);
    let file = state().join("model/fastllm.gguf");
    if !file.exists() {
        let mut convert = command(venv.join("bin/python"));
        quietly(convert.arg(root().join("xtask/demo/requantize.py")).arg(model).arg(&file))?;
    }
    Ok(file)
}

/// Runs the command: the engine takes this process's place.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start: fn(&Path) -> Command = |path| command(path);
    let (mut engine, _) = options.kind.command(options.port, start)?;
    let why = engine.exec();
    Err(why).with_context(|| format!("cannot start: {}", shown(&engine)))
}

/// A running llama.cpp; dropped, it is ended.
pub(crate) struct Engine {
    /// Its process.
    pub(crate) process: Background,
    /// Where its API is, with `/v1` at the end.
    pub(crate) base_url: String,
}

impl Engine {
    /// Starts the engine on loopback and waits until its model is loaded.
    pub(crate) fn start(port: u16, log: &Path, stop: &Stop) -> Result<Self> {
        let (mut command, how) = Kind::LlamaCpp.command(port, |path| program(path))?;
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
