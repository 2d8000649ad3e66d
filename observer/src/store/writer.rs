//! The one that writes, on a thread of its own.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tantivy::{IndexWriter, TantivyError};
use tracing::{error, info, warn};

use super::shelf::{Shelf, VOLUMES};
use super::volume::Volume;
use super::{Batch, Offer};
use crate::capture::monotonic;
use crate::timeline::{Kind, Row};

/// How long rows wait to be committed: until then a crash loses requests and events, and lines are read again.
const COMMIT: u64 = 1_000_000_000;

/// So many rows are committed at once.
const ROWS: usize = 100_000;

/// Between looks at queues.
const TURN: Duration = Duration::from_millis(50);

/// Between looks at sizes and ages.
const TIDY: u64 = 5_000_000_000;

/// After a failure.
const AGAIN: u64 = 1_000_000_000;

/// Writes what is offered.
pub struct Writer {
    shelf: Arc<Shelf>,
    offered: Receiver<Offer>,
    batched: Receiver<Batch>,
    open: Option<Open>,
    /// The places that were read up to, with the rows that were added.
    places: Option<String>,
    /// Volumes whose bytes were looked at.
    sound: HashSet<u64>,
    /// Not before then.
    again: Option<u64>,
    tidied: u64,
    is_failing: bool,
}

/// The volume that is written.
struct Open {
    volume: Arc<Volume>,
    writer: IndexWriter,
    /// Rows that were added and not committed.
    added: BTreeMap<&'static str, u64>,
    /// Lines among them that cannot be read again.
    received: u64,
    /// About how many bytes they are, and after how many they are committed: a small disk has no room for many.
    bytes: u64,
    most: u64,
    /// Whether places moved that belong to none of these rows.
    has_moved: bool,
    /// Since when there is something to commit.
    since: u64,
}

impl Open {
    fn rows(&self) -> usize {
        self.added.values().sum::<u64>() as usize
    }

    fn is_clean(&self) -> bool {
        self.rows() == 0 && !self.has_moved
    }

    /// Places moved without a row.
    fn moves(&mut self) {
        if self.is_clean() {
            self.since = monotonic();
        }
        self.has_moved = true;
    }
}

impl Writer {
    pub(super) fn new(shelf: Arc<Shelf>, offered: Receiver<Offer>, batched: Receiver<Batch>) -> Self {
        let places = shelf.places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self {
            shelf,
            offered,
            batched,
            open: None,
            places,
            sound: HashSet::new(),
            again: None,
            tidied: monotonic(),
            is_failing: false,
        }
    }

    /// Writes until it is told to stop, or nobody is left to offer anything; then commits what was offered.
    pub fn run(mut self, stop: &AtomicBool) {
        loop {
            let batch = match self.may_write().then(|| self.batched.recv_timeout(TURN)) {
                Some(Ok(batch)) => Some(batch),
                Some(Err(RecvTimeoutError::Disconnected)) => break,
                Some(Err(RecvTimeoutError::Timeout)) => None,
                None => {
                    // Lines wait in their files; what else is offered is counted as lost.
                    std::thread::sleep(TURN);
                    None
                }
            };
            let is_idle = batch.is_none();
            if let Some(batch) = batch {
                self.batch(batch);
            }
            self.offers();
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let due = |open: &Open| {
                let is_much = open.rows() >= ROWS || open.bytes >= open.most;
                is_much || (!open.is_clean() && monotonic() - open.since >= COMMIT)
            };
            if self.open.as_ref().is_some_and(due) {
                self.commit();
            }
            if monotonic() - self.tidied >= TIDY {
                self.tidy();
            }
            if is_idle {
                self.look_at_one();
            }
        }
        self.offers();
        self.commit();
    }

    fn may_write(&self) -> bool {
        self.again.is_none_or(|again| monotonic() >= again)
    }

    fn offers(&mut self) {
        let most = self.shelf.volumes().len().max(1) * 100_000;
        for _ in 0..most {
            let Ok(offer) = self.offered.try_recv() else { return };
            let row = match offer {
                Offer::Request(finished, workload) => {
                    Row { workload, ..Row::of_request(finished.record.clone(), finished.position.time) }
                }
                Offer::Event(row) => *row,
            };
            if let Err((kind, cause)) = self.add(&row) {
                self.shelf.counts.dropped(kind, cause, 1);
            }
        }
    }

    fn batch(&mut self, batch: Batch) {
        let Some(places) = batch.places else { return self.received(&batch.rows) };
        if batch.generation != self.shelf.generation() {
            return;
        }
        for row in &batch.rows {
            if self.add(row).is_err() {
                // They are read again from where the last commit ended.
                self.shelf.lose();
                return;
            }
        }
        self.places = Some(places);
        if batch.rows.is_empty()
            && let Err(error) = self.writable().map(Open::moves)
        {
            self.fail(&error);
        }
    }

    /// Lines that nobody can read again.
    fn received(&mut self, rows: &[Row]) {
        for row in rows {
            match (self.add(row), &mut self.open) {
                (Ok(()), Some(open)) => open.received += 1,
                (Ok(()), None) => {}
                (Err((kind, cause)), _) => self.shelf.counts.dropped(kind, cause, 1),
            }
        }
    }

    fn add(&mut self, row: &Row) -> Result<(), (Kind, &'static str)> {
        if !self.may_write() {
            return Err((row.kind, "not_writable"));
        }
        let document = self.shelf.fields.document(row);
        let added = self.writable().and_then(|open| {
            open.writer.add_document(document)?;
            if open.is_clean() {
                open.since = monotonic();
            }
            *open.added.entry(row.kind.as_str()).or_default() += 1;
            open.bytes += row.message.len() as u64;
            Ok(())
        });
        added.map_err(|error| {
            self.fail(&error);
            (row.kind, "write_failed")
        })
    }

