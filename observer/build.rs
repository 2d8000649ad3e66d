//! Compiles the kernel side and leaves it at `OUT_DIR/observer-probes`. Without a compiler for BPF the
//! object is an empty file: everything else builds, and loading it says "not built".

#[path = "build/toolchain.rs"]
mod toolchain;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use aya_build::{Package, Toolchain};
use toolchain::{BpfToolchain, Lacking};

/// Set for the second run of this program, which compiles; its value is the toolchain.
const COMPILE_WITH: &str = "OBSERVER_BUILD_COMPILE_WITH";

/// The crate of the kernel side, seen from this one.
const ROOT_DIR: &str = "../observer-ebpf";

fn main() -> ExitCode {
    let done = match env::var(COMPILE_WITH) {
        Ok(name) => compile(&name),
        Err(_) => choose(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot build the kernel side: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn choose() -> Result<()> {
    for path in ["build.rs", "build/toolchain.rs", "../Cargo.lock", "../observer-ebpf/src"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=PATH");
    let object = Path::new(&env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join("observer-probes");
    match toolchain::detect() {
        Ok(toolchain) => {
            compile_in_child(toolchain)?;
            // aya-build leaves nothing behind when it is told to skip.
            if object.exists() { Ok(()) } else { write_empty(&object) }
        }
        Err(lacking) => leave_empty(&object, &lacking),
    }
}

/// aya-build reads `RUSTC_BOOTSTRAP` from the environment and hands it down to rustc. Changing one's own
/// environment is unsafe, so the compilation runs in a child of the same program.
fn compile_in_child(toolchain: BpfToolchain) -> Result<()> {
    let mut child = Command::new(env::current_exe().context("no path of the build script")?);
    child.env(COMPILE_WITH, toolchain.name());
    // aya-build turns each line of the inner cargo into a warning: only real ones may come.
    child.env("CARGO_TERM_QUIET", "true").env("CARGO_TERM_COLOR", "never");
    // The inner build chooses its own target, profile and place.
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_BUILD_TARGET_DIR", "RUSTFLAGS"] {
        child.env_remove(name);
    }
    match toolchain.bootstrap() {
        Some(crates) => child.env("RUSTC_BOOTSTRAP", crates),
        None => child.env_remove("RUSTC_BOOTSTRAP"),
    };
    let output = child
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{child:?} did not start"))?;
    // rustup tells that it borrows another toolchain's cargo: as intended, and no warning.
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if !line.starts_with("cargo:warning=info: ") {
            println!("{line}");
        }
    }
    ensure!(output.status.success(), "toolchain {}: {}", toolchain.name(), output.status);
    Ok(())
}

fn compile(toolchain: &str) -> Result<()> {
    let package = Package { name: "observer-ebpf", root_dir: ROOT_DIR, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(toolchain))
}

fn leave_empty(object: &Path, lacking: &Lacking) -> Result<()> {
    println!(
        "cargo:warning=the kernel side is not built, live capture will not work: {}; run `cargo xtask setup`",
        lacking.what.join("; ")
    );
    // cargo runs this script again for as long as a path it was told of does not exist.
    for path in &lacking.watch {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    write_empty(object)
}

fn write_empty(object: &Path) -> Result<()> {
    fs::write(object, []).with_context(|| format!("cannot write {}", object.display()))
}
