//! What matters of the objects of one resource, by namespace and name: exact once everything was told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::ResourceExt;

use crate::{config::PodScope, kube::Keep};

/// Rows of one table; far more than a cluster has that anybody can look after.
const MOST: usize = 50_000;

/// A namespace, empty for what has none, and a name.
pub type Place = (String, String);

/// Rows, each with the number of the telling that it was last told in.
#[derive(Debug)]
struct Rows<V> {
    rows: BTreeMap<Place, (u64, V)>,
    telling: u64,
    refused: u64,
}

/// A table, shared by who keeps it and who reads it.
#[derive(Debug)]
pub struct Table<V>(Arc<Mutex<Rows<V>>>);

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Rows { rows: BTreeMap::new(), telling: 0, refused: 0 })))
    }
}

impl<V> Table<V> {
    fn locked(&self) -> MutexGuard<'_, Rows<V>> {
        // Every change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything is told anew.
    pub fn begin(&self) {
        self.locked().telling += 1;
    }

    /// This is what is at a place now.
    pub fn set(&self, place: Place, value: V) {
        let mut table = self.locked();
        let telling = table.telling;
        if table.rows.len() < MOST || table.rows.contains_key(&place) {
            table.rows.insert(place, (telling, value));
        } else {
            table.refused += 1;
        }
    }

    /// Nothing is at a place any more.
    pub fn remove(&self, place: &Place) {
        self.locked().rows.remove(place);
    }

    /// Everything was told: what was not is gone.
    pub fn told(&self) {
        let mut table = self.locked();
        let telling = table.telling;
        table.rows.retain(|_, (last, _)| *last == telling);
    }

    /// Nothing is known any more.
    pub fn clear(&self) {
        self.locked().rows.clear();
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.locked().rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows for which there was no room.
    pub fn refused(&self) -> u64 {
        self.locked().refused
    }
}

impl<V: Clone> Table<V> {
    /// The rows, in order.
    pub fn rows(&self) -> Vec<(Place, V)> {
        let table = self.locked();
        table.rows.iter().map(|(place, (_, value))| (place.clone(), value.clone())).collect()
    }
}

/// Keeps a table of what `convert` makes of objects; what it makes nothing of is not in it.
pub(super) struct Keeper<K, V> {
    pub(super) table: Table<V>,
    pub(super) scope: Arc<PodScope>,
    pub(super) convert: fn(K) -> Option<V>,
}

/// Whether what is in a namespace, or in none, may be told of.
pub(super) fn admits(scope: &PodScope, namespace: &str) -> bool {
    namespace.is_empty() || scope.admits_namespace(namespace)
}

pub(super) fn place<K: ResourceExt>(object: &K) -> Place {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl<K: ResourceExt, V: Send> Keep<K> for Keeper<K, V> {
    fn begin(&mut self) {
        self.table.begin();
    }

    fn apply(&mut self, object: K) {
        let place = place(&object);
        let value = if admits(&self.scope, &place.0) { (self.convert)(object) } else { None };
        match value {
            Some(value) => self.table.set(place, value),
            None => self.table.remove(&place),
        }
    }

    fn delete(&mut self, object: K) {
        self.table.remove(&place(&object));
    }

    fn told(&mut self) {
        self.table.told();
    }

    fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str, value: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ml".to_owned()),
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([("v".to_owned(), value.to_owned())])),
            ..ConfigMap::default()
        }
    }

    fn convert(object: ConfigMap) -> Option<String> {
        object.data?.remove("v").filter(|value| !value.is_empty())
    }

    fn names(keeper: &Keeper<ConfigMap, String>) -> Vec<String> {
        keeper.table.rows().into_iter().map(|((_, name), value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn a_list_leaves_what_it_names_and_nothing_else() {
        let mut keeper = Keeper { table: Table::default(), scope: Arc::default(), convert };
        keeper.begin();
        keeper.apply(object("a", "1"));
        keeper.apply(object("b", "1"));
        keeper.told();
        keeper.apply(object("c", "1"));
        keeper.apply(object("a", "2"));
        keeper.delete(object("b", "1"));
        assert_eq!(names(&keeper), ["a=2", "c=1"]);
        // A list that breaks off and begins again: what only the first part named is gone, too.
        keeper.begin();
        keeper.apply(object("d", "1"));
        assert_eq!(names(&keeper), ["a=2", "c=1", "d=1"], "what was known stays meanwhile");
        keeper.begin();
        keeper.apply(object("a", "3"));
        keeper.told();
        assert_eq!(names(&keeper), ["a=3"]);
        keeper.apply(object("a", ""));
        assert!(keeper.is_empty(), "what converts to nothing is nothing");
    }

    #[test]
    fn only_namespaces_in_scope() {
        let exclude = vec!["ml*".to_owned()];
        let scope = Arc::new(PodScope { exclude, ..PodScope::default() });
        let mut keeper = Keeper { table: Table::default(), scope, convert };
        keeper.apply(object("a", "1"));
        let mut outside = object("b", "1");
        outside.metadata.namespace = None;
        keeper.apply(outside);
        assert_eq!(names(&keeper), ["b=1"], "what is in no namespace is nobody's secret");
    }

    #[test]
    fn a_full_table_refuses_and_counts() {
        let table = Table::default();
        for number in 0..=MOST {
            table.set((String::new(), number.to_string()), number);
        }
        table.set((String::new(), "0".to_owned()), 1);
        assert_eq!((table.len(), table.refused()), (MOST, 1));
    }
}
