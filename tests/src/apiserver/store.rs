//! Objects by resource, namespace and name, one counter of versions, and the latest changes: what etcd is to
//! a server.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{apply::Owners, resources::Collection};

/// How many changes are remembered unless a test bounds it further.
const HISTORY: usize = 100_000;

/// Where an object lies; in the order in which lists come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) collection: Collection,
    /// Empty for what is cluster-wide.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// An object and who owns its fields.
#[derive(Debug, PartialEq)]
pub(super) struct Object {
    pub(super) value: Value,
    pub(super) owners: Owners,
}

/// One write.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Object>>,
    pub(super) after: Option<Arc<Object>>,
}

/// The version asked for is not remembered any more; the oldest that is.
#[derive(Debug)]
pub(super) struct Expired(pub(super) u64);

#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<Key, Arc<Object>>,
    version: u64,
    history: VecDeque<Change>,
    /// The oldest version that a watch may begin after.
    floor: u64,
    bound: usize,
    uids: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        // A server that runs has written before; versions 0 and 1 mean something else in requests.
        let version = 1000;
        Self {
            objects: BTreeMap::new(),
            version,
            history: VecDeque::new(),
            floor: version,
            bound: HISTORY,
            uids: 0,
        }
    }

    /// The version of the last write.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// What a collection holds now, in order.
    pub(super) fn all(&self, collection: Collection) -> impl Iterator<Item = (&Key, &Arc<Object>)> {
        let first = Key { collection, namespace: String::new(), name: String::new() };
        self.objects.range(first..).take_while(move |(key, _)| key.collection == collection)
    }

    /// What a collection held at a version.
    pub(super) fn at(
        &self,
        collection: Collection,
        version: u64,
    ) -> Result<BTreeMap<Key, Arc<Object>>, Expired> {
        let mut objects: BTreeMap<_, _> =
            self.all(collection).map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        for change in self.since(version)?.rev().filter(|change| change.key.collection == collection) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), Arc::clone(before)),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects)
    }

    /// The changes after a version.
    pub(super) fn since(&self, version: u64) -> Result<impl DoubleEndedIterator<Item = &Change>, Expired> {
        if version < self.floor {
            return Err(Expired(self.floor));
        }
        let first = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(first..))
    }

    /// Creates or replaces an object; its uid and time of creation stay, and nothing happens if it is the
    /// same.
    pub(super) fn write(&mut self, key: Key, mut value: Value, owners: Owners, now: &str) -> Arc<Object> {
        let before = self.objects.get(&key).map(Arc::clone);
        let old = before.as_ref().map_or(&Value::Null, |object| &object.value["metadata"]);
        let meta = value["metadata"].as_object_mut().expect("metadata");
        meta.insert("name".into(), json!(key.name));
        if !key.namespace.is_empty() {
            meta.insert("namespace".into(), json!(key.namespace));
        }
        let kept = |field: &str| old.get(field).cloned();
        let uid = meta.get("uid").cloned().or_else(|| kept("uid")).unwrap_or_else(|| {
            self.uids += 1;
            json!(format!("{:08x}-0b5e-4e12-8000-{:012x}", self.version as u32, self.uids))
        });
        meta.insert("uid".into(), uid);
        let created = meta.get("creationTimestamp").filter(|time| !time.is_null()).cloned();
        let created = created.or_else(|| kept("creationTimestamp")).unwrap_or_else(|| json!(now));
        meta.insert("creationTimestamp".into(), created);
        if let Some(version) = kept("resourceVersion") {
            meta.insert("resourceVersion".into(), version);
        }
        if let Some(before) = before.as_ref().filter(|before| before.value == value) {
            // A write that changes nothing makes no version: no watch hears of it.
            let object = Arc::new(Object { value, owners });
            if **before != *object {
                self.objects.insert(key, Arc::clone(&object));
            }
            return object;
        }
        self.version += 1;
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let after = Arc::new(Object { value, owners });
        self.objects.insert(key.clone(), Arc::clone(&after));
        self.remember(Change { version: self.version, key, before, after: Some(Arc::clone(&after)) });
        after
    }

    /// Deletes an object.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        let gone = Arc::clone(&before);
        self.remember(Change { version: self.version, key: key.clone(), before: Some(before), after: None });
        Some(gone)
    }

    /// Forgets every change: a watch or a page that began before now is too old.
    pub(super) fn compact(&mut self) {
        self.history.clear();
        self.floor = self.version;
    }

    /// Remembers at most so many changes.
    pub(super) fn bound(&mut self, changes: usize) {
        self.bound = changes;
        self.trim();
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        self.trim();
    }

    fn trim(&mut self) {
        while self.history.len() > self.bound {
            self.floor = self.history.pop_front().map_or(self.version, |change| change.version);
        }
    }
}
