//! Containers that write while their files are renamed, compressed, cut off and deleted, and a reader that is killed again
//! and again: is every line in the store once?
//!
//! `log-torture MEBIBYTES CONTAINERS KILLS` prints the figures, and fails if a line is lost or there twice. `log-torture read
//! PODS STORE` is the reader.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use observer::capture::{monotonic, wall};
use observer::logs::{Places, Tail, Wanted};
use observer::recent::{Asked, Query};
use observer::store::{Bounds, Store};
use observer::timeline::time_text;
use observer_tests::pod_logs::compress;

/// Bytes of a file before it is rotated, and files that are kept: the kubelet's own.
const ROTATED: u64 = 10 << 20;
const KEPT: usize = 5;

fn now() -> i64 {
    wall().cast_signed()
}

fn bounds(path: &Path) -> Bounds {
    Bounds { path: path.to_owned(), bytes: 64 << 30, age: Duration::from_hours(24) }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", pods, store] => read(Path::new(pods), Path::new(store)),
        [mebibytes, containers, kills] => {
            torture(
                mebibytes.parse().expect("a number"),
                containers.parse().expect("a number"),
                kills.parse().expect("a number"),
            );
        }
        _ => panic!("log-torture MEBIBYTES CONTAINERS KILLS"),
    }
}

