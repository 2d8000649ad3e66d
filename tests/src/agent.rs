//! The real program, started as an operator starts it, and what it leaves behind.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use observer::{capture::monotonic, exchange::RequestRecord};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::workload::folder;

/// Far longer than anything takes, unless it never comes.
pub const LIMIT: Duration = Duration::from_mins(1);

/// A line for a test's output: figures that are worth reading.
pub fn report(what: &str, took: Duration) {
    println!("{what}: {:.1} ms", took.as_secs_f64() * 1e3);
}

/// The program that is tested; `cargo xtask test` builds and names it.
pub fn program() -> PathBuf {
    let built = folder("../target/debug/observer");
    let program = std::env::var_os("OBSERVER_BIN").map_or(built, PathBuf::from);
    assert!(
        program.exists(),
        "no program at {}: run `cargo xtask test`, or set OBSERVER_BIN",
        program.display()
    );
    program
}

/// A call of the program, with nothing from this process's environment that would configure it.
pub fn observer<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    unconfigured(Command::new(program()), args)
}

/// Completes a command that ends in the program.
pub fn unconfigured<S: AsRef<OsStr>>(mut command: Command, args: impl IntoIterator<Item = S>) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OBSERVER_") {
            command.env_remove(name);
        }
    }
    // The folder of this machine's observer is none of a test's.
    command.env("OBSERVER_STORE_ENABLED", "false").args(args).stdin(Stdio::null());
    command
}

/// Waits until `look` finds something; panics with `what` after [`LIMIT`].
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = monotonic() + LIMIT.as_nanos() as u64;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(monotonic() < end, "did not come in {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// From the signal to the exit.
    pub took: Duration,
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub log: String,
    /// eBPF programs that it held before the signal.
    pub probes: BTreeSet<u32>,
}

impl Ended {
    /// Panics unless it ended well and within a second.
    pub fn assert_prompt(&self, what: &str) {
        report(what, self.took);
        assert!(self.status.success(), "{what}: {self:?}");
        assert!(self.took < Duration::from_secs(1), "{what}: {self:?}");
    }

    /// Waits until none of its eBPF programs is loaded, and says how long that took.
    pub fn wait_unloaded(&self) -> Duration {
        assert!(!self.probes.is_empty(), "it held no eBPF program");
        let begin = monotonic();
        wait_for("the end of the agent's eBPF programs", || self.probes.is_disjoint(&loaded()).then_some(()));
        Duration::from_nanos(monotonic() - begin)
    }
}

/// Ids of the eBPF programs that the kernel holds.
pub fn loaded() -> BTreeSet<u32> {
    aya::programs::loaded_programs().filter_map(Result::ok).map(|program| program.id()).collect()
}

/// Ids of the eBPF programs that a process holds: loaded by nobody else, so a crowded machine does not matter.
pub fn held_by(pid: u32) -> BTreeSet<u32> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    descriptors
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse::<u32>().ok()
        })
        .collect()
}

