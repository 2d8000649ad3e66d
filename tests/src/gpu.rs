//! A fake NVML beside its scenario, as a driver's installation would be.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use fake_nvml::{Device, Gpm, Instance, Process, Scenario};
use observer::{
    capture::{monotonic, wall},
    config::MetricsConfig,
    export::prometheus::{Beside, GpuTold, Scrape, exporter},
    gpu::{self, Board, Nvidia},
    gpus::{Owner, Round},
};
use tempfile::TempDir;

use crate::{
    agent::{Metrics, wait_for},
    workload::Workload,
};

/// The node's name.
pub const NODE: &str = "gpu-node";

/// A driver's folder.
pub struct Driver {
    folder: TempDir,
    /// What the library tells; [`Driver::tell`] after a change.
    pub scenario: Scenario,
}

/// Microseconds since 1970.
pub fn now() -> u64 {
    wall() / 1000
}

/// The library as it was built beside this test.
fn built() -> PathBuf {
    let own = std::env::current_exe().expect("this program");
    own.parent().expect("its folder").join("libfake_nvml.so")
}

impl Driver {
    /// With these devices, whose clock begins now.
    pub fn install(devices: Vec<Device>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let scenario = Scenario { driver: "570.86.15".into(), origin: now(), devices, ..Scenario::default() };
        let driver = Self { folder, scenario };
        driver.tell();
        fs::copy(built(), driver.library()).expect("the fake library, which cargo builds with the tests");
        driver
    }

