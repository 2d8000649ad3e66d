//! The journal of systemd: what units write, as `journalctl` tells it.
//!
//! Journals are read by the program that comes with the systemd which wrote them: their format has features that older
//! readers refuse, and the crates that read it are bindings of its library. The program is asked for what comes after a
//! cursor (`journalctl(1)`, `--after-cursor`), and starts again from there whenever it ends.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, ErrorKind, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::{Map, Value};
use tracing::warn;

use super::tail::{Counts, ROWS};
use crate::lines::{Assembler, Entry, Origin, Piece, Redactor, Splitter, row_of};
use crate::timeline::{Level, Row, Stream};

/// Bytes that are read at a time.
const PART: usize = 64 << 10;

/// An entry is whole after so long without more lines, nanoseconds.
const WHOLE: i64 = 500_000_000;

/// Entries that are in no row yet, at most: beyond them what was begun is told as it is.
const WAITING: usize = 1 << 16;

/// Before a program that ended is started again, nanoseconds.
const AGAIN: i64 = 5_000_000_000;

/// Fields that are asked for, beside those that are always told (systemd.journal-fields(7)).
const FIELDS: &str = "--output-fields=MESSAGE,PRIORITY,UNIT,_SYSTEMD_UNIT,_TRANSPORT";

/// Units whose logs are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Their names, such as `vllm.service`.
    pub names: Vec<String>,
    /// The folder of the journal; none for this machine's own.
    pub folder: Option<PathBuf>,
    /// Where they run.
    pub node: String,
    /// What was written before is not told where nothing was read yet, nanoseconds since 1970.
    pub since: i64,
}

/// Names an entry: the journal that numbers it with its unit, and its number.
type Key = (u64, u64);

/// What a unit has begun to write.
#[derive(Default)]
struct Begun {
    assembler: Assembler,
    /// Its first entry, and how bad it is if it does not say so itself.
    first: Option<(Key, Option<Level>)>,
    /// When something was read of it.
    last: i64,
}

/// Reads what units write.
pub(super) struct Journal {
    units: Units,
    program: Option<(Child, ChildStdout)>,
    splitter: Splitter,
    begun: BTreeMap<String, Begun>,
    /// The place up to which all is in rows.
    cursor: Option<String>,
    /// Entries that were read after it, with their cursors.
    read: VecDeque<(Key, String)>,
    again: i64,
    is_failing: bool,
}

impl Journal {
    /// Begins after this cursor.
    pub(super) fn new(units: Units, cursor: Option<String>) -> Self {
        Self {
            units,
            program: None,
            splitter: Splitter::new(0),
            begun: BTreeMap::new(),
            cursor,
            read: VecDeque::new(),
            again: i64::MIN,
            is_failing: false,
        }
    }

    /// The place up to which all is in rows that were told.
    pub(super) fn cursor(&self) -> Option<String> {
        self.cursor.clone()
    }

