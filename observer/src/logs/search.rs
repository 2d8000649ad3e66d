//! Looks for rows in the files themselves, where lines are not stored.
//!
//! Times of lines ascend in a file, so that the window of a question is found by halving; compressed files are read from their
//! beginning, unless the next file begins before the window.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::file::{Candidate, mixed, name_of};
use super::folder::candidates;
use super::source::Source;
use crate::capture::monotonic;
use crate::lines::{APART, Assembler, Entry, Format, Line, Origin, Redactor, Splitter, row_of};
use crate::recent::{Order, Position, Query};
use crate::timeline::Row;

/// Bytes that are read at a time.
const PART: usize = 256 << 10;

/// A window is read from so many bytes before it begins: lines of two streams, or of a trace, may stand in another order.
const MARGIN: u64 = 64 << 10;

/// Lines so much later than the window end the reading of a file, nanoseconds.
const AFTER: i64 = 5_000_000_000;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Searched {
    /// Rows in the order that was asked for.
    pub rows: Vec<Row>,
    /// There are more: where the next page begins.
    pub next: Option<Position>,
    /// How many there are in each span of time, if that was asked for.
    pub spans: BTreeMap<i64, u64>,
    /// Logs that were not looked at to the end, because it took too long.
    pub unfinished: usize,
    /// Files that could not be read.
    pub unreadable: usize,
    /// Logs that the question is about.
    pub logs: usize,
}

/// Finds rows in these logs. `now` is for times that are told as time ago; at `end`, on the monotonic clock in
/// nanoseconds, what was found is told.
pub fn search(
    sources: &[(Source, Origin)],
    query: &Query,
    (now, end): (i64, u64),
    redactor: &Redactor,
) -> Searched {
    let (mut since, mut until) = query.window(now);
    match (&query.cursor, query.order) {
        (Some(cursor), Order::Newest) => until = until.min(cursor.time),
        (Some(cursor), Order::Oldest) => since = since.max(cursor.time),
        (None, _) => {}
    }
    let mut found = Found {
        query,
        window: (since, until),
        redactor,
        end,
        kept: BTreeMap::new(),
        searched: Searched::default(),
    };
    for (source, origin) in sources {
        if !query.is_about_container(&origin.namespace, &origin.pod, &origin.container, &origin.workload) {
            continue;
        }
        found.searched.logs += 1;
        if monotonic() >= end || !found.log(source, origin) {
            found.searched.unfinished += 1;
        }
    }
    found.finish()
}

struct Found<'a> {
    query: &'a Query,
    window: (i64, i64),
    redactor: &'a Redactor,
    end: u64,
    /// The best, and one more.
    kept: BTreeMap<Position, Row>,
    searched: Searched,
}

