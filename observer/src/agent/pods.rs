//! What happens to the pods of this node, as events.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{keeping::Keeping, pace::Pace};
use crate::{
    capture::monotonic,
    kube::TellChange,
    pods::{Change, Gravity, Pod},
    timeline::{Kind, Level, Row},
};

/// Between looks at what came too fast.
const LOOK: Duration = Duration::from_secs(10);

/// Tells events of pods.
#[derive(Clone)]
pub(super) struct Rows {
    keeping: Keeping,
    pace: Arc<Mutex<Pace>>,
}

impl Rows {
    pub(super) fn to(keeping: Keeping) -> Self {
        Self { keeping, pace: Arc::default() }
    }

    /// Whom to tell.
    pub(super) fn tell(&self) -> TellChange {
        let rows = self.clone();
        Arc::new(move |pod, change| {
            let mut pace = rows.pace.lock().unwrap_or_else(PoisonError::into_inner);
            if pace.admits(&change.reason, monotonic()) {
                rows.keeping.event(row(pod, change));
            }
        })
    }

    /// Tells, for ever, of what came too fast to be told one by one.
    pub(super) async fn look(&self) -> ! {
        loop {
            tokio::time::sleep(LOOK).await;
            let left_out = self.pace.lock().unwrap_or_else(PoisonError::into_inner).left_out(monotonic());
            for (reason, count) in left_out {
                let message = format!("{count} more of these within 10 s are not told one by one");
                let level = Some(Level::Warn);
                self.keeping.event(Row { kind: Kind::Kubernetes, reason, level, message, ..Row::default() });
            }
        }
    }
}

fn row(pod: &Pod, change: Change) -> Row {
    let level = match change.gravity {
        Gravity::Usual => Level::Info,
        Gravity::Unusual => Level::Warn,
        Gravity::Failure => Level::Error,
    };
    Row {
        // 0 is now.
        time: change.time.map_or(0, u64::cast_signed),
        kind: Kind::Kubernetes,
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        container: change.container.unwrap_or_default(),
        workload: pod.workload.as_ref().map(|workload| workload.name.clone()).unwrap_or_default(),
        restart: change.restart.and_then(|restarts| u32::try_from(restarts).ok()),
        level: Some(level),
        reason: change.reason,
        message: change.message,
        ..Row::default()
    }
}