    /// Reads what is there, up to a bound. Whether there may be more.
    pub(super) fn turn(
        &mut self,
        now: i64,
        redactor: &Redactor,
        counts: &mut Counts,
        rows: &mut Vec<Row>,
    ) -> bool {
        let node = self.units.node.clone();
        let mut emit = Emit { node: &node, redactor, counts, rows };
        if self.program.is_none() && now >= self.again {
            match self.start() {
                Ok(program) => self.program = Some(program),
                Err(error) => self.ended(now, &error.to_string()),
            }
        }
        let (mut buffer, mut is_more) = (vec![0; PART], false);
        while let Some((child, output)) = &mut self.program {
            if emit.rows.len() >= ROWS {
                is_more = true;
                break;
            }
            match output.read(&mut buffer) {
                Ok(0) => {
                    let how =
                        child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                    self.ended(now, &how);
                }
                Ok(read) => {
                    emit.counts.bytes += read as u64;
                    (is_more, self.is_failing) = (true, false);
                    let mut lines: Vec<(Vec<u8>, u64)> = Vec::new();
                    self.splitter
                        .take(&buffer[..read], |line| lines.push((line.text.to_vec(), line.left_out)));
                    for (line, left_out) in &lines {
                        self.entry(line, *left_out, now, &mut emit);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.ended(now, &error.to_string()),
            }
        }
        // One that is silent must not hold up the place that all have together.
        let before = if self.read.len() > WAITING { i64::MAX } else { now - WHOLE };
        self.rest(before, &mut emit);
        self.advance();
        is_more
    }

    /// Nobody will turn it any more.
    pub(super) fn finish(&mut self, redactor: &Redactor, counts: &mut Counts, rows: &mut Vec<Row>) {
        let node = self.units.node.clone();
        self.rest(i64::MAX, &mut Emit { node: &node, redactor, counts, rows });
        self.advance();
    }

    /// Tells what was begun, of units of which nothing was read since this time.
    fn rest(&mut self, before: i64, emit: &mut Emit<'_>) {
        for (unit, begun) in self.begun.iter_mut().filter(|(_, begun)| begun.last <= before) {
            let first = begun.first;
            begun.assembler.rest(|entry| emit.row(unit, &entry, first.as_slice()));
        }
        self.begun.retain(|_, begun| begun.assembler.begun(Stream::Stdout).is_some());
    }

    fn start(&self) -> io::Result<(Child, ChildStdout)> {
        let mut command = Command::new("journalctl");
        command.args(["--follow", "--no-tail", "--output=json", "--all", "--no-pager", "--quiet", FIELDS]);
        command.args(self.units.names.iter().map(|name| format!("--unit={name}")));
        command.args(self.units.folder.iter().map(|folder| format!("--directory={}", folder.display())));
        command.arg(match &self.cursor {
            Some(cursor) => format!("--after-cursor={cursor}"),
            None => format!("--since=@{}", self.units.since.max(0) / 1_000_000_000),
        });
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
        fcntl_setfl(&output, OFlags::NONBLOCK)?;
        Ok((child, output))
    }

    /// It is asked again from what is in rows: what was begun comes again.
    fn ended(&mut self, now: i64, how: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(how, "journalctl, which reads what units write, has ended; it is started again");
        }
        self.stop();
        self.splitter = Splitter::new(0);
        self.begun.clear();
        self.read.clear();
        self.again = now + AGAIN;
    }

    fn stop(&mut self) {
        if let Some((mut child, _)) = self.program.take() {
            // It may have ended by itself.
            let _killed = child.kill();
            let _status = child.wait();
        }
    }

    /// Takes one entry of the journal.
    fn entry(&mut self, line: &[u8], left_out: u64, now: i64, emit: &mut Emit<'_>) {
        let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(line) else {
            // Cut because it was too long, or a remark of the program.
            emit.counts.left_out += line.len() as u64 + left_out;
            return;
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let Some(cursor) = text("__CURSOR") else { return };
        // systemd's own remarks about a unit name it so.
        let unit = text("UNIT").or(text("_SYSTEMD_UNIT")).unwrap_or_default();
        let key = key_of(cursor, unit);
        let micros = text("__REALTIME_TIMESTAMP").and_then(|text| text.parse::<i64>().ok());
        let level = level_of(text("PRIORITY"), text("_TRANSPORT"));
        self.read.push_back((key, cursor.to_owned()));
        let message = bytes(fields.get("MESSAGE").unwrap_or(&Value::Null));
        let piece = Piece {
            time: micros.map(|micros| micros.saturating_mul(1000)),
            stream: Stream::Stdout,
            goes_on: false,
            text: message.into(),
        };
        let begun = self.begun.entry(unit.to_owned()).or_default();
        let known: Vec<(Key, Option<Level>)> = begun.first.into_iter().chain([(key, level)]).collect();
        begun.assembler.take(key, &piece, left_out, now, |entry| emit.row(unit, &entry, &known));
        if begun.assembler.begun(Stream::Stdout) == Some(key) {
            begun.first = Some((key, level));
        }
        begun.last = now;
    }

    /// Moves the cursor up to before the first entry that is in no row yet.
    fn advance(&mut self) {
        let begun: Vec<Key> =
            self.begun.values().filter_map(|begun| begun.assembler.begun(Stream::Stdout)).collect();
        while let Some((key, _)) = self.read.front() {
            if begun.contains(key) {
                return;
            }
            self.cursor = self.read.pop_front().map(|(_, cursor)| cursor);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where rows go.
struct Emit<'a> {
    node: &'a str,
    redactor: &'a Redactor,
    counts: &'a mut Counts,
    rows: &'a mut Vec<Row>,
}

impl Emit<'_> {
    /// `known`: how bad entries are that may have begun it.
    fn row(&mut self, unit: &str, entry: &Entry, known: &[(Key, Option<Level>)]) {
        let container = unit.strip_suffix(".service").unwrap_or(unit).to_owned();
        let origin = Origin { node: self.node.to_owned(), container, ..Origin::default() };
        let mut row = row_of(&origin, entry, self.redactor);
        let known = known.iter().find(|(key, _)| *key == (entry.file, entry.at));
        row.level = row.level.or(known.and_then(|(_, level)| *level));
        self.counts.rows += 1;
        self.counts.redactions += u64::from(row.redacted);
        self.counts.left_out += entry.left_out;
        self.rows.push(row);
    }
}

/// Who numbered an entry (`s`), and its number (`i`): `s=…;i=1f;b=…` (systemd `sd_journal_get_cursor`).
fn key_of(cursor: &str, unit: &str) -> Key {
    let part = |name: &str| cursor.split(';').find_map(|part| part.strip_prefix(name)).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    (part("s="), unit).hash(&mut hasher);
    (hasher.finish(), u64::from_str_radix(part("i="), 16).unwrap_or_default())
}

/// How bad an entry is by its syslog priority. What a process prints has the unit's, which says nothing of it.
fn level_of(priority: Option<&str>, transport: Option<&str>) -> Option<Level> {
    let level = match priority?.parse::<u8>().ok()? {
        0..=2 => Level::Fatal,
        3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        _ => Level::Debug,
    };
    Some(level).filter(|level| transport != Some("stdout") || *level != Level::Info)
}

/// A field: text, or bytes where it is none; of several the first.
fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Array(all) if all.iter().all(Value::is_u64) => {
            all.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect()
        }
        Value::Array(all) => all.first().map(bytes).unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_an_entry() {
        assert_eq!(bytes(&serde_json::json!([104, 105, 255])), b"hi\xff");
        assert_eq!(bytes(&serde_json::json!(["one", "two"])), b"one");
        assert_eq!(bytes(&Value::Null), b"");
        assert_eq!(key_of("s=a;i=1f;b=c", "u").1, 31);
        assert_ne!(key_of("s=a;i=1", "u").0, key_of("s=b;i=1", "u").0);
        assert_eq!(level_of(Some("3"), Some("stdout")), Some(Level::Error));
        assert_eq!(level_of(Some("6"), Some("stdout")), None);
        assert_eq!(level_of(Some("6"), Some("journal")), Some(Level::Info));
        assert_eq!(level_of(None, None), None);
    }
}
