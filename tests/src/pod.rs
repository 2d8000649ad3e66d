//! A pod's container, started by runc as a kubelet and containerd would from the same manifest. A stand-in for both: it
//! knows what the manifests of `deploy/` use, and panics at what it does not know.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::wait_for;

/// Names of capabilities by their numbers (`include/uapi/linux/capability.h`).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What to start: a workload's first container, and what surrounds it.
pub struct Pod<'a> {
    /// All objects that were applied, the workload and its ConfigMap among them.
    pub objects: &'a [Value],
    /// The DaemonSet or Deployment.
    pub workload: &'a Value,
    /// The image's unpacked root.
    pub root: &'a Path,
    /// Where the node's files are, if not where they really are.
    pub host: Option<&'a Path>,
    /// In place of the manifest's arguments.
    pub args: Option<&'a [&'a str]>,
    /// Environment variables besides the manifest's.
    pub env: &'a [(&'a str, &'a str)],
    /// The only system calls that it may make; all, if there are none.
    pub system_calls: &'a [String],
}

impl Pod<'_> {
    fn spec(&self) -> &Value {
        &self.workload["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        &self.spec()["containers"][0]
    }

    /// A field of the container's security context, or else of the pod's.
    fn security(&self, field: &str) -> &Value {
        match &self.container()["securityContext"][field] {
            Value::Null => &self.spec()["securityContext"][field],
            value => value,
        }
    }

    fn capabilities(&self) -> Vec<String> {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        let bounding =
            status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("capabilities").trim();
        let bounding = u64::from_str_radix(bounding, 16).expect("a number");
        let list = &self.security("capabilities")["add"];
        let added = |name: &str| list.as_array().is_some_and(|list| list.iter().any(|one| one == name));
        let privileged = *self.security("privileged") == true;
        let granted = CAPABILITIES.iter().enumerate().filter(|(bit, name)| {
            // A privileged container has what there is.
            if privileged { bounding >> bit & 1 == 1 } else { added(name) }
        });
        granted.map(|(_, name)| format!("CAP_{name}")).collect()
    }

    fn environment(&self) -> Vec<String> {
        let variables = self.container()["env"].as_array().expect("env").iter().map(|variable| {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("spec.nodeName") => "node-7",
                Some("metadata.name") => "observer-x",
                Some("metadata.namespace") => "observer",
                Some(path) => panic!("{path}"),
                None => text(&variable["value"]),
            };
            format!("{}={value}", text(&variable["name"]))
        });
        variables.chain(self.env.iter().map(|(name, value)| format!("{name}={value}"))).collect()
    }

    /// Mounts of the manifest; files that they need go into `bundle`.
    fn mounts(&self, bundle: &Path) -> Vec<Value> {
        let volumes = self.spec()["volumes"].as_array().expect("volumes");
        let mounts = self.container()["volumeMounts"].as_array().expect("mounts").iter();
        let one = |mount: &Value| {
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("a volume");
            let source = if let Some(path) = volume["hostPath"]["path"].as_str() {
                let moved = self.host.map(|host| host.join(&path[1..])).filter(|moved| moved.exists());
                let source = moved.unwrap_or_else(|| PathBuf::from(path));
                // What may be written is never this machine's own.
                let is_own = mount["readOnly"] != true && source == Path::new(path);
                if is_own || (volume["hostPath"]["type"] == "DirectoryOrCreate" && !source.exists()) {
                    bundle_folder(bundle, path)
                } else {
                    source
                }
            } else if volume["emptyDir"].is_object() {
                let folder = bundle_folder(bundle, &format!("empty-{}", text(&volume["name"])));
                // As the kubelet makes them.
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("open to all");
                folder
            } else {
                let name = text(&volume["configMap"]["name"]);
                let map = self
                    .objects
                    .iter()
                    .find(|one| one["kind"] == "ConfigMap" && one["metadata"]["name"] == name);
                let folder = bundle_folder(bundle, name);
                for (file, content) in map.expect("a ConfigMap")["data"].as_object().expect("data") {
                    fs::write(folder.join(file), text(content)).expect("a file of a ConfigMap");
                }
                folder
            };
            let propagation =
                if mount["mountPropagation"] == "HostToContainer" { "rslave" } else { "rprivate" };
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            json!({"destination": mount["mountPath"], "type": "bind", "source": source, "options": ["rbind", propagation, access]})
        };
        mounts.map(one).collect()
    }

    /// The bundle's configuration (OCI runtime specification 1.0).
    fn configuration(&self, bundle: &Path) -> Value {
        let capabilities = self.capabilities();
        let privileged = *self.security("privileged") == true;
        let args: Vec<&str> = match self.args {
            Some(args) => args.to_vec(),
            None => self.container()["args"].as_array().expect("args").iter().map(text).collect(),
        };
        let args: Vec<&str> = ["/usr/bin/observer"].into_iter().chain(args).collect();
        let access = if privileged { "rw" } else { "ro" };
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}),
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", access]}),
        ];
        mounts.extend(self.mounts(bundle));
        let mut namespaces = vec!["mount", "ipc", "uts", "network"];
        namespaces.extend((self.spec()["hostPID"] != true).then_some("pid"));
        let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
        let masked: &[&str] = if privileged {
            &[]
        } else {
            &["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
        };
        let readonly: &[&str] =
            if privileged { &[] } else { &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"] };
        let mut all = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": self.security("runAsUser"), "gid": self.security("runAsGroup")},
                "args": args,
                "env": self.environment(),
                "cwd": "/",
                "capabilities": {"bounding": capabilities, "permitted": capabilities, "effective": capabilities},
                "noNewPrivileges": *self.security("allowPrivilegeEscalation") == false
            },
            "root": {"path": self.root, "readonly": *self.security("readOnlyRootFilesystem") == true},
            "hostname": "observer-x",
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces, "maskedPaths": masked, "readonlyPaths": readonly,
                "resources": {"devices": [{"allow": false, "access": "rwm"}]}
            }
        });
        if !self.system_calls.is_empty() {
            all["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": self.system_calls, "action": "SCMP_ACT_ALLOW"}]
            });
        }
        all
    }

    /// Starts it.
    pub fn start(&self) -> Running {
        let bundle = tempfile::tempdir().expect("a bundle");
        let configuration = self.configuration(bundle.path());
        fs::write(bundle.path().join("config.json"), configuration.to_string()).expect("config.json");
        let id = bundle
            .path()
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name")
            .replace('.', "observer-");
        let log = File::create(bundle.path().join("log")).expect("its log");
        let mut command = Command::new("runc");
        command.arg("--root").arg(bundle.path().join("state")).args(["run", "--pid-file"]);
        command.arg(bundle.path().join("pid")).arg("--bundle").arg(bundle.path()).arg(&id);
        let both = log.try_clone().expect("its log");
        let child = command.stdin(Stdio::null()).stdout(both).stderr(log).spawn().expect("runc");
        Running { id, bundle, child }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}"))
}

