//! Lines and events on their way to whoever follows them.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::lines::Origin;
use crate::logs::Source;
use crate::timeline::Row;

/// Logs of this node as they are in files.
#[derive(Clone)]
pub struct LogFiles {
    /// Those that may be told of, now.
    pub sources: Arc<dyn Fn() -> Vec<(Source, Origin)> + Send + Sync>,
    /// Whether what must not be kept is taken out of lines.
    pub redacts: bool,
    /// The wall clock in nanoseconds since 1970.
    pub wall: fn() -> i64,
}

impl Default for LogFiles {
    /// None.
    fn default() -> Self {
        Self { sources: Arc::new(Vec::new), redacts: true, wall: || 0 }
    }
}

/// Where lines and events are published. Cheap to clone; publishing never waits for a reader.
///
/// Each follower may lag by as many rows as the feed holds; what it misses beyond is told to it.
#[derive(Clone, Debug)]
pub struct RowFeed {
    live: broadcast::Sender<Arc<Row>>,
}

impl RowFeed {
    /// A feed that holds this many rows for followers that lag, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { live: broadcast::Sender::new(capacity.max(1)) }
    }

    /// Publishes a row. Costs next to nothing when nobody follows.
    pub fn publish(&self, row: &Row) {
        if self.live.receiver_count() > 0 {
            // An error means that the last follower left just now.
            let _followers = self.live.send(Arc::new(row.clone()));
        }
    }

    pub(super) fn follow(&self) -> broadcast::Receiver<Arc<Row>> {
        self.live.subscribe()
    }
}
