//! `cargo xtask lint`: format, clippy on both sides, the architecture's rules, dependencies.

mod names;
mod paths;
mod rooms;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::command::{cargo, command, output, quietly, root, run as go, state, succeeds};
use crate::setup::{self, Need, bpf_toolchain};

/// Options of `cargo xtask lint`.
#[derive(Args)]
pub(crate) struct Options {}

/// Runs the command.
pub(crate) fn run(_options: &Options) -> Result<()> {
    setup::ensure(&[Need::Bpf])?;
    all()
}

/// All lints; the rules of this project first, because they take no time.
pub(crate) fn all() -> Result<()> {
    let files = sources()?;
    let mut broken = names::check(&files)?;
    broken.extend(rooms::check(&files)?);
    if !broken.is_empty() {
        for rule in &broken {
            eprintln!("{rule}");
        }
        bail!("{} broken rules of the architecture", broken.len());
    }
    println!("lint: {} files keep the architecture's rules", files.len());

    go(cargo().args(["fmt", "--all", "--check"]))?;
    go(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    kernel_side()?;
    dependencies()
}

/// Licences, sources and advisories of what is linked in, where cargo-deny is installed.
fn dependencies() -> Result<()> {
    if !succeeds(cargo().args(["deny", "--version"])) {
        println!(
            "lint: cargo-deny is not installed: licences and advisories of dependencies are not checked"
        );
        return Ok(());
    }
    quietly(cargo().args(["deny", "--log-level", "error", "check", "licenses", "bans", "sources"]))?;
    // The advisories are fetched from the internet, which a build machine may not reach.
    match quietly(cargo().args(["deny", "--log-level", "error", "check", "advisories"])) {
        Err(why) if format!("{why:#}").contains("failed to fetch advisory database") => {
            println!("lint: the advisory database cannot be fetched: advisories are not checked");
            Ok(())
        }
        checked => checked,
    }
}

/// Clippy for the BPF target, by the compiler that builds it, where that compiler has one.
fn kernel_side() -> Result<()> {
    let Some(toolchain) = bpf_toolchain() else {
        println!("lint: no compiler for BPF: the kernel side is not linted for its own target");
        return Ok(());
    };
    let clippy = || {
        let mut clippy = command("rustup");
        clippy.args(["run", toolchain.name(), "cargo", "clippy"]);
        // This command runs inside cargo, whose choice of compiler must not reach another toolchain's.
        for inherited in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"] {
            clippy.env_remove(inherited);
        }
        clippy
    };
    if !succeeds(clippy().arg("--version")) {
        println!("lint: toolchain {} has no clippy: the kernel side is not linted", toolchain.name());
        return Ok(());
    }
    let mut linted = clippy();
    linted.args(["--quiet", "--package", "observer-ebpf", "--target", "bpfel-unknown-none", "--release"]);
    linted.arg("--target-dir").arg(state().join("clippy-bpf"));
    match toolchain.bootstrap() {
        Some(crates) => linted.env("RUSTC_BOOTSTRAP", crates),
        None => linted.args(["-Z", "build-std=core"]),
    };
    go(linted
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"")
        .args(["--", "-D", "warnings"]))
}

/// Every Rust file that belongs to the project, tracked or about to be, seen from its root.
fn sources() -> Result<Vec<PathBuf>> {
    let mut git = command("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.rs"]);
    let listed = output(&mut git)?;
    let files = listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(files.filter(|path| root().join(path).is_file()).collect())
}
