//! Which files make up a log, oldest first.
//!
//! Kubelet: `<restart>.log` is written, `<restart>.log.<time>` was, `….gz` is compressed, `….tmp` is being so (kubernetes
//! `pkg/kubelet/logs/container_log_manager.go`). With docker `<restart>.log` is a link to `<id>-json.log`, beside which stand
//! `.1`, `.2.gz`, the older the higher (moby `daemon/logger/loggerutils`). Other files: as docker's, or as logrotate's.

use std::fs;
use std::path::Path;

use super::file::{Candidate, resolved};
use super::source::Source;

/// Files of a log, oldest first.
pub(super) fn candidates(source: &Source) -> Vec<Candidate> {
    let mut found = Vec::new();
    if source.is_folder {
        for name in names(&source.path) {
            let Some((restart, rest)) = name.split_once(".log") else { continue };
            let Ok(restart) = restart.parse::<u32>() else { continue };
            let path = source.path.join(&name);
            if rest.is_empty() && path.is_symlink() {
                rotated(&resolved(&path), Some(restart), &mut found);
                continue;
            }
            let is_compressed = is_gz(rest);
            // The one that is written has no time in its name, and is the newest.
            let age = match rest.trim_start_matches('.').trim_end_matches(".gz") {
                "" => "~".to_owned(),
                time if time.strip_suffix(".tmp").is_some() => continue,
                time => time.to_owned(),
            };
            found.push(Candidate { path, restart: Some(restart), age, is_compressed });
        }
    } else {
        rotated(&source.path, None, &mut found);
    }
    found.sort_by(|a, b| (a.restart, &a.age, a.is_compressed).cmp(&(b.restart, &b.age, b.is_compressed)));
    found
}

/// A file, and those beside it that bear its name and more.
fn rotated(path: &Path, restart: Option<u32>, found: &mut Vec<Candidate>) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    for other in names(folder) {
        let Some(rest) = other.strip_prefix(name) else { continue };
        let is_compressed = is_gz(rest);
        let age = match rest.trim_start_matches(['.', '-']).trim_end_matches(".gz") {
            "" if rest.is_empty() => "~".to_owned(),
            // Numbers count backwards, dates forwards.
            number
                if number.len() <= 4
                    && !number.is_empty()
                    && number.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                let number: u32 = number.parse().unwrap_or_default();
                format!("0{:05}", 99_999 - number)
            }
            date if !date.is_empty() && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
                date.to_owned()
            }
            _ => continue,
        };
        found.push(Candidate { path: folder.join(&other), restart, age, is_compressed });
    }
}

/// Names of the kubelet's and of logrotate's are in lower case.
fn is_gz(rest: &str) -> bool {
    rest.strip_suffix(".gz").is_some()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[&str], source: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let source = Source { path: folder.path().join(source), is_folder: source.is_empty() };
        candidates(&source)
            .iter()
            .map(|one| one.path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn oldest_first() {
        let kubelet = [
            "1.log",
            "0.log",
            "1.log.20260102-000000.gz",
            "1.log.20260103-000000",
            "10.log",
            "1.log.20260102-000000.gz.tmp",
            "1.log.20260104-000000.tmp",
            "note.txt",
        ];
        assert_eq!(
            found(&kubelet, ""),
            ["0.log", "1.log.20260102-000000.gz", "1.log.20260103-000000", "1.log", "10.log"]
        );
        let numbered = ["a.log", "a.log.1", "a.log.2.gz", "a.log.10.gz", "a.log.old", "b.log"];
        assert_eq!(found(&numbered, "a.log"), ["a.log.10.gz", "a.log.2.gz", "a.log.1", "a.log"]);
        assert_eq!(found(&["a.log", "a.log-20260102"], "a.log"), ["a.log-20260102", "a.log"]);
    }

    #[test]
    fn a_link_leads_to_the_files_beside_its_target() {
        let folder = tempfile::tempdir().unwrap();
        let container = folder.path().join("pod");
        fs::create_dir(&container).unwrap();
        for file in ["id-json.log", "id-json.log.1"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink(folder.path().join("id-json.log"), container.join("3.log")).unwrap();
        let found = candidates(&Source { path: container, is_folder: true });
        assert_eq!(found.len(), 2);
        assert!(found[0].path.ends_with("id-json.log.1") && found[1].restart == Some(3));
    }
}
