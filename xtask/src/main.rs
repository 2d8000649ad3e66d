//! The project's own commands: `cargo xtask <command>`.

mod background;
mod bench;
mod command;
mod demo;
mod dist;
mod engine;
mod lint;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Gets what the build needs; does nothing, quickly, when nothing is missing.
    Setup(setup::Options),
    /// Starts a real engine, observes it, sends it requests and shows what was seen.
    Demo(demo::Options),
    /// Runs a real engine with a small real model, in place of itself.
    Engine(engine::Options),
    /// What observing costs, as ratios measured side by side.
    Bench(bench::Options),
    /// The program as it is shipped, and its images.
    Dist(dist::Options),
    /// Format, lints, the rules of the architecture, dependencies.
    Lint(lint::Options),
    /// Everything that must hold: lints, tests, live kernel tests, the kernel matrix.
    Test(test::Options),
    /// Boots other kernels under emulation and tests the kernel side on them.
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(options) => setup::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Engine(options) => engine::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Lint(options) => lint::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Vm(options) => vm::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
