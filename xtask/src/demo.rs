//! `cargo xtask demo`: a real engine, a real client and the observer between them that neither knows of.

mod compare;
mod table;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::background::{Background, Stop, program};
use crate::command::{Moment, cargo, root, run as go, shown, state, which};
use crate::engine::{Engine, MODEL, answers, get, port_is_free};
use crate::setup::{self, Environment, Need};
use crate::test::target;
use compare::Compared;

/// Where the agent listens.
const AGENT: &str = "127.0.0.1:9842";

/// The agent's port.
const AGENT_PORT: u16 = 9842;

/// The fixed run: two of three requests stream.
const REQUESTS: usize = 24;

/// Of those, at most this many at a time.
const CONCURRENCY: usize = 4;

/// How long the agent may take to load its probes.
const ATTACHING: Duration = Duration::from_secs(30);

/// How long the last record may take to appear.
const SETTLING: Duration = Duration::from_secs(10);

/// How long the fixed run may take.
const LOAD_LIMIT: Duration = Duration::from_mins(5);

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// A fixed run of 24 requests, checked against what the client saw: fails if one was missed.
    #[arg(long)]
    once: bool,
    /// Leaves the load to you.
    #[arg(long, conflicts_with = "once")]
    no_load: bool,
    /// The engine's port on 127.0.0.1.
    #[arg(long, default_value_t = 18080)]
    port: u16,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut needs = vec![Need::Bpf, Need::Python];
    needs.extend(options.once.then_some(Need::Promtool));
    setup::ensure(&needs)?;
    ensure!(
        setup::bpf_toolchain().is_some(),
        "the demo needs the kernel side, and nothing here can compile it: see what setup said"
    );
    go(cargo().args(["build", "--release", "--quiet", "--package", "observer"]))?;
    let stop = Stop::on_signals()?;
    let demo = Demo { observer: target()?.join("release/observer"), folder: state().join("demo") };
    fs::create_dir_all(&demo.folder).with_context(|| demo.folder.display().to_string())?;

    port_is_free(AGENT_PORT).context("the agent needs it")?;
    port_is_free(options.port).context("the engine needs it; --port chooses another")?;
    let mut engine = Engine::start(options.port, &demo.folder.join("engine.log"), &stop)?;
    let mut agent = demo.agent(&stop)?;
    let done = if options.once {
        demo.once(&mut engine, &mut agent, &stop)
    } else {
        demo.until_interrupted(&mut engine, &mut agent, options, &stop)
    };
    // The agent first: it shows that probes go away under a running engine.
    drop(agent);
    drop(engine);
    done
}

/// What the parts of the demo share.
struct Demo {
    observer: PathBuf,
    folder: PathBuf,
}

impl Demo {
    fn agent(&self, stop: &Stop) -> Result<Background> {
        let begun = Moment::now();
        let log = self.folder.join("agent.log");
        let mut command = program(&self.observer);
        let mut agent =
            Background::start_logged("the agent", command.args(["agent", "--listen", AGENT]), &log)?;
        let ready = format!("http://{AGENT}/readyz");
        stop.wait_until("the agent is ready", ATTACHING, &mut agent, || Ok(answers(&ready)))?;
        println!("demo: agent: observing in {:.1} s (pid {})", begun.ago().as_secs_f64(), agent.pid());
        println!("demo: metrics: http://{AGENT}/metrics");
        Ok(agent)
    }

