//! What happens, on its way to whoever follows it: one line of JSON each, bounded.

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

/// Where events of Kubernetes are published. Cheap to clone; publishing never blocks.
///
/// Each follower may lag by as many records as the feed holds; what it misses beyond is told to it.
#[derive(Clone, Debug)]
pub struct Feed {
    lines: broadcast::Sender<Bytes>,
}

impl Feed {
    /// A feed that holds this many records for followers that lag; at least one.
    pub fn new(capacity: usize) -> Self {
        Self { lines: broadcast::Sender::new(capacity.max(1)) }
    }

    /// Publishes a record. Costs next to nothing when nobody follows.
    ///
    /// # Errors
    ///
    /// When the record has no JSON form: a number in it is not finite.
    pub fn publish(&self, record: &impl Serialize) -> Result<(), serde_json::Error> {
        if self.lines.receiver_count() == 0 {
            return Ok(());
        }
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        // An error means that the last follower left just now.
        let _followers = self.lines.send(Bytes::from(line));
        Ok(())
    }

    pub(super) fn follow(&self) -> broadcast::Receiver<Bytes> {
        self.lines.subscribe()
    }

    /// How many follow now.
    pub fn followers(&self) -> usize {
        self.lines.receiver_count()
    }
}
