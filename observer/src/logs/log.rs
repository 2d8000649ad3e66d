//! One log: the files of one container or service, in their order.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::file::{Candidate, Inode, mixed, name_of_candidate, name_of_open};
use super::folder::candidates;
use super::place::Place;
use super::source::Source;
use super::tail::{Counts, ROWS};
use crate::lines::{Assembler, Entry, Format, Origin, Redactor, Splitter, row_of};
use crate::timeline::{Row, Stream};

/// Bytes that are read at a time.
const PART: usize = 256 << 10;

/// A file that is not written any more is closed after so long without more, nanoseconds: a runtime goes on with the old
/// file until it is told of the new one.
const QUIET: i64 = 10_000_000_000;

/// An entry is whole after so long without more lines.
const WHOLE: i64 = 500_000_000;

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

pub(super) struct Log {
    source: Source,
    pub(super) origin: Origin,
    /// Whether it is still among those that are asked for.
    pub(super) is_wanted: bool,
    assembler: Assembler,
    /// Oldest first.
    files: Vec<Open>,
    /// Up to where files were read that are not open, by their names. Those that were read to the end say so.
    known: BTreeMap<u64, [u64; 2]>,
    /// Names of files that are not open, so that they need not be read again: by device and number, with their length.
    named: HashMap<Inode, (u64, u64)>,
    /// How often the container had been started when it wrote a file, by its name.
    restarts: BTreeMap<u64, Option<u32>>,
    last_read: i64,
}

/// A file that is read.
struct Open {
    file: Content,
    inode: Inode,
    name: u64,
    format: Option<Format>,
    splitter: Splitter,
    /// Lines before are in rows already.
    read: [u64; 2],
    /// Bytes that were read.
    at: u64,
    /// Whether it is the one that is written.
    is_written: bool,
    /// Whether a file of this log still has this name.
    is_there: bool,
    last_read: i64,
}

enum Content {
    Plain(File),
    Compressed(Box<dyn Read + Send>),
}

impl Content {
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read_at(into, at),
            Self::Compressed(reader) => reader.read(into),
        }
    }
}

impl Log {
    pub(super) fn new(source: Source, origin: Origin, places: Vec<Place>) -> Self {
        Self {
            source,
            origin,
            is_wanted: true,
            assembler: Assembler::default(),
            files: Vec::new(),
            known: places.into_iter().map(|place| (place.file, place.read)).collect(),
            named: HashMap::new(),
            restarts: BTreeMap::new(),
            last_read: 0,
        }
    }

    pub(super) fn open(&self) -> usize {
        self.files.len()
    }

    /// Whether it is not wanted any more, and all of it was read.
    pub(super) fn is_over(&self) -> bool {
        !self.is_wanted && self.files.is_empty()
    }

    /// Looks which files there are.
    pub(super) fn look(&mut self, counts: &mut Counts) {
        self.files.iter_mut().for_each(|open| (open.is_there, open.is_written) = (false, false));
        let candidates = candidates(&self.source);
        let mut names_there = Vec::new();
        let newest = candidates.last().cloned();
        for candidate in candidates {
            let is_newest = newest.as_ref() == Some(&candidate) && candidate.age == "~";
            match self.look_at(&candidate, is_newest, counts) {
                Ok(name) => names_there.extend(name),
                // It was renamed or deleted just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_cannot_be_read) => counts.unreadable += 1,
            }
        }
        let begun = STREAMS.map(|stream| self.assembler.begun(stream).map(|(file, _)| file));
        let stays = |name: &u64, files: &[Open]| {
            names_there.contains(name)
                || files.iter().any(|open| open.name == *name)
                || begun.contains(&Some(*name))
        };
        if !names_there.is_empty() || self.source.path.exists() {
            self.known.retain(|name, _| stays(name, &self.files));
        }
        self.restarts.retain(|name, _| stays(name, &self.files));
    }

