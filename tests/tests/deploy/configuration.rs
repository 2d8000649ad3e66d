//! What the pods are configured with, given to the program's own reading of it.

use std::path::Path;

use clap::Parser as _;
use observer::config::{Config, MetricsProfile, cli::Cli};
use observer_tests::deploy::{Renderer, object};
use serde_json::{Value, json};

use crate::chart::everything;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}"))
}

/// Environment variables of a container, with what Kubernetes would fill in.
fn environment(container: &Value) -> Vec<(String, String)> {
    let variables = container["env"].as_array().expect("env").iter();
    let value = |variable: &Value| match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
        Some("spec.nodeName") => "node-7".to_owned(),
        Some(path) => path.replace('.', "-"),
        None => text(&variable["value"]).to_owned(),
    };
    variables.map(|variable| (text(&variable["name"]).to_owned(), value(variable))).collect()
}

fn resolve(objects: &[Value], container: &Value) -> Config {
    let arguments = container["args"].as_array().expect("args").iter().map(text);
    let parsed = Cli::try_parse_from(["observer"].into_iter().chain(arguments));
    let cli = parsed.unwrap_or_else(|error| panic!("{container}: {error}"));
    let variables = environment(container);
    let file = variables.iter().find(|(name, _)| name == "OBSERVER_CONFIG").expect("a file").1.clone();
    let map =
        objects.iter().find(|one| one["kind"] == "ConfigMap" && one["data"]["observer.toml"].is_string());
    let content = text(&map.expect("a ConfigMap")["data"]["observer.toml"]);
    Config::resolve(Some((Path::new(&file), content)), variables, &cli, "pod-name")
        .unwrap_or_else(|error| panic!("{container}: {error}"))
}

fn containers(objects: &[Value]) -> [Value; 2] {
    [("DaemonSet", "observer-agent"), ("Deployment", "observer-cluster")]
        .map(|(kind, name)| object(objects, kind, name)["spec"]["template"]["spec"]["containers"][0].clone())
}

#[test]
fn the_program_takes_what_the_manifests_set() {
    let Some(renderer) = Renderer::find() else { return };
    for objects in [renderer.helm(&json!({})).expect("objects"), renderer.kustomize("base")] {
        let [agent, cluster] = containers(&objects);
        // The folder of what is kept is below the one that is mounted, so that its mode is its own.
        let defaults = |node: &str| {
            let mut config = Config::on_node(node);
            config.store.path = "/var/lib/observer/store".into();
            config
        };
        assert_eq!(resolve(&objects, &agent), defaults("node-7"), "the defaults");
        assert_eq!(resolve(&objects, &cluster), defaults("pod-name"), "the defaults");
    }
    let objects = renderer.helm(&everything()).expect("objects");
    let [agent, cluster] = containers(&objects);
    for (container, ring, lease) in
        [(agent, 64 << 20, Config::on_node("n").cluster.lease), (cluster, 16 << 20, "of-mine".to_owned())]
    {
        let config = resolve(&objects, &container);
        assert_eq!(config.cluster.lease, lease);
        assert_eq!((config.metrics.profile, config.slo.len()), (MetricsProfile::Full, 1));
        assert_eq!(config.capture.ring_bytes, ring);
        assert_eq!(config.api.token_file.as_deref(), Some(Path::new("/var/run/secrets/observer/token")));
    }
}

/// The port is written down in many places.
#[test]
fn the_port_is_the_programs() {
    let Some(renderer) = Renderer::find() else { return };
    let port = Config::on_node("n").listen.port();
    let objects = renderer.helm(&json!({})).expect("objects");
    for container in containers(&objects) {
        assert_eq!(container["ports"], json!([{"name": "http", "containerPort": port}]));
        let probes = ["livenessProbe", "readinessProbe"].map(|probe| container[probe]["httpGet"].clone());
        assert_eq!(
            probes,
            [json!({"path": "/healthz", "port": "http"}), json!({"path": "/readyz", "port": "http"})]
        );
    }
    for name in ["observer-agent", "observer-cluster"] {
        let service = object(&objects, "Service", name);
        assert_eq!(service["spec"]["ports"], json!([{"name": "http", "port": port, "targetPort": "http"}]));
    }
}
