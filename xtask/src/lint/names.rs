//! Rules about single files: their length, their names, no test that is switched off.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::root;

/// No file is longer.
const MOST_LINES: usize = 600;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"];

/// What breaks a rule, one line each.
pub(super) fn check(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for file in files {
        let text = fs::read_to_string(root().join(file)).with_context(|| file.display().to_string())?;
        broken.extend(broken_by(file, &text));
    }
    Ok(broken)
}

fn broken_by(file: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let shown = file.display();
    let lines = text.lines().count();
    if lines > MOST_LINES {
        broken.push(format!("{shown}: {lines} lines, at most {MOST_LINES}: split it"));
    }
    let part = |part: &std::ffi::OsStr| part.to_string_lossy().trim_end_matches(".rs").to_owned();
    if let Some(name) = file.iter().map(part).find(|name| EMPTY_NAMES.contains(&name.as_str())) {
        broken.push(format!("{shown}: `{name}` says nothing about what is inside: name the thing"));
    }
    for (number, line) in text.lines().enumerate() {
        // Attributes begin their line in formatted code; one that is quoted inside a string does not.
        let line = line.trim_start();
        if line.starts_with("#[ignore") || (line.starts_with("#[cfg_attr") && line.contains("ignore")) {
            broken.push(format!("{shown}:{}: a test that is switched off proves nothing", number + 1));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_names_and_ignored_tests() {
        let broken = |file: &str, text: &str| broken_by(Path::new(file), text);
        assert_eq!(broken("observer/src/http/head.rs", &"\n".repeat(600)), [""; 0]);
        assert!(broken("observer/src/http/head.rs", &"\n".repeat(601))[0].contains("601 lines"));
        assert!(broken("observer/src/util.rs", "")[0].contains("`util`"));
        assert!(broken("observer/src/helpers/head.rs", "")[0].contains("`helpers`"));
        assert_eq!(broken("observer/src/utility_meter.rs", ""), [""; 0]);
        assert!(broken("a.rs", "#[test]\n    #[ignore = \"slow\"]\n")[0].starts_with("a.rs:2: "));
        assert_eq!(broken("a.rs", "// never #[ignore]\n"), [""; 0]);
    }
}
