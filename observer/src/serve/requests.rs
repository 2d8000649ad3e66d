//! Finished requests on their way to whoever follows them or asks for them later; bounded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::exchange::RequestRecord;
use crate::recent::{Finished, Recent};

/// Requests that are copied out of the memory at a time, while whoever publishes waits.
const PAGE: usize = 256;

/// Where finished requests are published. Cheap to clone; publishing never waits for a reader.
///
/// Each follower may lag by as many requests as the feed holds; what it misses beyond is told to it.
#[derive(Clone, Debug)]
pub struct RequestFeed {
    memory: Arc<Mutex<Recent>>,
    live: broadcast::Sender<Arc<Finished>>,
}

impl RequestFeed {
    /// A feed that holds this many requests for followers that lag, at least one, and remembers what ended in so many
    /// bytes from now on, which is in nanoseconds since 1970.
    pub fn new(capacity: usize, bytes: usize, now: i64) -> Self {
        Self {
            memory: Arc::new(Mutex::new(Recent::new(bytes, now))),
            live: broadcast::Sender::new(capacity.max(1)),
        }
    }

    /// Publishes a request that ended just now, and gives it as it is remembered.
    pub fn publish(&self, record: RequestRecord, now: i64) -> Arc<Finished> {
        let finished = self.memory().remember(record, now);
        // An error means that nobody follows.
        let _followers = self.live.send(Arc::clone(&finished));
        finished
    }

    /// Every request that is published from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Finished>> {
        self.live.subscribe()
    }

    /// Every request that is remembered, newest first, and since when those are all, in nanoseconds since 1970.
    pub(super) fn all(&self) -> (Vec<Arc<Finished>>, i64) {
        let (mut all, mut before) = (Vec::new(), u64::MAX);
        loop {
            let memory = self.memory();
            let known = all.len();
            all.extend(memory.before(before, PAGE));
            match all.get(known..).and_then(<[_]>::last) {
                Some(last) => before = last.sequence,
                None => return (all, memory.complete_since()),
            }
        }
    }

    /// What is remembered: requests, bytes, and how many were forgotten for want of room.
    pub fn remembers(&self) -> [u64; 3] {
        let memory = self.memory();
        [memory.len() as u64, memory.bytes() as u64, memory.forgotten()]
    }

    /// How many follow now.
    pub fn followers(&self) -> usize {
        self.live.receiver_count()
    }

    fn memory(&self) -> MutexGuard<'_, Recent> {
        // Every change of the memory is complete in itself, so it is good even after a panic elsewhere.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_copied_page_by_page() {
        let feed = RequestFeed::new(1, 64 << 20, 5);
        let numbers = 0..PAGE as u64 * 3 + 7;
        for number in numbers.clone() {
            feed.publish(RequestRecord { id: number.to_string(), ..RequestRecord::default() }, 0);
        }
        let (all, complete_since) = feed.all();
        let sequences: Vec<u64> = all.iter().map(|finished| finished.sequence).collect();
        assert_eq!((sequences, complete_since), (numbers.rev().collect(), 5));
        assert_eq!(feed.remembers()[0], 3 * PAGE as u64 + 7);
    }
}
