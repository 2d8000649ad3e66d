//! Real containers, started by runc as a kubelet's container runtime would: with a cgroup path of its kind.
//!
//! The container's root file system is made of the host's folders, read-only, so that what runs there runs here; it
//! shares the host's network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::workload::{Workload, folder};

/// A container that ends with the value.
pub struct Container {
    id: String,
    _bundle: TempDir,
    workload: Workload,
    /// The first line that its process wrote.
    pub first: String,
}

/// Folders of the host that programs need.
const HOST: [&str; 6] = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc"];

impl Container {
    /// Runs a script of `tests/python` with the system's Python in a cgroup of this path, and waits for its first line.
    ///
    /// # Panics
    /// If runc is not there, or does not start it.
    pub fn script(id: &str, cgroup: &str, script: &str, args: &[&str]) -> Self {
        let bundle = tempfile::tempdir().expect("a bundle");
        let root = bundle.path().join("rootfs");
        let python = folder("python");
        for place in
            HOST.iter().map(Path::new).chain([python.as_path(), Path::new("/tmp"), Path::new("/proc")])
        {
            fs::create_dir_all(root.join(place.strip_prefix("/").expect("absolute")))
                .expect("a place to mount");
        }
        let mut command: Vec<String> =
            ["python3", "-u"].into_iter().map(str::to_owned).chain([path(&python.join(script))]).collect();
        command.extend(args.iter().map(|&arg| arg.to_owned()));
        let config = config(&command, cgroup, &python);
        fs::write(bundle.path().join("config.json"), config.to_string()).expect("its configuration");
        let mut runc = Command::new("runc");
        runc.arg("run").arg("--bundle").arg(bundle.path()).arg(id);
        let (workload, first) = Workload::start(runc);
        Self { id: id.to_owned(), _bundle: bundle, workload, first }
    }

    /// The process in it, as the host numbers it.
    pub fn pid(&self) -> u32 {
        let state = Command::new("runc").args(["state", &self.id]).output().expect("runc");
        let state: Value = serde_json::from_slice(&state.stdout).expect("its state");
        state["pid"].as_u64().expect("a pid") as u32
    }

    /// The next line that its process writes.
    pub fn line(&mut self) -> String {
        self.workload.line()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Kills every process of its cgroups, whatever became of runc.
        let _gone = Command::new("runc").args(["delete", "--force", &self.id]).output();
    }
}

fn path(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn config(command: &[String], cgroup: &str, python: &Path) -> Value {
    let bound = HOST.iter().map(PathBuf::from).filter(|host| host.exists()).chain([python.to_owned()]);
    // In this order: a folder of the host may be below /tmp.
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}),
    ];
    mounts.extend(bound.map(
        |host| json!({"destination": host, "type": "bind", "source": host, "options": ["rbind", "ro"]}),
    ));
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE=1"],
            "args": command,
        },
        "mounts": mounts,
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
        },
    })
}
