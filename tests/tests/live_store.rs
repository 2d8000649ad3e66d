//! What is kept on disk, when the disk is full, when it is damaged, and when the agent is killed.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use observer::{
    store::{Bounds, Store},
    timeline::Row,
};
use observer_tests::{
    agent::{Agent, observer, wait_for},
    client::{Client, chat},
    live::privileged,
    pod_logs::{PodLogs, append, cri},
    workload::Workload,
};
use rustix::process::Signal;
use serde_json::Value;

/// An agent that keeps lines of all pods in this folder.
fn agent(logs: &Path, store: &Path, bytes: &str) -> Agent {
    let pods = format!("kubernetes.pod_logs={}", logs.display());
    let (path, bytes) = (format!("store.path={}", store.display()), format!("store.bytes={bytes}"));
    let mut args = vec!["--node", "node-a"];
    for setting in
        ["kubernetes.mode=off", "store.enabled=true", "logs.all=true", "logs.store=on", &pods, &path, &bytes]
    {
        args.extend(["--set", setting]);
    }
    Agent::start(&args)
}

/// Numbers of the lines that it has, and what the answer lacks.
fn numbers(agent: &Agent) -> (Vec<u64>, String) {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, text) = agent.get(&format!("/api/v1/logs?order=oldest&limit=5000&since=24h{cursor}"));
        assert_eq!(status, 200, "{text}");
        let mut lines: Vec<Value> = text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).expect("a row"))
            .collect();
        let trailer = lines.pop().expect("a trailer");
        all.extend(lines.iter().map(|row| {
            let words = row["message"].as_str().expect("a message").split(' ');
            words.clone().nth(1).expect("a number").parse::<u64>().expect("a number")
        }));
        match trailer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (all, trailer["partial"].to_string()),
        }
    }
}

/// The number of its newest line.
fn newest(agent: &Agent) -> Option<u64> {
    let text = agent.get("/api/v1/logs?limit=1&since=24h").1;
    let row: Value = serde_json::from_str(text.lines().next()?).ok()?;
    row["message"].as_str()?.split(' ').nth(1)?.parse().ok()
}

/// Lines that do not shrink much when they are stored.
fn write(file: &Path, numbers: std::ops::Range<u64>) {
    let mut seed = numbers.start.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::new();
    for number in numbers {
        let words: Vec<String> = (0..30)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                format!("{:x}", seed >> 20)
            })
            .collect();
        text.push_str(&cri(jiff::Timestamp::now(), "stdout", &format!("line {number} {}", words.join(" "))));
    }
    append(file, &text);
}

/// A small disk.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Self {
        fs::create_dir(path).expect("a folder");
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status();
        assert!(mounted.expect("mount").success(), "a small disk");
        Self(path.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still has it open keeps it until then.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Tells a thread to end, also when the test fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_full_disk_costs_the_oldest_and_no_request() {
    if !privileged() {
        return;
    }
    let logs = PodLogs::default();
    let disk = Disk::mount(&logs.path().join("disk"), "24m");
    let (_server, port) = Workload::script("openai_server.py", &["--events", "3", "--gap", "0"]);
    let agent = agent(logs.path(), &disk.0.join("store"), "1GiB");
    let file = logs.server("ml", "llama-0").join("0.log");
    let counted = |name: &str, labels: &[(&str, &str)]| agent.metrics().sum(name, labels).unwrap_or(0);

    // More lines than there is room for, while requests go on.
    let stop = AtomicBool::new(false);
    let requests = std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        let asking = scope.spawn(|| {
            let mut client = Client::connect(&port);
            let mut requests = 0;
            while !stop.load(Ordering::Relaxed) {
                client.stream(&format!("r{requests}"), &chat("full-disk", true, 3));
                requests += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            requests
        });
        let mut written = 0;
        wait_for("the oldest to be deleted", || {
            write(&file, written..written + 1000);
            written += 1000;
            wait_for("the last line", || (newest(&agent) == Some(written - 1)).then_some(()));
            (counted("observer_store_volumes_deleted_total", &[("cause", "disk_full")]) >= 3).then_some(())
        });
        let (kept, lacks) = numbers(&agent);
        let all: Vec<u64> = (kept[0]..written).collect();
        assert!(
            kept[0] > 0 && kept == all,
            "the newest, each once: {} of {written} from {}",
            kept.len(),
            kept[0]
        );
        assert!(kept.len() as u64 > written / 10, "not all at once: {} of {written}", kept.len());
        assert!(lacks.contains("tells of what happened since"), "{lacks}");

        // Somebody else takes all that is left.
        let hog = disk.0.join("hog");
        let filled =
            fs::File::create(&hog).and_then(|mut file| std::io::copy(&mut std::io::repeat(1), &mut file));
        assert!(filled.is_err(), "full");
        wait_for("requests that are not kept", || {
            write(&file, written..written + 10);
            written += 10;
            std::thread::sleep(Duration::from_millis(20));
            (counted("observer_store_rows_dropped_total", &[("kind", "request")]) > 0).then_some(())
        });
        assert_eq!(agent.get("/healthz").0, 200);
        let dropped = counted("observer_store_rows_dropped_total", &[("kind", "log")]);
        assert_eq!(dropped, 0, "lines wait in their files");
        fs::remove_file(&hog).expect("deleted");
        wait_for("what was written meanwhile", || (newest(&agent) == Some(written - 1)).then_some(()));
        let (kept, _) = numbers(&agent);
        assert!(kept.windows(2).all(|two| two[1] == two[0] + 1), "none lost nor twice since {}", kept[0]);
        stop.store(true, Ordering::Relaxed);
        asking.join().expect("requests")
    });
    wait_for("all requests", || {
        let of = [("outcome", "ok"), ("gen_ai_request_model", "full-disk")];
        (counted("llm_requests_total", &of) == requests).then_some(())
    });
    println!("{requests} requests while the disk was full");
    assert!(agent.end(Signal::TERM).status.success());
}

