//! What the store has counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::timeline::Kind;

/// What it has counted, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows that were written, by kind.
    pub written: BTreeMap<&'static str, u64>,
    /// Rows that were not, by kind and cause.
    pub dropped: BTreeMap<(&'static str, &'static str), u64>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Rows on disk.
    pub rows: u64,
    /// Volumes on disk.
    pub volumes: u64,
    /// Volumes that were deleted, by cause.
    pub deleted: BTreeMap<&'static str, u64>,
    /// Volumes that were damaged and set aside.
    pub set_aside: u64,
    /// Commits that failed.
    pub failed: u64,
    /// The time of the oldest row, nanoseconds since 1970; 0 without any.
    pub oldest: i64,
}

/// Counters that all threads share.
#[derive(Debug, Default)]
pub struct Counts(Mutex<Snapshot>);

impl Counts {
    pub(super) fn change(&self) -> MutexGuard<'_, Snapshot> {
        // Every change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dropped(&self, kind: Kind, cause: &'static str, count: u64) {
        if count > 0 {
            *self.change().dropped.entry((kind.as_str(), cause)).or_default() += count;
        }
    }

    /// All of them.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.change().clone()
    }
}
