//! `cargo xtask bench`: what observing costs the observed. Each figure is a ratio of runs that alternate, with
//! the agent and without it, so that a machine whose speed drifts does not decide; the median of the pairs
//! counts.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::background::{Background, Stop, program};
use crate::command::{cargo, output, root, run as go, state};
use crate::engine::{Engine, MODEL, answers, get, port_is_free};
use crate::setup::{self, Environment, Need};
use crate::test::target;

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// What to measure; without any, all of it.
    #[arg(value_parser = ["loop", "event", "uvicorn", "engine", "core"])]
    only: Vec<String>,
    /// Pairs of runs for each figure.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
}

/// Where the agent listens meanwhile.
const AGENT: &str = "127.0.0.1:19842";

/// The engine's port.
const ENGINE_PORT: u16 = 18081;

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(&[Need::Bpf, Need::Python])?;
    ensure!(options.pairs > 0, "--pairs must be above 0");
    go(cargo().args([
        "build",
        "--release",
        "--quiet",
        "--package",
        "observer",
        "--package",
        "observer-tests",
    ]))?;
    let release = target()?.join("release");
    let folder = state().join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let bench = Bench { release, folder, pairs: options.pairs, stop: Stop::on_signals()? };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    if wanted("loop") {
        bench.unwatched_loop()?;
    }
    if wanted("event") {
        bench.captured_event()?;
    }
    if wanted("uvicorn") {
        bench.uvicorn()?;
    }
    if wanted("engine") {
        bench.engine()?;
    }
    if wanted("core") {
        go(&mut Command::new(bench.release.join("core-speed")))?;
    }
    Ok(())
}

struct Bench {
    release: PathBuf,
    folder: PathBuf,
    pairs: usize,
    stop: Stop,
}

impl Bench {
    fn costs(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.release.join("costs"));
        command.args(arguments);
        command
    }

    /// The agent, observing.
    fn agent(&self) -> Result<Background> {
        let mut command = program(self.release.join("observer"));
        command.args(["agent", "--listen", AGENT]);
        let mut agent = Background::start_logged("the agent", &mut command, &self.folder.join("agent.log"))?;
        let ready = format!("http://{AGENT}/readyz");
        self.stop
            .wait_until("the agent is ready", Duration::from_secs(30), &mut agent, || Ok(answers(&ready)))?;
        Ok(agent)
    }

    /// Runs `measure` with the agent and without it, in turn; pairs of (without, with).
    fn pairs(&self, mut measure: impl FnMut() -> Result<f64>) -> Result<Vec<(f64, f64)>> {
        let mut pairs = Vec::new();
        for _ in 0..self.pairs {
            self.stop.check()?;
            let without = measure()?;
            let agent = self.agent()?;
            let with = measure()?;
            must_have_captured()?;
            drop(agent);
            pairs.push((without, with));
        }
        Ok(pairs)
    }

    /// One-byte writes of a process that nobody watches: nothing, an empty pair of probes, the agent.
    fn unwatched_loop(&self) -> Result<()> {
        let measure = || number(&mut self.costs(&["loop", "2000000"]));
        let (mut to_empty, mut to_nothing) = (Vec::new(), Vec::new());
        let mut shown = (0.0, 0.0, 0.0);
        for _ in 0..self.pairs {
            self.stop.check()?;
            let nothing = measure()?;
            let pair = Piped::start(&mut self.costs(&["empty-pair"]))?;
            let empty = measure()?;
            drop(pair);
            let agent = self.agent()?;
            let observed = measure()?;
            drop(agent);
            to_empty.push(observed / empty);
            to_nothing.push(observed / nothing);
            shown = (nothing, empty, observed);
        }
        println!(
            "loop: one-byte write, unwatched: agent / empty pair {}, agent / nothing {} \
             (last: {:.1}, {:.1}, {:.1} ns: nothing, empty pair, agent)",
            spread(&mut to_empty),
            spread(&mut to_nothing),
            shown.0,
            shown.1,
            shown.2
        );
        Ok(())
    }

    /// Time that the kernel side takes for each event that is captured, by the kernel's own account, and what a
    /// server keeps of its rate that does nothing but send.
    fn captured_event(&self) -> Result<()> {
        const EVENTS: u64 = 100_000;
        let server = Piped::start(&mut self.costs(&["serve", &EVENTS.to_string()]))?;
        let port = server.first.clone();
        let body = r#"{"model":"m","stream":true}"#;
        let ask =
            |requests| number(&mut self.costs(&["drain", &port, "/v1/chat/completions", body, requests]));
        let drain = || ask("1");
        drain()?;
        let mut costs = Vec::new();
        for _ in 0..self.pairs {
            self.stop.check()?;
            let agent = self.agent()?;
            let account = Account::open()?;
            let before = program_time(agent.pid())?;
            drain()?;
            let after = program_time(agent.pid())?;
            drop(account);
            must_have_captured()?;
            costs.push((after - before) as f64 / EVENTS as f64);
        }
        println!("event: {} ns in the kernel side for each captured event", spread(&mut costs));
        let pairs = self.pairs(|| ask("5"))?;
        report("event: events per second of a server that does nothing but send, agent on / off", &pairs);
        Ok(())
    }

    /// Events per second of a real FastAPI server that sends as fast as it can, and the processor time that an
    /// event costs it: its rate when nothing else holds it up, whoever else runs on the machine.
    fn uvicorn(&self) -> Result<()> {
        let python = Environment::MAIN.ready()?.join("bin/python");
        let script = root().join("tests/python/scripted_server.py");
        let mut command = Command::new(python);
        let server = Piped::start(command.arg("-u").arg(script))?;
        let port = server.first.rsplit(':').next().unwrap_or_default().to_owned();
        let body =
            r#"{"model":"scripted","stream":true,"messages":[],"script":{"events":3000,"max_rate":true}}"#;
        let mut spent = Vec::new();
        let mut drain = || {
            let before = processor_time(server.child.id())?;
            let rate = number(&mut self.costs(&["drain", &port, "/v1/chat/completions", body, "10"]))?;
            spent.push((processor_time(server.child.id())? - before) as f64);
            Ok(rate)
        };
        drain()?;
        let pairs = self.pairs(&mut drain)?;
        report("uvicorn: events per second at its maximum rate, agent on / off", &pairs);
        let times = spent.get(1..).unwrap_or_default().chunks_exact(2);
        // Thirty thousand events each.
        let pairs: Vec<(f64, f64)> = times.map(|pair| (3e13 / pair[0], 3e13 / pair[1])).collect();
        report("uvicorn: events per second of its processor time, agent on / off", &pairs);
        Ok(())
    }

    /// Tokens per second of a real llama.cpp server.
    fn engine(&self) -> Result<()> {
        port_is_free(ENGINE_PORT).context("the engine needs it")?;
        let engine = Engine::start(ENGINE_PORT, &self.folder.join("engine.log"), &self.stop)?;
        let port = ENGINE_PORT.to_string();
        let body = format!(
            r#"{{"model":"{MODEL}","stream":true,"max_tokens":256,"ignore_eos":true,"temperature":0,"cache_prompt":true,"prompt":"Count:"}}"#
        );
        let drain = || number(&mut self.costs(&["drain", &port, "/v1/completions", &body, "1"]));
        drain()?;
        let pairs = self.pairs(drain)?;
        report("engine: llama.cpp's tokens per second, agent on / off", &pairs);
        drop(engine);
        Ok(())
    }
}

