//! Amounts that bound what may be used: quotas and ranges of namespaces, and what nodes have.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LimitRange, Node, ResourceQuota},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::kube::quantity;

/// How much of a resource a namespace may use, and does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quota {
    /// Resource, such as `requests.nvidia.com/gpu`; `hard` or `used`; and how much in base units.
    pub amounts: Vec<(String, &'static str, f64)>,
}

/// What one container, pod or volume may ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// What it bounds (`Container`, `Pod`, `PersistentVolumeClaim`), resource, constraint, and how much in base units.
    pub amounts: Vec<(String, String, &'static str, f64)>,
}

/// What a node offers to pods, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capacity {
    /// Resource and how much of it in base units: processors, memory, pods and accelerators.
    pub allocatable: Vec<(String, f64)>,
    /// Conditions that are not as they should be, and their status; `Unschedulable` if it is cordoned.
    pub wrong: Vec<(String, String)>,
}

fn amounts(told: Option<BTreeMap<String, Quantity>>) -> impl Iterator<Item = (String, f64)> {
    let told = told.into_iter().flatten();
    told.filter_map(|(resource, amount)| Some((resource, quantity::parse(&amount.0)?)))
}

pub(super) fn of_quota(object: ResourceQuota) -> Quota {
    let status = object.status.unwrap_or_default();
    // Until the controller has looked at it, what was written is what there is.
    let hard = status.hard.or(object.spec.and_then(|spec| spec.hard));
    let hard = amounts(hard).map(|(resource, amount)| (resource, "hard", amount));
    let used = amounts(status.used).map(|(resource, amount)| (resource, "used", amount));
    Quota { amounts: hard.chain(used).collect() }
}

/// Constraints as kube-state-metrics names them, after the fields.
pub(super) fn of_limit_range(object: LimitRange) -> Option<Limits> {
    let mut all = Vec::new();
    for item in object.spec?.limits {
        let constraints = [
            ("min", item.min),
            ("max", item.max),
            ("default", item.default),
            ("defaultRequest", item.default_request),
            ("maxLimitRequestRatio", item.max_limit_request_ratio),
        ];
        for (constraint, told) in constraints {
            all.extend(
                amounts(told).map(|(resource, amount)| (item.type_.clone(), resource, constraint, amount)),
            );
        }
    }
    Some(Limits { amounts: all })
}

pub(super) fn of_node(object: Node) -> Capacity {
    let status = object.status.unwrap_or_default();
    let allocatable = amounts(status.allocatable).filter(|(resource, _)| is_told(resource)).collect();
    let cordoned = object.spec.is_some_and(|spec| spec.unschedulable == Some(true));
    let conditions = status.conditions.into_iter().flatten();
    let mut wrong: Vec<_> = conditions
        .filter(|condition| condition.status != if condition.type_ == "Ready" { "True" } else { "False" })
        .map(|condition| (condition.type_, condition.status))
        .collect();
    if cordoned {
        wrong.push(("Unschedulable".to_owned(), "True".to_owned()));
    }
    Capacity { allocatable, wrong }
}

/// Disks and huge pages are kube-state-metrics' business.
fn is_told(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "pods") || is_accelerator(resource)
}

/// Extended resources of device plugins: `nvidia.com/gpu`, `nvidia.com/mig-1g.5gb`, `amd.com/gpu`, `gpu.intel.com/i915`,
/// `google.com/tpu`, `aws.amazon.com/neuroncore`.
pub(super) fn is_accelerator(resource: &str) -> bool {
    let Some((vendor, device)) = resource.split_once('/') else { return false };
    vendor == "nvidia.com"
        || vendor.starts_with("gpu.")
        || ["gpu", "tpu", "neuron", "gaudi", "mig-"].iter().any(|kind| device.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_that_nobody_looked_at_has_its_limits() {
        let spec = json!({"hard": {"requests.nvidia.com/gpu": "8", "limits.memory": "1Ti", "pods": "x"}});
        let told = |object| of_quota(serde_json::from_value(object).unwrap()).amounts;
        let hard = vec![
            ("limits.memory".to_owned(), "hard", 1_099_511_627_776.0),
            ("requests.nvidia.com/gpu".to_owned(), "hard", 8.0),
        ];
        assert_eq!(told(json!({"metadata": {}, "spec": spec})), hard, "what is no amount is left out");
        let status = json!({"hard": {"cpu": "10"}, "used": {"cpu": "2500m"}});
        let both = vec![("cpu".to_owned(), "hard", 10.0), ("cpu".to_owned(), "used", 2.5)];
        assert_eq!(told(json!({"metadata": {}, "spec": spec, "status": status})), both);
    }

    #[test]
    fn every_constraint_of_a_limit_range() {
        let limits = json!([{"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "4"},
            "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}, "maxLimitRequestRatio": {"cpu": "8"}},
            {"type": "Pod", "max": {"memory": "64Gi"}}]);
        let object = serde_json::from_value(json!({"metadata": {}, "spec": {"limits": limits}})).unwrap();
        let told = of_limit_range(object).unwrap().amounts;
        let shown: Vec<_> = told
            .iter()
            .map(|(kind, resource, constraint, n)| format!("{kind} {resource} {constraint} {n}"))
            .collect();
        assert_eq!(
            shown,
            [
                "Container cpu min 0.1",
                "Container cpu max 4",
                "Container cpu default 1",
                "Container cpu defaultRequest 0.5",
                "Container cpu maxLimitRequestRatio 8",
                "Pod memory max 68719476736",
            ]
        );
        assert!(of_limit_range(serde_json::from_value(json!({"metadata": {}})).unwrap()).is_none());
    }

    #[test]
    fn a_node_tells_what_pods_compete_for_and_what_is_wrong() {
        let allocatable = json!({"cpu": "63900m", "memory": "527Gi", "pods": "110", "ephemeral-storage": "1Ti",
            "hugepages-2Mi": "0", "nvidia.com/gpu": "8", "nvidia.com/mig-1g.5gb": "7", "example.com/dongle": "1"});
        let conditions = json!([{"type": "Ready", "status": "Unknown"}, {"type": "MemoryPressure", "status": "False"},
            {"type": "DiskPressure", "status": "True"}]);
        let object = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true},
            "status": {"allocatable": allocatable, "conditions": conditions}});
        let node = of_node(serde_json::from_value(object).unwrap());
        let names: Vec<_> = node.allocatable.iter().map(|(resource, _)| resource.as_str()).collect();
        assert_eq!(names, ["cpu", "memory", "nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "pods"]);
        let wrong: Vec<_> = node.wrong.iter().map(|(kind, status)| format!("{kind}={status}")).collect();
        assert_eq!(wrong, ["Ready=Unknown", "DiskPressure=True", "Unschedulable=True"]);
        let well = json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(of_node(serde_json::from_value(well).unwrap()), Capacity::default());
    }
}
