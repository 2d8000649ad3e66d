//! Follows logs: what is written to their files becomes rows, each once.

use std::collections::{BTreeMap, BTreeSet};

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
    redactor: Redactor,
    counts: Counts,
}

impl Tail {
    /// Begins where `places` say, and with files that they do not name at their beginning.
    pub fn new(places: Places, redacts: bool) -> Self {
        Self { logs: BTreeMap::new(), places, redactor: Redactor::new(redacts), counts: Counts::default() }
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
        (self.counts.files, self.counts.unreadable) = (0, 0);
        let mut is_more = false;
        let wanted: BTreeSet<&Source> = sources.iter().map(|(source, _)| source).collect();
        for (source, log) in &mut self.logs {
            log.is_wanted = wanted.contains(source);
            log.look(&mut self.counts);
            is_more |= log.read(now, &self.redactor, &mut self.counts, rows);
            self.counts.files += log.open() as u64;
            if rows.len() >= ROWS {
                is_more = true;
                break;
            }
        }
        self.logs.retain(|_, log| !log.is_over());
        self.counts.logs = self.logs.len() as u64;
        is_more
    }

    /// Nobody will turn it any more: what waits for more lines is told.
    pub fn finish(&mut self, rows: &mut Vec<Row>) {
        for log in self.logs.values_mut() {
            log.finish(&self.redactor, &mut self.counts, rows);
        }
    }

    /// Up to where files were read: everything before is in rows that were told.
    pub fn places(&self) -> Places {
        let mut places = self.places.clone();
        for (source, log) in &self.logs {
            places.0.insert(source.path.to_string_lossy().into_owned(), log.places());
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
                    let places = self.places.0.remove(&*source.path.to_string_lossy()).unwrap_or_default();
                    self.logs.insert(source.clone(), Log::new(source.clone(), origin.clone(), places));
                }
            }
        }
        // Places of logs that are gone for good are not kept for ever.
        let folder_is_there = |path: &String| std::path::Path::new(path).exists();
        if self.places.0.len() > LOGS {
            self.places.0.retain(|path, _| folder_is_there(path));
        }
    }
}

#[cfg(test)]
mod tests;
