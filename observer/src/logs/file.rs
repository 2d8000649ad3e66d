//! One file, as it is found in a folder.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::source::Source;

/// Bytes of a first line that name a file.
const NAMING: usize = 1024;

/// A file that belongs to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    /// How often the container had been started again.
    pub(super) restart: Option<u32>,
    /// Sorts the files of one life of a container: the oldest first, the one that is written last.
    pub(super) age: String,
    pub(super) is_compressed: bool,
}

/// Device and number of a file.
pub(super) type Inode = (u64, u64);

impl Candidate {
    pub(super) fn inode(&self) -> io::Result<(Inode, u64)> {
        let known = fs::metadata(&self.path)?;
        Ok(((known.dev(), known.ino()), known.len()))
    }

    /// A reader of what is in it, from its beginning.
    pub(super) fn reader(&self) -> io::Result<Box<dyn Read>> {
        let file = File::open(&self.path)?;
        Ok(if self.is_compressed {
            Box::new(MultiGzDecoder::new(io::BufReader::new(file)))
        } else {
            Box::new(file)
        })
    }
}

/// What names a file by its content: a digest of its first line, or of the beginning of it. None while it has not come.
pub(super) fn name_of(beginning: &[u8]) -> Option<u64> {
    let beginning = &beginning[..beginning.len().min(NAMING)];
    let line = match memchr::memchr(b'\n', beginning) {
        Some(end) => &beginning[..end],
        None if beginning.len() == NAMING => beginning,
        None => return None,
    };
    // With these keys it is the same in every process (std: `DefaultHasher::new`); a new version of std may make it
    // another, and then files are read again.
    let mut hasher = DefaultHasher::new();
    hasher.write(line);
    Some(hasher.finish())
}

/// The same of an open file.
pub(super) fn name_of_open(file: &File) -> io::Result<Option<u64>> {
    let mut beginning = [0; NAMING];
    let mut read = 0;
    while read < NAMING {
        match file.read_at(&mut beginning[read..], read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(name_of(&beginning[..read]))
}

/// The same of any file.
pub(super) fn name_of_candidate(candidate: &Candidate) -> io::Result<Option<u64>> {
    let mut beginning = Vec::with_capacity(NAMING);
    candidate.reader()?.take(NAMING as u64).read_to_end(&mut beginning)?;
    Ok(name_of(&beginning))
}

/// The file that a path leads to.
pub(super) fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_gone| path.to_owned())
}

/// A name that no other log's file has.
pub(super) fn mixed(name: u64, source: &Source) -> u64 {
    let mut hasher = DefaultHasher::new();
    source.path.hash(&mut hasher);
    name ^ hasher.finish()
}
