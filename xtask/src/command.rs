//! Running programs. In: a prepared `Command`; out: its success or output, or an error that shows the
//! command line that failed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where downloads, virtual environments and stamps are kept.
pub(crate) fn state() -> PathBuf {
    root().join("target/xtask")
}

/// A command that runs in the workspace's root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs `command` with the terminal's own output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start: {}", shown(command)))?;
    ensure!(status.success(), "{status}: {}", shown(command));
    Ok(())
}

/// Runs `command` silently; its output is shown only if it fails.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// Runs `command` and returns what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start: {}", shown(command)))?;
    if !status.success() {
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        bail!("{status}: {}\n{}{}", shown(command), stdout, stderr);
    }
    String::from_utf8(stdout).with_context(|| format!("output is not UTF-8: {}", shown(command)))
}

/// Whether `command` starts and succeeds, without any output.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The path of `program` on the PATH.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A command line that can be pasted into a shell: what was set in the environment, program, arguments.
pub(crate) fn shown(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    set.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A moment of this machine's clock, for waits and for how long things took.
#[derive(Clone, Copy)]
pub(crate) struct Moment(Instant);

impl Moment {
    /// Now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the commands wait for programs; the core's rule is not theirs"
    )]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago this was.
    pub(crate) fn ago(self) -> Duration {
        Self::now().0.saturating_duration_since(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_line() {
        let mut failing = command("sh");
        failing.env("WHY", "a b").args(["-c", "echo gone wrong >&2; exit 3"]);
        let message = format!("{:#}", output(&mut failing).unwrap_err());
        assert!(message.contains("WHY='a b' sh -c 'echo gone wrong >&2; exit 3'"), "{message}");
        assert!(message.contains("exit status: 3") && message.ends_with("gone wrong\n"), "{message}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let message = format!("{:#}", run(&mut command("/nowhere/program")).unwrap_err());
        assert!(message.starts_with("cannot start: /nowhere/program"), "{message}");
    }
}
