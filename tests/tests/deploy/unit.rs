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

/// What systemd has to say of it; nothing, if nothing is wrong.
fn verified(change: impl Fn(String) -> String) -> Option<String> {
    let folder = unit(change);
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(folder.path().join("observer.service"));
    let Ok(output) = command.output() else {
        assert!(std::env::var_os("CI").is_none(), "CI must have systemd-analyze");
        eprintln!("SKIPPED: no systemd-analyze here");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { said } else { format!("{}: {said}", output.status) })
}

#[test]
fn systemd_takes_the_unit() {
    let Some(said) = verified(|text| text) else { return };
    assert_eq!(said, "");
    let said =
        verified(|text| text.replace("ProtectSystem=strict", "ProtectSystem=nonsense")).expect("as before");
    assert!(said.contains("nonsense"), "{said}");
}
