//! The images of `deploy/Dockerfile`, built as for a release but around the program that is tested, and started by runc
//! as the manifests of `deploy/` say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use observer_tests::{
    agent::{Metrics, program, wait_for},
    client::{Client, chat},
    deploy::{Renderer, object, path},
    image::Image,
    live::privileged,
    pod::{Pod, in_network_of, network_counter},
    workload::{Workload, folder},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Built once, for all of these tests: nextest starts a process for each, so they are one test.
struct Images {
    folder: TempDir,
}

impl Images {
    fn build() -> Self {
        let built = folder("../target/debug/xtask");
        let xtask = std::env::var_os("OBSERVER_XTASK").map_or(built, PathBuf::from);
        let folder = tempfile::tempdir().expect("a folder");
        let program = fs::canonicalize(program()).expect("the program");
        let mut dist = Command::new(xtask);
        dist.arg("dist").arg("--binary").arg(program).arg("--out").arg(folder.path());
        let output = dist.output().expect("cargo xtask dist");
        let said =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success(), "{dist:?}: {said}");
        print!("{said}");
        Self { folder }
    }

    fn image(&self, name: &str) -> Image {
        Image::read(&self.folder.path().join(name))
    }
}

fn unpacked(image: &Image) -> TempDir {
    let root = tempfile::tempdir().expect("a root");
    image.unpack(root.path());
    root
}

#[test]
fn images_run_as_the_manifests_say() {
    if !privileged() {
        return;
    }
    let Some(renderer) = Renderer::find() else { return };
    let images = Images::build();
    let (agent, cluster) = (images.image("observer-agent"), images.image("observer-cluster"));
    configurations(&agent, &cluster);
    let root = unpacked(&agent);
    contents(root.path());

    let objects = |values: Value| renderer.helm(&values).expect("the chart");
    let config = "[metrics]\nprofile = \"full\"\n";
    observes("privileged", &objects(json!({"config": config})), root.path(), &[]);
    let least = objects(json!({"config": config, "agent": {"privileged": false}}));
    observes("least privilege", &least, root.path(), &[]);
    let allowed = system_calls_of_the_unit();
    observes("the unit's system calls", &least, root.path(), &allowed);
    refuses_without_bpf(&least, root.path(), allowed);
    loads_a_library(&objects(json!({})), root.path());
    let root = unpacked(&cluster);
    serves_without_an_api_server(&objects(json!({})), root.path());
}

fn configurations(agent: &Image, cluster: &Image) {
    for (image, role, user) in [(agent, "agent", "0:0"), (cluster, "cluster", "65532:65532")] {
        let config = &image.config;
        assert_eq!(config["Entrypoint"], json!(["/usr/bin/observer"]));
        assert_eq!((&config["Cmd"], &config["User"]), (&json!([role]), &json!(user)));
        let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].clone();
        assert_eq!(label("title"), format!("observer {role}"));
        assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(label("licenses"), "Apache-2.0 OR MIT");
        println!(
            "observer-{role}: {:.1} MB compressed, around the program as tests build it",
            image.compressed() as f64 / 1e6
        );
    }
    // Built one after the other: nothing in them depends on when.
    assert_eq!(agent.manifest["layers"], cluster.manifest["layers"]);
}

/// What is in the image, and what is not.
fn contents(root: &Path) {
    for file in [
        "usr/bin/observer",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/share/doc/libc6/copyright",
        "usr/share/doc/observer/LICENSE-MIT",
    ] {
        assert!(fs::metadata(root.join(file)).expect(file).len() > 1000, "{file}");
    }
    let programs: Vec<_> = fs::read_dir(root.join("usr/bin")).expect("programs").collect();
    assert_eq!(programs.len(), 1, "{programs:?}");
    let output = Command::new("find").arg(root).args(["-perm", "/6000"]).output().expect("find");
    assert!(output.stdout.is_empty(), "set-user-id: {}", String::from_utf8_lossy(&output.stdout));
}

/// The agent in its pod: it captures a request, is asked from inside its network, and asks nobody.
fn observes(what: &str, objects: &[Value], root: &Path, system_calls: &[String]) {
    let workload = object(objects, "DaemonSet", "observer-agent");
    let (server, port) = Workload::script("openai_server.py", &[]);
    let mut client = Client::connect(&port);
    client.plain("before", &chat("m", false, 1));
    let mut pod = Pod { objects, workload, root, host: None, args: None, env: &[], system_calls }.start();
    let pid = pod.pid();
    let mut asked = 0;
    let mut get = |path: &str| -> Option<(u16, String)> {
        asked += 1;
        in_network_of(pid, || {
            let asking = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
            let mut answer = asking.get(format!("http://127.0.0.1:9842{path}")).call().ok()?;
            Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
        })
    };
    let healthy = wait_for("/healthz", || {
        pod.assert_alive();
        get("/healthz")
    });
    assert_eq!(healthy, (200, "ok\n".to_owned()), "{what}");
    wait_for("/readyz", || get("/readyz").filter(|(status, _)| *status == 200));

    // On a connection that was there before: only who may look into others' processes sees it.
    client.stream("seen", &chat("m", true, 5));
    let metrics = wait_for("the request in its metrics", || {
        let (_, text) = get("/metrics")?;
        let metrics = Metrics(text);
        let ok = [("outcome", "ok"), ("code", "200"), ("gen_ai_request_model", "m")];
        (metrics.sum("llm_requests_total", &ok) >= Some(1)).then_some(metrics)
    });
    assert_eq!(
        metrics.sum("observer_probe_info", &[("mode", "attached")]),
        Some(10),
        "{what}: {}",
        pod.log()
    );
    // With the configuration of the ConfigMap.
    assert!(metrics.0.contains("llm_response_start_seconds"), "{what}");

    assert_eq!(network_counter(pid, "Tcp", "ActiveOpens"), asked, "{what}: connections besides this test's");
    assert_eq!(network_counter(pid, "Udp", "OutDatagrams"), 0, "{what}");
    assert_eq!(network_counter(pid, "Ip", "OutNoRoutes"), 0, "{what}");
    let (well, log) = pod.stop();
    assert!(well && !log.contains("ERROR"), "{what}: {log}");
    server.kill();
}

