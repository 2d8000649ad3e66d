//! `cargo xtask setup`: gets what the commands need. What is there already is only looked at, so that every
//! other command can call this first. What cannot be had is named, with what to do.

mod apt;
mod bpf;
mod python;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command::{Moment, state, which};

pub(crate) use apt::{base_uris, release_keyring};
pub(crate) use bpf::usable as bpf_toolchain;
pub(crate) use python::{Environment, model, python};

/// Options of `cargo xtask setup`.
#[derive(Args)]
pub(crate) struct Options {
    /// Also what the tests need: promtool, QEMU, buildah, runc, systemd-analyze, Python packages.
    #[arg(long)]
    tests: bool,
}

/// Where Debian has it: on nobody's path.
const JOURNAL_REMOTE: &str = "/lib/systemd/systemd-journal-remote";

/// What a command may need beyond a Rust compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A compiler for the kernel side.
    Bpf,
    /// `promtool`, which checks what /metrics says.
    Promtool,
    /// QEMU, which boots other kernels.
    Qemu,
    /// `buildah`, which builds images.
    Buildah,
    /// `runc`, which starts containers.
    Runc,
    /// `systemd-analyze`, which reads the unit.
    Systemd,
    /// `systemd-journal-remote`, which writes journals.
    Journal,
    /// A Python that can make virtual environments.
    Python,
}

impl Need {
    /// The Debian packages that bring it, and what each of them is for; none if it is there.
    fn missing(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Promtool if which("promtool").is_none() => &[("promtool", "prometheus")],
            Self::Qemu if which("qemu-system-x86_64").is_none() => {
                &[("qemu-system-x86_64", "qemu-system-x86")]
            }
            Self::Buildah if which("buildah").is_none() => &[("buildah", "buildah")],
            Self::Runc if which("runc").is_none() => &[("runc", "runc")],
            Self::Systemd if which("systemd-analyze").is_none() => &[("systemd-analyze", "systemd")],
            Self::Journal if !Path::new(JOURNAL_REMOTE).exists() => {
                &[("systemd-journal-remote", "systemd-journal-remote")]
            }
            Self::Python if python(11).is_err() => {
                &[("Python 3.11 or later", "python3"), ("its module venv", "python3-venv")]
            }
            _ => &[],
        }
    }
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let begun = Moment::now();
    let all = [
        Need::Bpf,
        Need::Promtool,
        Need::Qemu,
        Need::Buildah,
        Need::Runc,
        Need::Systemd,
        Need::Journal,
        Need::Python,
    ];
    let lacking = ensure(if options.tests { &all } else { &[Need::Bpf] })?;
    if options.tests {
        crate::test::environments(true)?;
    }
    if lacking {
        bail!("something is missing, see above; what does not need it still works");
    }
    println!("setup: ready ({:.1} s)", begun.ago().as_secs_f64());
    Ok(())
}

/// Gets what `needs` asks for. Whatever cannot be had is named on stderr; the answer says whether there was
/// any. A caller that cannot go on without it fails there, with its own message.
pub(crate) fn ensure(needs: &[Need]) -> Result<bool> {
    fs::create_dir_all(state()).with_context(|| format!("cannot make {}", state().display()))?;
    let mut lacking = Vec::new();

    let packages: Vec<_> = needs.iter().flat_map(|need| need.missing()).collect();
    if !packages.is_empty() {
        let names: Vec<_> = packages.iter().map(|(_, package)| *package).collect();
        if let Err(why) = apt::install(&names) {
            let what = packages.iter().map(|(what, _)| *what).collect::<Vec<_>>().join(", ");
            lacking.push(format!("{what}: {why:#}"));
        }
    }
    if needs.contains(&Need::Bpf) {
        match bpf::ensure() {
            Ok(toolchain) => println!("setup: the kernel side is compiled with {toolchain}"),
            Err(why) => lacking.push(format!("a compiler for the kernel side: {why:#}")),
        }
    }
    for what in &lacking {
        eprintln!("setup: missing {what}");
    }
    Ok(!lacking.is_empty())
}
