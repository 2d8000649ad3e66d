//! Patches, and who owns which field: server-side apply as far as two replicas of one role need it
//! (kubernetes: apimachinery/pkg/util/managedfields). Lists are owned as one field.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Who owns a field, by its path (`.spec.holderIdentity`).
pub(super) type Owners = BTreeMap<String, BTreeSet<Manager>>;

/// A field manager; the same name is another manager when it updates than when it applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) applies: bool,
}

/// A field that another manager owns with another value.
#[derive(Debug)]
pub(super) struct Conflict {
    pub(super) path: String,
    pub(super) manager: String,
}

/// What the server sets itself, and what names the object: nobody's.
const UNOWNED: [&str; 10] = [
    ".apiVersion",
    ".kind",
    ".metadata.name",
    ".metadata.namespace",
    ".metadata.uid",
    ".metadata.resourceVersion",
    ".metadata.creationTimestamp",
    ".metadata.generation",
    ".metadata.managedFields",
    ".metadata.generateName",
];

/// Merges a patch into an object (RFC 7386).
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Owners after an update: its manager owns what it changed, and nobody what it took away.
pub(super) fn updated(before: &Value, after: &Value, mut owners: Owners, manager: &Manager) -> Owners {
    let (before, after) = (leaves(before), leaves(after));
    owners.retain(|path, _| after.contains_key(path));
    for (path, value) in after {
        if before.get(&path) != Some(&value) {
            owners.insert(path, [manager.clone()].into());
        }
    }
    owners
}

/// Applies a configuration.
pub(super) fn apply(
    current: &Value,
    configuration: &Value,
    mut owners: Owners,
    manager: &Manager,
    force: bool,
) -> Result<(Value, Owners), Vec<Conflict>> {
    let now = leaves(current);
    let wanted = leaves(configuration);
    let mut conflicts = Vec::new();
    for (path, value) in &wanted {
        let differs = now.get(path).is_some_and(|now| now != value);
        let others = owners.get(path).into_iter().flatten().filter(|owner| *owner != manager);
        if differs && !force {
            conflicts
                .extend(others.map(|owner| Conflict { path: path.clone(), manager: owner.name.clone() }));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut merged = current.clone();
    merge(&mut merged, configuration);
    for (path, value) in &wanted {
        let owners = owners.entry(path.clone()).or_default();
        if now.get(path) != Some(value) {
            owners.clear();
        }
        owners.insert(manager.clone());
    }
    // What it applied before and leaves out now is given up, and goes if nobody else owns it.
    owners.retain(|path, owners| {
        if !wanted.contains_key(path) && owners.remove(manager) && owners.is_empty() {
            remove(&mut merged, path);
        }
        !owners.is_empty()
    });
    Ok((merged, owners))
}

/// Fields that hold a value, by path.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
        match value {
            _ if UNOWNED.contains(&path) => {}
            Value::Object(members) => {
                for (name, value) in members {
                    // The keys of labels and annotations have dots of their own; a path is never taken apart
                    // by dots.
                    walk(value, &format!("{path}.{name}"), found);
                }
            }
            Value::Null => {}
            value => {
                found.insert(path.to_owned(), value.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(value, "", &mut found);
    found
}

/// Removes the field with a path as [`leaves`] spells it.
fn remove(value: &mut Value, path: &str) {
    let Some(members) = value.as_object_mut() else { return };
    members.retain(|name, _| path != format!(".{name}"));
    for (name, value) in members {
        if let Some(rest) = path.strip_prefix(&format!(".{name}")).filter(|rest| rest.starts_with('.')) {
            remove(value, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manager(name: &str, applies: bool) -> Manager {
        Manager { name: name.to_owned(), applies }
    }

    #[test]
    fn merging() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut object, &json!({"a": {"b": null, "e": {"f": null, "g": 1}}, "d": [2]}));
        assert_eq!(object, json!({"a": {"c": 2, "e": {"g": 1}}, "d": [2]}));
    }

    #[test]
    fn the_second_to_apply_another_value_is_refused_until_the_first_gives_it_up() {
        let (a, b) = (manager("a", true), manager("b", true));
        let empty = json!({"spec": {}});
        let held_by = |name: &str| json!({"spec": {"holder": name}});
        let (held, owners) = apply(&empty, &held_by("a"), Owners::new(), &a, false).expect("nobody's");
        let refused = apply(&held, &held_by("b"), owners.clone(), &b, false).expect_err("a's");
        assert_eq!((refused[0].path.as_str(), refused[0].manager.as_str()), (".spec.holder", "a"));
        assert!(apply(&held, &held_by("b"), owners.clone(), &b, true).is_ok(), "by force");
        assert!(apply(&held, &held_by("a"), owners.clone(), &b, false).is_ok(), "the same value is shared");

        let owners = updated(&held, &empty, owners, &manager("a", false));
        assert_eq!(owners, Owners::new(), "given up");
        assert!(apply(&empty, &held_by("b"), owners, &b, false).is_ok());
    }

    #[test]
    fn what_is_not_applied_any_more_goes() {
        let a = manager("a", true);
        let first = json!({"metadata": {"labels": {"x.y/z": "1"}}, "spec": {"n": 1}});
        let (object, owners) = apply(&json!({}), &first, Owners::new(), &a, false).expect("nobody's");
        let (object, _) = apply(&object, &json!({"spec": {"n": 1}}), owners, &a, false).expect("own");
        assert_eq!(object, json!({"metadata": {"labels": {}}, "spec": {"n": 1}}));
    }
}
