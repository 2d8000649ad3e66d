//! Many lines of engines, as the kubelet keeps them and in a store: how fast they go in, and how fast they are found, beside
//! tools that read files.
//!
//! `log-search LINES PODS FOLDER` makes the files below FOLDER (twice the bytes of the lines have to fit), and prints a
//! table. All ways have to find the same number of lines. `log-search read PODS STORE LINES` is the one that reads and writes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use observer::capture::{monotonic, wall};
use observer::lines::Redactor;
use observer::logs::{Places, Tail, Wanted, search};
use observer::recent::{Asked, PATIENCE, Query};
use observer::store::{Bounds, Store};
use observer::timeline::time_text;
use observer_tests::pod_logs::compress;

/// Bytes of a file before it is rotated: the kubelet's own.
const ROTATED: u64 = 10 << 20;

/// Over how long the lines were written, nanoseconds.
const SPAN: i64 = 10 * HOUR;
const HOUR: i64 = 3_600_000_000_000;
const MINUTE: i64 = 60_000_000_000;

/// One line in so many has this.
const RARE: u64 = 2_000;
const PHRASE: &str = "out of memory";
const EXPRESSION: &str = r"CUDA error: \w+ at rank [0-5]\b";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", pods, store, lines] => {
            read(Path::new(pods), Path::new(store), lines.parse().expect("a number"));
        }
        [lines, pods, folder] => {
            compare(lines.parse().expect("a number"), pods.parse().expect("a number"), Path::new(folder));
        }
        _ => panic!("log-search LINES PODS FOLDER"),
    }
}

/// The last full hour is the last one with lines.
fn begin() -> i64 {
    let now = wall().cast_signed();
    now - now.rem_euclid(HOUR) - SPAN
}

