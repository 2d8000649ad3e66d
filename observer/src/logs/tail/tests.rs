use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::logs::Wanted;

const SECOND: i64 = 1_000_000_000;

/// A container's folder, and whoever reads it. Its clock goes on by a second with each turn.
struct Node {
    folder: tempfile::TempDir,
    tail: Tail,
    now: i64,
    rows: Vec<Row>,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("ml_llama-0_uid/server")).unwrap();
        Self { folder, tail: Tail::new(Places::default(), true), now: 1000 * SECOND, rows: Vec::new() }
    }

    fn container(&self) -> PathBuf {
        self.folder.path().join("ml_llama-0_uid/server")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.container().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        append(&self.file(name), text.as_bytes());
    }

    /// Lines of this container's, with times that differ.
    fn lines(&self, name: &str, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.write(name, &cri(number, "stdout", "F", &format!("line {number}")));
        }
    }

    fn turns(&mut self, turns: u32) {
        let wanted = Wanted { all: true, ..Wanted::default() };
        for _ in 0..turns {
            self.now += SECOND;
            let sources = wanted.sources(self.folder.path(), "a");
            while self.tail.turn(&sources, self.now, &mut self.rows) {}
        }
    }

    /// As if the reader had been killed after what it told was committed.
    fn restart(&mut self) {
        let places = Places::of(&self.tail.places().text()).unwrap();
        self.tail = Tail::new(places, true);
    }

    fn messages(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.message.as_str()).collect()
    }

    /// Panics unless these lines were told, each once.
    fn assert_lines(&self, numbers: std::ops::Range<u32>) {
        let mut told: Vec<u32> = self
            .messages()
            .iter()
            .map(|message| message.strip_prefix("line ").unwrap().parse().unwrap())
            .collect();
        told.sort_unstable();
        assert_eq!(told, numbers.collect::<Vec<_>>());
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn cri(number: u32, stream: &str, tag: &str, text: &str) -> String {
    format!("1970-01-01T00:{:02}:{:02}.{number:09}Z {stream} {tag} {text}\n", number / 60 % 60, number % 60)
}

fn compress(from: &Path, to: &Path) {
    let file = fs::File::create(to).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    encoder.write_all(&fs::read(from).unwrap()).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(from).unwrap();
}

#[test]
fn rows_say_whose_they_are() {
    let mut node = Node::new();
    node.write("3.log", &cri(1, "stderr", "F", "ERROR 11-24 16:00:00 [a.py:1] req_id=abcd1234 api_key=sk-1"));
    node.turns(3);
    let row = &node.rows[0];
    assert_eq!(
        (row.namespace.as_str(), row.pod.as_str(), row.container.as_str()),
        ("ml", "llama-0", "server")
    );
    assert_eq!(
        (row.restart, row.level, row.stream),
        (Some(3), Some(crate::timeline::Level::Error), Some(crate::timeline::Stream::Stderr))
    );
    assert_eq!((row.time, row.request_id.as_deref(), row.redacted), (SECOND + 1, Some("abcd1234"), 1));
    assert!(row.message.ends_with("api_key=[redacted]"), "{}", row.message);
    assert_eq!(node.tail.counts().redactions, 1);
}

#[test]
fn files_are_renamed_compressed_and_deleted_while_they_are_read() {
    let mut node = Node::new();
    node.lines("0.log", 0..10);
    node.turns(1);
    fs::rename(node.file("0.log"), node.file("0.log.20260101-000000")).unwrap();
    // The runtime goes on with the old file for a moment.
    node.lines("0.log.20260101-000000", 10..12);
    node.lines("0.log", 12..20);
    node.turns(2);
    compress(&node.file("0.log.20260101-000000"), &node.file("0.log.20260101-000000.gz"));
    fs::rename(node.file("0.log"), node.file("0.log.20260102-000000")).unwrap();
    node.turns(15);
    fs::remove_file(node.file("0.log.20260101-000000.gz")).unwrap();
    node.lines("1.log", 20..30);
    node.turns(15);
    node.assert_lines(0..30);
    assert_eq!(node.tail.counts().files, 1);
    assert_eq!(
        node.tail.places().files.values().next().unwrap().len(),
        2,
        "one is read to its end, one is open"
    );
}

#[test]
fn a_restart_goes_on_where_it_was_whatever_became_of_the_files() {
    let mut node = Node::new();
    node.lines("0.log", 0..10);
    node.turns(3);
    node.restart();
    node.lines("0.log", 10..20);
    fs::rename(node.file("0.log"), node.file("0.log.20260101-000000")).unwrap();
    compress(&node.file("0.log.20260101-000000"), &node.file("0.log.20260101-000000.gz"));
    node.lines("0.log", 20..30);
    node.turns(3);
    node.restart();
    node.turns(3);
    node.restart();
    fs::rename(node.file("0.log"), node.file("0.log.20260102-000000")).unwrap();
    node.lines("0.log", 30..31);
    node.turns(20);
    node.assert_lines(0..31);
}

#[test]
fn streams_that_wait_for_more_lose_and_repeat_nothing_in_a_restart() {
    let mut node = Node::new();
    node.write("0.log", &cri(1, "stdout", "P", "begun "));
    node.write("0.log", &cri(2, "stderr", "F", "whole"));
    node.write("0.log", &cri(3, "stderr", "F", "held"));
    // Before what is held is told.
    let wanted = Wanted { all: true, ..Wanted::default() };
    let sources = wanted.sources(node.folder.path(), "a");
    let (now, mut rows) = (node.now, Vec::new());
    while node.tail.turn(&sources, now, &mut rows) {}
    assert_eq!(rows.iter().map(|row| row.message.as_str()).collect::<Vec<_>>(), ["whole"]);
    node.rows = rows;
    node.restart();
    fs::rename(node.file("0.log"), node.file("0.log.20260101-000000")).unwrap();
    node.write("0.log", &cri(4, "stdout", "F", "and ended"));
    node.write("0.log", &cri(5, "stderr", "F", "last"));
    node.turns(20);
    node.restart();
    node.turns(20);
    let mut messages = node.messages();
    messages.sort_unstable();
    assert_eq!(messages, ["begun and ended", "held", "last", "whole"]);
}

#[test]
fn a_file_that_is_cut_off_is_read_from_its_beginning() {
    let mut node = Node::new();
    node.lines("0.log", 0..10);
    node.turns(1);
    fs::write(node.file("0.log"), "").unwrap();
    node.lines("0.log", 10..12);
    node.turns(2);
    // Written anew beyond where it had been read.
    fs::write(node.file("0.log"), "").unwrap();
    node.lines("0.log", 12..40);
    node.turns(3);
    node.assert_lines(0..40);
    assert_eq!(node.tail.counts().truncated, 2);
}

#[test]
fn odd_lines_are_kept() {
    let mut node = Node::new();
    let long = "x".repeat(10 << 20);
    append(&node.file("0.log"), b"1970-01-01T00:00:01Z stdout F \xff\xfe bytes\n");
    node.write("0.log", &cri(2, "stdout", "F", &long));
    node.write("0.log", "no format\n");
    for part in long.as_bytes().chunks(16 << 10).take(4) {
        node.write("0.log", &cri(3, "stdout", "P", std::str::from_utf8(part).unwrap()));
    }
    node.write("0.log", &cri(3, "stdout", "F", "end"));
    node.write("0.log", "1970-01-01T00:00:09Z stdout F cut");
    node.turns(2);
    fs::rename(node.file("0.log"), node.file("0.log.20260101-000000")).unwrap();
    node.turns(20);
    let lengths: Vec<_> = node.rows.iter().map(|row| (row.message.len(), row.left_out)).collect();
    assert_eq!(lengths[0], ("\u{fffd}\u{fffd} bytes".len(), 0));
    assert_eq!(lengths[1].0 + lengths[1].1 as usize, 10 << 20);
    assert_eq!(lengths[2..], [(9, 0), ((64 << 10) + 3, 0), (3, 0)]);
}

#[test]
fn dockers_files_behind_a_link() {
    let mut node = Node::new();
    let docker = node.folder.path().join("docker");
    fs::create_dir(&docker).unwrap();
    let file = docker.join("id-json.log");
    let line = |n: u32| {
        format!("{{\"log\":\"line {n}\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:{n:02}Z\"}}\n")
    };
    append(&file, (0..5).map(line).collect::<String>().as_bytes());
    std::os::unix::fs::symlink(&file, node.file("0.log")).unwrap();
    node.turns(2);
    node.restart();
    fs::rename(&file, docker.join("id-json.log.1")).unwrap();
    append(&file, (5..9).map(line).collect::<String>().as_bytes());
    node.turns(15);
    node.assert_lines(0..9);
}

#[test]
fn only_pods_that_are_wanted() {
    let node = Node::new();
    let found = |wanted: &Wanted| wanted.sources(node.folder.path(), "a").len();
    assert_eq!(found(&Wanted::default()), 0);
    assert_eq!(found(&Wanted { pods: ["uid".to_owned()].into(), ..Wanted::default() }), 1);
    assert_eq!(found(&Wanted { all: true, never: ["uid".to_owned()].into(), ..Wanted::default() }), 0);
}

#[test]
fn from_now_on_tells_nothing_of_before() {
    let mut node = Node::new();
    node.lines("0.log", 0..10);
    let sources = Wanted { all: true, ..Wanted::default() }.sources(node.folder.path(), "a");
    node.tail = Tail::from_now_on(&sources, true, node.now);
    node.turns(2);
    node.lines("0.log", 10..12);
    node.turns(2);
    node.assert_lines(10..12);
}

#[test]
fn a_log_that_is_written_much_holds_up_no_other() {
    let mut node = Node::new();
    let many: String =
        (0..4 * ROWS as u32).map(|number| cri(number, "stdout", "F", &format!("{number:0300}"))).collect();
    node.write("0.log", &many);
    let quiet = node.folder.path().join("ml_quiet-0_uid/server");
    fs::create_dir_all(&quiet).unwrap();
    append(&quiet.join("0.log"), cri(1, "stdout", "F", "quiet").as_bytes());
    append(&quiet.join("0.log"), cri(2, "stdout", "F", "quiet").as_bytes());
    let sources = Wanted { all: true, ..Wanted::default() }.sources(node.folder.path(), "a");
    let mut told = Vec::new();
    for _ in 0..2 {
        assert!(node.tail.turn(&sources, node.now, &mut told), "there is more");
        assert!(told.len() >= ROWS, "the first has enough for a turn");
        node.rows.append(&mut told);
    }
    assert!(node.messages().contains(&"quiet"), "the second was looked at before the first was at its end");
}