/// Reads for ever.
fn read(pods: &Path, path: &Path) -> ! {
    let (store, writer) = Store::open(bounds(path), now).expect("the store");
    std::thread::spawn(move || writer.run(&AtomicBool::new(false)));
    let places = store.places().and_then(|text| Places::of(&text)).unwrap_or_default();
    let (mut tail, wanted) = (Tail::new(places, true), Wanted { all: true, ..Wanted::default() });
    loop {
        let mut rows = Vec::new();
        let is_more = tail.turn(&wanted.sources(pods, "a"), now(), &mut rows);
        if !rows.is_empty() {
            store.lines(store.generation(), rows, tail.places().text()).expect("the store takes them");
        }
        // In one piece, whenever it is killed.
        let new = path.with_extension("rows.new");
        fs::write(&new, store.counts().rows.to_string()).expect("written");
        fs::rename(new, path.with_extension("rows")).expect("renamed");
        if !is_more {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What is deleted or cut off unread is lost to every reader: waits until all that was written is in the store.
fn let_read(store: &Path, lines: u64) {
    let end = monotonic() + 120_000_000_000;
    let rows = || fs::read_to_string(store.with_extension("rows")).ok()?.parse::<u64>().ok();
    while rows().unwrap_or(0) < lines {
        assert!(monotonic() < end, "the store has {:?} of {lines} rows: is the disk full?", rows());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One container: what it wrote, and its files.
struct Container {
    number: usize,
    folder: PathBuf,
    lines: u64,
    file: File,
    written: u64,
    rotated: u64,
    deleted: u64,
}

impl Container {
    fn new(pods: &Path, number: usize) -> Self {
        let folder = pods.join(format!("ml_pod-{number}_uid-{number}/server"));
        fs::create_dir_all(&folder).expect("a folder");
        let file = open(&folder.join("0.log"));
        Self { number, folder, lines: 0, file, written: 0, rotated: 0, deleted: 0 }
    }

    fn write(&mut self, lines: u64) -> u64 {
        let mut text = String::new();
        for _ in 0..lines {
            let (time, number, line) = (time_text(now()), self.number, self.lines);
            let text_of = format!(
                "INFO line c{number} n{line} {}",
                "engine said something ".repeat((line % 9) as usize)
            );
            match line % 50 {
                // As a runtime splits it.
                0 => {
                    let (a, b) = text_of.split_at(7);
                    writeln!(text, "{time} stderr P {a}\n{time} stderr F {b}").expect("text");
                }
                _ => writeln!(text, "{time} stdout F {text_of}").expect("text"),
            }
            self.lines += 1;
        }
        self.file.write_all(text.as_bytes()).expect("written");
        self.written += text.len() as u64;
        text.len() as u64
    }

    fn rotate(&mut self, size: u64) {
        if self.written < size {
            return;
        }
        self.rotated += 1;
        let old = self.folder.join(format!("0.log.{:08}-000000", self.rotated));
        fs::rename(self.folder.join("0.log"), &old).expect("renamed");
        // The runtime goes on with the old file for a moment.
        self.write(20);
        self.file = open(&self.folder.join("0.log"));
        self.written = 0;
        if self.rotated > 1 {
            let last = self.folder.join(format!("0.log.{:08}-000000", self.rotated - 1));
            compress(&last);
        }
    }

    /// As the kubelet does; whether there is one too many.
    fn has_too_many(&self) -> bool {
        self.rotated - self.deleted > KEPT as u64
    }

    fn delete_oldest(&mut self) {
        self.deleted += 1;
        let gone = format!("0.log.{:08}-000000.gz", self.deleted);
        fs::remove_file(self.folder.join(gone)).expect("deleted");
    }

    /// As `copytruncate` does, after everything was read.
    fn cut(&mut self) {
        self.file.set_len(0).expect("cut off");
        self.written = 0;
    }

    /// The file is deleted, and another takes its place.
    fn delete(&mut self) {
        let old = self.folder.join("0.log");
        self.file = open(&self.folder.join("0.log.new"));
        fs::remove_file(&old).expect("deleted");
        fs::rename(self.folder.join("0.log.new"), self.folder.join("0.log")).expect("renamed");
        self.written = 0;
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a file")
}

fn torture(mebibytes: u64, containers: usize, kills: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let (pods, store) = (folder.path().join("pods"), folder.path().join("store"));
    fs::create_dir(&pods).expect("a folder");
    let (total, written) = (mebibytes << 20, Arc::new(AtomicU64::new(0)));
    let begin = monotonic();
    let killing = {
        let written = Arc::clone(&written);
        let reader = {
            let (pods, store) = (pods.clone(), store.clone());
            move || {
                let program = std::env::current_exe().expect("this program");
                Command::new(program).arg("read").args([&pods, &store]).spawn().expect("a reader")
            }
        };
        let mut child: Child = reader();
        std::thread::spawn(move || {
            for kill in 1..=u64::from(kills) {
                while written.load(Ordering::Relaxed) < kill * total / u64::from(kills + 1) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                // SIGKILL: nothing is told to it.
                child.kill().expect("killed");
                child.wait().expect("gone");
                child = reader();
            }
            child
        })
    };
    // Small runs rotate as often for their size.
    let size = ROTATED.min((total / containers as u64 / 7).max(64 << 10));
    let mut all: Vec<Container> = (0..containers).map(|number| Container::new(&pods, number)).collect();
    let quiet = total / 4;
    let mut next_quiet = quiet;
    while written.load(Ordering::Relaxed) < total {
        for container in &mut all {
            let bytes = container.write(100);
            container.rotate(size);
            written.fetch_add(bytes, Ordering::Relaxed);
        }
        let lines = all.iter().map(|container| container.lines).sum();
        if all.iter().any(Container::has_too_many) {
            let_read(&store, lines);
            all.iter_mut().filter(|container| container.has_too_many()).for_each(Container::delete_oldest);
        }
        if written.load(Ordering::Relaxed) > next_quiet {
            next_quiet += quiet;
            let_read(&store, lines);
            all.iter_mut().filter(|container| container.number % 5 == 1).for_each(Container::cut);
            all.iter_mut().filter(|container| container.number % 5 == 2).for_each(Container::delete);
        }
    }
    let wrote = Duration::from_nanos(monotonic() - begin);
    let mut child = killing.join().expect("the reader was killed often enough");
    let lines: u64 = all.iter().map(|container| container.lines).sum();
    let_read(&store, lines);
    // What is there twice comes late, if it comes.
    std::thread::sleep(Duration::from_secs(2));
    child.kill().expect("killed");
    child.wait().expect("gone");
    let (opened, writer) = Store::open(bounds(&store), now).expect("the store");
    let counts = opened.counts();
    let mut seen: HashMap<(u32, u32), u32> = HashMap::with_capacity(lines as usize);
    let mut cursor: Option<String> = None;
    loop {
        let mut pairs =
            vec![("order".to_owned(), "oldest".to_owned()), ("limit".to_owned(), "5000".to_owned())];
        pairs.extend(cursor.take().map(|cursor| ("cursor".to_owned(), cursor)));
        let query = Query::parse(Asked::Logs, &pairs).expect("a question");
        let found = opened.search(&query, now(), u64::MAX);
        for row in &found.rows {
            let mut words = row.message.split(' ').skip(2);
            let mut number =
                || words.next().and_then(|word| word[1..].parse::<u32>().ok()).expect("a number");
            *seen.entry((number(), number())).or_default() += 1;
        }
        let Some(next) = found.next else { break };
        cursor = Some(next.to_string());
    }
    drop(writer);
    let lost = lines - seen.len() as u64;
    let twice = seen.values().filter(|times| **times > 1).count();
    println!(
        "{} MiB, {lines} lines, {containers} containers, {kills} kills, files of {size} bytes: written in {:.1} s; in the store {} \
         rows, {} MiB; lost {lost}, twice {twice}",
        written.load(Ordering::Relaxed) >> 20,
        wrote.as_secs_f64(),
        counts.rows,
        counts.bytes >> 20,
    );
    assert_eq!((lost, twice), (0, 0), "every line is there once");
}