#[test]
fn a_damaged_part_is_set_aside_and_the_rest_is_served() {
    if !privileged() {
        return;
    }
    let logs = PodLogs::default();
    // Volumes are an eighth of what there is room for.
    let disk = Disk::mount(&logs.path().join("disk"), "48m");
    let store = disk.0.join("store");
    let file = logs.server("ml", "llama-0").join("0.log");
    let mut written = 0;
    // Killed, as a machine that loses its power does.
    let first = agent(logs.path(), &store, "1GiB");
    wait_for("three volumes", || {
        // No faster than it is read: a build without optimizations is slow.
        write(&file, written..written + 1000);
        written += 1000;
        wait_for("the last line", || (newest(&first) == Some(written - 1)).then_some(()));
        (first.metrics().sum("observer_store_volumes", &[]) >= Some(3)).then_some(())
    });
    drop(first);

    let mut volumes: Vec<PathBuf> =
        fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()).collect();
    volumes.retain(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().is_ok());
    volumes.sort();
    let largest = fs::read_dir(&volumes[0]).unwrap().map(|entry| entry.unwrap().path());
    let largest = largest.max_by_key(|path| path.metadata().unwrap().len()).expect("a file");
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&largest, bytes).unwrap();

    let second = agent(logs.path(), &store, "1GiB");
    wait_for("what is damaged to be set aside", || {
        (second.metrics().sum("observer_store_volumes_set_aside_total", &[]) == Some(1)).then_some(())
    });
    let (kept, lacks) = numbers(&second);
    assert!(lacks.contains("damaged and set aside"), "{lacks}");
    assert!(!kept.is_empty() && kept[0] > 0, "the first lines are gone: {}", kept[0]);
    assert_eq!(kept, (kept[0]..written).collect::<Vec<_>>(), "and only they");
    let aside =
        volumes[0].with_file_name(format!("set-aside-{}", volumes[0].file_name().unwrap().to_str().unwrap()));
    assert!(aside.exists(), "{} can be looked at", aside.display());
    let shown =
        observer(["logs", "--since", "24h", "--limit", "1", "--address", &second.address]).output().unwrap();
    let remarks = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success() && remarks.contains("damaged and set aside"), "{remarks}");
    // It goes on.
    write(&file, written..written + 10);
    wait_for("more lines", || (newest(&second) == Some(written + 9)).then_some(()));
    let ended = second.end(Signal::TERM);
    assert!(ended.log.contains("is set aside; the rest is served"), "{}", ended.log);
}

#[test]
fn received_lines_that_cannot_be_written_are_counted() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::mount(&folder.path().join("disk"), "16m");
    let bounds = Bounds { path: disk.0.join("store"), bytes: 64 << 20, age: Duration::from_hours(24) };
    let now = || 1_772_366_400_000_000_000;
    let (store, writer) = Store::open(bounds, now).expect("a store");
    let writing = std::thread::spawn(move || writer.run(&AtomicBool::new(false)));
    let mut taken = 0;
    // Each line is a text that no other is like: it does not get smaller on the disk.
    let mut offer = || {
        let rows = (0..200).map(|number| {
            let text = |part: u64| {
                format!("{:016x} ", (taken * 1000 + number * 7 + part).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            };
            Row {
                time: now(),
                id: (taken + number).to_string(),
                message: (0..20).map(text).collect(),
                ..Row::default()
            }
        });
        let is_taken = store.try_lines(rows.collect()).is_ok();
        taken += if is_taken { 200 } else { 0 };
        is_taken
    };
    let dropped = || {
        let counts = store.counts();
        counts.dropped.iter().filter(|((kind, _), _)| *kind == "log").map(|(_, count)| *count).sum::<u64>()
    };
    assert!(offer());
    wait_for("the first lines", || (store.counts().rows == 200).then_some(()));
    // Somebody else takes the room.
    let ballast = disk.0.join("ballast");
    let mut file = fs::File::create(&ballast).expect("a file");
    while file.write_all(&[1; 4096]).is_ok() {}
    wait_for("lines that are lost", || {
        offer();
        (dropped() > 0).then_some(())
    });
    drop(file);
    fs::remove_file(ballast).expect("deleted");
    wait_for("lines that are written again", || {
        offer();
        (store.counts().rows > 200).then_some(())
    });
    let settled = || {
        let counts = store.counts();
        counts.written.get("log").copied().unwrap_or(0) + dropped()
    };
    wait_for("all, written or counted", || (settled() == taken).then_some(()));
    println!("{taken} lines: {} dropped", dropped());
    drop(store);
    writing.join().expect("the writer");
}
