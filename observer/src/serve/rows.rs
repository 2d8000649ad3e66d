//! Lines and events on their way to whoever follows them.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::timeline::Row;

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
