//! What units write, from journals that systemd's own programs write and read. Not tested here is a running journald: where
//! tests run there is none.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use observer::{
    logs::{Places, Tail, Units},
    timeline::{Level, Row},
};
use observer_tests::agent::wait_for;
use tempfile::TempDir;

/// The program that makes journals of text; none, after saying so, where it is not.
fn remote() -> Option<PathBuf> {
    let named = std::env::var_os("OBSERVER_JOURNAL_REMOTE").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("/lib/systemd/systemd-journal-remote"));
    let there = program.exists();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "CI must have systemd-journal-remote: `cargo xtask setup --tests`"
    );
    if !there {
        eprintln!("SKIPPED: no systemd-journal-remote here");
    }
    there.then_some(program)
}

/// A machine's journal.
struct Journal {
    program: PathBuf,
    folder: TempDir,
    written: u64,
}

impl Journal {
    fn new(program: PathBuf) -> Self {
        Self { program, folder: tempfile::tempdir().expect("a folder"), written: 0 }
    }

    /// Writes entries of a unit, a second after each other.
    fn write(&mut self, unit: &str, priority: u8, messages: &[&[u8]]) {
        let mut text: Vec<u8> = Vec::new();
        for message in messages {
            self.written += 1;
            let mut fields = String::new();
            let micros = 1_764_000_000_000_000 + self.written * 1_000_000;
            writeln!(
                fields,
                "__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP={}",
                self.written * 1_000_000
            )
            .expect("written");
            writeln!(
                fields,
                "_BOOT_ID=0123456789abcdef0123456789abcdef\n_SYSTEMD_UNIT={unit}\n_TRANSPORT=stdout"
            )
            .expect("written");
            writeln!(fields, "PRIORITY={priority}\nMESSAGE").expect("written");
            text.extend(fields.as_bytes());
            // Bytes with their length before them (systemd, Journal Export Format).
            text.extend((message.len() as u64).to_le_bytes());
            text.extend(*message);
            text.extend(b"\n\n");
        }
        let entries = self.folder.path().join("entries");
        fs::write(&entries, text).expect("written");
        let journals = self.folder.path().join("journal");
        fs::create_dir_all(&journals).expect("written");
        let mut command = Command::new(&self.program);
        command.arg(format!("--output={}", journals.join("remote.journal").display())).arg(&entries);
        let output = command.stdin(Stdio::null()).output().expect("systemd-journal-remote");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn units(&self, names: &[&str]) -> Units {
        Units {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            folder: Some(self.folder.path().join("journal")),
            node: "node-a".to_owned(),
            since: 0,
        }
    }
}

/// A reader whose clock goes on.
struct Reader {
    tail: Tail,
    now: i64,
    rows: Vec<Row>,
}

impl Reader {
    fn new(places: &str, units: Units) -> Self {
        let tail = Tail::new(Places::of(places).unwrap_or_default(), true).with_units(units);
        Self { tail, now: 1, rows: Vec::new() }
    }

    /// Waits until there are so many rows; then for more that should not come.
    fn read(&mut self, rows: usize) -> Vec<&str> {
        wait_for("rows", || {
            self.turn();
            (self.rows.len() >= rows).then_some(())
        });
        for _ in 0..10 {
            self.turn();
        }
        self.rows.iter().map(|row| row.message.as_str()).collect()
    }