/// What `SystemCallFilter=` of the unit lets through, with systemd's groups spelt out.
fn system_calls_of_the_unit() -> Vec<String> {
    let unit = fs::read_to_string(path("observer.service")).expect("the unit");
    let filter = unit.lines().find_map(|line| line.strip_prefix("SystemCallFilter=")).expect("a filter");
    let mut calls = Vec::new();
    let mut open: Vec<String> = filter.split(' ').map(str::to_owned).collect();
    while let Some(name) = open.pop() {
        if !name.starts_with('@') {
            calls.push(name);
            continue;
        }
        let output = Command::new("systemd-analyze")
            .args(["syscall-filter", &name])
            .output()
            .expect("systemd-analyze");
        let listed = String::from_utf8(output.stdout).expect("UTF-8");
        let members = listed
            .lines()
            .skip(1)
            .map(str::trim)
            .filter(|member| !member.is_empty() && !member.starts_with('#'));
        open.extend(members.map(str::to_owned));
    }
    assert!(calls.len() > 200 && calls.iter().any(|call| call == "bpf"), "{calls:?}");
    calls
}

/// The filter above is one.
fn refuses_without_bpf(objects: &[Value], root: &Path, mut system_calls: Vec<String>) {
    system_calls.retain(|call| call != "bpf");
    let workload = object(objects, "DaemonSet", "observer-agent");
    let pod = Pod { objects, workload, root, host: None, args: None, env: &[], system_calls: &system_calls };
    let (well, said) = pod.start().finish();
    assert!(!well && said.contains("Operation not permitted"), "{said}");
}

/// A library that the driver's container leaves on the node, linked as libnvidia-ml.so.1 is: a static program could not
/// load it.
fn loads_a_library(objects: &[Value], root: &Path) {
    let host = tempfile::tempdir().expect("a host");
    let place = host.path().join("run/nvidia/driver/usr/lib/x86_64-linux-gnu");
    fs::create_dir_all(&place).expect("a folder");
    let source = host.path().join("driver.c");
    fs::write(
        &source,
        "#include <dlfcn.h>\n#include <math.h>\n#include <pthread.h>\n#include <stdio.h>\n\
         static void *idle(void *x) { return x; }\n\
         __attribute__((constructor)) static void loaded(void) {\n\
         pthread_t t; pthread_create(&t, 0, idle, 0); pthread_join(t, 0);\n\
         fprintf(stderr, \"loaded: %.0f %d\\n\", floor(sqrt((double) (long) stderr)) * 0 + 7, dlsym(0, \"nothing\") == 0); }\n",
    )
    .expect("source");
    let library = place.join("libnvidia-ml.so.1");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-Wl,-soname,libnvidia-ml.so.1", "-o"]);
    let done =
        compiler.arg(&library).arg(&source).args(["-lpthread", "-lm", "-ldl", "-lrt"]).status().expect("cc");
    assert!(done.success(), "{done}");

    let workload = object(objects, "DaemonSet", "observer-agent");
    let preloaded = "/host/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1";
    let env = [("LD_PRELOAD", preloaded)];
    let pod = Pod {
        objects,
        workload,
        root,
        host: Some(host.path()),
        args: Some(&["--version"]),
        env: &env,
        system_calls: &[],
    };
    let (well, said) = pod.start().finish();
    assert!(well && said.contains("loaded: 7 1") && said.contains("observer "), "{said}");
}

/// The cluster role in its pod: without root, without capabilities, on a root that cannot be written. Without an API server
/// it is alive and says that it is not ready.
fn serves_without_an_api_server(objects: &[Value], root: &Path) {
    let workload = object(objects, "Deployment", "observer-cluster");
    let nobody = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    });
    fs::write(root.join("kubeconfig"), nobody.to_string()).expect("a kubeconfig");
    let env = [("OBSERVER_KUBERNETES_KUBECONFIG", "/kubeconfig")];
    let mut pod =
        Pod { objects, workload, root, host: None, args: None, env: &env, system_calls: &[] }.start();
    let pid = pod.pid();
    let get = |path: &str| -> Option<(u16, String)> {
        in_network_of(pid, || {
            let asking = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
            let mut answer = asking.get(format!("http://127.0.0.1:9842{path}")).call().ok()?;
            Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
        })
    };
    let healthy = wait_for("/healthz of the cluster role", || {
        pod.assert_alive();
        get("/healthz")
    });
    assert_eq!(healthy, (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz").expect("an answer").0, 503);
    let metrics = Metrics(get("/metrics").expect("an answer").1);
    assert_eq!(metrics.sum("observer_leader", &[]), Some(0), "{}", metrics.0);
    let (well, log) = pod.stop();
    assert!(well && log.contains("cannot watch"), "{log}");
}
