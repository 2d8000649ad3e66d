use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use super::*;
use crate::capture::monotonic;
use crate::recent::{Asked, Recent};
use crate::timeline::Level;

const SECOND: i64 = 1_000_000_000;

fn now() -> i64 {
    1_000 * SECOND
}

struct Open {
    store: Store,
    stop: Arc<AtomicBool>,
    writing: JoinHandle<()>,
}

impl Open {
    fn at(path: &std::path::Path, bytes: u64) -> Self {
        let bounds = Bounds { path: path.to_owned(), bytes, age: Duration::from_hours(1) };
        let (store, writer) = Store::open(bounds, now).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let writing = std::thread::spawn(move || writer.run(&told));
        Self { store, stop, writing }
    }

    /// As a signal to end does.
    fn close(self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.writing.join().unwrap();
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&Store) -> bool) {
        let end = monotonic() + 30 * SECOND as u64;
        while !is_so(&self.store) {
            assert!(monotonic() < end, "{what}: {:?}", self.store.counts());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn has(&self, rows: u64) {
        self.wait("rows", |store| store.counts().rows == rows);
    }

    fn ask(&self, asked: Asked, text: &str) -> Found {
        self.store.search(&query(asked, text), now(), u64::MAX)
    }
}

fn query(asked: Asked, text: &str) -> Query {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    });
    Query::parse(asked, &pairs.collect::<Vec<_>>()).unwrap()
}

/// A line at this second.
fn line(second: i64, pod: &str, message: &str) -> Row {
    Row {
        time: second * SECOND,
        node: "a".into(),
        id: format!("{second:04}"),
        namespace: "ml".into(),
        pod: pod.into(),
        level: Some(Level::Info),
        message: message.into(),
        ..Row::default()
    }
}

fn ids(found: &Found) -> Vec<i64> {
    found.rows.iter().map(|row| row.id.parse().unwrap()).collect()
}

#[test]
fn places_move_without_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let open = Open::at(folder.path(), 1 << 30);
    open.store.lines(0, Vec::new(), "sent up to here".to_owned()).unwrap();
    open.wait("the places", |store| store.places().as_deref() == Some("sent up to here"));
    open.close();
    let open = Open::at(folder.path(), 1 << 30);
    assert_eq!(open.store.places().as_deref(), Some("sent up to here"));
    assert_eq!(open.store.counts().rows, 0);
    open.close();
}

#[test]
fn what_was_written_is_found_after_it_was_closed_and_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let open = Open::at(&path, 1 << 30);
    let lines =
        (1..=300).map(|n| line(n, &format!("llama-{}", n % 3), &format!("CUDA out of memory number{n}")));
    open.store.lines(0, lines.collect(), "here".to_owned()).unwrap();
    open.store.event(Row { kind: Kind::Stall, reason: "begin".into(), ..line(500, "llama-1", "stalls") });
    let mut recent = Recent::new(1 << 20, 0);
    let record = crate::exchange::RequestRecord {
        id: "5".into(),
        node: "a".into(),
        pod: "llama-1".into(),
        ended_at: Some("1970-01-01T00:05:00Z".into()),
        ..Default::default()
    };
    open.store.request(&recent.remember(record, 0), String::new());
    open.has(302);
    assert_eq!(open.store.places().as_deref(), Some("here"));
    open.close();
    let open = Open::at(&path, 1 << 30);
    assert_eq!((open.store.counts().rows, open.store.places().as_deref()), (302, Some("here")));
    assert_eq!(ids(&open.ask(Asked::Logs, "pod=llama-1&limit=3")), [298, 295, 292]);
    assert_eq!(ids(&open.ask(Asked::Logs, "pod=llama-*&order=oldest&limit=2")), [1, 2]);
    assert_eq!(ids(&open.ask(Asked::Logs, "words=number7 cuda")), [7]);
    assert_eq!(ids(&open.ask(Asked::Logs, "phrase=out of memory number8")), [8]);
    assert_eq!(ids(&open.ask(Asked::Logs, "phrase=memory of out")), [0; 0]);
    assert_eq!(ids(&open.ask(Asked::Logs, "regex=number1[01]$&order=oldest")), [10, 11]);
    assert_eq!(ids(&open.ask(Asked::Logs, "since=1970-01-01T00:04:59Z&until=1970-01-01T00:04:59Z")), [299]);
    assert_eq!(ids(&open.ask(Asked::Events, "pod=llama-1")), [500]);
    let all = open.ask(Asked::Events, "pod=llama-1&kind=stall,request,log&since=1970-01-01T00:04:55Z");
    let kinds: Vec<_> = all.rows.iter().map(|row| (row.kind, row.time / SECOND)).collect();
    assert_eq!(kinds, [(Kind::Stall, 500), (Kind::Request, 300), (Kind::Log, 298), (Kind::Log, 295)]);
    assert!(all.rows[1].request.is_some());
    let (hits, _) = open.store.hits(&query(Asked::Logs, "pod=llama-1"), 100 * SECOND, now(), u64::MAX);
    assert_eq!(hits.into_values().collect::<Vec<_>>(), [33, 34, 33]);
    open.close();
}

