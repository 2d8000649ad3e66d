//! Debian packages. In: names; out: installed, in one call of apt-get, or the command line to run.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{Moment, command, output, quietly, succeeds, which};

/// Installs the packages that are missing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install {}", missing.join(" "));
    ensure!(
        which("apt-get").is_some(),
        "there is no apt-get here; install what Debian calls {}",
        missing.join(" ")
    );
    ensure!(rustix::process::geteuid().is_root(), "not root; run: sudo {by_hand}");

    let begun = Moment::now();
    println!("setup: {by_hand}");
    if !missing.iter().all(|package| known(package)) {
        quietly(command("apt-get").arg("update")).context("the package lists could not be read")?;
    }
    let unknown: Vec<_> = missing.iter().copied().filter(|package| !known(package)).collect();
    if !unknown.is_empty() {
        bail!("the configured package sources do not have {}", unknown.join(" "));
    }
    quietly(
        command("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&missing),
    )?;
    println!("setup: installed {} ({:.0} s)", missing.join(" "), begun.ago().as_secs_f64());
    Ok(())
}

/// Whether dpkg has it installed.
fn installed(package: &str) -> bool {
    output(command("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status.trim() == "installed")
}

/// Whether apt has a version of it to install.
pub(crate) fn known(package: &str) -> bool {
    succeeds(command("apt-cache").args(["--quiet=2", "show", package]))
}

/// Where this machine gets Debian and its security updates from, by apt's own reading of its sources.
pub(crate) fn base_uris() -> Result<BTreeSet<String>> {
    ensure!(which("apt-get").is_some(), "there is no apt-get here");
    let mut listed = indexes()?;
    if listed.is_empty() && rustix::process::geteuid().is_root() {
        quietly(command("apt-get").arg("update"))?;
        listed = indexes()?;
    }
    ensure!(
        !listed.is_empty(),
        "apt knows no Debian package source on this machine; run: sudo apt-get update"
    );
    Ok(listed)
}

fn indexes() -> Result<BTreeSet<String>> {
    let listed =
        output(command("apt-get").args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]))?;
    let debian = |uri: &str| {
        let path = uri.trim_end_matches('/');
        path.ends_with("/debian") || path.ends_with("/debian-security")
    };
    Ok(listed.lines().filter(|uri| debian(uri)).map(str::to_owned).collect())
}

/// The keys that Debian's releases are signed with.
pub(crate) fn release_keyring() -> Option<&'static Path> {
    let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    keyring.exists().then_some(keyring)
}
