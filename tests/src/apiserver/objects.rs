//! Objects in the shapes in which servers of Kubernetes 1.33 and later show them, for
//! [`super::ApiServer::put`]. Uids and container ids follow from names, so that a test knows them beforehand.

mod event;
mod pod;
mod policy;
mod workload;

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use serde_json::{Map, Value, json};

pub use self::{
    event::Event,
    pod::Pod,
    policy::{endpoint_slice, lease, limit_range, namespace, node, resource_quota},
    workload::{
        Replicas, autoscaler, cron_job, daemon_set, deployment, job, leader_worker_set, replica_set,
        stateful_set,
    },
};

/// When objects were created that do not say it.
pub const CREATED: &str = "2026-01-05T08:00:00Z";

/// The uid of an object that the builders make, unless it is given another.
pub fn uid(kind: &str, namespace: &str, name: &str) -> String {
    let hex = hex::<2>(&(kind, namespace, name));
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// The id of a container by its pod's uid, its name, and how often it was restarted: 64 hexadecimal digits.
pub fn container_id(uid: &str, container: &str, restarts: u32) -> String {
    hex::<4>(&(uid, container, restarts))
}

/// A time so long before now, as objects bear it.
pub fn ago(past: Duration) -> String {
    let past = jiff::Timestamp::now() - jiff::SignedDuration::try_from(past).expect("a time");
    format!("{past:.0}")
}

/// The same with microseconds, as leases and newer events bear it.
pub fn micro_ago(past: Duration) -> String {
    let past = jiff::Timestamp::now() - jiff::SignedDuration::try_from(past).expect("a time");
    format!("{past:.6}")
}

/// Adds an owner that controls the object.
#[must_use]
pub fn owned_by(mut object: Value, kind: &str, name: &str) -> Value {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let owner = owner(kind, &namespace, name);
    object["metadata"]["ownerReferences"] = json!([owner]);
    object
}

/// A reference to the object that controls another.
fn owner(kind: &str, namespace: &str, name: &str) -> Value {
    let (version, namespace) = match kind {
        "Node" => ("v1", ""),
        "Pod" => ("v1", namespace),
        "Job" | "CronJob" => ("batch/v1", namespace),
        "LeaderWorkerSet" => ("leaderworkerset.x-k8s.io/v1", namespace),
        _ => ("apps/v1", namespace),
    };
    json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid(kind, namespace, name),
        "controller": true, "blockOwnerDeletion": true})
}

/// Metadata as a controller's object has it.
fn metadata(kind: &str, namespace: &str, name: &str) -> Value {
    let mut meta = json!({"name": name, "uid": uid(kind, namespace, name), "creationTimestamp": CREATED,
        "generation": 1});
    if !namespace.is_empty() {
        meta["namespace"] = json!(namespace);
    }
    meta
}

/// What `metadata.managedFields` tells of a part of an object (`FieldsV1`): half of what a server sends.
fn managed(object: &Value, manager: &str, part: &str) -> Value {
    fn fields(value: &Value) -> Value {
        let mut found = Map::new();
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    found.insert(format!("f:{name}"), fields(value));
                }
            }
            Value::Array(items) => {
                for item in items.iter().filter(|item| item["name"].is_string()) {
                    let mut inner = fields(item);
                    inner["."] = json!({});
                    found.insert(format!("k:{{\"name\":{}}}", item["name"]), inner);
                }
            }
            _ => {}
        }
        Value::Object(found)
    }
    let mut entry = json!({"manager": manager, "operation": "Update", "apiVersion": object["apiVersion"],
        "time": CREATED, "fieldsType": "FieldsV1", "fieldsV1": {}});
    entry["fieldsV1"][format!("f:{part}")] = fields(&object[part]);
    if part == "status" {
        entry["subresource"] = json!("status");
    }
    entry
}

/// So many times 16 hexadecimal digits that follow from a value.
fn hex<const PARTS: usize>(of: &impl std::hash::Hash) -> String {
    let mut digits = String::with_capacity(PARTS * 16);
    for part in 0..PARTS {
        let mut hasher = DefaultHasher::new();
        (part, of).hash(&mut hasher);
        let _ = write!(digits, "{:016x}", hasher.finish());
    }
    digits
}
