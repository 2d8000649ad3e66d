//! The root file system of the images: the program, what it is linked with and what NVIDIA's driver library is linked
//! with, certificates. Taken from the Debian packages that this machine has installed, with their licences.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::command::{command, output, root};

/// Packages that files are taken from.
const PACKAGES: [&str; 3] = ["libc6", "libgcc-s1", "ca-certificates"];

/// Beginnings of the names of libraries. libnvidia-ml.so.1 wants libpthread, libm, libdl and libc, and names of hosts are
/// looked up by the others.
const LIBRARIES: [&str; 10] = [
    "ld-linux-",
    "libc.so.",
    "libdl.so.",
    "libgcc_s.so.",
    "libm.so.",
    "libnss_dns.so.",
    "libnss_files.so.",
    "libpthread.so.",
    "libresolv.so.",
    "librt.so.",
];

/// Folders that a runtime mounts something into, or the pod does.
const FOLDERS: [&str; 8] = ["dev", "etc/observer", "host", "proc", "run", "sys", "usr/lib64", "var/log/pods"];

/// Files that are written here.
const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/:/nonexistent\nobserver:x:65532:65532:observer:/:/nonexistent\n"),
    ("etc/group", "root:x:0:\nobserver:x:65532:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// Makes the folder anew.
pub(super) fn stage(into: &Path, binary: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into).with_context(|| into.display().to_string())?;
    }
    for folder in FOLDERS {
        make(&into.join(folder))?;
    }
    // As Debian has it, so that NVIDIA's runtime knows where libraries belong.
    make(&into.join("usr/lib"))?;
    symlink("usr/lib", into.join("lib"))?;
    symlink("usr/lib64", into.join("lib64"))?;
    copy(Path::new("/etc/debian_version"), &into.join("etc/debian_version"), 0o644)
        .context("the images are made of Debian's packages: build on Debian")?;
    for (name, text) in FILES {
        write(&into.join(name), text.as_bytes())?;
    }
    copy(binary, &into.join("usr/bin/observer"), 0o755)?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&root().join(licence), &into.join("usr/share/doc/observer").join(licence), 0o644)?;
    }
    let mut libraries = 0;
    for package in PACKAGES {
        libraries += package_files(into, package)?;
    }
    ensure!(libraries >= LIBRARIES.len(), "{libraries} libraries, of {} kinds", LIBRARIES.len());
    certificates(into)
}

/// Libraries and licence of a package; how many libraries.
fn package_files(into: &Path, package: &str) -> Result<usize> {
    let listed = output(command("dpkg-query").args(["--listfiles", package]))?;
    let mut libraries = 0;
    for path in listed.lines().map(Path::new) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if LIBRARIES.iter().any(|library| name.starts_with(library)) && name.contains(".so") {
            let place = into.join("usr").join(path.strip_prefix("/usr").or(path.strip_prefix("/"))?);
            match fs::read_link(path) {
                Ok(target) => symlink(&target, folder_of(&place)?)?,
                Err(_no_link) => copy(path, &place, 0o755)?,
            }
            libraries += 1;
        }
    }
    let licence = Path::new("usr/share/doc").join(package).join("copyright");
    copy(&Path::new("/").join(&licence), &into.join(&licence), 0o644)?;
    // Where scanners of images look for what is installed.
    let status = output(command("dpkg-query").args(["--status", package]))?;
    write(&into.join("var/lib/dpkg/status.d").join(package), status.as_bytes())?;
    Ok(libraries)
}

/// The certificates of the package: not those that this machine trusts besides.
fn certificates(into: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir("/usr/share/ca-certificates/mozilla")
        .context("the package ca-certificates is not installed")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend(fs::read(&file).with_context(|| file.display().to_string())?);
    }
    write(&into.join("etc/ssl/certs/ca-certificates.crt"), &all)
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// A path whose folder is there.
fn folder_of(path: &Path) -> Result<&Path> {
    make(path.parent().context("a path without a folder")?)?;
    Ok(path)
}

fn write(to: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(folder_of(to)?, bytes).with_context(|| to.display().to_string())?;
    Ok(fs::set_permissions(to, Permissions::from_mode(0o644))?)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::copy(from, folder_of(to)?).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(fs::set_permissions(to, Permissions::from_mode(mode))?)
}