fn bundle_folder(bundle: &Path, name: &str) -> PathBuf {
    let folder = bundle.join("volumes").join(name.replace('/', "-"));
    fs::create_dir_all(&folder).expect("a volume");
    folder
}

/// A running container. Killed when it goes out of scope.
pub struct Running {
    id: String,
    bundle: TempDir,
    child: Child,
}

impl Running {
    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.bundle.path().join("log")).expect("its log")
    }

    /// Its process id, on the node.
    pub fn pid(&mut self) -> u32 {
        wait_for("the container's process", || {
            let pid = fs::read_to_string(self.bundle.path().join("pid")).ok()?;
            self.assert_alive();
            pid.trim().parse().ok()
        })
    }

    /// Panics if it has ended.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("wait") {
            panic!("the container ended with {status}: {}", self.log());
        }
    }

    /// Waits for its end: whether it ended well, and what it wrote.
    pub fn finish(mut self) -> (bool, String) {
        let status = wait_for("the container's end", || self.child.try_wait().expect("wait"));
        (status.success(), self.log())
    }

    fn runc(&self, args: &[&str]) {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.bundle.path().join("state")).args(args);
        // It may have ended by itself.
        drop(command.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }

    /// Tells it to end and waits until it has; whether it ended well.
    pub fn stop(mut self) -> (bool, String) {
        self.runc(&["kill", &self.id, "TERM"]);
        let status = wait_for("the container's end", || self.child.try_wait().expect("wait"));
        (status.success(), self.log())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.runc(&["delete", "--force", &self.id]);
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Does something in the network namespace of a process: on a thread of its own, which ends with it.
pub fn in_network_of<T: Send>(pid: u32, what: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("a network namespace");
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            use std::os::fd::AsFd as _;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            what()
        });
        inside.join().expect("what is done in a network namespace")
    })
}

/// A counter of a network namespace, such as `Tcp` and `ActiveOpens` (`/proc/net/snmp`).
pub fn network_counter(pid: u32, protocol: &str, counter: &str) -> u64 {
    let all = fs::read_to_string(format!("/proc/{pid}/net/snmp")).expect("counters");
    let mut lines = all.lines().filter(|line| line.starts_with(&format!("{protocol}:")));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split(' ').position(|name| name == counter).expect("a counter");
    values.split(' ').nth(at).expect("a value").parse().expect("a number")
}
