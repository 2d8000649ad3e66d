//! What ended, on its way to an OTLP receiver: a follower like others, so the thread that captures never waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::whose::{SharedPods, locked};
use crate::export::otlp::{Otlp, PodKnown};
use crate::recent::Finished;

/// How long the end of the agent waits for a receiver to take the last of it.
const LAST: Duration = Duration::from_millis(300);

/// The tasks that take in and send.
pub(super) struct Telling {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Telling {
    /// Starts them.
    pub(super) fn start(otlp: Otlp, finished: Receiver<Arc<Finished>>, pods: SharedPods) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::join!(otlp.run(), take_in(&otlp, finished, &pods, stopped));
        });
        Self { task, stop }
    }

    /// To be called when nothing is published any more.
    pub(super) async fn end(self) {
        // An error means that it has ended by itself.
        let _told = self.stop.send(());
        // What is left then is lost with the process.
        let _late = tokio::time::timeout(LAST, self.task).await;
    }
}

async fn take_in(
    otlp: &Otlp,
    mut finished: Receiver<Arc<Finished>>,
    pods: &SharedPods,
    mut stopped: oneshot::Receiver<()>,
) {
    let tell = |finished: &Finished| {
        let record = &finished.record;
        otlp.request(record, known(pods, &record.namespace, &record.pod));
    };
    loop {
        let next = tokio::select! {
            next = finished.recv() => next,
            _ = &mut stopped => break,
        };
        match next {
            Ok(finished) => tell(&finished),
            Err(RecvError::Lagged(missed)) => otlp.lagged(missed),
            Err(RecvError::Closed) => break,
        }
    }
    loop {
        match finished.try_recv() {
            Ok(finished) => tell(&finished),
            Err(TryRecvError::Lagged(missed)) => otlp.lagged(missed),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return otlp.close(),
        }
    }
}

/// What is known of the pod of this name.
pub(super) fn known(pods: &SharedPods, namespace: &str, name: &str) -> Option<PodKnown> {
    if name.is_empty() {
        return None;
    }
    let pods = locked(pods);
    let pod = pods.iter().find(|pod| pod.name == name && pod.namespace == namespace)?;
    Some((pod.uid.clone(), pod.workload.clone()))
}
