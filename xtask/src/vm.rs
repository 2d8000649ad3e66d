//! `cargo xtask vm`: boots Debian's kernels under emulation, each with a file system that holds one program,
//! `vm-init`, which tests the kernel side there and says `vm: ok`. Nothing is installed.

mod initramfs;
mod kernels;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::background::{Background, Stop, program};
use crate::command::{Moment, cargo, run as go, state, which};
use crate::setup::{self, Need};
use initramfs::Initramfs;

/// What the matrix boots: kernels and extra parameters. Full preemption is where per-CPU state is put to the
/// test.
const MATRIX: [(&str, &str); 4] = [("5.10", ""), ("6.1", ""), ("6.12", ""), ("6.12", "preempt=full")];

/// The matrix stands without one kernel that cannot be had, not without two.
const FEWEST: usize = 3;

/// The target of the program that boots; static, because there is nothing else in its file system.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Options of `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct Options {
    /// Kernel versions, such as 6.1; without any, the whole matrix.
    versions: Vec<String>,
    /// A kernel image to boot instead of Debian's.
    #[arg(long, value_name = "VMLINUZ", conflicts_with = "versions")]
    image: Option<PathBuf>,
    /// Extra kernel parameters, such as `preempt=full`.
    #[arg(long, value_name = "PARAMETERS", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Seconds until a boot is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
    /// Shows the whole console.
    #[arg(long)]
    console: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(&[Need::Bpf, Need::Qemu])?;
    if options.versions.is_empty() && options.image.is_none() && options.append.is_empty() {
        return matrix().map(drop);
    }
    let machine = Machine::prepare(Duration::from_secs(options.timeout), options.console)?;
    if let Some(image) = &options.image {
        let image = image.canonicalize().with_context(|| image.display().to_string())?;
        return machine.boot("given", &image, &options.append);
    }
    let default = ["5.10", "6.1", "6.12"].map(str::to_owned);
    let versions = if options.versions.is_empty() { &default[..] } else { &options.versions };
    for version in versions {
        machine.boot(version, &kernels::image(version)?, &options.append)?;
    }
    Ok(())
}

/// Boots the whole matrix; how many boots passed.
pub(crate) fn matrix() -> Result<usize> {
    let machine = Machine::prepare(Duration::from_mins(3), false)?;
    let mut passed = 0;
    for (version, append) in MATRIX {
        match kernels::image(version) {
            Ok(image) => {
                machine.boot(version, &image, append)?;
                passed += 1;
            }
            Err(why) => eprintln!("vm: kernel {version} cannot be had and is not tested: {why:#}"),
        }
    }
    ensure!(passed >= FEWEST, "only {passed} of {} boots could be done", MATRIX.len());
    Ok(passed)
}

/// What every boot shares.
struct Machine {
    initramfs: PathBuf,
    limit: Duration,
    console: bool,
    stop: Stop,
}

impl Machine {
    /// Builds the program and its file system.
    fn prepare(limit: Duration, console: bool) -> Result<Self> {
        ensure!(
            which("qemu-system-x86_64").is_some(),
            "qemu-system-x86_64 is needed; on Debian: apt-get install qemu-system-x86"
        );
        let target_dir = state().join("vm-build");
        go(cargo()
            .args(["build", "--quiet", "--package", "observer-tests", "--bin", "vm-init", "--target", TARGET])
            .arg("--target-dir")
            .arg(&target_dir)
            .env_remove("RUSTFLAGS")
            .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static"))?;
        let built = target_dir.join(TARGET).join("debug/vm-init");
        let program = fs::read(&built).with_context(|| built.display().to_string())?;

        let mut archive = Initramfs::default();
        for folder in ["dev", "proc", "sys", "tmp"] {
            archive.folder(folder);
        }
        // The kernel opens it for the first program's output.
        archive.device("dev/console", 5, 1);
        archive.device("dev/null", 1, 3);
        archive.program("init", &program);
        let folder = state().join("vm");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let initramfs = folder.join("initramfs");
        fs::write(&initramfs, archive.finish()).with_context(|| initramfs.display().to_string())?;
        Ok(Self { initramfs, limit, console, stop: Stop::on_signals()? })
    }

    /// Boots one kernel and looks for `vm: ok` on its console.
    fn boot(&self, version: &str, image: &Path, append: &str) -> Result<()> {
        let begun = Moment::now();
        let log = state().join("vm").join(format!("{version}.log"));
        let mut qemu = program("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"])
            .args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-kernel"])
            .arg(image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", format!("console=ttyS0 panic=-1 quiet {append}").trim_end()]);
        if let Err(error) = self.until_off(&mut qemu, &log) {
            // The emulator itself may hang in its firmware, before the kernel that is to be tested has begun.
            let console = fs::read(&log).with_context(|| log.display().to_string())?;
            if self.stop.check().is_err()
                || String::from_utf8_lossy(&console).contains("vm: ")
                || console.len() > 512
            {
                return Err(error);
            }
            println!("vm: {version}: the emulator hung in its firmware and is started once more");
            self.until_off(&mut qemu, &log)?;
        }

        let console = fs::read(&log).with_context(|| log.display().to_string())?;
        let console = String::from_utf8_lossy(&console).replace('\r', "");
        let said: Vec<_> = console.lines().filter_map(|line| line.strip_prefix("vm: ")).collect();
        if self.console {
            println!("{console}");
        }
        if !said.contains(&"ok") {
            bail!("kernel {version} did not say `vm: ok`; its console ({}):\n{console}", log.display());
        }
        let with = if append.is_empty() { String::new() } else { format!(" with {append}") };
        let details: Vec<_> = said.into_iter().filter(|line| *line != "ok").collect();
        println!("vm: {version}{with}: ok ({:.1} s): {}", begun.ago().as_secs_f64(), details.join("; "));
        Ok(())
    }

    /// Runs the emulator until the machine turns itself off.
    fn until_off(&self, qemu: &mut Command, log: &Path) -> Result<()> {
        let mut running = Background::start_logged("qemu", qemu, log)?;
        running.wait(&self.stop, self.limit)
    }
}
