//! Which compiler can build the kernel side on this machine. In: rustup's toolchains and their files;
//! out: the first of two ways that works, or what each of them lacks.
//!
//! Shared by `build.rs`, which compiles, and `cargo xtask setup`, which installs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A toolchain that has, or can build, `core` for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BpfToolchain {
    /// rustup's nightly with `rust-src`: `core` is built from source.
    Nightly,
    /// Debian's `rustc-web`, linked into rustup: `core` comes prebuilt.
    DebianWeb,
}

impl BpfToolchain {
    /// In order of preference.
    pub(crate) const ALL: [Self; 2] = [Self::Nightly, Self::DebianWeb];

    /// Its name in rustup.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::DebianWeb => "debian-web",
        }
    }

    /// Crates that may use unstable features although the compiler is a stable one. Each is named, because
    /// a blanket `1` makes aya-build ask for `-Z build-std`, which needs sources that Debian's compiler lacks.
    pub(crate) const fn bootstrap(self) -> Option<&'static str> {
        match self {
            Self::Nightly => None,
            Self::DebianWeb => Some("aya_ebpf,observer_probes"),
        }
    }

    /// Where `core` for BPF must lie in its sysroot.
    fn core(self, sysroot: &Path) -> PathBuf {
        match self {
            Self::Nightly => sysroot.join("lib/rustlib/src/rust/library/core"),
            Self::DebianWeb => sysroot.join("lib/rustlib/bpfel-unknown-none/lib"),
        }
    }
}

/// Why neither way works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lacking {
    /// What is absent, in words.
    pub(crate) what: Vec<String>,
    /// Files whose appearance would change the answer.
    pub(crate) watch: Vec<PathBuf>,
}

/// Finds the first toolchain that can compile the kernel side.
pub(crate) fn detect() -> Result<BpfToolchain, Lacking> {
    let mut lacking = Lacking::default();
    let mut found = None;
    for toolchain in BpfToolchain::ALL {
        match core_of(toolchain) {
            Ok(_) => {
                found = Some(toolchain);
                break;
            }
            Err(missing) => {
                lacking.what.push(missing.what);
                lacking.watch.extend(missing.file);
            }
        }
    }
    let linker = on_path("bpf-linker", &mut lacking.watch);
    match found {
        Some(toolchain) if linker => return Ok(toolchain),
        Some(_) => lacking.what.clear(),
        None => {}
    }
    if !linker {
        lacking.what.push("bpf-linker is not on the PATH".into());
    }
    Err(lacking)
}

/// One thing that a toolchain lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// In words.
    pub(crate) what: String,
    /// The file that is absent, where its place is known.
    pub(crate) file: Option<PathBuf>,
}

/// Where `toolchain` keeps `core` for BPF, or what it lacks.
pub(crate) fn core_of(toolchain: BpfToolchain) -> Result<PathBuf, Missing> {
    let name = toolchain.name();
    let Some(sysroot) = sysroot(name) else {
        return Err(Missing { what: format!("rustup has no toolchain {name}"), file: None });
    };
    let core = toolchain.core(&sysroot);
    if core.is_dir() {
        Ok(core)
    } else {
        Err(Missing { what: format!("toolchain {name} has no {}", core.display()), file: Some(core) })
    }
}

/// The sysroot of a rustup toolchain, without letting rustup fetch it.
fn sysroot(toolchain: &str) -> Option<PathBuf> {
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .env_remove("RUSTUP_TOOLCHAIN")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !path.trim().is_empty()).then(|| PathBuf::from(path.trim()))
}

/// Whether `program` is on the PATH; `watch` receives where `cargo install` would put it.
fn on_path(program: &str, watch: &mut Vec<PathBuf>) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
        return true;
    }
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    watch.extend(home.map(|home| home.join("bin").join(program)));
    false
}