impl Found<'_> {
    /// Looks through a log; whether it came to the end in time.
    fn log(&mut self, source: &Source, origin: &Origin) -> bool {
        let mut files: Vec<(Candidate, i64, Format, u64)> = Vec::new();
        for candidate in candidates(source) {
            match beginning(&candidate, source) {
                Ok(Some((time, format, name))) => {
                    // The compressed copy of one that is still there.
                    if !files.iter().any(|(_, _, _, known)| *known == name) {
                        files.push((candidate, time, format, name));
                    }
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_cannot_be_read) => self.searched.unreadable += 1,
            }
        }
        let (since, until) = self.window;
        let ends: Vec<i64> = files.iter().skip(1).map(|(_, time, ..)| *time).chain([i64::MAX]).collect();
        let mut files: Vec<_> = files.into_iter().zip(ends).collect();
        if self.query.order == Order::Newest {
            files.reverse();
        }
        for ((candidate, begins, format, name), ends) in files {
            // A file without times may hold any.
            let has_times = format != Format::Plain;
            if has_times && (begins > until || ends.saturating_add(AFTER) < since) {
                continue;
            }
            if self.is_beyond_all(if self.query.order == Order::Newest {
                ends.saturating_add(AFTER)
            } else {
                begins
            }) {
                return true;
            }
            match self.file(&candidate, (format, name), origin) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_cannot_be_read) => self.searched.unreadable += 1,
            }
        }
        true
    }

    /// Whether nothing of a file that ends, or begins, at this time can be among the best any more.
    fn is_beyond_all(&self, time: i64) -> bool {
        if self.query.bucket.is_some() || self.kept.len() <= self.query.limit() {
            return false;
        }
        match self.query.order {
            Order::Newest => self.kept.first_key_value().is_some_and(|(first, _)| time < first.time),
            Order::Oldest => self.kept.last_key_value().is_some_and(|(last, _)| time > last.time),
        }
    }

    fn file(
        &mut self,
        candidate: &Candidate,
        (format, name): (Format, u64),
        origin: &Origin,
    ) -> io::Result<bool> {
        let (since, until) = self.window;
        let origin = Origin { restart: candidate.restart, ..origin.clone() };
        let mut from = 0;
        let mut reader: Box<dyn Read> = if candidate.is_compressed || format == Format::Plain {
            candidate.reader()?
        } else {
            let file = File::open(&candidate.path)?;
            from = nearest(&file, format, since)?;
            Box::new(At { file, at: from })
        };
        let (mut splitter, mut assembler) = (Splitter::new(from), Assembler::default());
        let (mut buffer, mut is_after, mut entries) = (vec![0; PART], false, Vec::new());
        let mut take = |line: Line<'_>, entries: &mut Vec<Entry>| {
            let piece = format.piece(line.text);
            if piece.time.is_some_and(|time| time < since.saturating_sub(APART)) {
                // Nothing in the window goes on with it.
                return false;
            }
            is_after |= piece.time.is_some_and(|time| time > until.saturating_add(AFTER));
            assembler.take((name, line.at), &piece, line.left_out, i64::MIN, |entry| entries.push(entry));
            is_after
        };
        let mut is_over = false;
        while !is_over {
            let read = reader.read(&mut buffer)?;
            if read == 0 {
                splitter.rest(|line| {
                    take(line, &mut entries);
                });
                break;
            }
            splitter.take(&buffer[..read], |line| is_over |= take(line, &mut entries));
            self.entries(&mut entries, &origin);
            if monotonic() >= self.end {
                return Ok(false);
            }
        }
        assembler.end(|entry| entries.push(entry));
        self.entries(&mut entries, &origin);
        Ok(true)
    }

    fn entries(&mut self, entries: &mut Vec<Entry>, origin: &Origin) {
        let (since, until) = self.window;
        for entry in entries.drain(..) {
            if !(since..=until).contains(&entry.time) {
                continue;
            }
            let row = row_of(origin, &entry, self.redactor);
            let position = Position::of_row(&row);
            if !self.query.is_beyond_cursor(&position) || !self.query.matches_row(&row) {
                continue;
            }
            if let Some(span) = self.query.bucket {
                *self.searched.spans.entry(row.time.div_euclid(span) * span).or_default() += 1;
                continue;
            }
            self.kept.insert(position, row);
            if self.kept.len() > self.query.limit() + 1 {
                match self.query.order {
                    Order::Newest => self.kept.pop_first(),
                    Order::Oldest => self.kept.pop_last(),
                };
            }
        }
    }

    fn finish(mut self) -> Searched {
        let limit = self.query.limit();
        let mut rows: Vec<Row> = self.kept.into_values().collect();
        if self.query.order == Order::Newest {
            rows.sort_by_cached_key(|row| Reverse(Position::of_row(row)));
        }
        if rows.len() > limit {
            rows.truncate(limit);
            self.searched.next = rows.last().map(Position::of_row);
        }
        self.searched.rows = rows;
        self.searched
    }
}

/// When the first line of a file was written, its format, and the name of the file; none while that line has not come.
fn beginning(candidate: &Candidate, source: &Source) -> io::Result<Option<(i64, Format, u64)>> {
    let mut bytes = Vec::with_capacity(1024);
    candidate.reader()?.take(1024).read_to_end(&mut bytes)?;
    let Some(name) = name_of(&bytes) else { return Ok(None) };
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let format = if source.is_folder { Format::of_container(line) } else { Format::Plain };
    Ok(Some((format.time(line).unwrap_or(i64::MIN), format, mixed(name, source))))
}

/// A place at the beginning of a line, from which on all lines of this time and later come.
fn nearest(file: &File, format: Format, since: i64) -> io::Result<u64> {
    let (mut low, mut high) = (0, file.metadata()?.len());
    if since == i64::MIN {
        return Ok(0);
    }
    // Lines that begin before `low` are earlier.
    while high - low > MARGIN {
        let middle = low + (high - low) / 2;
        match line_after(file, format, middle, high)? {
            Some((_, time)) if time < since => low = middle,
            _ => high = middle,
        }
    }
    let from = low.saturating_sub(MARGIN);
    if from == 0 {
        return Ok(0);
    }
    Ok(line_after(file, format, from, u64::MAX)?.map_or(0, |(at, _)| at))
}

/// The first line that begins after a place and says when it was written.
fn line_after(file: &File, format: Format, place: u64, until: u64) -> io::Result<Option<(u64, i64)>> {
    let (mut splitter, mut buffer, mut at) = (Splitter::new(place), vec![0; 32 << 10], place);
    let (mut is_first, mut found) = (true, None);
    while found.is_none() && at < until {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        at += read as u64;
        splitter.take(&buffer[..read], |line| {
            // The first is the end of a line that began before.
            if !std::mem::take(&mut is_first) && found.is_none() {
                found = format.time(line.text).map(|time| (line.at, time));
            }
        });
    }
    Ok(found)
}

/// A file from a place on.
struct At {
    file: File,
    at: u64,
}

impl Read for At {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
