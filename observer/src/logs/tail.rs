//! Follows logs: what is written to their files becomes rows, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::journal::{Journal, Units};
use super::log::Log;
use super::place::Places;
use super::source::Source;
use crate::lines::{Origin, Redactor};
use crate::timeline::Row;

/// Rows that are gathered before they are handed on.
pub(super) const ROWS: usize = 4096;

/// Most logs that are followed.
const LOGS: usize = 2048;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of files.
    pub bytes: u64,
    /// Rows that were made of them.
    pub rows: u64,
    /// Places in messages that were redacted.
    pub redactions: u64,
    /// Bytes of messages that were left out because a message was too long.
    pub left_out: u64,
    /// Files that were cut off while they were read.
    pub truncated: u64,
    /// Logs that are followed now.
    pub logs: u64,
    /// Files that are open now.
    pub files: u64,
    /// Files that could not be read, now.
    pub unreadable: u64,
    /// Logs that are not followed because there are too many.
    pub too_many: u64,
}

/// Follows logs.
pub struct Tail {
    logs: BTreeMap<Source, Log>,
    /// Up to where logs were read that were not found yet.
    places: Places,
    /// The log at which a turn ended because it had gathered enough: the next begins behind it, so that one that is
    /// written much holds up no other.
    ended_at: Option<Source>,
    journal: Option<Journal>,
    redactor: Redactor,
    counts: Counts,
}

impl Tail {
    /// Begins where `places` say, and with files that they do not name at their beginning.
    pub fn new(places: Places, redacts: bool) -> Self {
        Self {
            logs: BTreeMap::new(),
            places,
            ended_at: None,
            journal: None,
            redactor: Redactor::new(redacts),
            counts: Counts::default(),
        }
    }

    /// With what these units write, from where the places say.
    #[must_use]
    pub fn with_units(mut self, units: Units) -> Self {
        let cursor = self.places.journal.take();
        self.journal = (!units.names.is_empty()).then(|| Journal::new(units, cursor));
        self
    }

    /// Begins at the end of all files that there are now: what was written is not told.
    pub fn from_now_on(sources: &[(Source, Origin)], redacts: bool, now: i64) -> Self {
        let mut tail = Self::new(Places::default(), redacts);
        tail.find(sources);
        for log in tail.logs.values_mut() {
            log.look(&mut tail.counts);
            log.skip_to_end(now);
        }
        tail
    }

    /// Reads what is there, up to a bound. `now` is for formats that do not say when. Whether there may be more.
    pub fn turn(&mut self, sources: &[(Source, Origin)], now: i64, rows: &mut Vec<Row>) -> bool {
        self.find(sources);
        self.counts.unreadable = 0;
        let mut is_more = false;
        let wanted: BTreeSet<&Source> = sources.iter().map(|(source, _)| source).collect();
        let begin = self.ended_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = match &begin {
            Bound::Excluded(last) => Some((Bound::Unbounded, Bound::Included(last.clone()))),
            _ => None,
        };
        'all: for range in [Some((begin, Bound::Unbounded)), rest].into_iter().flatten() {
            for (source, log) in self.logs.range_mut(range) {
                log.is_wanted = wanted.contains(source);
                log.look(&mut self.counts);
                is_more |= log.read(now, &self.redactor, &mut self.counts, rows);
                if rows.len() >= ROWS {
                    (is_more, self.ended_at) = (true, Some(source.clone()));
                    break 'all;
                }
            }
        }
        // After files, which may be deleted before they are read, and with a bound of its own, so that neither holds up the other.
        if let Some(journal) = &mut self.journal {
            let mut entries = Vec::new();
            is_more |= journal.turn(now, &self.redactor, &mut self.counts, &mut entries);
            rows.append(&mut entries);
        }
        self.logs.retain(|_, log| !log.is_over());
        self.counts.logs = self.logs.len() as u64;
        self.counts.files = self.logs.values().map(|log| log.open() as u64).sum();
        is_more
    }

    /// Nobody will turn it any more: what waits for more lines is told.
    pub fn finish(&mut self, rows: &mut Vec<Row>) {
        for log in self.logs.values_mut() {
            log.finish(&self.redactor, &mut self.counts, rows);
        }
        if let Some(journal) = &mut self.journal {
            journal.finish(&self.redactor, &mut self.counts, rows);
        }
    }

    /// Up to where files were read: everything before is in rows that were told.
    pub fn places(&self) -> Places {
        let mut places = self.places.clone();
        if let Some(journal) = &self.journal {
            places.journal = journal.cursor();
        }
        for (source, log) in &self.logs {
            places.files.insert(source.path.to_string_lossy().into_owned(), log.places());
        }
        places
    }

    /// What was read.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn find(&mut self, sources: &[(Source, Origin)]) {
        for (source, origin) in sources {
            let is_full = self.logs.len() >= LOGS;
            match self.logs.get_mut(source) {
                Some(log) => log.origin.workload.clone_from(&origin.workload),
                None if is_full => self.counts.too_many += 1,
                None => {
                    let places =
                        self.places.files.remove(&*source.path.to_string_lossy()).unwrap_or_default();
                    self.logs.insert(source.clone(), Log::new(source.clone(), origin.clone(), places));
                }
            }
        }
        // Places of logs that are gone for good are not kept for ever.
        let folder_is_there = |path: &String| std::path::Path::new(path).exists();
        if self.places.files.len() > LOGS {
            self.places.files.retain(|path, _| folder_is_there(path));
        }
    }
}

#[cfg(test)]
mod tests;