    /// The volume that is written: the last one, or a new one.
    fn writable(&mut self) -> Result<&mut Open, TantivyError> {
        if self.open.is_none() {
            let last = self.shelf.volumes().pop().filter(|volume| !self.is_full(volume));
            let volume = match last {
                Some(volume) => volume,
                None => self.shelf.add()?,
            };
            let writer = volume.writer()?;
            self.sound.insert(volume.sequence);
            self.open = Some(Open {
                volume,
                writer,
                added: BTreeMap::new(),
                received: 0,
                bytes: 0,
                most: self.shelf.part(),
                has_moved: false,
                since: monotonic(),
            });
        }
        self.open.as_mut().ok_or_else(|| TantivyError::InternalError("no volume".to_owned()))
    }

    fn is_full(&self, volume: &Volume) -> bool {
        let part = i64::try_from(self.shelf.bounds.age.as_nanos() / u128::from(VOLUMES)).unwrap_or(i64::MAX);
        let (first, last) = volume.times();
        volume.bytes() > self.shelf.part() || (first < last && last.saturating_sub(first) > part)
    }

    /// Commits rows and places together.
    fn commit(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| !open.is_clean()) else { return };
        let places = self.places.clone();
        let committed = open.writer.prepare_commit().and_then(|mut commit| {
            if let Some(places) = &places {
                commit.set_payload(places);
            }
            commit.commit()
        });
        match committed.and_then(|_| open.volume.measure()) {
            Ok(()) => {
                (open.bytes, open.most) = (0, self.shelf.part());
                (open.has_moved, open.received) = (false, 0);
                let mut counts = self.shelf.counts.change();
                for (kind, rows) in std::mem::take(&mut open.added) {
                    *counts.written.entry(kind).or_default() += rows;
                }
                drop(counts);
                *self.shelf.places.lock().unwrap_or_else(PoisonError::into_inner) = places;
                if std::mem::take(&mut self.is_failing) {
                    info!("the store is written again");
                }
                if self.open.as_ref().is_some_and(|open| self.is_full(&open.volume)) {
                    self.open = None;
                    self.tidy();
                }
                self.shelf.measure();
            }
            Err(error) => self.fail(&error),
        }
    }

    /// What was added and not committed is lost, but for lines, which are read again.
    fn fail(&mut self, error: &TantivyError) {
        if !std::mem::replace(&mut self.is_failing, true) {
            error!(%error, "the store cannot be written; it is tried again");
        }
        self.shelf.counts.change().failed += 1;
        if let Some(open) = self.open.take() {
            for (kind, rows) in &open.added {
                let kind = Kind::of(kind).filter(|kind| *kind != Kind::Log);
                if let Some(kind) = kind {
                    self.shelf.counts.dropped(kind, "write_failed", *rows);
                }
            }
            self.shelf.counts.dropped(Kind::Log, "write_failed", open.received);
            let volume = Arc::clone(&open.volume);
            // Its files would take the room that is missing.
            drop(open);
            if let Err(error) = volume.clean() {
                warn!(%error, "what could not be written takes room until it is written again");
            }
        }
        self.places.clone_from(&self.shelf.places.lock().unwrap_or_else(PoisonError::into_inner));
        self.shelf.lose();
        self.again = Some(monotonic() + AGAIN);
        self.tidy();
    }

    fn tidy(&mut self) {
        self.tidied = monotonic();
        for volume in self.shelf.volumes() {
            if volume.is_damaged.load(Ordering::Relaxed) {
                self.close(&volume);
                self.shelf.set_aside(&volume, "its content cannot be read");
            }
        }
        if self.open.as_ref().is_some_and(|open| open.rows() == 0 && self.is_full(&open.volume)) {
            self.open = None;
        }
        if !self.shelf.tidy() {
            self.shelf.measure();
            return;
        }
        // The volume that is written is in the way: another follows it, so that it may be deleted.
        let has_rows = self.shelf.volumes().last().is_some_and(|volume| volume.rows() > 0);
        if has_rows {
            self.commit();
            self.open = None;
            // A commit that filled it, or failed, has tidied and may have added one.
            let is_last = self.shelf.volumes().last().is_some_and(|volume| volume.rows() > 0);
            if is_last && let Err(error) = self.shelf.add() {
                error!(%error, "no volume of the store can be made");
            }
        }
        if self.shelf.tidy() && self.shelf.is_disk_full() {
            if !std::mem::replace(&mut self.is_failing, true) {
                error!("the disk is full: nothing is stored until there is room again");
            }
            self.again = Some(monotonic() + TIDY);
        }
        self.shelf.measure();
    }

    fn close(&mut self, volume: &Volume) {
        if self.open.as_ref().is_some_and(|open| open.volume.sequence == volume.sequence) {
            self.open = None;
            self.shelf.lose();
        }
    }

    /// Looks at the bytes of one volume that was there before, so that damage is known before somebody asks.
    fn look_at_one(&mut self) {
        let unknown =
            self.shelf.volumes().into_iter().rev().find(|volume| !self.sound.contains(&volume.sequence));
        if let Some(volume) = unknown {
            self.sound.insert(volume.sequence);
            if !volume.is_sound() {
                self.shelf.set_aside(&volume, "its bytes are not what was written");
                self.shelf.measure();
            }
        }
    }
}
