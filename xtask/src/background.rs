//! Programs that run beside a command. Each ends with it: on return, on Ctrl-C or SIGTERM, and, through
//! the kernel's parent-death signal, even if the command itself is killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{Moment, shown, which};

/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(50);

/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// How much of a log is shown.
const LAST_LINES: usize = 15;

/// A command for a program that is to run in the background, in a process group of its own: Ctrl-C reaches
/// this command alone, which then ends its programs in order.
pub(crate) fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = match which("setpriv") {
        Some(setpriv) => {
            let mut command = crate::command::command(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(path);
            command
        }
        None => crate::command::command(path),
    };
    command.process_group(0);
    command
}

/// A program in the background; dropped, it is ended.
pub(crate) struct Background {
    name: &'static str,
    line: String,
    log: Option<PathBuf>,
    child: Child,
}

impl Background {
    /// Starts a command made by [`program`]. Call it from the main thread: the parent-death signal follows
    /// the thread that forks.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let line = shown(command);
        let child = command.spawn().with_context(|| format!("cannot start: {line}"))?;
        Ok(Self { name, line, log: None, child })
    }

    /// The same, with both outputs in a file, whose end is shown if the program ends when it should not.
    pub(crate) fn start_logged(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let both = file.try_clone().context("cannot write one file from two ends")?;
        let mut started = Self::start(name, command.stdin(Stdio::null()).stdout(file).stderr(both))?;
        started.log = Some(log.to_path_buf());
        Ok(started)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the program has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early: {status}: {}{}", self.name, self.line, self.last_words()),
        }
    }

    /// Waits for its end, which must be a success and come within `limit`.
    pub(crate) fn wait(&mut self, stop: &Stop, limit: Duration) -> Result<()> {
        let begun = Moment::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(
                    status.success(),
                    "{} failed: {status}: {}{}",
                    self.name,
                    self.line,
                    self.last_words()
                );
                return Ok(());
            }
            stop.check()?;
            if begun.ago() >= limit {
                bail!("{} did not end within {limit:?}: {}{}", self.name, self.line, self.last_words());
            }
            sleep(LOOK);
        }
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let text = self.log.as_ref().and_then(|log| fs::read(log).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES));
        last.flat_map(|line| ["\n    ", line]).collect()
    }

    /// SIGTERM, and SIGKILL for one that does not listen.
    fn end(&mut self) {
        let Some(pid) = Pid::from_raw(self.child.id() as i32) else { return };
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // It may have ended in between: then there is nobody to signal.
        let _gone = kill_process(pid, Signal::TERM);
        let asked = Moment::now();
        while asked.ago() < GRACE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(LOOK);
        }
        eprintln!("{} (pid {}) did not end within {GRACE:?}: killed", self.name, self.child.id());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}

/// Told to stop by Ctrl-C or SIGTERM.
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes both signals over: from here on they set a flag, and the command ends its programs itself.
    pub(crate) fn on_signals() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot handle signals")?;
        }
        Ok(Self(flag))
    }

    /// Whether a signal came.
    pub(crate) fn told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails once a signal came.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.told(), "interrupted");
        Ok(())
    }

    /// Waits until `ready` says so, a signal comes, `program` ends or `limit` has passed.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        program: &mut Background,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let begun = Moment::now();
        while !ready()? {
            self.check()?;
            program.must_run()?;
            if begun.ago() >= limit {
                bail!("{what}: not within {limit:?}");
            }
            sleep(LOOK);
        }
        Ok(())
    }
}
