//! What is sent to others: what ended, on its way to an OTLP receiver, as a follower like others, so the thread that captures
//! never waits for it; events, and lines of logs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::now;
use super::whose::{SharedPods, locked};
use crate::config::Config;
use crate::export::otlp::{Otlp, OtlpError, PodKnown, Row as Record, Told};
use crate::recent::Finished;
use crate::timeline::Row;

/// How long the end of the agent waits for a receiver to take the last of it.
const LAST: Duration = Duration::from_millis(300);

/// Those to whom something is sent. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Receivers {
    /// Who takes spans, events and, if that is wanted, lines.
    otlp: Option<Otlp>,
    /// The cluster role, if it keeps lines.
    keeper: Option<Otlp>,
    /// Those of them that take lines.
    lines: Vec<Otlp>,
}

impl Receivers {
    /// Those of the settings.
    pub(super) fn of(config: &Config) -> Result<Self, OtlpError> {
        let otlp = Otlp::new(&config.otlp, now)?;
        let keeper = Otlp::of_lines("lines", &config.to_cluster(), now)?;
        let lines = otlp.clone().filter(|_| config.otlp.lines).into_iter().chain(keeper.clone()).collect();
        Ok(Self { otlp, keeper, lines })
    }

    /// Those that take lines.
    pub(super) fn of_lines(&self) -> &[Otlp] {
        &self.lines
    }

    /// Sends an event, where events are sent.
    pub(super) fn event(&self, row: &Row, pods: &SharedPods) {
        if let Some(otlp) = &self.otlp {
            let pod = known(pods, &row.namespace, &row.pod);
            otlp.row(Record::of_timeline(row, pod, now().unsigned_abs()));
        }
    }

    /// What became of everything.
    pub(super) fn told(&self) -> Vec<Told> {
        self.otlp.iter().chain(&self.keeper).flat_map(Otlp::told).collect()
    }
}

/// The tasks that take in and send.
pub(super) struct Telling {
    task: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    stop: oneshot::Sender<()>,
}

impl Telling {
    /// Starts them.
    pub(super) fn start(to: Receivers, finished: Receiver<Arc<Finished>>, pods: SharedPods) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = to.otlp.map(|otlp| {
            tokio::spawn(async move {
                tokio::join!(otlp.run(), take_in(&otlp, finished, &pods, stopped));
            })
        });
        let keeper = to.keeper.map(|keeper| tokio::spawn(async move { keeper.run().await }));
        Self { task, keeper, stop }
    }

    /// To be called when nothing is published any more.
    pub(super) async fn end(self) {
        // An error means that it has ended by itself, or was never there.
        let _told = self.stop.send(());
        if let Some(task) = self.task {
            // What is left then is lost with the process.
            let _late = tokio::time::timeout(LAST, task).await;
        }
        if let Some(keeper) = self.keeper {
            // Lines that were not sent are read again.
            keeper.abort();
        }
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
