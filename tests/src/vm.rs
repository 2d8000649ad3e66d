//! What is tested on other kernels, inside a machine under emulation.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use observer::{
    exchange::Outcome,
    kernel::{Kernel, Options, ProbeMode},
};
use observer_ebpf::Counter;
use rustix::{
    mount::{MountFlags, mount},
    process::{Resource, Rlimit, setrlimit},
    system::uname,
    thread::{CapabilitySet, CapabilitySets, set_capabilities},
};

use crate::{
    hammer,
    live::Live,
    memory::MemoryCgroup,
    small_server::{GAP, WRITE},
    workload::Workload,
};

const EVENTS: u64 = 5;
const WRITES: u64 = 20_000;
const LIMIT: Duration = Duration::from_mins(1);

/// The object loads and attaches, one exchange is captured, and no write is missed under pressure. `own` is
/// the program that serves when it is called with `events` or `writes`.
///
/// # Errors
/// What does not hold.
pub fn check(own: &str) -> Result<()> {
    one_exchange(own).context("capture of one exchange")?;
    ends(own).context("how processes end")?;
    few_capabilities(own).context("with few capabilities")?;
    no_write_is_missed(own).context("writes beside bpf(2)")
}

fn request(port: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse()?))?;
    stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 29\r\n\r\n{\"model\":\"m\",\"stream\":  true}")?;
    Ok(stream)
}

fn serve(own: &str, mode: &str, count: u64) -> (Workload, String) {
    let mut command = Command::new(own);
    command.args([mode, &count.to_string()]);
    Workload::start(command)
}

fn one_exchange(own: &str) -> Result<()> {
    let live = Live::start_default();
    let (server, port) = serve(own, "events", EVENTS);
    let mut stream = request(&port)?;
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !all.ends_with(b"0\r\n\r\n") {
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "the response ended early");
        all.extend_from_slice(&buffer[..n]);
    }
    drop(stream);
    server.finish();
    live.wait_until("the exchange", LIMIT, |seen| seen.records.len() == 1);
    let report = live.stop();
    let record = &report.seen.records[0];
    ensure!(record.outcome == Some(Outcome::Ok), "{record:?}");
    ensure!(record.tokens.output == Some(EVENTS) && record.deliveries == EVENTS, "{record:?}");
    ensure!(record.partial.is_empty() && record.clocks.connected.is_some(), "{record:?}");
    ensure!(record.ttft.is_some_and(|ttft| ttft >= GAP.as_secs_f64()), "{record:?}");
    ensure!(report.counts.balanced(), "{:?}", report.counts);
    println!(
        "vm: captured 1 exchange, ttft {:.1} ms, socket wait {}",
        record.ttft.unwrap_or_default() * 1e3,
        if record.queue.socket.is_some() { "known" } else { "not known on this kernel" }
    );
    Ok(())
}

/// How a server ended is told for certain, although its parent asked at once.
fn ends(own: &str) -> Result<()> {
    fs::create_dir_all("/sys/fs/cgroup")?;
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), c"")?;
    let (cgroup, live) = (MemoryCgroup::new(16 << 20), Live::start_default());
    for (how, expected) in [
        ("code", "error"),
        ("crash", "crash"),
        ("thread", "error"),
        ("kill", "killed"),
        ("memory", "oom_kill"),
    ] {
        let mut command = Command::new(own);
        command.args(["end", how]).env("CGROUP", cgroup.path());
        let (server, port) = Workload::start(command);
        let pid = server.pid();
        live.wait_until("the server", LIMIT, |seen| seen.raw.get(&pid).is_some_and(|raw| raw.listen > 0));
        // Asks as soon as there is something to ask for.
        let parent = thread::spawn(move || server.wait());
        drop(TcpStream::connect(("127.0.0.1", port.parse()?))?);
        let _status = parent.join();
        live.wait_until("its end", LIMIT, |seen| seen.ends.contains_key(&pid));
        let end = live.look(|seen| seen.ends[&pid]);
        ensure!(end.reason() == expected, "{how}: {end:?}");
        ensure!(expected != "error" || end.code() == Some(3), "{how}: {end:?}");
    }
    let report = live.stop();
    ensure!(report.counts.balanced(), "{:?}", report.counts);
    println!("vm: ends by code, crash, kill and for memory told apart");
    Ok(())
}

