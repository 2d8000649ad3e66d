//! What becomes of the workload labels in a real Prometheus, by how it scrapes.

use std::time::Duration;

use observer_tests::{
    client::{Client, chat},
    live::privileged,
    node::{Cluster, Place},
    prometheus::{Prometheus, exposition},
    workload::{Workload, quiet},
};
use serde_json::json;

#[test]
fn workload_labels_survive_or_are_spelt_so_that_they_do() {
    if !privileged() {
        return;
    }
    let (cluster, place) = (Cluster::start(), Place::new(7));
    cluster.api.put(place.pod("llama-0", &json!({})));
    let (plain, otel) = (cluster.agent(&[]), cluster.agent(&["metrics.labels=otel"]));
    let (_container, port) = place.server(&place.systemd());
    let (_outside, outside) = Workload::script("openai_server.py", &["--events", "6", "--gap", "0.02"]);
    quiet(Duration::from_millis(1500));
    for port in [&port, &port, &outside] {
        Client::connect(port).stream("x", &chat("m", true, 6));
    }
    let state = exposition(|| {
        "# TYPE kube_pod_info gauge\n\
         kube_pod_info{namespace=\"ml\",pod=\"llama-0\",uid=\"u\",node=\"node-a\",host_ip=\"10.0.0.1\"} 1\n"
            .to_owned()
    });
    let prometheus = Prometheus::start(&[
        ("honored", true, &plain.address),
        ("overridden", false, &plain.address),
        ("otel", false, &otel.address),
        ("kube-state-metrics", true, &state),
    ]);
    let requests = |labels: &str| {
        let (metric, value) =
            prometheus.sample(&format!("llm_requests_total{{outcome=\"ok\",{labels}}} > 0"));
        let label = |name: &str| metric[name].as_str().map(str::to_owned);
        (value, ["namespace", "pod", "container"].map(label))
    };
    let named = |labels: [&str; 3]| labels.map(|label| Some(label.to_owned()));
    let own = named(["observer", "observer-agent-x", "agent"]);

    assert_eq!(requests("job='honored',pod!=''"), ("2".to_owned(), named(["ml", "llama-0", "server"])));
    // Outside of Kubernetes the labels are empty, and not those of whoever was scraped.
    let outside = requests("job='honored',pod=''");
    assert_eq!(outside, ("1".to_owned(), [None, None, Some("python3".to_owned())]));
    // Without honorLabels they are those of the agent's own pod, which is why the PodMonitor sets it …
    assert_eq!(requests("job='overridden',exported_pod='llama-0'"), ("2".to_owned(), own.clone()));
    // … and those who cannot have another spelling.
    let otel_labels = "job='otel',k8s_namespace_name='ml',k8s_pod_name='llama-0',k8s_container_name='server'";
    assert_eq!(requests(otel_labels), ("2".to_owned(), own.clone()));

    let joined = prometheus.sample(
        "sum by (node, namespace, pod) (llm_requests_total{job='honored'} * on (namespace, pod) group_left (node) \
         kube_pod_info)",
    );
    assert_eq!(joined, (json!({"namespace": "ml", "pod": "llama-0", "node": "node-a"}), "2".to_owned()));
    let managed = prometheus.sample(
        "sum by (workload_kind, workload) (llm_requests_total{job='honored'} * on (namespace, pod) \
         group_left (workload_kind, workload) max without (container) (llm_pod_info{job='honored'}))",
    );
    assert_eq!(managed, (json!({"workload_kind": "Deployment", "workload": "llama"}), "2".to_owned()));
    // What the agent says of itself is about its own pod, however it is scraped.
    let (metric, _) = prometheus.sample("observer_build_info{job='honored'}");
    assert_eq!(metric["pod"], json!("observer-agent-x"), "{metric}");
}