#[test]
fn pages_have_every_row_once_also_those_of_one_time() {
    let folder = tempfile::tempdir().unwrap();
    let open = Open::at(folder.path(), 1 << 30);
    let rows: Vec<Row> = (0..500).map(|n| Row { time: n / 50 * SECOND, ..line(n, "p", "x") }).collect();
    for part in rows.chunks(90) {
        open.store.lines(0, part.to_vec(), String::new()).unwrap();
    }
    open.has(500);
    for order in ["newest", "oldest"] {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let found = open.ask(Asked::Logs, &format!("limit=7&order={order}{cursor}"));
            all.extend(ids(&found));
            let Some(next) = found.next else { break };
            cursor = format!("&cursor={next}");
        }
        let mut expected: Vec<i64> = (0..500).collect();
        if order == "newest" {
            expected.reverse();
        }
        assert_eq!(all, expected, "{order}");
    }
    open.close();
}

#[test]
fn the_oldest_are_deleted_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let open = Open::at(folder.path(), 4 << 20);
    assert_eq!(open.store.complete_since(), now());
    let mut seed = 1_u64;
    for n in 0..400 {
        let words: Vec<String> = (0..200)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                format!("{seed:x}")
            })
            .collect();
        let rows = (0..20).map(|m| line(600 + n / 2, "p", &format!("{n} {m} {}", words.join(" "))));
        open.store.lines(0, rows.collect(), String::new()).unwrap();
        if n % 40 == 0 {
            std::thread::sleep(Duration::from_millis(1100));
        }
    }
    open.wait("deletion", |store| store.counts().deleted.contains_key("bytes"));
    open.wait("bound", |store| store.counts().bytes < 5 << 20);
    assert!(open.ask(Asked::Logs, "order=oldest&limit=1").rows[0].time > 600 * SECOND);
    open.close();
}

#[test]
fn a_damaged_volume_is_set_aside_and_the_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let write = |second: i64| {
        let open = Open::at(folder.path(), 1 << 30);
        let known = open.store.counts().rows;
        open.store.lines(0, vec![line(second, "p", "x")], format!("at {second}")).unwrap();
        open.has(known + 1);
        open.close();
    };
    write(1);
    // As if the volume had been full.
    let fields = document::Fields::new();
    drop(volume::Volume::create(folder.path(), 2, &fields).unwrap());
    write(2);
    let damaged = folder.path().join("00000002");
    let store = std::fs::read_dir(&damaged).unwrap().map(|entry| entry.unwrap().path());
    let store = store.into_iter().find(|path| path.extension().is_some_and(|name| name == "store")).unwrap();
    let mut bytes = std::fs::read(&store).unwrap();
    bytes[3] ^= 0xff;
    std::fs::write(&store, bytes).unwrap();
    let open = Open::at(folder.path(), 1 << 30);
    open.wait("set aside", |store| store.counts().set_aside == 1);
    assert_eq!(ids(&open.ask(Asked::Logs, "since=1h")), [1]);
    assert!(folder.path().join("set-aside-00000002").exists());
    open.close();
    // One that cannot even be opened, and another format.
    std::fs::write(folder.path().join("00000001/meta.json"), "{").unwrap();
    let open = Open::at(folder.path(), 1 << 30);
    assert_eq!((open.store.counts().set_aside, open.ask(Asked::Logs, "since=1h").rows.len()), (1, 0));
    open.close();
    write(3);
    std::fs::write(folder.path().join("store.json"), "{\"format\":2,\"complete_since\":0}").unwrap();
    let open = Open::at(folder.path(), 1 << 30);
    assert_eq!((open.store.counts().set_aside, open.store.places()), (1, None));
    open.close();
}

#[test]
fn one_process_writes() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { path: folder.path().to_owned(), bytes: 1 << 30, age: Duration::from_hours(1) };
    let open = Store::open(bounds.clone(), now).unwrap();
    let refused = Store::open(bounds.clone(), now).err().unwrap().to_string();
    assert!(refused.contains("another observer") && refused.contains("store.path"), "{refused}");
    drop(open);
    assert!(Store::open(bounds, now).is_ok());
    assert_eq!(folder.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let file = folder.path().join("lock");
    let bounds = Bounds { path: file, bytes: 1, age: Duration::ZERO };
    assert!(Store::open(bounds, now).err().unwrap().to_string().contains("store.path"));
}

#[test]
fn what_finds_no_room_is_counted_and_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { path: folder.path().to_owned(), bytes: 1 << 30, age: Duration::from_hours(1) };
    let (store, writer) = Store::open(bounds, now).unwrap();
    for n in 0..QUEUE as i64 + 5 {
        store.event(Row { kind: Kind::Process, ..line(n, "p", "x") });
    }
    assert_eq!(store.counts().dropped[&("process", "queue_full")], 5);
    drop(store);
    writer.run(&AtomicBool::new(false));
}