    fn turn(&mut self) {
        std::thread::sleep(Duration::from_millis(20));
        self.now += 100_000_000;
        self.tail.turn(&[], self.now, &mut self.rows);
    }
}

fn text(messages: &[&'static str]) -> Vec<&'static [u8]> {
    messages.iter().map(|message| message.as_bytes()).collect()
}

#[test]
fn units_are_read_and_each_entry_is_there_once_whatever_becomes_of_the_reader() {
    let Some(program) = remote() else { return };
    let mut journal = Journal::new(program);
    journal.write("vllm.service", 6, &text(&["INFO 11-24 16:00:00 [a.py:1] one", "two"]));
    journal.write("other.service", 6, &text(&["not asked for"]));
    journal.write("llama.service", 3, &[b"bytes \xff", b"api_key=sk-planted0123456789abc"]);
    let trace = text(&[
        "ERROR:    Exception in ASGI application",
        "Traceback (most recent call last):",
        "  File \"a.py\", line 1",
        "ValueError: no",
        "INFO:     after",
    ]);
    journal.write("vllm.service", 6, &trace);
    let units = journal.units(&["vllm.service", "llama.service"]);
    let mut reader = Reader::new("", units.clone());
    let joined = "ERROR:    Exception in ASGI application\nTraceback (most recent call last):\n  File \"a.py\", line 1\nValueError: no";
    let told = reader.read(6);
    let mut sorted = told.clone();
    sorted.sort_unstable();
    let mut expected = vec![
        "INFO 11-24 16:00:00 [a.py:1] one",
        "two",
        "bytes \u{fffd}",
        "api_key=[redacted]",
        joined,
        "INFO:     after",
    ];
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    let row =
        |message: &str| reader.rows.iter().find(|row| row.message.starts_with(message)).unwrap().clone();
    let (one, two, bytes) = (row("INFO 11"), row("two"), row("bytes"));
    assert_eq!(
        (one.container.as_str(), one.node.as_str(), one.time),
        ("vllm", "node-a", 1_764_000_001_000_000_000)
    );
    assert_eq!([one.level, two.level, bytes.level], [Some(Level::Info), None, Some(Level::Error)]);
    assert!(one.id < two.id, "ids sort as lines do");

    // It follows; and when it is killed, what it told is not told again.
    journal.write("vllm.service", 6, &text(&["three", "four"]));
    assert!(reader.read(8).ends_with(&["three", "four"]));
    let places = reader.tail.places().text();
    drop(reader);
    journal.write("llama.service", 6, &text(&["five"]));
    let mut reader = Reader::new(&places, units.clone());
    assert_eq!(reader.read(1), ["five"]);
    // What was read and not told in a row comes again: the next reader begins before it.
    journal.write("llama.service", 6, &text(&["six"]));
    wait_for("six to be read", || {
        // No time goes by, so that more lines may belong to it.
        reader.tail.turn(&[], reader.now, &mut reader.rows);
        std::thread::sleep(Duration::from_millis(20));
        (reader.tail.counts().bytes > 0
            && Places::of(&reader.tail.places().text()).unwrap().journal.is_some())
        .then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    reader.tail.turn(&[], reader.now, &mut reader.rows);
    assert_eq!(reader.rows.len(), 1, "six may go on");
    let places = reader.tail.places().text();
    drop(reader);
    assert_eq!(Reader::new(&places, units.clone()).read(1), ["six"]);
    // Its program is killed: another goes on.
    let mut reader = Reader::new(&places, units);
    assert_eq!(reader.read(1), ["six"]);
    kill_journalctl(journal.folder.path());
    reader.turn();
    journal.write("llama.service", 6, &text(&["seven"]));
    assert_eq!(reader.read(2), ["six", "seven"]);
}

#[test]
fn a_unit_that_is_silent_does_not_hold_up_the_place_of_the_others() {
    let Some(program) = remote() else { return };
    let mut journal = Journal::new(program);
    journal.write("quiet.service", 6, &text(&["only this"]));
    let units = journal.units(&["quiet.service", "busy.service"]);
    let mut reader = Reader::new("", units.clone());
    let mut seen = 0;
    // The time without an entry is never as long as makes one whole.
    for round in 0..12 {
        wait_for("an entry", || {
            reader.tail.turn(&[], reader.now, &mut reader.rows);
            std::thread::sleep(Duration::from_millis(5));
            (reader.tail.counts().bytes > seen).then_some(())
        });
        seen = reader.tail.counts().bytes;
        reader.now += 200_000_000;
        reader.tail.turn(&[], reader.now, &mut reader.rows);
        if round < 11 {
            journal.write("busy.service", 6, &[format!("INFO: {round}").as_bytes()]);
        }
    }
    let told: Vec<&str> = reader.rows.iter().map(|row| row.message.as_str()).collect();
    assert!(told.contains(&"only this") && told.contains(&"INFO: 9"), "{told:?}");
    let places = reader.tail.places().text();
    drop(reader);
    assert_eq!(Reader::new(&places, units).read(1), ["INFO: 10"], "all else is behind that place");
}

/// Ends the `journalctl` of this process that reads in this folder.
fn kill_journalctl(folder: &Path) {
    let mut killed = 0;
    for entry in fs::read_dir("/proc").expect("a process").filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command.starts_with("journalctl\0") && command.contains(folder.to_str().expect("a process")) {
            let pid = rustix::process::Pid::from_raw(pid).expect("a process");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a process");
            killed += 1;
        }
    }
    assert_eq!(killed, 1, "one reader has one program");
}
