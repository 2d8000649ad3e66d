//! Whether the Prometheus operator has us scraped with the labels that we give.

use kube::{
    Api,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

use super::connect::Connection;
use super::health::{Failure, Health};

/// Label by which `deploy/` marks its pods, and its value there.
const NAME: (&str, &str) = ("app.kubernetes.io/name", "observer");

/// Each `PodMonitor` that selects our pods: its namespace and name, and whether each of its endpoints honors labels.
///
/// # Errors
/// Why that cannot be told: most service accounts may not read them, and many clusters do not have them.
pub async fn pod_monitors(connection: &Connection) -> Result<Vec<(String, bool)>, Failure> {
    let client = connection.client(&Health::of("podmonitors", || 0)).map_err(|_no_client| Failure::Other)?;
    let kind = GroupVersionKind::gvk("monitoring.coreos.com", "v1", "PodMonitor");
    let monitors: Api<DynamicObject> =
        Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, "podmonitors"));
    let list = monitors.list(&ListParams::default()).await.map_err(|error| Failure::of_request(&error))?;
    Ok(list.items.iter().filter(|monitor| selects_us(&monitor.data)).map(judged).collect())
}

fn selects_us(monitor: &Value) -> bool {
    monitor["spec"]["selector"]["matchLabels"][NAME.0] == NAME.1
}

fn judged(monitor: &DynamicObject) -> (String, bool) {
    let name = [&monitor.metadata.namespace, &monitor.metadata.name]
        .map(|part| part.clone().unwrap_or_default())
        .join("/");
    let endpoints = monitor.data["spec"]["podMetricsEndpoints"].as_array();
    let honors = endpoints.is_some_and(|all| all.iter().all(|endpoint| endpoint["honorLabels"] == true));
    (name, honors)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_endpoint_has_to_honor_labels() {
        let monitor = |name: &str, endpoints: Value| -> DynamicObject {
            serde_json::from_value(json!({
                "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
                "metadata": {"namespace": "m", "name": "o"},
                "spec": {"selector": {"matchLabels": {"app.kubernetes.io/name": name}}, "podMetricsEndpoints": endpoints},
            }))
            .unwrap()
        };
        let honors = json!({"port": "http", "honorLabels": true});
        assert_eq!(judged(&monitor("observer", json!([honors]))), ("m/o".to_owned(), true));
        assert!(!judged(&monitor("observer", json!([honors, {"port": "http"}]))).1);
        assert!(selects_us(&monitor("observer", json!([])).data));
        assert!(!selects_us(&monitor("vllm", json!([])).data));
    }
}
