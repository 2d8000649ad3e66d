//! The plain manifests: the same objects as the chart's.

use std::collections::BTreeMap;

use observer_tests::deploy::{Renderer, object};
use serde_json::{Value, json};

use crate::chart::{least_privilege, no_gpu};

/// Objects by kind and name, without what only one of the two tools adds.
fn comparable(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let named = objects.into_iter().map(|mut one| {
        let metadata = one["metadata"].as_object_mut().expect("metadata");
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            // Who rendered it.
            labels.remove("helm.sh/chart");
            labels.remove("app.kubernetes.io/managed-by");
        }
        if let Some(template) = one.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut) {
            // A changed configuration restarts pods: by this checksum here, by the name of the ConfigMap there.
            template.remove("annotations");
        }
        let text = unhashed(&one.to_string());
        let one: Value = serde_json::from_str(&text).expect("JSON");
        let name = format!("{} {}", one["kind"], one["metadata"]["name"]).replace('"', "");
        (name, one)
    });
    named.collect()
}

/// Without the hash that kustomize adds to the name of a ConfigMap that it generates.
fn unhashed(text: &str) -> String {
    let mut parts = text.split("\"observer-");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find('"').expect("the end of a name");
        let hash = part[..end].len() == 10
            && part[..end].bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let kept = if hash { &part[end..] } else { part };
        whole.push_str(if hash { "\"observer" } else { "\"observer-" });
        whole.push_str(kept);
    }
    whole
}

#[test]
fn the_plain_manifests_are_the_charts() {
    let Some(renderer) = Renderer::find() else { return };
    for (folder, mut values) in
        [("base", json!({})), ("overlays/least-privilege", least_privilege()), ("overlays/no-gpu", no_gpu())]
    {
        let plain = renderer.kustomize(folder);
        values["namespace"] = json!({"create": true});
        assert_same(folder, &renderer, plain, &values);
    }
}

fn assert_same(folder: &str, renderer: &Renderer, plain: Vec<Value>, values: &Value) {
    renderer.validate(&plain).unwrap_or_else(|why| panic!("{folder}: {why}"));
    let plain = comparable(plain);
    let mut chart = comparable(renderer.helm(values).expect("objects"));
    // The configuration is a file of its own there.
    let configuration = &plain["ConfigMap observer"]["data"];
    assert!(configuration["observer.toml"].is_string(), "{configuration}");
    chart.get_mut("ConfigMap observer").expect("a ConfigMap")["data"] = configuration.clone();
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&plain), names(&chart), "{folder}");
    for (name, object) in &plain {
        assert_eq!(object, &chart[name], "{folder}: {name}: plain manifest and chart");
    }
}

#[test]
fn who_may_ask_is_the_charts() {
    let Some(renderer) = Renderer::find() else { return };
    let plain = renderer.kustomize_with("base", "components/api-kubernetes");
    let values = json!({"namespace": {"create": true}, "api": {"kubernetes": true}});
    assert_same("components/api-kubernetes", &renderer, plain, &values);
}

#[test]
fn the_pod_monitor_is_the_charts() {
    let Some(renderer) = Renderer::find() else { return };
    let plain = renderer.kustomize("components/prometheus-operator");
    renderer.validate(&plain).expect("valid");
    let chart = comparable(renderer.helm(&json!({"podMonitor": {"enabled": true}})).expect("objects"));
    assert_eq!(comparable(plain)["PodMonitor observer"], chart["PodMonitor observer"]);
}

#[test]
fn names_without_hashes() {
    assert_eq!(
        unhashed(r#"{"a":"observer-t2h6c7g24k","b":"observer-agent"}"#),
        r#"{"a":"observer","b":"observer-agent"}"#
    );
    let Some(renderer) = Renderer::find() else { return };
    object(&renderer.kustomize("base"), "DaemonSet", "observer-agent");
}
