//! The capabilities that `deploy/` grants an unprivileged agent are enough, and each is needed.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use observer_tests::{
    agent::{Agent, program, unconfigured},
    client::{Client, chat},
    deploy::path,
    live::privileged,
    workload::{Workload, folder, quiet},
};
use rustix::process::Signal;
use tempfile::TempDir;

/// As in the chart's values.
const NEEDED: [&str; 4] = ["bpf", "perfmon", "sys_ptrace", "dac_read_search"];

/// How long a record may take that comes at all.
const SOON: Duration = Duration::from_millis(500);

/// Programs that anybody may start.
struct Copies(TempDir);

impl Copies {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("mode");
        let copies = Self(folder);
        copies.copy(&program(), "observer");
        copies.copy(&folder_of_scripts().join("openai_server.py"), "openai_server.py");
        copies
    }

    fn copy(&self, from: &std::path::Path, name: &str) {
        fs::copy(from, self.path(name)).expect("a copy");
        fs::set_permissions(self.path(name), Permissions::from_mode(0o755)).expect("mode");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn folder_of_scripts() -> PathBuf {
    folder("python")
}

/// A server that runs as somebody else.
fn server(copies: &Copies) -> (Workload, String) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65533", "--regid=65533", "--clear-groups"]);
    // Not the Python of this user, which others may not be able to start.
    command.args(["/usr/bin/python3", "-u"]).arg(copies.path("openai_server.py"));
    Workload::start(command)
}

/// Who the agent is, with which capabilities.
fn agent(copies: &Copies, is_root: bool, capabilities: &[&str]) -> Command {
    let list =
        ["-all"].into_iter().map(str::to_owned).chain(capabilities.iter().map(|name| format!("+{name}")));
    let list = list.collect::<Vec<_>>().join(",");
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", &format!("--bounding-set={list}")]);
    if is_root {
        command.arg("--inh-caps=-all");
    } else {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args([format!("--inh-caps={list}"), format!("--ambient-caps={list}")]);
    }
    command.arg(copies.path("observer"));
    unconfigured(command, ["agent", "--listen", "127.0.0.1:0"])
}

/// Whether an agent sees a request on a connection that was there before it, to a server of another user.
fn sees(copies: &Copies, is_root: bool, capabilities: &[&str]) -> bool {
    let (server, port) = server(copies);
    let mut client = Client::connect(&port);
    client.plain("before", &chat("m", false, 1));
    let agent = Agent::with(agent(copies, is_root, capabilities));
    assert_eq!(agent.metrics().sum("observer_probe_info", &[("mode", "attached")]), Some(10));
    let follower = agent.follow();
    // The follower is there a moment later.
    quiet(SOON / 5);
    client.stream("asked", &chat("m", true, 5));
    quiet(SOON);
    let records = follower.records();
    let of_server = records.iter().filter(|record| record.pid == server.pid());
    let seen = of_server.filter(|record| record.request_id.as_deref() == Some("asked")).count();
    agent.end(Signal::TERM).assert_prompt("SIGTERM of an agent with few capabilities");
    seen == 1
}

#[test]
fn four_capabilities_are_enough_and_each_is_needed() {
    if !privileged() {
        return;
    }
    let copies = Copies::make();
    assert!(sees(&copies, true, &NEEDED), "as root: the pod");
    assert!(sees(&copies, false, &NEEDED), "as nobody: the unit");
    // Without the first two it refuses to start, which live_refusals shows.
    for missing in ["sys_ptrace", "dac_read_search"] {
        let rest: Vec<&str> = NEEDED.into_iter().filter(|name| *name != missing).collect();
        assert!(!sees(&copies, true, &rest), "{missing} is not needed");
    }
}

#[test]
fn what_is_granted_is_what_was_tested() {
    let named = |prefix: &str, separator: &str| {
        let list: Vec<String> =
            NEEDED.iter().map(|name| format!("{prefix}{}", name.to_uppercase())).collect();
        list.join(separator)
    };
    for (file, list) in [
        ("helm/observer/values.yaml", format!("capabilities: [{}]\n", named("", ", "))),
        ("kustomize/overlays/least-privilege/kustomization.yaml", format!("add: [{}]\n", named("", ", "))),
        ("observer.service", format!("CapabilityBoundingSet={}\n", named("CAP_", " "))),
        ("observer.service", format!("AmbientCapabilities={}\n", named("CAP_", " "))),
    ] {
        let text = fs::read_to_string(path(file)).expect("a file");
        assert!(text.contains(&list), "{file}: no {list}");
    }
}