    fn look_at(
        &mut self,
        candidate: &Candidate,
        is_newest: bool,
        counts: &mut Counts,
    ) -> io::Result<Option<u64>> {
        let (inode, length) = candidate.inode()?;
        if let Some(at) = self.files.iter().position(|open| open.inode == inode) {
            let open = &mut self.files[at];
            let is_cut = match &open.file {
                Content::Plain(file) if length != open.at => {
                    length < open.at
                        || name_of_open(file)?.map(|name| mixed(name, &self.source)) != Some(open.name)
                }
                _ => false,
            };
            if !is_cut {
                (open.is_there, open.is_written) = (true, is_newest);
                return Ok(Some(open.name));
            }
            counts.truncated += 1;
            let gone = self.files.remove(at);
            self.known.remove(&gone.name);
            self.named.remove(&inode);
        }
        let name = match self.named.get(&inode) {
            Some((name, known_length)) if *known_length == length => *name,
            _ => {
                let Some(name) = name_of_candidate(candidate)? else { return Ok(None) };
                let name = mixed(name, &self.source);
                self.named.insert(inode, (name, length));
                if self.named.len() > 4 * (self.files.len() + 64) {
                    self.named.clear();
                }
                name
            }
        };
        // The compressed copy of a file that is open.
        if let Some(open) = self.files.iter_mut().find(|open| open.name == name) {
            open.is_there = true;
            return Ok(Some(name));
        }
        let mut read = self.known.get(&name).copied().unwrap_or_default();
        let end = if candidate.is_compressed { u64::MAX } else { length };
        if read == [end; 2] {
            return Ok(Some(name));
        }
        let from = read[0].min(read[1]);
        if !candidate.is_compressed && from > length {
            // It begins as it did, and is shorter: it was cut off and written anew.
            counts.truncated += 1;
            read = [0, 0];
        }
        let from = read[0].min(read[1]);
        let file = if candidate.is_compressed {
            let mut reader: Box<dyn Read + Send> =
                Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(File::open(&candidate.path)?)));
            io::copy(&mut (&mut reader).take(from), &mut io::sink())?;
            Content::Compressed(reader)
        } else {
            Content::Plain(File::open(&candidate.path)?)
        };
        self.restarts.insert(name, candidate.restart);
        self.files.push(Open {
            file,
            inode,
            name,
            format: None,
            splitter: Splitter::new(from),
            read,
            at: from,
            is_written: is_newest && !candidate.is_compressed,
            is_there: true,
            last_read: 0,
        });
        Ok(Some(name))
    }

    /// Reads on in all files, oldest first, up to a bound. Whether there may be more.
    pub(super) fn read(
        &mut self,
        now: i64,
        redactor: &Redactor,
        counts: &mut Counts,
        rows: &mut Vec<Row>,
    ) -> bool {
        let mut buffer = vec![0; PART];
        let mut is_more = false;
        let mut at = 0;
        while at < self.files.len() {
            let open = &mut self.files[at];
            let mut emit = Emit { origin: &self.origin, restarts: &self.restarts, redactor, counts, rows };
            if open.last_read == 0 {
                open.last_read = now;
            }
            loop {
                if emit.rows.len() >= ROWS {
                    return true;
                }
                match open.file.read(open.at, &mut buffer) {
                    Ok(0) => break,
                    Ok(read) => {
                        open.take(&buffer[..read], &self.source, &mut self.assembler, now, &mut emit);
                        (open.last_read, self.last_read) = (now, now);
                        is_more = true;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_cannot_be_read) => {
                        emit.counts.unreadable += 1;
                        break;
                    }
                }
            }
            let is_compressed = matches!(open.file, Content::Compressed(_));
            let is_over = is_compressed
                || ((!open.is_written || !open.is_there || !self.is_wanted) && now - open.last_read >= QUIET);
            if is_over {
                open.rest(&mut self.assembler, now, &mut emit);
                let open = self.files.remove(at);
                let end = if is_compressed { u64::MAX } else { open.at };
                self.known.insert(open.name, [end; 2]);
            } else {
                at += 1;
            }
        }
        if self.assembler.holds() && now - self.last_read >= WHOLE {
            let mut emit = Emit { origin: &self.origin, restarts: &self.restarts, redactor, counts, rows };
            self.assembler.rest(|entry| emit.row(&entry));
        }
        if self.is_over() {
            self.finish(redactor, counts, rows);
        }
        is_more
    }

    pub(super) fn finish(&mut self, redactor: &Redactor, counts: &mut Counts, rows: &mut Vec<Row>) {
        let mut emit = Emit { origin: &self.origin, restarts: &self.restarts, redactor, counts, rows };
        self.assembler.end(|entry| emit.row(&entry));
    }

    /// Leaves out all that is there.
    pub(super) fn skip_to_end(&mut self, now: i64) {
        for open in &mut self.files {
            if let Content::Plain(file) = &open.file {
                let end = file.metadata().map_or(0, |known| known.len());
                // From the beginning of the line that is being written.
                open.splitter = Splitter::new(end);
                open.at = end;
                open.read = [end; 2];
            }
            open.last_read = now;
        }
        let compressed = |open: &Open| matches!(open.file, Content::Compressed(_));
        for open in self.files.iter().filter(|open| compressed(open)) {
            self.known.insert(open.name, [u64::MAX; 2]);
        }
        self.files.retain(|open| !compressed(open));
    }

    /// Up to where its files were read.
    pub(super) fn places(&self) -> Vec<Place> {
        let begun = STREAMS.map(|stream| self.assembler.begun(stream));
        // Of a stream of which something begun in an older file, nothing of the newer ones is in a row yet.
        let place = |name: u64, begins: [u64; 2], ends: [u64; 2], is_after: [bool; 2]| {
            let one = |stream: usize| match begun[stream] {
                Some((file, at)) if file == name => at,
                Some(_) if is_after[stream] => begins[stream],
                _ => ends[stream],
            };
            Place { file: name, read: [one(0), one(1)] }
        };
        let mut places: Vec<Place> =
            self.known.iter().map(|(name, read)| place(*name, *read, *read, [false; 2])).collect();
        let is_open = |name: u64| self.files.iter().any(|open| open.name == name);
        places.retain(|place| !is_open(place.file));
        let mut is_after = begun.map(|begun| begun.is_some_and(|(file, _)| !is_open(file)));
        for open in &self.files {
            let end = open.splitter.at();
            let ends = open.read.map(|read| read.max(end));
            places.push(place(open.name, open.read, ends, is_after));
            for stream in 0..2 {
                is_after[stream] |= begun[stream].is_some_and(|(file, _)| file == open.name);
            }
        }
        places
    }
}

