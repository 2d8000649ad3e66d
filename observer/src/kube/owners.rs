//! What an operator would say manages a pod: a ReplicaSet's Deployment, a Job's CronJob, whatever owns a StatefulSet.
//!
//! Only metadata is asked for, once for each owner; what is known is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use tokio::sync::mpsc;

use super::health::{Failure, Health};
use crate::pods::Workload;

/// Owners that are known at a time, and those that wait to be asked for.
const MOST: usize = 4096;

/// Owners of owners of owners end somewhere.
const DEPTH: usize = 4;

/// How long until an API server that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(30);

/// Kinds that may have an owner of their own, and where they are.
const OWNED: [(&str, &str, &str, &str); 3] = [
    ("ReplicaSet", "apps", "v1", "replicasets"),
    ("StatefulSet", "apps", "v1", "statefulsets"),
    ("Job", "batch", "v1", "jobs"),
];

/// An owner: its namespace, and what it is.
type Key = (String, Workload);

/// What is known of owners, and a way to ask.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    known: Arc<Mutex<HashMap<Key, Workload>>>,
    wanted: mpsc::Sender<Key>,
}

impl Owners {
    /// And those that wait to be asked for.
    pub(super) fn new() -> (Self, mpsc::Receiver<Key>) {
        let (wanted, waiting) = mpsc::channel(MOST);
        (Self { known: Arc::default(), wanted }, waiting)
    }

    /// What manages the pods of an owner, as far as it is known; it is found out if it is not.
    pub(super) fn of(&self, namespace: &str, owner: &Workload) -> Workload {
        if !OWNED.iter().any(|(kind, ..)| *kind == owner.kind) {
            return owner.clone();
        }
        let key = (namespace.to_owned(), owner.clone());
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        // A queue that is full is a churn that asks again with the pod's next change.
        let _full = self.wanted.try_send(key);
        owner.clone()
    }

    fn is_known(&self, key: &Key) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    fn learn(&self, key: Key, workload: Workload) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, workload);
    }

    /// Finds out what is wanted, and tells `found` of each owner that has another name than its own.
    pub(super) async fn find_out(
        self,
        client: Client,
        mut waiting: mpsc::Receiver<Key>,
        health: Arc<Health>,
        found: impl Fn(&str, &Workload, &Workload),
    ) {
        while let Some(key) = waiting.recv().await {
            if self.is_known(&key) {
                continue;
            }
            let (namespace, owner) = &key;
            match top(&client, namespace, owner).await {
                Ok(workload) => {
                    health.works();
                    found(namespace, owner, &workload);
                    self.learn(key, workload);
                }
                Err(error) => {
                    let failure = Failure::of_request(&error);
                    health.fail(failure, &error);
                    if matches!(failure, Failure::Forbidden | Failure::NotFound) {
                        // It is gone, or not for us to see: it keeps its own name.
                        let owner = owner.clone();
                        self.learn(key, owner);
                    } else {
                        tokio::time::sleep(AGAIN).await;
                        let _full = self.wanted.try_send(key);
                    }
                }
            }
        }
    }
}

/// The end of the chain of controllers.
async fn top(client: &Client, namespace: &str, owner: &Workload) -> Result<Workload, kube::Error> {
    let mut workload = owner.clone();
    for _ in 0..DEPTH {
        let Some((kind, group, version, plural)) = OWNED.iter().find(|(kind, ..)| *kind == workload.kind)
        else {
            break;
        };
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let metadata = api.get_metadata(&workload.name).await?.metadata;
        let above =
            metadata.owner_references.into_iter().flatten().find(|owner| owner.controller == Some(true));
        match above {
            Some(above) => workload = Workload { kind: above.kind, name: above.name },
            None => break,
        }
    }
    Ok(workload)
}
