//! The Helm chart: that it renders, into what Kubernetes takes, and refuses what it does not know.

use std::fs;

use observer::config::StoreConfig;
use observer_tests::deploy::{Renderer, object, path};
use serde_json::{Value, json};

/// Every switch, and what may be added to objects.
pub(crate) fn everything() -> Value {
    json!({
        "commonLabels": {"team": "ml"},
        "config": "[metrics]\nprofile = \"full\"\n[[slo]]\nname = \"chat\"\nttft = 0.5\n",
        "image": {"registry": "registry.example/team/", "pullSecrets": ["pull"]},
        "api": {"tokenSecret": {"name": "observer-token"}},
        "tls": {"secretName": "observer-tls"},
        "namespace": {"create": true, "labels": {"pod-security.kubernetes.io/audit": "privileged"}},
        "agent": {
            "image": {"digest": format!("sha256:{}", "0".repeat(64))},
            "args": ["--log", "debug"],
            "env": [{"name": "OBSERVER_CAPTURE_RING_BYTES", "value": "64MiB"}],
            "volumes": [{"name": "more", "emptyDir": {}}],
            "mounts": [{"name": "more", "mountPath": "/more"}],
            "nodeSelector": {"nvidia.com/gpu.present": "true"},
            "affinity": {"nodeAffinity": {}},
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "system-node-critical",
            "maxUnavailable": 3,
            "podAnnotations": {"a": "b"},
            "podLabels": {"c": "d"}
        },
        "cluster": {
            "image": {"tag": "latest"},
            "replicas": 1,
            "lease": "of-mine",
            "logs": {"enabled": true, "claim": "lines"},
            "args": ["--log", "debug"],
            "env": [{"name": "A", "value": "b"}],
            "affinity": {"nodeAffinity": {}},
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "p",
            "podAnnotations": {"a": "b"},
            "podLabels": {"c": "d"}
        },
        "networkPolicy": {
            "apiServer": {"cidrs": ["192.0.2.1/32"]},
            "egress": [{"to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}], "ports": [{"port": 4318}]}]
        },
        "podMonitor": {
            "enabled": true, "labels": {"release": "prometheus"}, "interval": "30s", "scrapeTimeout": "10s",
            "convertClassicHistogramsToNHCB": true, "namespace": "monitoring",
            "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}],
            "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "a"}]
        },
        "prometheusRule": {
            "enabled": true, "labels": {"release": "prometheus"},
            "groups": [{"name": "mine", "rules": [{"record": "a", "expr": "vector(1)"}]}]
        },
        "dashboards": {"enabled": true, "annotations": {"grafana_folder": "LLM"}}
    })
}

pub(crate) fn least_privilege() -> Value {
    json!({"agent": {"privileged": false}})
}

pub(crate) fn no_gpu() -> Value {
    json!({"gpu": {"enabled": false}})
}

/// The agent's pod.
fn agent(objects: &[Value]) -> Value {
    object(objects, "DaemonSet", "observer-agent")["spec"]["template"]["spec"].clone()
}

#[test]
fn every_rendering_is_what_kubernetes_takes() {
    let Some(renderer) = Renderer::find() else { return };
    let driver = |driver: &str| json!({"gpu": {"driver": driver, "folder": "/opt/nvidia", "runtimeClassName": "nvidia"}});
    let renderings = [
        ("default", json!({}), 15),
        ("least privilege", least_privilege(), 15),
        ("no GPU", no_gpu(), 15),
        ("everything", everything(), 19),
        (
            "without roles, cluster and policies",
            json!({"rbac": {"create": false}, "cluster": {"enabled": false}, "networkPolicy": {"enabled": false}}),
            3,
        ),
        ("GKE", driver("gke"), 15),
        ("host", driver("host"), 15),
        ("runtime", driver("runtime"), 15),
        ("custom", driver("custom"), 15),
    ];
    for (name, values, count) in renderings {
        let objects = renderer.helm(&values).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(objects.len(), count, "{name}");
        renderer.validate(&objects).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// The schemas are strict: what the tests above rely on.
#[test]
fn what_kubernetes_does_not_know_is_found() {
    let Some(renderer) = Renderer::find() else { return };
    let objects = renderer.helm(&everything()).expect("objects");
    let mut found = 0;
    for (kind, place, words) in [
        ("DaemonSet", "/spec/template/spec", "'nonsense' was unexpected"),
        ("DaemonSet", "/spec/template/spec/containers/0/securityContext", "'nonsense' was unexpected"),
        ("PodMonitor", "/spec/podMetricsEndpoints/0", "PodMonitor observer"),
        ("PrometheusRule", "/spec/groups/0/rules/0", "PrometheusRule observer"),
    ] {
        let mut one = objects.iter().find(|one| one["kind"] == kind).expect("one").clone();
        one.pointer_mut(place).expect("a place")["nonsense"] = json!(true);
        let why = renderer.validate(&[one]).expect_err(place);
        assert!(why.contains(kind) && why.contains(words), "{place}: {why}");
        found += 1;
    }
    assert_eq!(found, 4);
}

#[test]
fn a_wrong_value_is_refused_by_name() {
    let Some(renderer) = Renderer::find() else { return };
    for (values, words) in [
        (json!({"agnet": {}}), ["'agnet'", "not allowed"]),
        (json!({"agent": {"privilegde": false}}), ["'privilegde'", "not allowed"]),
        (json!({"agent": {"privileged": "no"}}), ["/agent/privileged", "want boolean"]),
        (json!({"agent": {"capabilities": ["CAP_BPF"]}}), ["/agent/capabilities/0", "'BPF'"]),
        (json!({"agent": {"maxUnavailable": "0%"}}), ["/agent/maxUnavailable", "'0%'"]),
        (json!({"agent": {"logs": "var/log"}}), ["/agent/logs", "'var/log'"]),
        (json!({"agent": {"store": "var/lib"}}), ["/agent/store", "'var/lib'"]),
        (json!({"gpu": {"driver": "cuda"}}), ["/gpu/driver", "'operator'"]),
        (json!({"gpu": {"driver": "custom"}}), ["gpu.folder", "gpu.driver is custom"]),
        (json!({"cluster": {"replicas": 0}}), ["/cluster/replicas", "minimum"]),
        (
            json!({"cluster": {"logs": {"enabled": true}, "replicas": 1}}),
            ["cluster.logs.enabled", "api.tokenSecret.name"],
        ),
        (
            json!({"cluster": {"logs": {"enabled": true}}, "api": {"tokenSecret": {"name": "t"}}}),
            ["cluster.logs.enabled", "cluster.replicas to 1"],
        ),
        (json!({"config": {"log": "debug"}}), ["/config", "want string"]),
        (json!({"podMonitor": {"interval": "soon"}}), ["/podMonitor/interval", "'soon'"]),
        (
            json!({"networkPolicy": {"apiServer": {"cidrs": ["192.0.2.1"]}}}),
            ["/networkPolicy/apiServer/cidrs/0", "192.0.2.1"],
        ),
    ] {
        let why = renderer.helm(&values).expect_err("refused");
        assert!(words.iter().all(|word| why.contains(word)), "{values}: {words:?} not in: {why}");
    }
}

/// The schema knows the values of values.yaml and no others, and each has a comment above it.
#[test]
fn every_value_is_documented() {
    let schema: Value =
        serde_json::from_slice(&fs::read(path("helm/observer/values.schema.json")).expect("schema"))
            .expect("JSON");
    let mut known = Vec::new();
    properties(&schema, &schema, "", &mut known);
    known.retain(|name| name != "global");
    let text = fs::read_to_string(path("helm/observer/values.yaml")).expect("values");
    let mut shown = Vec::new();
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut previous = "";
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some((name, _)) =
            line.trim_start().split_once(':').filter(|_| !line.trim_start().starts_with(['#', '-']))
        {
            above.retain(|(of, _)| *of < indent);
            above.push((indent, name));
            let full = above.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(".");
            // What is inside of a value that is handed on is Kubernetes'.
            if known.contains(&full) {
                let documented = previous.trim_start().starts_with('#') || full.ends_with("Profile.type");
                assert!(documented, "{full} has no comment above it");
                shown.push(full);
            }
        }
        previous = line;
    }
    for name in &known {
        assert!(shown.contains(name), "values.yaml does not show {name}");
    }
}

/// Names of all values that a schema lists.
fn properties(schema: &Value, at: &Value, name: &str, into: &mut Vec<String>) {
    let at = match at["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => schema.pointer(pointer).expect("a definition"),
        None => at,
    };
    for (key, value) in at["properties"].as_object().into_iter().flatten() {
        let full = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        // Of a profile's two fields the default has one.
        if key != "localhostProfile" {
            into.push(full.clone());
        }
        properties(schema, value, &full, into);
    }
}

#[test]
fn nothing_depends_on_the_cluster_or_on_chance() {
    let mut files = 0;
    for file in fs::read_dir(path("helm/observer/templates")).expect("templates") {
        let file = file.expect("a file").path();
        let text = fs::read_to_string(&file).expect("text");
        for word in
            ["lookup", ".Capabilities", "rand", "genCA", "genSignedCert", "genPrivateKey", "uuidv4", "now"]
        {
            let used =
                text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').any(|one| one.starts_with(word));
            assert!(!used, "{}: {word}", file.display());
        }
        files += 1;
    }
    assert!(files > 10, "{files} templates");
    let Some(renderer) = Renderer::find() else { return };
    assert_eq!(renderer.helm(&everything()), renderer.helm(&everything()));
}

#[test]
fn privileges() {
    let Some(renderer) = Renderer::find() else { return };
    let security = |values: &Value| {
        agent(&renderer.helm(values).expect("objects"))["containers"][0]["securityContext"].clone()
    };
    let always = json!({"runAsUser": 0, "runAsGroup": 0, "readOnlyRootFilesystem": true, "privileged": true});
    assert_eq!(security(&json!({})), always);
    assert_eq!(
        security(&least_privilege()),
        json!({
            "runAsUser": 0, "runAsGroup": 0, "readOnlyRootFilesystem": true,
            "privileged": false, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"]},
            "seccompProfile": {"type": "Unconfined"},
            "appArmorProfile": {"type": "Unconfined"},
            "seLinuxOptions": {"type": "spc_t"}
        })
    );
    let objects = renderer.helm(&json!({})).expect("objects");
    let pod = agent(&objects);
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &Value::Null));
    for mount in pod["containers"][0]["volumeMounts"].as_array().expect("mounts") {
        // Nothing of the node is written but what the agent keeps.
        assert_eq!(mount["readOnly"] != true, mount["name"] == "store", "{mount}");
    }
    let cluster = &object(&objects, "Deployment", "observer-cluster")["spec"]["template"]["spec"];
    assert_eq!(
        (&cluster["hostPID"], &cluster["securityContext"]["runAsNonRoot"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(cluster["containers"][0]["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    for volume in cluster["volumes"].as_array().expect("volumes") {
        assert_eq!(volume["hostPath"], Value::Null, "{volume}");
    }
}

#[test]
fn what_is_kept_outlives_the_pod() {
    let Some(renderer) = Renderer::find() else { return };
    let kept = StoreConfig::default().path;
    for (values, source) in [
        (json!({}), ("hostPath", json!({"path": kept, "type": "DirectoryOrCreate"}))),
        (
            json!({"agent": {"store": "/data/observer"}}),
            ("hostPath", json!({"path": "/data/observer", "type": "DirectoryOrCreate"})),
        ),
        (json!({"agent": {"store": ""}}), ("emptyDir", json!({}))),
    ] {
        let pod = agent(&renderer.helm(&values).expect("objects"));
        let named = |list: &Value| {
            let all = list.as_array().expect("a list");
            all.iter().find(|one| one["name"] == "store").expect("one for the store").clone()
        };
        assert_eq!(named(&pod["volumes"])[source.0], source.1);
        assert_eq!(named(&pod["containers"][0]["volumeMounts"])["mountPath"], json!(kept));
    }
}

#[test]
fn tls_between_the_roles() {
    let Some(renderer) = Renderer::find() else { return };
    let values =
        json!({"tls": {"secretName": "pair"}, "cluster": {"logs": {"enabled": true}, "replicas": 1}});
    for (values, encrypted) in [(values, true), (json!({}), false)] {
        let objects = renderer.helm(&values).expect("objects");
        for (kind, name) in [("DaemonSet", "observer-agent"), ("Deployment", "observer-cluster")] {
            let pod = object(&objects, kind, name)["spec"]["template"]["spec"].to_string();
            for part in [
                r#"{"name":"OBSERVER_TLS_LISTEN","value":"0.0.0.0:9843"}"#,
                r#"{"name":"OBSERVER_TLS_CA_FILE","value":"/var/run/secrets/observer-tls/ca.crt"}"#,
                r#"{"containerPort":9843,"name":"https"}"#,
                r#""secretName":"pair""#,
                r#""mountPath":"/var/run/secrets/observer-tls""#,
            ] {
                assert_eq!(pod.contains(part), encrypted, "{name}: {part} in {pod}");
            }
            for (kind, port) in
                [("Service", r#""name":"https","port":9843"#), ("NetworkPolicy", r#"{"port":9843"#)]
            {
                let text = object(&objects, kind, name)["spec"].to_string();
                assert_eq!(text.contains(port), encrypted, "{kind} {name}: {text}");
            }
            assert_eq!(
                pod.contains("https://observer-cluster.observer.svc:9843"),
                encrypted && kind == "DaemonSet"
            );
        }
    }
}

#[test]
fn lines_go_to_the_cluster_role_where_it_keeps_them() {
    let Some(renderer) = Renderer::find() else { return };
    let values = json!({"cluster": {"logs": {"enabled": true, "claim": "lines"}, "replicas": 1},
        "api": {"tokenSecret": {"name": "t"}}});
    for (values, kept) in [(values, true), (json!({}), false)] {
        let objects = renderer.helm(&values).expect("objects");
        let variable = |kind: &str, name: &str, variable: &str| {
            let env =
                object(&objects, kind, name)["spec"]["template"]["spec"]["containers"][0]["env"].clone();
            let all = env.as_array().expect("variables").clone();
            all.into_iter().find(|one| one["name"] == variable).map(|one| one["value"].clone())
        };
        assert_eq!(
            variable("DaemonSet", "observer-agent", "OBSERVER_LOGS_CLUSTER"),
            kept.then(|| json!("http://observer-cluster.observer.svc:9842"))
        );
        assert_eq!(
            variable("Deployment", "observer-cluster", "OBSERVER_CLUSTER_LOGS"),
            kept.then(|| json!("true"))
        );
        let volumes =
            object(&objects, "Deployment", "observer-cluster")["spec"]["template"]["spec"]["volumes"]
                .to_string();
        assert_eq!(volumes.contains(r#""persistentVolumeClaim":{"claimName":"lines"}"#), kept, "{volumes}");
        let to_cluster = object(&objects, "NetworkPolicy", "observer-agent")["spec"]["egress"].to_string();
        assert_eq!(to_cluster.contains("\"cluster\""), kept, "{to_cluster}");
        let from_agents =
            object(&objects, "NetworkPolicy", "observer-cluster")["spec"]["ingress"].to_string();
        assert_eq!(from_agents.contains("\"agent\""), kept, "{from_agents}");
    }
}

#[test]
fn the_drivers_library() {
    let Some(renderer) = Renderer::find() else { return };
    let pod = |values: &Value| agent(&renderer.helm(values).expect("objects"));
    let named = |pod: &Value, list: &str| {
        let all = pod.pointer(list).and_then(Value::as_array).expect("a list").clone();
        all.into_iter().find(|one| one["name"] == "driver")
    };
    for (driver, folder, kind) in [
        ("operator", "/run/nvidia", "DirectoryOrCreate"),
        ("gke", "/home/kubernetes/bin/nvidia", "Directory"),
        ("host", "/usr", "Directory"),
        ("custom", "/opt/nvidia", "Directory"),
    ] {
        let pod = pod(&json!({"gpu": {"driver": driver, "folder": "/opt/nvidia"}}));
        let volume = named(&pod, "/volumes").expect("a volume");
        assert_eq!(volume["hostPath"], json!({"path": folder, "type": kind}), "{driver}");
        let mount = named(&pod, "/containers/0/volumeMounts").expect("a mount");
        assert_eq!(mount["mountPath"], format!("/host{folder}"), "{driver}");
        assert_eq!(mount["mountPropagation"], "HostToContainer");
        assert_eq!(pod["tolerations"], json!([{"key": "nvidia.com/gpu", "operator": "Exists"}]));
    }
    let runtime = pod(&json!({"gpu": {"driver": "runtime", "runtimeClassName": "nvidia"}}));
    assert_eq!((named(&runtime, "/volumes"), &runtime["runtimeClassName"]), (None, &json!("nvidia")));
    assert!(runtime["containers"][0]["env"].to_string().contains("NVIDIA_VISIBLE_DEVICES"));
    let none = pod(&no_gpu());
    assert_eq!((named(&none, "/volumes"), &none["tolerations"]), (None, &Value::Null));
}

#[test]
fn who_may_ask() {
    let Some(renderer) = Renderer::find() else { return };
    let ingress = |values: Value| {
        let objects = renderer.helm(&values).expect("objects");
        object(&objects, "NetworkPolicy", "observer-agent")["spec"]["ingress"].clone()
    };
    let cluster = json!({"podSelector": {"matchLabels": {
        "app.kubernetes.io/name": "observer", "app.kubernetes.io/instance": "observer",
        "app.kubernetes.io/component": "cluster"
    }}});
    let monitoring =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}});
    let ports = json!([{"port": 9842, "protocol": "TCP"}]);
    assert_eq!(ingress(json!({})), json!([{"from": [cluster, monitoring], "ports": ports}]));
    assert_eq!(ingress(json!({"networkPolicy": {"from": []}})), json!([{"from": [cluster], "ports": ports}]));
    // A rule without peers would admit everybody.
    assert_eq!(ingress(json!({"networkPolicy": {"from": []}, "cluster": {"enabled": false}})), json!([]));
}

#[test]
fn scraping_keeps_labels() {
    let Some(renderer) = Renderer::find() else { return };
    let monitor = |more: Value| {
        let objects = renderer.helm(&json!({"podMonitor": more})).expect("objects");
        object(&objects, "PodMonitor", "observer")["spec"].clone()
    };
    let spec = monitor(json!({"enabled": true}));
    assert_eq!(
        spec["podMetricsEndpoints"],
        json!([{"port": "http", "path": "/metrics", "honorLabels": true}])
    );
    assert_eq!(spec["convertClassicHistogramsToNHCB"], Value::Null);
    let native = monitor(json!({"enabled": true, "convertClassicHistogramsToNHCB": true}));
    assert_eq!(native["convertClassicHistogramsToNHCB"], true);
}
