//! A compiler and a linker for the kernel side. Two ways, the first that works: rustup's nightly with
//! `rust-src`, or Debian's compiler with a prebuilt `core` for BPF.

#[path = "../../../observer/build/toolchain.rs"]
mod toolchain;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::command::{Moment, command, output, quietly, shown, state, succeeds, which};
pub(crate) use toolchain::BpfToolchain;
use toolchain::{core_of, detect};

/// The linker's version; older ones do not know the LLVM of today's compilers.
const BPF_LINKER: &str = "0.13.0";

/// The versions of LLVM that it can be built with.
const LINKER_LLVM: [u32; 3] = [21, 22, 23];

/// How long rustup may try to fetch a component.
const COMPONENT_LIMIT: Duration = Duration::from_secs(30);

/// For how long a failure to fetch it is remembered.
const COMPONENT_RETRY: Duration = Duration::from_hours(24);

/// The toolchain that compiles the kernel side, if there is one.
pub(crate) fn usable() -> Option<BpfToolchain> {
    detect().ok()
}

/// Finds such a toolchain, or makes one; says which.
pub(crate) fn ensure() -> Result<&'static str> {
    if let Ok(toolchain) = detect() {
        return Ok(words(toolchain));
    }
    let toolchain = compiler()?;
    linker(toolchain)?;
    match detect() {
        Ok(toolchain) => Ok(words(toolchain)),
        Err(lacking) => bail!("still missing after installation: {}", lacking.what.join("; ")),
    }
}

const fn words(toolchain: BpfToolchain) -> &'static str {
    match toolchain {
        BpfToolchain::Nightly => "rustup's nightly and its rust-src",
        BpfToolchain::DebianWeb => "Debian's rustc-web and its prebuilt core",
    }
}

fn compiler() -> Result<BpfToolchain> {
    let Err(nightly) = core_of(BpfToolchain::Nightly) else { return Ok(BpfToolchain::Nightly) };
    let mut why = vec![nightly.what];
    // The file is known only where the toolchain exists.
    if nightly.file.is_some() {
        match add_rust_src() {
            Ok(()) => return Ok(BpfToolchain::Nightly),
            Err(error) => why.push(format!("{error:#}")),
        }
    }
    if core_of(BpfToolchain::DebianWeb).is_ok() {
        return Ok(BpfToolchain::DebianWeb);
    }
    match debian_web() {
        Ok(()) => Ok(BpfToolchain::DebianWeb),
        Err(error) => bail!(
            "{}; {error:#}. With access to static.rust-lang.org, run: \
             rustup toolchain install nightly --component rust-src",
            why.join("; ")
        ),
    }
}

/// Asks rustup for the sources of `core`. It may hang or fail where there is no internet: it gets half a
/// minute, and a failure is not tried again for a day.
fn add_rust_src() -> Result<()> {
    let stamp = state().join("no-rust-src");
    let age = fs::metadata(&stamp).and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
    if age.is_some_and(|age| age < COMPONENT_RETRY) {
        bail!("rustup could not fetch rust-src within the last day ({} remembers)", stamp.display());
    }
    let mut adding = command("rustup");
    adding.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
    let done = within(&mut adding, COMPONENT_LIMIT);
    if done.is_err() {
        fs::write(&stamp, shown(&adding)).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    done
}

fn within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start: {}", shown(command)))?;
    let begun = Moment::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("{status}: {}", shown(command)),
            None if begun.ago() >= limit => {
                child.kill()?;
                child.wait()?;
                bail!("not done within {limit:?}: {}", shown(command));
            }
            None => sleep(Duration::from_millis(20)),
        }
    }
}

/// Debian's compiler, under a name that rustup knows.
fn debian_web() -> Result<()> {
    apt::install(&["rustc-web", "libstd-rust-web-dev-bpf"])?;
    // It lints the kernel side with the same compiler; where it is not packaged, nothing else suffers.
    if apt::known("rust-web-clippy") {
        apt::install(&["rust-web-clippy"])?;
    }
    quietly(command("rustup").args(["toolchain", "link", BpfToolchain::DebianWeb.name(), "/usr"]))
}

/// The linker, built against the LLVM that the compiler speaks.
fn linker(toolchain: BpfToolchain) -> Result<()> {
    if which("bpf-linker").is_some() {
        return Ok(());
    }
    let llvm = llvm_of(toolchain)?;
    if !LINKER_LLVM.contains(&llvm) {
        bail!(
            "toolchain {} has LLVM {llvm}, bpf-linker {BPF_LINKER} knows {LINKER_LLVM:?}; \
             install a bpf-linker that knows it",
            toolchain.name()
        );
    }
    // A released binary needs no LLVM on this machine.
    let binstall = ["binstall", "--no-confirm", "--disable-telemetry"];
    if toolchain == BpfToolchain::Nightly
        && which("cargo-binstall").is_some()
        && succeeds(command("cargo").args(binstall).arg(format!("bpf-linker@{BPF_LINKER}")))
    {
        return Ok(());
    }
    let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    apt::install(&[&dev, &polly, "libzstd-dev"])
        .with_context(|| format!("bpf-linker {BPF_LINKER} links LLVM {llvm}"))?;
    let begun = Moment::now();
    println!("setup: building bpf-linker {BPF_LINKER} with LLVM {llvm}; this takes a few minutes, once");
    let features = format!("llvm-{llvm}");
    quietly(
        command("cargo")
            .env("LLVM_PREFIX", PathBuf::from("/usr/lib").join(format!("llvm-{llvm}")))
            // The place where a caller builds this project is not where its tools are to be built.
            .env("CARGO_TARGET_DIR", state().join("bpf-linker"))
            .args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER])
            .args(["--no-default-features", "--features", &features]),
    )?;
    println!("setup: built bpf-linker ({:.0} s)", begun.ago().as_secs_f64());
    Ok(())
}

/// The major version of a compiler's LLVM.
fn llvm_of(toolchain: BpfToolchain) -> Result<u32> {
    let version =
        output(command("rustup").args(["run", toolchain.name(), "rustc", "--version", "--verbose"]))?;
    version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
        .with_context(|| format!("rustc of toolchain {} tells no LLVM version", toolchain.name()))
}
