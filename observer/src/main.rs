//! The `observer` command: arguments become a configuration, and that runs.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser as _;
use observer::{
    agent,
    cli::{colours, diff, doctor, explain, requests, rows, table::Table, top},
    cluster,
    config::{
        Config,
        cli::{Cli, Command, RecordArgs, ReplayArgs},
    },
    recording::file::ReadError,
    replay::replay,
    slo,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("observer: {}", message(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each once: many a message quotes its cause already.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Agent(_) => agent::run(&configured(cli)?)?,
        Command::Cluster(_) => cluster::run(&configured(cli)?)?,
        Command::Record(args) => record(&configured(cli)?, args)?,
        Command::Replay(args) => show(&Config::load(cli)?, args)?,
        Command::Requests(args) => requests::run(args)?,
        Command::Explain(args) => explain::run(args)?,
        Command::Diff(args) => diff::run(args)?,
        Command::Logs(args) => rows::logs(args)?,
        Command::Events(args) => rows::events(args)?,
        Command::Top(args) => top::run(args)?,
        Command::Doctor(args) => {
            if !doctor::run(args, &Config::load(cli)?)? {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the configuration and starts logging by it, to standard error.
fn configured(cli: &Cli) -> Result<Config> {
    let config = Config::load(cli)?;
    // What goes wrong with the API server is said once by who asks; the client library says it every time, and
    // dumps whole answers.
    let targets = Targets::new()
        .with_default(config.log)
        .with_targets([("kube_client", LevelFilter::OFF), ("kube_runtime", LevelFilter::OFF)]);
    fmt()
        .with_max_level(config.log)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .finish()
        .with(targets)
        .init();
    Ok(config)
}

fn record(config: &Config, args: &RecordArgs) -> Result<()> {
    ensure!(
        !args.with_content || config.content.allow_recording,
        "--with-content would write prompts and completions into {}: set content.allow_recording = true first",
        args.file.display()
    );
    let records = agent::record(config, &args.file, args.with_content, args.duration)?;
    eprintln!("{records} records in {}", args.file.display());
    Ok(())
}

fn show(config: &Config, args: &ReplayArgs) -> Result<()> {
    let mut out = io::stdout().lock();
    let table = Table::new(colours(out.is_terminal()));
    if !args.json {
        writeln!(out, "{}", table.header())?;
    }
    let mut written = Ok(());
    let replayed = replay(&args.file, config.stall.nanos(), |mut record| {
        record.slo = slo::judge(&config.slo, &record);
        let line = if args.json { serde_json::to_string(&record) } else { Ok(table.row(&record)) };
        if written.is_ok() {
            written = line.map_err(io::Error::from).and_then(|line| writeln!(out, "{line}"));
        }
    });
    let replayed = replayed.map_err(|error| match error {
        ReadError::Io(cause) => anyhow!("{cause}; check the path"),
        error => error.into(),
    });
    replayed.with_context(|| format!("cannot replay {}", args.file.display()))?;
    match written {
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
