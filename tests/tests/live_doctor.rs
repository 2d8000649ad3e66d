//! What `observer doctor` finds, on this machine and against an API server, with and without what it looks for.

use std::{path::Path, process::Command};

use observer_tests::{
    agent::{observer, program, unconfigured},
    apiserver::{ApiServer, Resource, TOKEN},
    deploy::rights,
    live::privileged,
    receiver::Authority,
};
use serde_json::{Value, json};

/// The findings, and the exit status.
fn examined(mut command: Command) -> (Vec<Value>, i32) {
    let output = command.output().expect("the doctor");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings =
        said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")));
    let findings: Vec<Value> = findings.collect();
    assert!(!findings.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (findings, output.status.code().expect("a status"))
}

/// The one finding of a check with this text in it.
fn finding<'a>(findings: &'a [Value], check: &str, text: &str) -> &'a Value {
    let has = |finding: &&Value| {
        finding["check"] == check && finding["found"].as_str().is_some_and(|found| found.contains(text))
    };
    findings.iter().find(has).unwrap_or_else(|| panic!("no {check} with {text}: {findings:#?}"))
}

fn states(findings: &[Value], state: &str) -> Vec<String> {
    let of = |finding: &Value| format!("{}: {}", finding["check"], finding["found"]);
    findings.iter().filter(|finding| finding["state"] == state).map(of).collect()
}

fn doctor(args: &[&str]) -> Command {
    observer([&["doctor", "--json"], args].concat())
}

#[test]
fn a_machine_that_grants_everything_lacks_nothing() {
    if !privileged() {
        return;
    }
    let (findings, status) = examined(doctor(&["agent"]));
    assert_eq!((states(&findings, "missing"), status), (Vec::new(), 0), "{findings:#?}");
    for check in
        ["kernel", "lockdown", "btf", "cgroups", "capabilities", "pid namespace", "tracefs", "libnvidia-ml"]
    {
        assert_eq!(finding(&findings, check, "")["state"], "ok", "{check}");
    }
    let probes = findings.iter().filter(|finding| finding["check"] == "probe" && finding["state"] == "ok");
    assert_eq!(probes.count(), 10, "{findings:#?}");
    finding(&findings, "probe", "sys_enter");
    let honors = finding(&findings, "honorLabels", "");
    assert_eq!(honors["state"], "unknown");
    assert!(honors["remedy"].as_str().is_some_and(|remedy| remedy.contains("exported_pod")), "{honors}");
    let (otel, _) = examined(doctor(&["--set", "metrics.labels=otel"]));
    assert_eq!(finding(&otel, "honorLabels", "")["state"], "ok");
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    if !privileged() {
        return;
    }
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let (mine, other) = (
        authority.write_pair(folder.path(), "mine", &["localhost"]),
        authority.write_pair(folder.path(), "other", &["localhost"]),
    );
    let ca = folder.path().join("ca.crt");
    authority.write(&ca);
    for (key, ca, state, found) in [
        (&mine.key, &ca, "ok", ""),
        (&other.key, &ca, "missing", "tls.key_file"),
        (&mine.key, &mine.key, "missing", "tls.ca_file"),
    ] {
        let settings = [("tls.cert_file", &mine.certificate), ("tls.key_file", key), ("tls.ca_file", ca)];
        let settings = settings.map(|(name, file)| format!("{name}={}", file.display()));
        let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let (findings, _) = examined(doctor(&args));
        assert_eq!(finding(&findings, "tls", found)["state"], state, "{findings:#?}");
    }
}

#[test]
fn each_capability_that_is_not_granted_is_named() {
    if !privileged() {
        return;
    }
    let without = |lacking: &str| {
        let mut command = Command::new("setpriv");
        // CAP_SYS_ADMIN stands for those that were split off it.
        command.args(["--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-sys_admin,-{lacking}")]);
        command.arg(program());
        examined(unconfigured(command, ["doctor", "--json"]))
    };
    for (lacking, check, name, stops_probes) in [
        ("bpf", "capabilities", "CAP_BPF", true),
        ("perfmon", "capabilities", "CAP_PERFMON", true),
        ("sys_ptrace", "capability", "CAP_SYS_PTRACE", false),
        ("dac_read_search", "capability", "CAP_DAC_READ_SEARCH", false),
    ] {
        let (findings, status) = without(lacking);
        let found = finding(&findings, check, name);
        assert_eq!((&found["state"], status), (&json!("missing"), 1), "{lacking}: {findings:#?}");
        assert!(found["remedy"].as_str().is_some_and(|remedy| remedy.contains("root")), "{found}");
        let probes = findings.iter().filter(|finding| finding["check"] == "probe").count();
        assert_eq!(probes == 0, stops_probes, "{lacking}: {findings:#?}");
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork"]).arg(program());
    let (findings, status) = examined(unconfigured(command, ["doctor", "--json"]));
    let found = finding(&findings, "pid namespace", "not in the initial");
    assert!(status == 1 && found["remedy"].to_string().contains("hostPID: true"), "{found}");
}