    /// Its library.
    pub fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("libnvidia-ml.so.1{suffix}"))
    }

    /// Lets the library tell the scenario as it is now.
    pub fn tell(&self) {
        let new = self.beside(".new");
        fs::write(&new, serde_json::to_string(&self.scenario).expect("JSON")).expect("the scenario");
        fs::rename(new, self.beside(".json")).expect("the scenario");
    }

    /// Changes the scenario.
    pub fn change(&mut self, change: impl FnOnce(&mut Scenario)) {
        change(&mut self.scenario);
        self.tell();
    }

    /// Names of the functions that were called.
    pub fn called(&self) -> Vec<String> {
        let text = fs::read_to_string(self.beside(".calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The setting that names the library.
    pub fn setting(&self) -> String {
        format!("gpu.library={}", self.library().display())
    }
}

/// Two H100s. The first is one engine's; of the second one half is another's.
pub fn two_h100() -> Vec<Device> {
    let process = |pid, memory: u64, sm| Process { pid, memory: memory << 30, sm, mps: false };
    let gpm = Gpm { sm: 62.0, occupancy: 31.0, tensor: 20.0, dram: 55.0, nvlink: 100.0 };
    let whole = Device {
        uuid: "GPU-00000000-aaaa-bbbb-cccc-000000000000".into(),
        name: "NVIDIA H100 80GB HBM3".into(),
        minor: 0,
        power: vec![[0.0, 300.0]],
        utilization: vec![[0.0, 80.0]],
        memory_utilization: vec![[0.0, 40.0]],
        total: 80 << 30,
        reserved: 1 << 30,
        used: vec![[0.0, (40_u64 << 30) as f64]],
        throttle: vec![[0.0, 0.0]],
        gpm: Some(gpm),
        processes: vec![process(101, 30, 70), process(102, 10, 10)],
        ..Device::default()
    };
    let instance = |number: u32, used: u64, processes| Instance {
        uuid: format!("MIG-00000000-aaaa-bbbb-cccc-00000000000{number}"),
        gpu_instance: number,
        name: "3g.40gb".into(),
        slices: 3,
        total: 40 << 30,
        used: used << 30,
        processes,
        gpm: Some(Gpm { sm: 50.0, ..gpm }),
    };
    let split = Device {
        uuid: "GPU-00000000-aaaa-bbbb-cccc-111111111111".into(),
        minor: 1,
        power: vec![[0.0, 200.0]],
        used: vec![[0.0, (20_u64 << 30) as f64]],
        processes: Vec::new(),
        mig: vec![instance(1, 15, vec![process(103, 15, 0)]), instance(2, 5, Vec::new())],
        ..whole.clone()
    };
    vec![whole, split]
}

/// Whose a process is, for [`Reading`].
pub fn owner(pid: u32) -> Owner {
    Owner {
        pid,
        process: format!("python-{pid}"),
        names: ["ml".to_owned(), format!("pod-{pid}"), format!("server-{pid}")],
        ..Owner::default()
    }
}

/// The observer's reading of a driver, in this process.
pub struct Reading {
    board: Arc<Board>,
    /// Rounds for the thread that captures.
    pub rounds: std::sync::mpsc::Receiver<Round>,
    stop: Arc<AtomicBool>,
    scrape: Scrape,
}

impl Reading {
    /// Starts it for the library at this path. A process's namespace is `ml`, its pod and container are named by its id
    /// ([`owner`]).
    pub fn start(library: &Path) -> Self {
        Self::every(library, Duration::from_millis(200))
    }

    /// The same with rounds at this interval.
    pub fn every(library: &Path, interval: Duration) -> Self {
        let (board, rounds) = Board::new(interval, monotonic);
        let stop = Arc::new(AtomicBool::new(false));
        let mut nvidia = Nvidia { library: Some(library.to_owned()), interval, wall };
        let (to, until) = (Arc::clone(&board), Arc::clone(&stop));
        std::thread::spawn(move || {
            gpu::run(&mut nvidia, &to, &owner, &until);
        });
        let (_, scrape) = exporter(&MetricsConfig::default(), &[]).expect("metrics");
        Self { board, rounds, stop, scrape }
    }

    /// What a scrape tells.
    pub fn metrics(&self) -> Metrics {
        self.metrics_with(GpuTold::default())
    }

    /// The same with other parts than what was read.
    pub fn metrics_with(&self, told: GpuTold) -> Metrics {
        let gpus = GpuTold { node: NODE.into(), read: self.board.told(), ..told };
        Metrics(self.scrape.gather(monotonic(), &Beside { gpus, ..Beside::default() }).expect("text"))
    }

    /// Waits until a scrape tells of something.
    pub fn wait(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        wait_for(what, || {
            std::thread::sleep(Duration::from_millis(20));
            Some(self.metrics()).filter(&holds)
        })
    }

    /// Waits for two more rounds: the first may have begun before whatever was changed.
    pub fn wait_for_rounds(&self) -> Metrics {
        let rounds = |metrics: &Metrics| metrics.value("observer_gpu_rounds_total", &[]).unwrap_or(0.0);
        let before = rounds(&self.metrics());
        self.wait("two more rounds", |metrics| rounds(metrics) >= before + 2.0)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A process that does nothing, in place of one that computes.
pub fn idler() -> Workload {
    let mut command = Command::new("sh");
    command.args(["-c", "echo there; exec sleep 600"]);
    Workload::start(command).0
}

/// A cgroup as a container runtime would make it, which ends with the value once its processes did.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// That of a container with an id made of this number.
    pub fn container(number: u8) -> Self {
        Self::at(&format!("/docker/{:062x}{number:02x}", std::process::id()))
    }

    /// One of this path.
    pub fn at(path: &str) -> Self {
        // Of several hierarchies any will do: who reads /proc takes the path that tells most.
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/pids"];
        let root = roots.iter().map(Path::new).find(|root| root.join("cgroup.procs").exists());
        let folder = root.expect("a hierarchy of cgroups").join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder).expect("a cgroup");
        Self(folder)
    }

    /// Moves a process into it.
    pub fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("moved");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // And the pod's, once it is empty.
        for folder in self.0.ancestors().take(2) {
            let _others = fs::remove_dir(folder);
        }
    }
}
