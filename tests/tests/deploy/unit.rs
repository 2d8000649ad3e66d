//! The unit for systemd.

use std::{fs, process::Command};

use observer_tests::{agent::program, deploy::path};

/// The unit with the program where it is.
fn unit(change: impl Fn(String) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let text = fs::read_to_string(path("observer.service")).expect("the unit");
    let program = fs::canonicalize(program()).expect("the program");
    let text = text.replace("/usr/local/bin/observer", program.to_str().expect("UTF-8"));
    fs::write(folder.path().join("observer.service"), change(text)).expect("a unit");
    folder
}

/// What systemd has to say of it; nothing, if nothing is wrong. None, after saying so, where there is no systemd.
fn analyzed(arguments: &[&str], change: impl Fn(String) -> String) -> Option<String> {
    let folder = unit(change);
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).arg(folder.path().join("observer.service"));
    let Ok(output) = command.output() else {
        assert!(std::env::var_os("CI").is_none(), "CI must have systemd-analyze");
        eprintln!("SKIPPED: no systemd-analyze here");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { said } else { format!("{}: {said}", output.status) })
}

const VERIFY: [&str; 3] = ["verify", "--man=no", "--recursive-errors=no"];

#[test]
fn systemd_takes_the_unit() {
    let Some(said) = analyzed(&VERIFY, |text| text) else { return };
    assert_eq!(said, "");
    let nonsense = |text: String| text.replace("ProtectSystem=strict", "ProtectSystem=nonsense");
    let said = analyzed(&VERIFY, nonsense).expect("as before");
    assert!(said.contains("nonsense"), "{said}");
}

/// What is kept needs a folder that outlives the account, which exists only while the unit runs.
#[test]
fn the_unit_has_the_folder_of_the_store() {
    let text = fs::read_to_string(path("observer.service")).expect("the unit");
    let setting = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name}"))
    };
    let folder = std::path::Path::new("/var/lib").join(setting("StateDirectory"));
    assert_eq!(folder, observer::config::StoreConfig::default().path);
    assert_eq!(setting("StateDirectoryMode"), "0700");
}

/// By systemd's own scale of exposure, from 0 to 100.
#[test]
fn the_unit_is_hardened() {
    let arguments = ["security", "--offline=true", "--threshold=35", "--no-pager"];
    let Some(said) = analyzed(&arguments, |text| text) else { return };
    assert_eq!(said, "");
    let soft =
        |text: String| text.replace("RestrictNamespaces=yes", "").replace("SystemCallFilter=", "X-Filter=");
    let said = analyzed(&arguments, soft).expect("as before");
    assert!(said.starts_with("exit status"), "{said}");
}