impl Open {
    fn take(
        &mut self,
        bytes: &[u8],
        source: &Source,
        assembler: &mut Assembler,
        now: i64,
        emit: &mut Emit<'_>,
    ) {
        self.at += bytes.len() as u64;
        emit.counts.bytes += bytes.len() as u64;
        let Self { splitter, format, name, read, .. } = self;
        splitter.take(bytes, |line| {
            let format = *format.get_or_insert_with(|| {
                if source.is_folder { Format::of_container(line.text) } else { Format::Plain }
            });
            let piece = format.piece(line.text);
            if line.at >= read[piece.stream as usize] {
                assembler.take((*name, line.at), &piece, line.left_out, now, |entry| emit.row(&entry));
            }
        });
    }

    /// A last line without an end.
    fn rest(&mut self, assembler: &mut Assembler, now: i64, emit: &mut Emit<'_>) {
        let (format, name, read) = (self.format.unwrap_or(Format::Plain), self.name, self.read);
        self.splitter.rest(|line| {
            let piece = format.piece(line.text);
            if line.at >= read[piece.stream as usize] {
                assembler.take((name, line.at), &piece, line.left_out, now, |entry| emit.row(&entry));
            }
        });
    }
}

/// Where rows go.
struct Emit<'a> {
    origin: &'a Origin,
    restarts: &'a BTreeMap<u64, Option<u32>>,
    redactor: &'a Redactor,
    counts: &'a mut Counts,
    rows: &'a mut Vec<Row>,
}

impl Emit<'_> {
    fn row(&mut self, entry: &Entry) {
        let mut row = row_of(self.origin, entry, self.redactor);
        row.restart = self.restarts.get(&entry.file).copied().flatten().or(self.origin.restart);
        self.counts.rows += 1;
        self.counts.redactions += u64::from(row.redacted);
        self.counts.left_out += entry.left_out;
        self.rows.push(row);
    }
}
