//! One container's part of the series: its labels, its groups and what is known of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prometheus::{Histogram, IntCounter};

use crate::enrich::Identity;
use crate::exchange::Role;

use super::child::Child;
use super::labels::{self, Code, OTHER};
use super::meaning::{self, Changes};

/// Children of `llm_requests_total` in one group; what lies beyond has code and reason `other`.
pub(super) const ENDS: usize = 64;

/// Models of one container that are remembered as confirmed.
const MODELS: usize = 256;

/// Names a container in labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WorkloadKey([String; 3]);

impl WorkloadKey {
    pub(super) fn of(identity: &Identity) -> Self {
        Self([&identity.namespace, &identity.pod, &identity.container].map(|name| labels::bounded(name)))
    }

    pub(super) fn overflow() -> Self {
        Self([OTHER; 3].map(str::to_owned))
    }

    /// A key as the identity that it stands for.
    pub(super) fn as_identity(&self) -> Identity {
        let [namespace, pod, container] = self.0.clone();
        Identity { namespace, pod, container, ..Identity::default() }
    }

    /// Whether label values that begin with the workload's are of this container.
    pub(super) fn owns(&self, values: &[String]) -> bool {
        values.starts_with(&self.0)
    }
}

/// The other labels that a group of series has in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum GroupKey {
    /// None: metrics about how far the others can be trusted, and about processes.
    Trust,
    /// Those of a request.
    Requests { provider: String, operation: &'static str, model: String, role: Role },
}

impl GroupKey {
    /// What is there at 0 from the first moment of such a group.
    pub(super) fn born(&self) -> Changes<'static> {
        match self {
            Self::Trust => Vec::new(),
            Self::Requests { .. } => meaning::born(),
        }
    }

    /// The group that takes what would be too much for this one. The provider stays if it is the usual one
    /// of the container, so that the number of such groups has a bound.
    pub(super) fn other(&self, usual_provider: &str) -> Self {
        match self {
            Self::Trust => Self::Trust,
            Self::Requests { provider, operation, role, .. } => Self::Requests {
                provider: if provider == usual_provider { provider.clone() } else { OTHER.to_owned() },
                operation,
                model: OTHER.to_owned(),
                role: *role,
            },
        }
    }
}

/// Where changes landed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) workload: WorkloadKey,
    pub(super) group: GroupKey,
}

impl Place {
    /// Values of the labels that the series here have in common: the workload's, then those of a request.
    pub(super) fn label_values(&self) -> Vec<String> {
        let mut values = self.workload.0.to_vec();
        if let GroupKey::Requests { provider, operation, model, role } = &self.group {
            let role = role.as_str().to_owned();
            values.extend([provider.clone(), (*operation).to_owned(), model.clone(), role]);
        }
        values
    }
}

#[derive(Clone)]
pub(super) enum Handle {
    Counter(IntCounter),
    Histogram(Histogram),
    /// Computed at each scrape; only its cost is accounted for here.
    Derived,
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) children: HashMap<Child, Handle>,
    pub(super) ends: usize,
}

impl Group {
    /// The child that takes the place of one that would be too much.
    pub(super) fn settle(&self, child: &Child) -> Child {
        match child {
            Child::Requests { outcome, .. } if self.ends >= ENDS && !self.children.contains_key(child) => {
                Child::Requests { outcome: *outcome, code: Code::Other, finish: OTHER }
            }
            child => child.clone(),
        }
    }
}

/// What is known of a container.
pub(super) struct Workload {
    pub(super) identity: Arc<Identity>,
    pub(super) groups: HashMap<GroupKey, Group>,
    pub(super) used: usize,
    /// Models for which a request was answered 2xx.
    models: HashSet<String>,
    /// Since when it has had no process.
    pub(super) gone_since: Option<u64>,
    /// Exchanges in flight whose series are here.
    pub(super) running: usize,
    /// As the last finished exchange showed it.
    pub(super) provider: String,
    /// As the last finished exchange showed it.
    pub(super) role: Role,
    /// Starts and ends of processes until its first request has ended; none when they are series.
    pub(super) lives: Option<HashMap<Child, u64>>,
}

impl Workload {
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        let provider = labels::bounded(&identity.provider);
        Self {
            identity,
            groups: HashMap::new(),
            used: 0,
            models: HashSet::new(),
            gone_since: None,
            running: 0,
            provider,
            role: Role::default(),
            lives: Some(HashMap::new()),
        }
    }

    /// The model as label value: empty until a request for it was answered 2xx, so that what clients make up
    /// does not become a series.
    pub(super) fn model_label(&mut self, model: Option<&str>, status: Option<u16>) -> String {
        let model = labels::bounded(model.unwrap_or_default());
        if model.is_empty() || self.models.contains(&model) {
            return model;
        }
        if !status.is_some_and(|status| (200..300).contains(&status)) {
            return String::new();
        }
        if self.models.len() >= MODELS {
            return OTHER.to_owned();
        }
        self.models.insert(model.clone());
        model
    }
}