    /// Requests and their records, until Ctrl-C.
    fn until_interrupted(
        &self,
        engine: &mut Engine,
        agent: &mut Background,
        options: &Options,
        stop: &Stop,
    ) -> Result<()> {
        let mut table = Background::start("observer requests", program(&self.observer).arg("requests"))?;
        let mut load = None;
        if options.no_load {
            println!("demo: the API is at {}; for one stream:", engine.base_url);
            println!(
                "  curl -N {}/chat/completions -H 'content-type: application/json' -d \
                 '{{\"model\":\"{MODEL}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'",
                engine.base_url
            );
        } else {
            let mut command = load_of(engine, "demo")?;
            command.args(["--concurrency", "3", "--pause", "0.5"]);
            load = Some(Background::start_logged("the load", &mut command, &self.folder.join("load.log"))?);
        }
        println!("demo: Ctrl-C ends it");
        while !stop.told() {
            for process in [&mut engine.process, agent, &mut table].into_iter().chain(load.as_mut()) {
                if let Err(ended) = process.must_run() {
                    // Ctrl-C may have come in between.
                    return if stop.told() { Ok(()) } else { Err(ended) };
                }
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The fixed run and its check.
    fn once(&self, engine: &mut Engine, agent: &mut Background, stop: &Stop) -> Result<()> {
        let records = self.folder.join("records.jsonl");
        let mut requests = program(&self.observer);
        requests.args(["requests", "--json"]).stdin(Stdio::null()).stdout(
            fs::File::create(&records).with_context(|| format!("cannot write {}", records.display()))?,
        );
        let mut requests = Background::start("observer requests", &mut requests)?;
        self.until_records_flow(engine, &mut requests, &records, stop)?;

        // Each run has its own names, so that a record of an earlier one is never taken for one of this.
        let prefix = format!("demo-{}", std::process::id());
        let client = self.folder.join("client.jsonl");
        // An earlier run's lines must not count as this one's.
        fs::write(&client, []).with_context(|| format!("cannot write {}", client.display()))?;
        let mut load = load_of(engine, &prefix)?;
        load.args(["--requests", &REQUESTS.to_string(), "--concurrency", &CONCURRENCY.to_string()]);
        load.arg("--out").arg(&client);
        let mut load = Background::start_logged("the load", &mut load, &self.folder.join("load.log"))?;
        let checked = self.metrics_while_loaded(&client, &mut load, stop);
        load.wait(stop, LOAD_LIMIT)?;
        let metrics = checked?;

        let sent = json_lines(&client)?;
        let seen = |record: &Value| record["request_id"].as_str().is_some_and(|id| id.starts_with(&prefix));
        let begun = Moment::now();
        let mut found = Vec::new();
        while found.len() < sent.len() && begun.ago() < SETTLING {
            stop.check()?;
            agent.must_run()?;
            requests.must_run()?;
            sleep(Duration::from_millis(100));
            found = json_lines(&records)?;
            found.retain(seen);
        }
        let compared = Compared::of(&sent, &found);
        print!("{}", table::drawn(&compared));
        println!("{}", compared.summary());
        println!("/metrics: {metrics}");
        compared.verdict(REQUESTS)
    }

    /// Sends single requests until one of them comes back as a record: then nothing after it can be missed
    /// because somebody listened too late.
    fn until_records_flow(
        &self,
        engine: &mut Engine,
        requests: &mut Background,
        records: &Path,
        stop: &Stop,
    ) -> Result<()> {
        for attempt in 0..10 {
            let mut load = load_of(engine, &format!("warm-up-{attempt}"))?;
            load.args(["--requests", "1", "--concurrency", "1"]);
            let log = self.folder.join("warm-up.log");
            let mut load = Background::start_logged("the first request", &mut load, &log)?;
            load.wait(stop, Duration::from_mins(1))?;
            let begun = Moment::now();
            while begun.ago() < Duration::from_secs(1) {
                requests.must_run()?;
                if !json_lines(records)?.is_empty() {
                    return Ok(());
                }
                stop.check()?;
                sleep(Duration::from_millis(50));
            }
        }
        bail!(
            "ten requests were answered and the observer reported none of them; its log: {}/agent.log",
            self.folder.display()
        )
    }

    /// Has promtool judge what /metrics says in the middle of the run.
    fn metrics_while_loaded(&self, client: &Path, load: &mut Background, stop: &Stop) -> Result<String> {
        let half = |client: &Path| Ok(client.exists() && json_lines(client)?.len() >= REQUESTS / 2);
        stop.wait_until("half of the requests are answered", LOAD_LIMIT, load, || half(client))?;
        let text = get(&format!("http://{AGENT}/metrics"))?;
        fs::write(self.folder.join("metrics.txt"), &text).context("cannot keep the metrics")?;
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        let Some(promtool) = which("promtool") else {
            return Ok(format!("{samples} samples, not checked: there is no promtool here"));
        };
        let mut check = crate::command::command(promtool);
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = check.spawn().with_context(|| format!("cannot start: {}", shown(&check)))?;
        child.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}: {}: {}",
            output.status,
            shown(&check),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(format!("{samples} samples, promtool finds nothing wrong"))
    }
}

/// The client; the caller says how much it is to send.
fn load_of(engine: &Engine, prefix: &str) -> Result<Command> {
    let venv = Environment::MAIN.ready()?;
    let mut load = program(venv.join("bin/python"));
    load.arg(root().join("xtask/demo/load.py"));
    load.args(["--base-url", &engine.base_url, "--model", MODEL, "--prefix", prefix]);
    Ok(load)
}

/// The JSON objects of a file, one a line; a last line that is still being written is left for later.
fn json_lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("{}: not JSON: {line}", path.display()))
        })
        .collect()
}
