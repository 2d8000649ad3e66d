//! What happened, kept on disk: requests, events, and lines of logs if they are to be.
//!
//! In: rows, from whoever learns of them, through a queue that never makes the road of requests wait ([`Store::request`],
//! [`Store::event`]): what finds no room is counted. Lines wait for room, and bring the places up to which files were read
//! ([`Store::lines`]): both are committed together or not at all, so after a crash each line is there once. Out: rows that a
//! question is about ([`Store::search`]).
//!
//! One folder, format 1: volumes that follow each other in time, each an index of its own ([`volume`]). The oldest are
//! deleted when there are too many bytes, when they are too old, and when the disk is full. One that is damaged is set aside
//! and the others are served. One process writes; it holds a lock on the folder.

mod counts;
mod document;
mod search;
mod shelf;
mod volume;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub use counts::{Counts, Snapshot};
pub use search::Found;
pub use writer::Writer;

use crate::recent::{Finished, Query};
use crate::timeline::{Kind, Row};
use shelf::Shelf;

/// Requests and events that wait to be written.
const QUEUE: usize = 8192;

/// Batches of lines that wait.
const BATCHES: usize = 4;

/// Where the store is, and how much it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its folder.
    pub path: PathBuf,
    /// Most bytes in it.
    pub bytes: u64,
    /// For how long.
    pub age: Duration,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error("{} cannot be used ({cause}); name a folder on a disk with `store.path`", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// Somebody else writes there.
    #[error("another observer writes in {}; give each a `store.path` of its own", .0.display())]
    Taken(PathBuf),
    /// The index cannot be made.
    #[error("no index can be made: {0}")]
    Index(#[from] tantivy::TantivyError),
}

/// What is to be written.
enum Offer {
    /// With what manages its pod.
    Request(Arc<Finished>, String),
    Event(Box<Row>),
}

/// Lines of logs, and what has been read with them.
struct Batch {
    generation: u64,
    rows: Vec<Row>,
    /// None: they come from nowhere where they could be read again.
    places: Option<String>,
}

/// What was not written is to be read again from the places of [`Store::places`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAgain;

/// The store, for those who offer and those who ask. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    offers: SyncSender<Offer>,
    batches: SyncSender<Batch>,
    shelf: Arc<Shelf>,
}

impl Store {
    /// Opens the store, or makes it. `now` is the wall clock in nanoseconds since 1970.
    ///
    /// # Errors
    /// When the folder cannot be used, or another process writes there.
    pub fn open(bounds: Bounds, now: fn() -> i64) -> Result<(Self, Writer), StoreError> {
        let shelf = Arc::new(Shelf::open(bounds, now)?);
        let ((offers, offered), (batches, batched)) = (sync_channel(QUEUE), sync_channel(BATCHES));
        let writer = Writer::new(Arc::clone(&shelf), offered, batched);
        Ok((Self { offers, batches, shelf }, writer))
    }

    /// Offers a request that ended, with what manages its pod. Never waits.
    pub fn request(&self, finished: &Arc<Finished>, workload: String) {
        self.offer(Kind::Request, Offer::Request(Arc::clone(finished), workload));
    }

    /// Offers an event. Never waits.
    pub fn event(&self, row: Row) {
        self.offer(row.kind, Offer::Event(Box::new(row)));
    }

    fn offer(&self, kind: Kind, offer: Offer) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.offers.try_send(offer) {
            self.shelf.counts.dropped(kind, "queue_full", 1);
        }
    }

    /// Hands over lines, in one piece with the places up to which files were read, and waits for room.
    ///
    /// # Errors
    /// When earlier lines could not be written: all since the last commit is to be read again.
    pub fn lines(&self, generation: u64, rows: Vec<Row>, places: String) -> Result<(), ReadAgain> {
        if generation != self.generation() {
            return Err(ReadAgain);
        }
        self.batches.send(Batch { generation, rows, places: Some(places) }).map_err(|_no_writer| ReadAgain)
    }

    /// Hands over lines that cannot be read again: those that cannot be written are counted as dropped. Never waits.
    ///
    /// # Errors
    /// With the lines, if there is no room now.
    pub fn try_lines(&self, rows: Vec<Row>) -> Result<(), Vec<Row>> {
        let batch = Batch { generation: self.generation(), rows, places: None };
        self.batches.try_send(batch).map_err(|error| match error {
            TrySendError::Full(batch) | TrySendError::Disconnected(batch) => batch.rows,
        })
    }

    /// Counts how often what was handed over got lost.
    pub fn generation(&self) -> u64 {
        self.shelf.generation()
    }

    /// The places that were committed last.
    pub fn places(&self) -> Option<String> {
        self.shelf.places.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Rows that a question is about. `now` is for times that are told as time ago; at `end`, on the monotonic clock in
    /// nanoseconds, what was found is told.
    pub fn search(&self, query: &Query, now: i64, end: u64) -> Found {
        search::search(&self.shelf, query, now, end)
    }

    /// How many rows there are in each span of the question, oldest first.
    pub fn hits(&self, query: &Query, span: i64, now: i64, end: u64) -> (BTreeMap<i64, u64>, Found) {
        search::hits(&self.shelf, query, span, now, end)
    }

    /// What it has counted.
    pub fn counts(&self) -> Snapshot {
        self.shelf.counts.snapshot()
    }

    /// Since when nothing is missing that was offered, nanoseconds since 1970.
    pub fn complete_since(&self) -> i64 {
        self.shelf.complete_since()
    }
}

#[cfg(test)]
mod tests;