/// A process of the program that runs until it is told to end. Killed when it goes out of scope.
pub struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder for its log");
        let log = File::create(folder.path().join("stderr")).expect("its log");
        let child = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, folder }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory in KiB: now, and at most so far.
    pub fn resident(&self) -> [u64; 2] {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        ["VmRSS:", "VmHWM:"].map(|field| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).expect(field);
            line.trim_end_matches("kB").trim().parse().expect("a number")
        })
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).expect("its log")
    }

    /// Panics if it has ended.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.has_ended() {
            panic!("ended with {status}: {}", self.log());
        }
    }

    /// Its exit status, once it has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Sends a signal and waits for the end.
    pub fn end(mut self, signal: Signal) -> Ended {
        let probes = held_by(self.pid());
        let begin = monotonic();
        kill_process(Pid::from_child(&self.child), signal).expect("signal");
        let child = &mut self.child;
        let status = wait_for("the end of the program", || child.try_wait().expect("wait"));
        let took = Duration::from_nanos(monotonic() - begin);
        Ended { took, status, log: self.log(), probes }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running agent, or a replica of the cluster role.
pub struct Agent {
    /// Its process.
    pub running: Running,
    /// Where it serves.
    pub address: String,
}

impl Agent {
    /// Starts one on a free port, and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        Self::with(observer(["agent", "--listen", "127.0.0.1:0"].iter().chain(args)))
    }

    /// Starts one by a command that has it listen on a free port, and waits until it is ready.
    pub fn with(command: Command) -> Self {
        let mut running = Running::start(command);
        let address = wait_for("the address of the agent", || {
            running.assert_alive();
            let log = running.log();
            let (_, rest) = log.split_once("address=")?;
            let (address, _) = rest.split_once(|c: char| c.is_whitespace())?;
            Some(address.to_owned())
        });
        let mut agent = Self { running, address };
        wait_for("/readyz", || {
            agent.running.assert_alive();
            (agent.get("/readyz").0 == 200).then_some(())
        });
        agent
    }

    /// Status and body of an answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        // Who does not answer fails the test, and does not hold it up.
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT));
        let agent = agent.build().new_agent();
        let mut answer =
            agent.get(format!("http://{}{path}", self.address)).call().expect("the agent answers");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    }

    /// A scrape.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics(text)
    }

    /// Follows the requests that it sees from now on.
    pub fn follow(&self) -> Follower {
        self.follow_feed("requests")
    }

    /// Follows what it tells at `/api/v1/` under this name from now on.
    pub fn follow_feed(&self, name: &str) -> Follower {
        let answer =
            ureq::get(format!("http://{}/api/v1/{name}", self.address)).call().expect("the agent answers");
        let lines = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&lines);
        // Ends with the stream, and that with the agent.
        std::thread::spawn(move || {
            let mut reader = BufReader::new(answer.into_body().into_reader());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                // Empty ones are signs of life.
                if line != "\n" {
                    into.lock().expect("lines").push_str(&line);
                }
                line.clear();
            }
        });
        Follower(lines)
    }

    /// Ends it.
    pub fn end(self, signal: Signal) -> Ended {
        self.running.end(signal)
    }
}

/// What a stream of `/api/v1/` has said.
pub struct Follower(Arc<Mutex<String>>);

impl Follower {
    /// All lines.
    pub fn text(&self) -> String {
        self.0.lock().expect("lines").clone()
    }

    /// All records.
    pub fn records(&self) -> Vec<RequestRecord> {
        records(&self.text())
    }

    /// Waits for the record of a request id.
    pub fn wait(&self, request_id: &str) -> RequestRecord {
        wait_for(&format!("the record of {request_id}"), || {
            self.records().into_iter().find(|record| record.request_id.as_deref() == Some(request_id))
        })
    }
}

/// Records, one a line.
pub fn records(text: &str) -> Vec<RequestRecord> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A scrape in Prometheus' text format.
pub struct Metrics(pub String);

impl Metrics {
    /// Sum over the series of a name, whose values are whole numbers, that carry all these labels; `None` if there
    /// is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let whole = |value: String| value.parse::<u64>().expect("a whole number");
        self.values(name, labels).into_iter().map(whole).reduce(|a, b| a + b)
    }

    /// The value of the one series of a name that carries all these labels; `None` if there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let values = self.values(name, labels);
        assert!(values.len() < 2, "{name} {labels:?}: {values:?}");
        values.first().map(|value| value.parse().expect("a number"))
    }

    fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<String> {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        let lines = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (of, rest) = series.split_once('{').unwrap_or((series, ""));
            let rest = format!(",{}", rest.trim_end_matches('}'));
            let has = |label: &String| format!("{rest},").contains(&format!(",{label},"));
            (of == name && labels.iter().all(has)).then(|| value.to_owned())
        });
        lines.collect()
    }

    /// Panics unless Prometheus' own linter accepts it.
    pub fn assert_lint(&self) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics");
        fs::write(&path, &self.0).expect("metrics");
        let checked = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(File::open(&path).expect("metrics"))
            .output()
            .expect("promtool");
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && said.is_empty(), "{said}\n{}", self.0);
    }
}

/// Panics if one of these texts holds one of these secrets.
pub fn assert_without(secrets: &[&str], texts: &[(&str, &[u8])]) {
    for (name, text) in texts {
        for secret in secrets {
            let at = text.windows(secret.len()).position(|window| window == secret.as_bytes());
            assert!(at.is_none(), "{secret:?} is in {name} at byte {at:?}");
        }
    }
}

/// Whether a file holds a text.
pub fn holds(path: &Path, text: &str) -> bool {
    fs::read(path).expect("file").windows(text.len()).any(|window| window == text.as_bytes())
}