/// An API server that lets an account do what the chart grants it.
fn server(account: &str, folder: &Path) -> Option<(ApiServer, String, Vec<Value>)> {
    let rules = rights(account)?;
    let api = ApiServer::start();
    api.kubeconfig(&folder.join("kubeconfig"));
    api.accept(TOKEN, &format!("system:serviceaccount:observer:{account}"));
    api.enforce(&rules);
    let kubeconfig = format!("kubernetes.kubeconfig={}", folder.join("kubeconfig").display());
    Some((api, kubeconfig, rules))
}

#[test]
fn rights_that_are_not_granted_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((api, kubeconfig, rules)) = server("observer-cluster", folder.path()) else { return };
    let ask = |more: &[&str]| {
        examined(doctor(
            &[&["cluster", "--set", &kubeconfig, "--set", "cluster.namespace=observer"], more].concat(),
        ))
    };
    let (findings, status) = ask(&[]);
    assert_eq!((states(&findings, "missing"), status), (Vec::new(), 0), "{findings:#?}");
    assert_eq!(finding(&findings, "rights", "that this role uses")["state"], "ok");
    assert_eq!(
        finding(&findings, "agents", "none behind the Service observer/observer-agent")["state"],
        "less"
    );
    assert_eq!(finding(&findings, "honorLabels", "cannot be seen")["state"], "unknown");

    // One verb on one resource less, and then the agents' places too.
    let mut fewer = rules.clone();
    for rule in fewer.iter_mut().flat_map(|one| one["rules"].as_array_mut().into_iter().flatten()) {
        if rule["resources"].to_string().contains("deployments") {
            rule["verbs"] = json!(["list"]);
        }
    }
    api.enforce(&fewer);
    let (findings, status) = ask(&[]);
    let expected: Vec<String> = ["deployments", "statefulsets", "daemonsets", "replicasets"]
        .map(|resource| format!("\"rights\": \"may not watch {resource}.apps\""))
        .into();
    assert_eq!((states(&findings, "missing"), status), (expected, 1));
    fewer.retain(|one| one["kind"] != "Role");
    api.enforce(&fewer);
    let (findings, _) = ask(&[]);
    finding(&findings, "rights", "may not list endpointslices.discovery.k8s.io in observer");
    finding(&findings, "rights", "may not update leases.coordination.k8s.io in observer");
    assert_eq!(finding(&findings, "agents", "forbidden")["state"], "less");

    // The token of the API, and an API server that does not know who asks, or is away.
    let (findings, status) = ask(&["--set", "api.token_file=/nonexistent/token"]);
    assert!(status == 1 && finding(&findings, "api token", "/nonexistent/token")["state"] == "missing");
    api.reject(TOKEN);
    let (findings, status) = ask(&[]);
    assert!(status == 1 && finding(&findings, "api server", "Unauthorized")["state"] == "missing");
    drop(api);
    let (findings, status) = ask(&[]);
    assert_eq!((&finding(&findings, "api server", "")["state"], status), (&json!("missing"), 1));
}

#[test]
fn pod_monitors_that_can_be_read_are_judged() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = ApiServer::start();
    api.kubeconfig(&folder.path().join("kubeconfig"));
    api.install(Resource {
        group: "monitoring.coreos.com",
        version: "v1",
        plural: "podmonitors",
        kind: "PodMonitor",
        namespaced: true,
        custom: true,
    });
    let kubeconfig = format!("kubernetes.kubeconfig={}", folder.path().join("kubeconfig").display());
    for (honors, state) in [(true, "ok"), (false, "missing")] {
        api.put(json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
            "metadata": {"namespace": "observer", "name": "observer"},
            "spec": {"selector": {"matchLabels": {"app.kubernetes.io/name": "observer"}},
                "podMetricsEndpoints": [{"port": "http", "honorLabels": honors}]},
        }));
        let (findings, status) = examined(doctor(&["cluster", "--set", &kubeconfig]));
        let found = finding(&findings, "honorLabels", "observer/observer");
        assert_eq!((&found["state"], status), (&json!(state), i32::from(!honors)), "{found}");
    }
}