/// A figure is worth nothing if the agent did not see what it is about.
fn must_have_captured() -> Result<()> {
    // The agent's own counters are a second old at most.
    sleep(Duration::from_millis(1200));
    let metrics = get(&format!("http://{AGENT}/metrics"))?;
    let deliveries: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("llm_stream_deliveries_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    let dropped: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("observer_dropped_total{") && !line.ends_with(" 0"))
        .collect();
    ensure!(deliveries > 100.0, "the agent saw {deliveries} deliveries: nothing was measured");
    if !dropped.is_empty() {
        println!("  the agent dropped: {}", dropped.join(", "));
    }
    Ok(())
}

/// The kernel's account of time spent in eBPF programs, open until it is dropped.
struct Account(String);

impl Account {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    fn open() -> Result<Self> {
        let before = fs::read_to_string(Self::SWITCH).context(Self::SWITCH)?;
        fs::write(Self::SWITCH, "1").context(Self::SWITCH)?;
        Ok(Self(before))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::SWITCH, &self.0) {
            eprintln!("{} could not be set back to {}: {error}", Self::SWITCH, self.0.trim());
        }
    }
}

/// Nanoseconds that the kernel spent in the programs that a process holds.
fn program_time(pid: u32) -> Result<u64> {
    let mut total = 0;
    let folder = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
        // A descriptor may be gone by now.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        let time =
            info.lines().find_map(|line| line.strip_prefix("run_time_ns:")?.trim().parse::<u64>().ok());
        total += time.unwrap_or(0);
    }
    Ok(total)
}

/// Nanoseconds that a process's main thread spent on a processor.
fn processor_time(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    text.split(' ').next().unwrap_or_default().parse().with_context(|| format!("{path}: {text:?}"))
}

/// The ratio of each pair, and of the best run with and the best without: on a machine that is never quiet, the run
/// that was disturbed least.
fn report(what: &str, pairs: &[(f64, f64)]) {
    let mut ratios: Vec<f64> = pairs.iter().map(|(without, with)| with / without).collect();
    let best = |side: fn(&(f64, f64)) -> f64| pairs.iter().map(side).fold(0.0, f64::max);
    let (without, with) = (best(|pair| pair.0), best(|pair| pair.1));
    println!("{what} {}; best runs {:.3} ({with:.1} / {without:.1})", spread(&mut ratios), with / without);
}

/// Median, minimum and maximum.
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    format!("{:.3} ({:.3} to {:.3})", at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

/// The number that a command prints.
fn number(command: &mut Command) -> Result<f64> {
    let text = output(command)?;
    text.trim().parse().with_context(|| format!("{command:?} printed {text:?}"))
}

/// A program whose output is read line by line; dropped, it is ended.
struct Piped {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    first: String,
}

impl Piped {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("piped")?);
        let mut piped = Self { child, lines, first: String::new() };
        piped.first = piped.line().with_context(|| format!("{command:?}"))?;
        Ok(piped)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("it ended");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
