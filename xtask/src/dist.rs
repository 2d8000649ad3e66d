//! `cargo xtask dist`: the program as it is shipped, and the images of `deploy/Dockerfile` around it.

mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::command::{Moment, cargo, command, output, quietly, root, run as go, state};
use crate::setup::{self, Need};
use crate::test::target;

/// Options of `cargo xtask dist`.
#[derive(Args)]
pub(crate) struct Options {
    /// Puts this program into the images instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the images go, each as a folder in OCI's layout [default: target/xtask/dist].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Stages of the Dockerfile, each an image.
const IMAGES: [&str; 2] = ["agent", "cluster"];

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "buildah makes these images as root only: run as root");
    let lacking = setup::ensure(&[Need::Bpf, Need::Buildah])?;
    ensure!(!lacking, "something is missing, see above");
    let begun = Moment::now();
    let binary = options.binary.clone().map_or_else(shipped, Ok)?;
    let out = options.out.clone().unwrap_or_else(|| state().join("dist"));
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let context = out.join("context");
    stage::stage(&context.join("root"), &binary)?;
    let version = version_in(&context.join("root"))?;
    println!("dist: observer {version}, {}", megabytes(fs::metadata(&binary)?.len()));
    let storage = Storage(out.join("storage"));
    for stage in IMAGES {
        image(&storage, &context, &out, stage, &version)?;
    }
    println!("dist: done in {:.0} s", begun.ago().as_secs_f64());
    Ok(())
}

/// Builds the program for shipping.
fn shipped() -> Result<PathBuf> {
    go(cargo().args(["build", "--quiet", "--package", "observer", "--profile", "dist"]))?;
    Ok(target()?.join("dist/observer"))
}

/// The version that the program tells of itself, started in the root that is to be shipped.
fn version_in(root: &Path) -> Result<String> {
    let said = output(command("chroot").arg(root).args(["/usr/bin/observer", "--version"]))
        .context("the program does not start in the image's root")?;
    said.trim().strip_prefix("observer ").map(str::to_owned).with_context(|| format!("--version: {said}"))
}

/// Where buildah keeps what it works on; removed in the end.
struct Storage(PathBuf);

impl Storage {
    fn buildah(&self) -> Command {
        let mut buildah = command("buildah");
        // Works on any file system and in a container, too.
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(self.0.join("root"));
        buildah.arg("--runroot").arg(self.0.join("run"));
        buildah
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("dist: {} is left: {error}", self.0.display());
        }
    }
}

/// Builds one image and writes it as a folder.
fn image(storage: &Storage, context: &Path, out: &Path, stage: &str, version: &str) -> Result<()> {
    let name = format!("observer-{stage}:{version}");
    let mut build = storage.buildah();
    build.args(["bud", "--isolation", "chroot", "--format", "oci", "--target", stage, "--tag", &name]);
    // The same program gives the same image, whenever it is built.
    build.args(["--timestamp", "0", "--identity-label=false"]);
    build.args(["--label", &format!("org.opencontainers.image.version={version}")]);
    if let Ok(commit) = output(command("git").args(["rev-parse", "HEAD"])) {
        build.args(["--label", &format!("org.opencontainers.image.revision={}", commit.trim())]);
    }
    quietly(build.arg("--file").arg(root().join("deploy/Dockerfile")).arg(context))?;
    let folder = out.join(format!("observer-{stage}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let mut push = storage.buildah();
    push.args(["push", "--quiet", "--format", "oci", &name]);
    quietly(push.arg(format!("oci:{}:{version}", folder.display())))?;
    println!("dist: {name}: {} compressed, in {}", megabytes(compressed(&folder)?), folder.display());
    Ok(())
}

/// What a registry would be sent: all layers of an image.
fn compressed(folder: &Path) -> Result<u64> {
    let blob = |digest: &Value| -> Result<PathBuf> {
        let digest = digest.as_str().context("a digest")?;
        Ok(folder.join("blobs").join(digest.replace(':', "/")))
    };
    let json = |path: &Path| -> Result<Value> {
        let text = fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    };
    let index = json(&folder.join("index.json"))?;
    let manifest = json(&blob(&index["manifests"][0]["digest"])?)?;
    let layers = manifest["layers"].as_array().context("no layers")?;
    layers.iter().map(|layer| layer["size"].as_u64().context("a size")).sum()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
