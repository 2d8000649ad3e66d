//! The kubelet's folder of pods' logs, written as a runtime and the kubelet do.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

/// The folder; deleted when it goes out of scope.
pub struct PodLogs {
    folder: TempDir,
    began: Timestamp,
}

impl Default for PodLogs {
    fn default() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), began: Timestamp::now() }
    }
}

impl PodLogs {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of a pod's container `server`. Its uid is made of its name.
    pub fn server(&self, namespace: &str, pod: &str) -> PathBuf {
        let folder = self.path().join(format!("{namespace}_{pod}_uid-of-{pod}")).join("server");
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// So many minutes before these logs began.
    pub fn ago(&self, minutes: i64) -> Timestamp {
        self.began.checked_sub(SignedDuration::from_mins(minutes)).expect("a time")
    }
}

/// A line as runtimes for Kubernetes write it.
pub fn cri(time: Timestamp, stream: &str, text: &str) -> String {
    format!("{time} {stream} F {text}\n")
}

/// Writes on in a file.
pub fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}

/// Compresses a rotated file as the kubelet does: beside it, and then in its place
/// (`pkg/kubelet/logs/container_log_manager.go`).
pub fn compress(path: &Path) {
    let temporary = PathBuf::from(format!("{}.tmp", path.display()));
    let mut encoder = GzEncoder::new(File::create(&temporary).expect("a file"), Compression::fast());
    encoder.write_all(&fs::read(path).expect("the file")).expect("compressed");
    encoder.finish().expect("compressed");
    fs::rename(&temporary, format!("{}.gz", path.display())).expect("renamed");
    fs::remove_file(path).expect("deleted");
}