/// What probes need at most: two capabilities from 5.8 on, which nobody is refused for as long as the kernel is as it
/// was written. Debian's and Ubuntu's ask for `CAP_SYS_ADMIN` when `perf_event_paranoid` is above 2, and before 5.11 maps
/// are charged against a limit that it takes `CAP_SYS_RESOURCE` to raise.
fn few_capabilities(own: &str) -> Result<()> {
    const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
    let enough = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let with = |set: CapabilitySet| {
        let mut command = Command::new(own);
        command.args(["attach", &set.bits().to_string()]);
        let (_, said) = Workload::start(command);
        said
    };
    let usual = fs::read_to_string(PARANOID)?;
    let as_usual = with(enough | CapabilitySet::SYS_RESOURCE);
    fs::write(PARANOID, "2")?;
    let (without_limit, limited) = (with(enough | CapabilitySet::SYS_RESOURCE), with(enough));
    fs::write(PARANOID, &usual)?;
    let everything = with(CapabilitySet::all());
    ensure!(everything.starts_with("attached"), "with all: {everything}");
    ensure!(without_limit == everything, "{without_limit}; with all: {everything}");
    let is_old = charges_maps(&uname().release().to_string_lossy());
    ensure!(is_old || limited == everything, "without CAP_SYS_RESOURCE: {limited}");
    println!(
        "vm: CAP_BPF and CAP_PERFMON{}: {without_limit}; at perf_event_paranoid={}: {as_usual}",
        if limited == everything { "" } else { " and CAP_SYS_RESOURCE" },
        usual.trim()
    );
    Ok(())
}

/// Whether a kernel of this release charges maps against `RLIMIT_MEMLOCK`.
fn charges_maps(release: &str) -> bool {
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(u32::MAX));
    (numbers.next(), numbers.next()) < (Some(5), Some(11))
}

/// Gives up all capabilities but these and what earlier probes left of limits, attaches the probes and says in one line what came of it.
pub fn attach_with(capabilities: u64) {
    // The limit before 5.16.
    let usual = Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) };
    setrlimit(Resource::Memlock, usual).expect("a lower limit");
    let set = CapabilitySet::from_bits_retain(capabilities) & CapabilitySet::all();
    let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).expect("capabilities to give up");
    match Kernel::load(&Options { ring_bytes: 1 << 20, arrival: true, ask_first: false }) {
        Ok(kernel) => {
            let attached = kernel.report().iter().filter(|probe| probe.mode == ProbeMode::Attached);
            println!("attached {} of {} probes", attached.count(), kernel.report().len());
        }
        Err(error) => println!("{}", error.to_string().replace('\n', " ")),
    }
}

fn no_write_is_missed(own: &str) -> Result<()> {
    let live = Live::start_default();
    let stop = Arc::new(AtomicBool::new(false));
    let hammers: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || hammer::look_up_on_cpu(0, &stop))
        })
        .collect();
    let (server, port) = serve(own, "writes", WRITES);
    let mut stream = request(&port)?;
    let mut received = 0;
    let mut buffer = [0; 16384];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        received += n as u64;
    }
    let pid = server.pid();
    server.finish();
    stop.store(true, Ordering::Relaxed);
    let look_ups: u64 = hammers.into_iter().map(|hammer| hammer.join().unwrap_or(0)).sum();
    let counts = || live.look(|seen| seen.raw.get(&pid).copied());
    // A standard library closes its sockets on drop, before the process ends.
    live.wait_until("the close", LIMIT, |seen| seen.raw.get(&pid).is_some_and(|raw| raw.close == 1));
    let raw = counts().context("records of the server")?;
    let report = live.stop();
    ensure!(received > WRITES * WRITE as u64, "the client received {received} bytes");
    // Bytes are counted call by call: a write that went unseen would be missing here.
    ensure!(raw.final_positions.1 == received, "{raw:?}, the client received {received}");
    ensure!(report.counts.get(Counter::Unpaired) == 0, "{:?}", report.counts);
    ensure!(report.counts.balanced(), "{:?}", report.counts);
    let missed: u64 = report.missed.iter().map(|(_, missed)| missed).sum();
    println!(
        "vm: {WRITES} writes, all seen, beside {look_ups} look-ups; {missed} runs of other probes skipped"
    );
    Ok(())
}