/// What an engine writes: mostly of requests, sometimes of itself, seldom of trouble.
fn line(text: &mut String, time: i64, pod: u64, number: u64) {
    let (stamp, id) = (time_text(time), (number * 20 + pod).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let clock = stamp.strftime("%m-%d %H:%M:%S");
    let stream = if number.is_multiple_of(5) { "stderr" } else { "stdout" };
    write!(text, "{stamp} {stream} F ").expect("text");
    let wrote = match (number % RARE, number % 10) {
        (0, _) => writeln!(
            text,
            "ERROR {clock} [engine_core.py:712] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {} MiB",
            id >> 52
        ),
        (1, _) => writeln!(
            text,
            "ERROR {clock} [multiproc_executor.py:230] CUDA error: ECC_uncorrectable at rank {}",
            id >> 61
        ),
        (_, 0) => writeln!(
            text,
            "INFO {clock} [loggers.py:248] Engine 000: Avg prompt throughput: {}.{} tokens/s, Avg generation throughput: {}.1 tokens/s, Running: {} reqs, Waiting: 0 reqs, GPU KV cache usage: {}.4%, Prefix cache hit rate: 41.2%",
            id >> 54,
            id >> 61,
            id >> 53,
            id >> 59,
            id >> 58
        ),
        (_, 1..=4) => writeln!(
            text,
            "INFO:     10.0.{}.{}:{} - \"POST /v1/chat/completions HTTP/1.1\" 200 OK",
            id >> 56,
            id >> 57,
            id >> 49
        ),
        (_, 5..=7) => {
            writeln!(text, "INFO {clock} [async_llm.py:420] Added request chatcmpl-{id:016x}{pod:016x}.")
        }
        _ => writeln!(
            text,
            "DEBUG {clock} [scheduler.py:511] Request chatcmpl-{id:016x}{pod:016x} scheduled: {} new tokens, {} blocks",
            id >> 52,
            id >> 58
        ),
    };
    wrote.expect("text");
}

/// Writes the lines of all pods as a runtime and the kubelet do: files of 10 MiB, the older ones compressed. How many bytes.
fn write(pods: &Path, lines: u64, count: u64) -> u64 {
    let (begin, each, mut bytes) = (begin(), lines / count, 0);
    for pod in 0..count {
        let folder = pods.join(format!("ml_llama-{pod}_uid-{pod}/server"));
        fs::create_dir_all(&folder).expect("a folder");
        let (mut text, mut rotated): (String, Vec<PathBuf>) = (String::new(), Vec::new());
        for number in 0..each {
            let time = begin + (SPAN / each.cast_signed()) * number.cast_signed() + pod.cast_signed();
            line(&mut text, time, pod, number);
            let is_last = number + 1 == each;
            if text.len() as u64 >= ROTATED || is_last {
                bytes += text.len() as u64;
                let name = if is_last {
                    "0.log".to_owned()
                } else {
                    time_text(time).strftime("0.log.%Y%m%d-%H%M%S").to_string()
                };
                let path = folder.join(name);
                fs::write(&path, &text).expect("written");
                text.clear();
                if !is_last {
                    rotated.push(path);
                }
            }
        }
        rotated.pop();
        for path in &rotated {
            compress(path);
        }
    }
    bytes
}

fn bounds(path: &Path) -> Bounds {
    Bounds { path: path.to_owned(), bytes: 64 << 30, age: Duration::from_hours(24) }
}

fn now() -> i64 {
    wall().cast_signed()
}

fn wanted() -> Wanted {
    Wanted { all: true, ..Wanted::default() }
}

/// The most of memory of its own (and not of mapped files, which the kernel takes back when it needs room) that this process
/// has had, KiB, for as long as it is asked.
fn watch_memory() -> Arc<AtomicU64> {
    let most = Arc::<AtomicU64>::default();
    let told = Arc::clone(&most);
    std::thread::spawn(move || {
        while Arc::strong_count(&told) > 1 {
            told.fetch_max(of_status("RssAnon:"), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    most
}

/// KiB of a kind of memory.
fn of_status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let value = status.lines().find_map(|line| line.strip_prefix(name)).expect("a kind of memory");
    value.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Reads all lines into the store, and tells how long that took and how much memory.
fn read(pods: &Path, path: &Path, lines: u64) {
    let (begin, memory) = (monotonic(), watch_memory());
    let (store, writer) = Store::open(bounds(path), now).expect("the store");
    let writing = std::thread::spawn(move || writer.run(&AtomicBool::new(false)));
    let mut tail = Tail::new(Places::default(), true);
    while tail.counts().rows < lines {
        let mut rows = Vec::new();
        tail.turn(&wanted().sources(pods, "a"), now(), &mut rows);
        if !rows.is_empty() {
            store.lines(store.generation(), rows, tail.places().text()).expect("the store takes them");
        }
    }
    drop(store);
    writing.join().expect("written");
    let took = Duration::from_nanos(monotonic() - begin).as_secs_f64();
    println!(
        "{:.0} lines/s, {:.1} MiB/s into the store; at most {} MiB of memory, {} MiB with mapped files",
        lines as f64 / took,
        tail.counts().bytes as f64 / took / f64::from(1 << 20),
        memory.load(Ordering::Relaxed) >> 10,
        of_status("VmHWM:") >> 10,
    );
}

/// Reads without storing.
fn read_only(pods: &Path, lines: u64) {
    let (begin, mut tail) = (monotonic(), Tail::new(Places::default(), true));
    while tail.counts().rows < lines {
        tail.turn(&wanted().sources(pods, "a"), now(), &mut Vec::new());
    }
    let took = Duration::from_nanos(monotonic() - begin).as_secs_f64();
    println!(
        "{:.0} lines/s, {:.1} MiB/s read, split, joined, redacted",
        lines as f64 / took,
        tail.counts().bytes as f64 / took / f64::from(1 << 20)
    );
}

/// The best and the worst of three, and how much was found each time.
fn timed(what: &str, mut look: impl FnMut() -> u64) -> u64 {
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..3 {
        let begin = monotonic();
        found = look();
        times.push((monotonic() - begin) as f64 / 1e6);
    }
    let first = times[0];
    times.sort_by(f64::total_cmp);
    println!("{what}: {found} lines, first {first:.1} ms, best {:.1} ms", times[0]);
    found
}

fn query(pairs: &[(&str, &str)]) -> Query {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Query::parse(Asked::Logs, &pairs).expect("a question")
}

/// Lines that a program finds, by how many it prints.
fn program(command: &str) -> u64 {
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

fn compare(lines: u64, count: u64, folder: &Path) {
    let (pods, store) = (folder.join("pods"), folder.join("store"));
    let lines = lines / count * count;
    let bytes = write(&pods, lines, count);
    println!(
        "{lines} lines, {} MiB, {count} pods, {} MiB as the kubelet keeps them",
        bytes >> 20,
        size(&pods) >> 20
    );
    read_only(&pods, lines);
    let reader = std::env::current_exe().expect("this program");
    let read = Command::new(reader).arg("read").args([&pods, &store]).arg(lines.to_string()).status();
    assert!(read.expect("the reader").success());
    let (opened, _writer) = Store::open(bounds(&store), now).expect("the store");
    assert_eq!(opened.counts().rows, lines);
    println!("the store: {} MiB", size(&store) >> 20);

    let hour = (begin() + 5 * HOUR, begin() + 6 * HOUR - 1);
    let minutes = (begin() + 5 * HOUR + 20 * MINUTE, begin() + 5 * HOUR + 25 * MINUTE - 1);
    let [hour_since, hour_until, since, until] =
        [hour.0, hour.1, minutes.0, minutes.1].map(|time| time_text(time).to_string());
    let phrase = query(&[
        ("pod", "llama-7"),
        ("phrase", PHRASE),
        ("since", &hour_since),
        ("until", &hour_until),
        ("limit", "5000"),
    ]);
    let expression = query(&[("regex", EXPRESSION), ("since", &since), ("until", &until), ("limit", "5000")]);
    let redactor = Redactor::new(true);
    let in_store = |query: &Query| {
        let found = opened.search(query, now(), monotonic() + PATIENCE);
        assert!(found.reached.is_none() && found.next.is_none(), "all of it");
        found.rows.len() as u64
    };
    let in_files = |query: &Query| {
        let found = search(&wanted().sources(&pods, "a"), query, (now(), monotonic() + PATIENCE), &redactor);
        assert!(found.unfinished == 0 && found.next.is_none(), "all of it");
        found.rows.len() as u64
    };
    // A time is a beginning of a line to them.
    let in_hour = format!("^{}.*{PHRASE}", &hour_since[..14]);
    let in_minutes = format!("^{}[0-4]:.*{EXPRESSION}", &since[..15]);
    let one = pods.join("ml_llama-7_uid-7/server");
    let zgrep = |what: &str, place: &Path| {
        program(&format!("find {} -type f | xargs zgrep -hP '{what}' | wc -l", place.display()))
    };
    let rg = |what: &str, place: &Path| {
        program(&format!("rg -zI --no-ignore '{what}' {} | wc -l", place.display()))
    };
    let has_rg = Command::new("rg").arg("--version").output().is_ok();
    for (what, query, pattern, place) in [
        ("phrase, one pod, one hour", &phrase, &in_hour, &one),
        ("regular expression, all pods, five minutes", &expression, &in_minutes, &pods),
    ] {
        let mut found = vec![
            timed(&format!("{what}: store"), || in_store(query)),
            timed(&format!("{what}: in place"), || in_files(query)),
            timed(&format!("{what}: zgrep"), || zgrep(pattern, place)),
        ];
        if has_rg {
            found.push(timed(&format!("{what}: rg"), || rg(pattern, place)));
        } else {
            println!("{what}: no rg here");
        }
        assert!(found[0] > 0 && found.iter().all(|one| *one == found[0]), "all find the same: {found:?}");
    }
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| if path.is_dir() { size(&path) } else { path.metadata().map_or(0, |known| known.len()) })
        .sum()
}
