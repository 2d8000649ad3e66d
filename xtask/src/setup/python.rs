//! Python packages, each pinned by version and hash, in virtual environments of this workspace; and the
//! demo's model, which comes in such a package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{Moment, command, output, quietly, root, state, succeeds};

/// A file of pinned requirements.
#[derive(Clone, Copy)]
struct Requirements {
    file: &'static str,
    /// Whether it names all that is needed. If not, the packages are taken without what they ask for.
    whole: bool,
}

/// A virtual environment and what is in it.
#[derive(Clone, Copy)]
pub(crate) struct Environment {
    /// Its folder's name.
    pub(crate) name: &'static str,
    /// The oldest Python 3 that its packages run on.
    minor: u32,
    sets: &'static [Requirements],
}

const fn whole(file: &'static str) -> Requirements {
    Requirements { file, whole: true }
}

impl Environment {
    /// The tests' servers and clients, the demo's client and its engine.
    pub(crate) const MAIN: Self = Self {
        name: "venv",
        minor: 11,
        sets: &[whole("tests/python/requirements.txt"), whole("xtask/demo/requirements.txt")],
    };

    /// The load generator `AIPerf`.
    pub(crate) const AIPERF: Self =
        Self { name: "aiperf", minor: 12, sets: &[whole("tests/python/aiperf.txt")] };

    /// The gateway `LiteLLM`.
    pub(crate) const LITELLM: Self =
        Self { name: "litellm", minor: 11, sets: &[whole("tests/python/litellm.txt")] };

    /// The engine `fastllm`. Its package asks for CUDA and a web interface, too.
    pub(crate) const FASTLLM: Self = Self {
        name: "fastllm",
        minor: 11,
        sets: &[
            whole("tests/python/fastllm.txt"),
            Requirements { file: "tests/python/fastllm-engine.txt", whole: false },
        ],
    };

    /// Receivers of OTLP: Phoenix, which keeps and shows traces, and Rotel, a collector, which shows logs.
    pub(crate) const OTLP: Self = Self { name: "otlp", minor: 11, sets: &[whole("tests/python/otlp.txt")] };

    /// What renders and validates `deploy/`.
    pub(crate) const DEPLOY: Self =
        Self { name: "deploy", minor: 11, sets: &[whole("tests/python/deploy.txt")] };

    /// Its folder.
    pub(crate) fn folder(self) -> PathBuf {
        state().join(self.name)
    }

    /// Its folder, once all of its packages are installed.
    pub(crate) fn ready(self) -> Result<PathBuf> {
        let venv = self.folder();
        // Its programs know where it is: one that was moved is made again.
        let wanted = format!("# {}\n{}", venv.display(), self.wanted()?);
        let stamp = venv.join("installed.txt");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(venv);
        }
        let begun = Moment::now();
        println!("setup: Python packages of {}", self.name);
        let uv = uv()?;
        let mut make = command(&uv);
        make.args(["venv", "--quiet", "--clear", "--no-python-downloads", "--python"]);
        quietly(make.arg(python(self.minor)?).arg(&venv))?;
        for set in self.sets {
            let mut install = command(&uv);
            install.args(["pip", "install", "--quiet", "--require-hashes", "--no-build", "--python"]);
            install.arg(venv.join("bin/python")).args((!set.whole).then_some("--no-deps"));
            install.arg("--requirements").arg(root().join(set.file));
            // uv has a variable of its own for what pip's names.
            if let Some(index) = std::env::var_os("PIP_INDEX_URL") {
                install.env("UV_DEFAULT_INDEX", index);
            }
            quietly(&mut install).context("uv could not install them; a package index is needed")?;
        }
        fs::write(&stamp, &wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
        println!("setup: installed ({:.0} s)", begun.ago().as_secs_f64());
        Ok(venv)
    }

    /// All of its requirements.
    fn wanted(self) -> Result<String> {
        let read = |set: &Requirements| fs::read_to_string(root().join(set.file)).context(set.file);
        self.sets.iter().map(read).collect()
    }
}

/// The installer, which is many times as fast as the one that comes with Python. In an environment of its own.
fn uv() -> Result<PathBuf> {
    let home = state().join("uv");
    let wanted = fs::read_to_string(root().join("xtask/uv.txt")).context("xtask/uv.txt")?;
    let stamp = home.join("installed.txt");
    if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        let base = python(11)?;
        quietly(command(&base).args(["-m", "venv", "--clear"]).arg(&home)).with_context(|| {
            format!(
                "{} cannot make a virtual environment; on Debian: apt-get install python3-venv",
                base.display()
            )
        })?;
        let mut install = pip(&home);
        install.args(["install", "--require-hashes", "--only-binary", ":all:", "--requirement"]);
        quietly(install.arg(root().join("xtask/uv.txt")))
            .context("pip could not install uv; a package index (PIP_INDEX_URL) is needed")?;
        fs::write(&stamp, &wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(home.join("bin/uv"))
}

/// The demo's model: a GGUF file.
pub(crate) fn model() -> Result<PathBuf> {
    let file = "xtask/demo/model.txt";
    let home = state().join("model");
    let stamp = home.join("unpacked-from.txt");
    let wanted = fs::read_to_string(root().join(file)).context(file)?;
    if !fs::read_to_string(&stamp).is_ok_and(|unpacked| unpacked == wanted) {
        println!("setup: the demo's model, about 90 MB");
        uv()?;
        let base = state().join("uv");
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
        }
        let mut pip = pip(&base);
        pip.args(["download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest"])
            .arg(&home);
        quietly(pip.arg("--requirement").arg(root().join(file)))?;
        let wheel = only(&home, "whl")?;
        quietly(command(base.join("bin/python")).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&home))?;
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

/// A Python 3 of at least this minor version that can make virtual environments: on the PATH, else one that
/// a version manager keeps.
pub(crate) fn python(minor: u32) -> Result<PathBuf> {
    let named = ["python3", "/usr/bin/python3", "python3.13", "python3.12", "python3.11"];
    let kept = std::env::home_dir().map(|home| home.join(".pyenv/versions"));
    let kept = kept.and_then(|versions| fs::read_dir(versions).ok()).into_iter().flatten();
    let kept = kept.filter_map(|version| Some(version.ok()?.path().join("bin/python3")));
    let check = format!("import sys, venv, ensurepip; sys.exit(sys.version_info < (3, {minor}))");
    for name in named.into_iter().map(PathBuf::from).chain(kept) {
        if succeeds(command(&name).args(["-c", &check])) {
            // The interpreter itself, not a version manager's stand-in for it.
            let path = output(command(&name).args(["-c", "import sys; print(sys.executable)"]))?;
            return Ok(PathBuf::from(path.trim()));
        }
    }
    bail!("no Python 3.{minor} or later that has the modules venv and ensurepip")
}
