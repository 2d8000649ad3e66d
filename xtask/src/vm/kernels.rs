//! Debian's cloud kernels, unpacked and not installed. They are found through an apt configuration of its
//! own, with the mirror that this machine already uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{Moment, command, output, quietly, state};
use crate::setup::{base_uris, release_keyring};

/// Where Debian has which kernel.
const SUITES: [(&str, &[&str]); 4] = [
    ("5.10", &["bullseye", "bullseye-security"]),
    ("6.1", &["bookworm", "bookworm-security"]),
    ("6.12", &["bookworm-security", "trixie", "trixie-security"]),
    ("7.", &["forky", "sid"]),
];

/// The image of a kernel of this version; fetched at first.
pub(super) fn image(version: &str) -> Result<PathBuf> {
    let home = state().join("kernels").join(version);
    let image = home.join("vmlinuz");
    if image.exists() {
        return Ok(image);
    }
    let same = |known: &str| known == version || (known == "7." && version.starts_with("7."));
    let Some((_, suites)) = SUITES.iter().find(|(known, _)| same(known)) else {
        bail!(
            "no Debian suite is known for kernel {version}; 5.10, 6.1, 6.12 and 7.x are, and --image takes any"
        );
    };
    let begun = Moment::now();
    println!("vm: fetching kernel {version} from Debian's {}", suites.join(", "));
    let apt = PrivateApt::new(version, suites)?;
    let package = apt.newest(version)?;
    apt.unpack(&package, &image)?;
    println!("vm: {package} ({:.0} s)", begun.ago().as_secs_f64());
    Ok(image)
}

/// apt with sources, lists and cache of its own.
struct PrivateApt {
    home: PathBuf,
}

impl PrivateApt {
    fn new(version: &str, suites: &[&str]) -> Result<Self> {
        let home = state().join("apt").join(version);
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(folder)).with_context(|| home.display().to_string())?;
        }
        let signed =
            release_keyring().map(|path| format!(" [signed-by={}]", path.display())).unwrap_or_default();
        let mut sources = Vec::new();
        for base in base_uris()? {
            let security = base.trim_end_matches('/').ends_with("-security");
            for suite in suites.iter().filter(|suite| suite.ends_with("-security") == security) {
                sources.push(format!("deb{signed} {base} {suite} main\n"));
            }
        }
        let list = home.join("sources.list");
        fs::write(&list, sources.concat()).with_context(|| list.display().to_string())?;
        let apt = Self { home };
        // A mirror may lack one of the suites; whether the rest is enough shows when the package is looked for.
        if let Err(why) = quietly(apt.command("apt-get").arg("update")) {
            eprintln!("vm: {why:#}");
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut apt = command(program);
        let folder = |name: &str| self.home.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::SourceList={}", folder("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", folder("lists")),
            format!("Dir::Cache={}", folder("cache")),
            "APT::Architecture=amd64".to_owned(),
            // apt's own user may not read this workspace.
            "APT::Sandbox::User=root".to_owned(),
            // Old suites are no longer re-signed.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Debug::NoLocking=true".to_owned(),
        ] {
            apt.args(["--option", &option]);
        }
        apt
    }

    /// The newest package with a cloud kernel of this version.
    fn newest(&self, version: &str) -> Result<String> {
        let listed = output(self.command("apt-cache").args(["pkgnames", "linux-image-"]))?;
        newest_of(listed.lines(), version).with_context(|| {
            format!("the package sources of this machine have no linux-image-{version}*-cloud-amd64")
        })
    }

    /// Downloads a package and keeps its kernel image alone, at `image`.
    fn unpack(&self, package: &str, image: &Path) -> Result<()> {
        let folder = self.home.join("unpacked");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        // Where the image package is an empty one, its sister holds the image.
        for package in [package.to_owned(), package.replacen("-image-", "-binary-", 1)] {
            quietly(self.command("apt-get").args(["download", &package]).current_dir(&folder))?;
            let archive =
                entry(&folder, |name| name.starts_with("linux-")).context("apt-get downloaded nothing")?;
            quietly(command("dpkg").arg("-x").arg(&archive).arg(&folder))?;
            fs::remove_file(&archive).with_context(|| archive.display().to_string())?;
            let modules = entry(&folder.join("usr/lib/modules"), |name| name.ends_with("-cloud-amd64"));
            let found = entry(&folder.join("boot"), |name| name.starts_with("vmlinuz"))
                .or_else(|| entry(&modules?, |name| name == "vmlinuz"));
            if let Some(found) = found {
                let home = image.parent().context("no folder to keep it in")?;
                fs::create_dir_all(home).with_context(|| home.display().to_string())?;
                fs::rename(&found, image).with_context(|| found.display().to_string())?;
                return fs::remove_dir_all(&self.home).with_context(|| self.home.display().to_string());
            }
        }
        bail!("{package} holds no kernel image")
    }
}

/// The first entry of a folder whose name is the one.
fn entry(folder: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.filter(|entry| wanted(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).next()
}

/// Of these packages, the newest cloud kernel of a version, by the numbers in its name.
fn newest_of<'a>(packages: impl Iterator<Item = &'a str>, version: &str) -> Option<String> {
    let prefix = format!("linux-image-{}.", version.trim_end_matches(['.', 'x']));
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    packages
        .filter(|name| name.starts_with(&prefix) && name.ends_with("-cloud-amd64"))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::newest_of;

    #[test]
    fn the_newest_kernel_is_chosen_by_number() {
        let packages = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.99+deb12-cloud-amd64",
        ];
        let newest = |version| newest_of(packages.iter().copied(), version);
        assert_eq!(newest("6.1").unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(newest("6.12").unwrap(), "linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(newest("5.10"), None);
    }
}
