//! Whose an observation is: a pure look-up from process to identity.
//!
//! In: a snapshot that the rim keeps up to date, and records of the core. Out: records with their owner's
//! names filled in. No IO, no clock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::exchange::RequestRecord;

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Node that it runs on.
    pub node: String,
    /// Kubernetes namespace; empty outside Kubernetes.
    pub namespace: String,
    /// Pod name; empty outside Kubernetes.
    pub pod: String,
    /// Container name, or what stands for it outside Kubernetes.
    pub container: String,
    /// Process name.
    pub process: String,
    /// Software that it is, as discovered from the process; empty when not known.
    pub provider: String,
}

impl Identity {
    /// Whether both belong to the same container, so that their metrics share series.
    pub fn same_container(&self, other: &Self) -> bool {
        (&self.namespace, &self.pod, &self.container) == (&other.namespace, &other.pod, &other.container)
    }
}

/// Snapshot of the identities of all observed processes.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    unknown: Arc<Identity>,
    by_pid: HashMap<u32, Arc<Identity>>,
}

impl Identities {
    /// An empty snapshot on this node.
    pub fn on_node(node: &str) -> Self {
        Self {
            unknown: Arc::new(Identity { node: node.to_owned(), ..Identity::default() }),
            by_pid: HashMap::new(),
        }
    }

    /// Notes who a process is. The caller bounds how many there are: it knows when a process is gone.
    pub fn insert(&mut self, pid: u32, identity: Identity) {
        self.by_pid.insert(pid, Arc::new(identity));
    }

    /// Whether a process is known.
    pub fn has(&self, pid: u32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// Forgets a process.
    pub fn remove(&mut self, pid: u32) -> Option<Arc<Identity>> {
        self.by_pid.remove(&pid)
    }

    /// Who a process is; for one that is not known, an identity that has only a node.
    pub fn of(&self, pid: u32) -> &Arc<Identity> {
        self.by_pid.get(&pid).unwrap_or(&self.unknown)
    }

    /// Whether some known process still belongs to the container of this identity.
    pub fn has_container_of(&self, identity: &Identity) -> bool {
        self.by_pid.values().any(|known| known.same_container(identity))
    }

    /// Fills in whose a record is. What the record knows and the snapshot does not is left alone.
    pub fn fill(&self, record: &mut RequestRecord) {
        let identity = self.of(record.pid);
        for (field, known) in [
            (&mut record.node, &identity.node),
            (&mut record.namespace, &identity.namespace),
            (&mut record.pod, &identity.pod),
            (&mut record.container, &identity.container),
            (&mut record.process, &identity.process),
        ] {
            if !known.is_empty() {
                field.clone_from(known);
            }
        }
        if record.provider.is_none() && !identity.provider.is_empty() {
            record.provider = Some(identity.provider.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            node: "n".to_owned(),
            namespace: "ns".to_owned(),
            pod: "p".to_owned(),
            container: "c".to_owned(),
            process: "llama-server".to_owned(),
            provider: "llama.cpp".to_owned(),
        }
    }

    #[test]
    fn fills_what_is_known_and_keeps_the_rest() {
        let mut identities = Identities::on_node("n");
        identities.insert(7, identity());
        let mut record = RequestRecord { pid: 7, provider: Some("vllm".to_owned()), ..Default::default() };
        identities.fill(&mut record);
        assert_eq!((record.namespace.as_str(), record.pod.as_str()), ("ns", "p"));
        assert_eq!(record.process, "llama-server");
        assert_eq!(record.provider.as_deref(), Some("vllm"), "the wire knows better than the process");

        let mut stranger = RequestRecord { pid: 8, process: "x".to_owned(), ..Default::default() };
        identities.fill(&mut stranger);
        assert_eq!((stranger.node.as_str(), stranger.process.as_str()), ("n", "x"));
        assert_eq!(stranger.provider, None);
    }

    #[test]
    fn a_container_is_gone_with_its_last_process() {
        let mut identities = Identities::on_node("n");
        identities.insert(7, identity());
        identities.insert(8, Identity { process: "worker".to_owned(), ..identity() });
        identities.remove(7);
        assert!(identities.has_container_of(&identity()));
        identities.remove(8);
        assert!(!identities.has_container_of(&identity()));
    }
}
