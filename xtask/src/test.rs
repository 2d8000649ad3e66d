//! `cargo xtask test`: everything that must hold. Lints, tests of all packages, live kernel tests among them,
//! and the kernel matrix. It tells how many tests ran and how long it took.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::command::{Moment, cargo, output, run as go, shown, succeeds};
use crate::setup::{self, Environment, Need};
use crate::{engine, lint, vm};

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Leaves out the tests that load probes into this kernel: test programs named `live_*`.
    #[arg(long)]
    no_live: bool,
    /// Leaves out the other kernels.
    #[arg(long)]
    no_vm: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let begun = Moment::now();
    ensure!(
        options.no_live || rustix::process::geteuid().is_root(),
        "the live tests load probes, which takes root: run as root, or pass --no-live"
    );
    let live = !options.no_live;
    let mut needs = vec![Need::Bpf, Need::Promtool, Need::Systemd, Need::Journal, Need::Python];
    needs.extend(live.then_some([Need::Buildah, Need::Runc]).into_iter().flatten());
    needs.extend((!options.no_vm).then_some(Need::Qemu));
    setup::ensure(&needs)?;
    lint::all()?;

    // Tests that start the program need it built before they begin.
    go(cargo().args(["build", "--quiet", "--package", "observer"]))?;
    let tests = host(live)?;
    ensure!(tests > 0, "no test ran");
    let boots = if options.no_vm { 0 } else { vm::matrix()? };

    let took = begun.ago().as_secs();
    let left_out = match (options.no_live, options.no_vm) {
        (false, false) => "",
        (true, false) => "; live tests left out",
        (false, true) => "; other kernels left out",
        (true, true) => "; live tests and other kernels left out",
    };
    println!(
        "test: {tests} tests and {boots} boots of other kernels passed in {} min {} s{left_out}",
        took / 60,
        took % 60
    );
    Ok(())
}

/// All tests on this machine; how many passed.
fn host(live: bool) -> Result<usize> {
    let nextest = succeeds(cargo().args(["nextest", "--version"]));
    let mut runs = Vec::new();
    if nextest {
        let mut tests = cargo();
        tests.args(["nextest", "run", "--workspace", "--color", "never"]);
        if !live {
            tests.args(["--filter-expr", "not binary(/^live_/)"]);
        }
        // nextest runs no examples in documentation.
        let mut examples = cargo();
        examples.args(["test", "--workspace", "--doc", "--quiet"]);
        runs.extend([tests, examples]);
    } else {
        println!("test: cargo-nextest is not installed, cargo test takes its place");
        let mut tests = cargo();
        tests.args(["test", "--workspace", "--no-fail-fast"]);
        runs.push(tests);
    }
    let venv = environments(live)?;
    let mut passed = 0;
    for command in &mut runs {
        command.env("OBSERVER_BIN", target()?.join("debug/observer"));
        command.env("OBSERVER_VENV", &venv).env("OBSERVER_XTASK", std::env::current_exe()?);
        if !live {
            // For a runner that cannot leave them out.
            command.env("OBSERVER_LIVE", "0");
        }
        passed += counted(command)?;
    }
    Ok(passed)
}

/// What tests start: the folder of the main virtual environment, and others beside it. A test for which there is none
/// fails in CI and says elsewhere what it lacks. Without `live` only what other tests need.
pub(crate) fn environments(live: bool) -> Result<PathBuf> {
    let ready = |one: Environment| one.ready().map(drop);
    let mut others = vec![("what renders deploy/", ready(Environment::DEPLOY))];
    if live {
        Environment::MAIN.ready()?;
        setup::model()?;
        others.extend([
            ("AIPerf", ready(Environment::AIPERF)),
            ("LiteLLM", ready(Environment::LITELLM)),
            ("OTLP receivers", ready(Environment::OTLP)),
            ("fastllm", engine::requantized().map(drop)),
        ]);
    }
    for (name, done) in others {
        if let Err(why) = done {
            eprintln!("setup: missing {name}: {why:#}");
        }
    }
    Ok(Environment::MAIN.folder())
}

/// Runs a test command, passes its output on and counts the tests that passed.
fn counted(command: &mut Command) -> Result<usize> {
    // Both outputs through one pipe, in their order.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let line = shown(command);
    let both = writer.try_clone().context("cannot write one pipe from two ends")?;
    let mut child = command
        .stdout(writer)
        .stderr(both)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start: {line}"))?;
    // The command keeps the pipe's other end open for as long as it lives.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut passed = 0;
    for text in BufReader::new(reader).lines() {
        let text = text.with_context(|| format!("output is not UTF-8: {line}"))?;
        println!("{text}");
        passed += passed_in(&text).unwrap_or(0);
    }
    let status = child.wait()?;
    ensure!(status.success(), "{status}: {line}");
    Ok(passed)
}

/// The number of passed tests in a summary line, of nextest or of the standard test harness.
fn passed_in(line: &str) -> Option<usize> {
    let line = line.trim_start();
    let summary = line.strip_prefix("test result: ").or_else(|| line.strip_prefix("Summary "))?;
    let before = summary.split(" passed").next()?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(Path::new(target).to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::passed_in;

    #[test]
    fn summaries_are_counted_once() {
        assert_eq!(
            passed_in("     Summary [   0.012s] 12 tests run: 11 passed, 1 failed, 3 skipped"),
            Some(11)
        );
        assert_eq!(
            passed_in("     Summary [   0.012s] 12 tests run: 12 passed (1 slow), 3 skipped"),
            Some(12)
        );
        assert_eq!(passed_in("test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured"), Some(7));
        assert_eq!(passed_in("        PASS [   0.004s] xtask test::tests::a_summary"), None);
        assert_eq!(passed_in("running 7 tests"), None);
    }
}
