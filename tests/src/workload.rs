//! Processes that tests start and end.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// A folder of this package.
pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The virtual environment with the requirements of `tests/python`; `cargo xtask test` makes it.
pub fn venv() -> PathBuf {
    let venv = main_environment();
    assert!(
        venv.join("bin/python").exists(),
        "no virtual environment at {}: run `cargo xtask test`, or set OBSERVER_VENV",
        venv.display()
    );
    venv
}

fn main_environment() -> PathBuf {
    let made = folder("../target/xtask/venv");
    std::env::var_os("OBSERVER_VENV").map_or(made, PathBuf::from)
}

/// Another virtual environment that `cargo xtask test` makes beside that one; none, after saying so, where its
/// packages do not run.
///
/// # Panics
/// In CI, which has to have it.
pub fn environment(name: &str) -> Option<PathBuf> {
    let path = main_environment().with_file_name(name);
    let there = path.join("installed.txt").exists();
    assert!(there || std::env::var_os("CI").is_none(), "CI must have {}", path.display());
    if !there {
        eprintln!("SKIPPED: no {name} at {}: `cargo xtask test` says why", path.display());
    }
    there.then_some(path)
}

/// A child that is killed when it goes out of scope.
pub struct Workload {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Workload {
    /// Starts a script of `tests/python` with the system's Python. Its first line of output is waited for.
    pub fn script(script: &str, args: &[&str]) -> (Self, String) {
        let mut command = Command::new("python3");
        command.arg("-u").arg(folder("python").join(script)).args(args);
        Self::start(command)
    }

    /// Starts a script of `tests/python` with the Python that has its requirements.
    pub fn venv_script(script: &str, args: &[&str]) -> (Self, String) {
        let mut command = Command::new(venv().join("bin/python"));
        command.arg("-u").arg(folder("python").join(script)).args(args);
        Self::start(command)
    }

    /// Starts a command and waits for its first line of output.
    pub fn start(mut command: Command) -> (Self, String) {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut workload = Self { child, stdout };
        let first = workload.line();
        assert!(!first.is_empty(), "{command:?} ended without a line of output");
        (workload, first)
    }

    /// The next line of output that is not blank; empty at its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        while line.trim_end().is_empty() {
            line.clear();
            if self.stdout.read_line(&mut line).expect("output of a workload") == 0 {
                break;
            }
        }
        line.trim_end().to_owned()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; panics if it failed.
    pub fn finish(mut self) {
        let status = self.child.wait().expect("wait for a workload");
        assert!(status.success(), "workload ended with {status}");
    }

    /// Waits for its end, however it comes.
    pub fn wait(mut self) {
        let _status = self.child.wait();
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sleeps: for tests of what must *not* happen, where there is nothing to wait for.
pub fn quiet(duration: Duration) {
    std::thread::sleep(duration);
}
