//! The file format: a header, then raw records, each as long as its own header says.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `OBSREC01` |
//! | 4 | [`ABI_VERSION`] of the records |
//! | 4 | `0x01020304`: the byte order of everything after the magic |
//! | 4 | 1 if content is included, 0 if it is masked |
//! | 4 | zero |

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use observer_ebpf::{ABI_VERSION, Header, Malformed, Record};
use thiserror::Error;

const MAGIC: [u8; 8] = *b"OBSREC01";
const BYTE_ORDER: u32 = 0x0102_0304;
const HEADER: usize = 24;

/// Bytes of one record. The kernel side sends at most 16,000 bytes of payload in one.
const RECORD: usize = 64 << 10;

/// Only the owner may read what went over the wire, masked or not.
const MODE: u32 = 0o600;

/// Whether a recording holds what users wrote and models answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text and credentials were masked.
    Masked,
    /// Everything is as it was on the wire.
    Included,
}

/// Why a record was not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The file could not be created or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What was given is not a record.
    #[error("not written: {0}")]
    Malformed(#[from] Malformed),
}

/// Why a recording, or the rest of it, cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not start as a recording does.
    #[error("not a recording: it does not start with OBSREC01; give a file that `observer record` wrote")]
    NotARecording,
    /// It was written on a machine with the other byte order.
    #[error("the recording was made on a machine with the other byte order; replay it on one like that")]
    ByteOrder,
    /// Its records have another layout.
    #[error(
        "the recording has ABI version {found}, this program reads version {ABI_VERSION}; replay it with \
             the version that recorded it"
    )]
    Abi {
        /// The version of the recording.
        found: u32,
    },
    /// It breaks off within a record.
    #[error("the recording breaks off within the record at byte {offset}; the records before it are whole")]
    Truncated {
        /// Where the record starts.
        offset: u64,
    },
    /// A record is not one.
    #[error("the recording is damaged at byte {offset}: {reason}; the records before it are whole")]
    Malformed {
        /// Where the record starts.
        offset: u64,
        /// What is wrong with it.
        reason: Malformed,
    },
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    records: u64,
}

impl Writer<BufWriter<File>> {
    /// Creates the file, for its owner alone. Refuses to replace one unless `overwrite` is given.
    ///
    /// # Errors
    /// [`io::Error`] if the file exists, or cannot be created or written.
    pub fn create(path: &Path, content: Content, overwrite: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).mode(MODE);
        if overwrite {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let file = options.open(path)?;
        // A file that is replaced keeps its mode, which may be a wider one.
        file.set_permissions(Permissions::from_mode(MODE))?;
        Self::new(BufWriter::new(file), content)
    }
}

impl<W: Write> Writer<W> {
    /// Starts a recording.
    ///
    /// # Errors
    /// [`io::Error`] of the underlying writer.
    pub fn new(mut to: W, content: Content) -> io::Result<Self> {
        to.write_all(&MAGIC)?;
        for word in [ABI_VERSION, BYTE_ORDER, u32::from(content == Content::Included), 0] {
            to.write_all(&word.to_ne_bytes())?;
        }
        Ok(Self { to, records: 0 })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`WriteError`] if it is not a record, or the underlying writer fails.
    pub fn write(&mut self, record: &[u8]) -> Result<(), WriteError> {
        if record.len() > RECORD {
            return Err(Malformed::Length.into());
        }
        Record::parse(record)?;
        self.to.write_all(record)?;
        self.records += 1;
        Ok(())
    }

    /// Records written so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Writes out what is buffered and returns the underlying writer.
    ///
    /// # Errors
    /// [`io::Error`] of the underlying writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Reads a recording, record by record.
#[derive(Debug)]
pub struct Reader<R: Read> {
    from: R,
    content: Content,
    offset: u64,
    record: Vec<u8>,
    ended: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ReadError`] if it cannot be read, or is not a recording that this program reads.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ReadError`] if `from` is not a recording that this program reads.
    pub fn new(mut from: R) -> Result<Self, ReadError> {
        let mut header = [0; HEADER];
        let filled = fill(&mut from, &mut header)?;
        if filled < HEADER || !header.starts_with(&MAGIC) {
            return Err(ReadError::NotARecording);
        }
        if word(&header, 12) != BYTE_ORDER {
            return Err(ReadError::ByteOrder);
        }
        if word(&header, 8) != ABI_VERSION {
            return Err(ReadError::Abi { found: word(&header, 8) });
        }
        let content = if word(&header, 16) == 0 { Content::Masked } else { Content::Included };
        Ok(Self { from, content, offset: HEADER as u64, record: Vec::new(), ended: false })
    }

    /// Whether content is in it.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The next record; `None` at the end, and after an error.
    ///
    /// # Errors
    /// [`ReadError`] if what follows is not a whole record. All records before it have been returned.
    pub fn read(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let offset = self.offset;
        self.record.resize(size_of::<Header>(), 0);
        let filled = fill(&mut self.from, &mut self.record)?;
        if filled == 0 {
            return Ok(None);
        }
        if filled < self.record.len() {
            return Err(ReadError::Truncated { offset });
        }
        let length = word(&self.record, 4) as usize;
        if !(size_of::<Header>()..=RECORD).contains(&length) {
            return Err(ReadError::Malformed { offset, reason: Malformed::Length });
        }
        self.record.resize(length, 0);
        let rest = self.record.get_mut(size_of::<Header>()..).unwrap_or_default();
        if fill(&mut self.from, rest)? < rest.len() {
            return Err(ReadError::Truncated { offset });
        }
        let record = Record::parse(&self.record).map_err(|reason| ReadError::Malformed { offset, reason })?;
        self.offset += length as u64;
        self.ended = false;
        Ok(Some(record))
    }
}

/// Reads until `to` is full or the end is reached; says how many bytes were read.
fn fill(from: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = to.get_mut(filled..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The native-endian word at `at`; 0 if there is none.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
