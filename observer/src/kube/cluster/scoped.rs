//! Which pods may be told of. Only their metadata is asked for, and only the verdict is kept.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, core::PartialObjectMeta};
use tokio::sync::watch;

use super::lingering::Lingering;
use crate::{config::PodScope, kube::Keep};

/// Keeps the verdicts, and tells when all pods were told once.
pub(super) struct Scoped {
    pub(super) scope: Arc<PodScope>,
    pub(super) verdicts: Lingering<bool>,
    pub(super) synced: watch::Sender<bool>,
}

impl Keep<PartialObjectMeta<Pod>> for Scoped {
    fn begin(&mut self) {
        self.verdicts.begin();
    }

    fn apply(&mut self, pod: PartialObjectMeta<Pod>) {
        let Some(uid) = pod.metadata.uid.as_deref() else { return };
        let namespace = pod.namespace().unwrap_or_default();
        self.verdicts.there(uid, self.scope.admits(&namespace, pod.labels(), pod.annotations()));
    }

    fn delete(&mut self, pod: PartialObjectMeta<Pod>) {
        if let Some(uid) = &pod.metadata.uid {
            self.verdicts.gone(uid);
        }
    }

    fn told(&mut self) {
        self.verdicts.told();
        self.synced.send_replace(true);
    }

    fn len(&self) -> usize {
        self.verdicts.len()
    }
}
