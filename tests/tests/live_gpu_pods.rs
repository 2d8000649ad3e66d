//! Whose GPUs are: an engine of several processes beside its neighbours, in pods of a node, through the process table, the
//! fake API server and the fake kubelet. GPUs are the fake NVML's.

use std::{process::Command, thread::JoinHandle, time::Duration};

use fake_nvml::{Device, Instance, Process};
use observer::exchange::{RequestRecord, UsedBy};
use observer_tests::{
    agent::{Agent, Follower, wait_for},
    client::{Client, chat},
    gpu::{Cgroup, Driver, idler, two_h100},
    kubelet,
    live::privileged,
    node::{Cluster, Place},
    workload::{Workload, folder, quiet},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const GIB: f64 = 1_073_741_824.0;

fn server() -> (Workload, String) {
    Workload::script("openai_server.py", &["--events", "6", "--gap", "0.02"])
}

/// A pod of one container `server` whose processes are started here.
struct Pod {
    place: Place,
    cgroup: Cgroup,
}

impl Pod {
    fn start(cluster: &Cluster, number: u8, name: &str, labels: &Value) -> Self {
        let place = Place::new(number);
        let mut pod = place.pod(name, &json!({}));
        pod["metadata"]["labels"] = labels.clone();
        cluster.api.put(pod);
        let cgroup = Cgroup::at(&place.cgroupfs());
        Self { place, cgroup }
    }

    fn add(&self, workload: &Workload) -> u32 {
        self.cgroup.add(workload.pid());
        workload.pid()
    }

    fn idler(&self) -> Workload {
        let workload = idler();
        self.add(&workload);
        workload
    }
}

fn process(workload: &Workload, gib: u64, sm: u32) -> Process {
    Process { pid: workload.pid(), memory: gib << 30, sm, mps: false }
}

/// A whole GPU of this number with these processes.
fn gpu(number: u32, processes: Vec<Process>) -> Device {
    let whole = two_h100().swap_remove(0);
    Device { uuid: format!("GPU-00000000-aaaa-bbbb-cccc-{number:012}"), minor: number, processes, ..whole }
}

/// What a request used: devices by number, instances, and how that is known.
fn uses(driver: &Driver, record: &RequestRecord) -> Vec<(usize, Option<String>, UsedBy)> {
    let number = |uuid: &str| driver.scenario.devices.iter().position(|device| device.uuid == uuid);
    record
        .gpu
        .iter()
        .map(|one| (number(&one.uuid).expect("a device"), one.instance.clone(), one.by))
        .collect()
}

/// The record of a request that has GPUs. Whose a process is is known, and so observed, within a second or two.
fn served(follower: &Follower, port: &str, name: &str) -> RequestRecord {
    for attempt in 0..20 {
        let id = format!("{name}-{attempt}");
        Client::connect(port).stream(&id, &chat("m", true, 6));
        for _ in 0..40 {
            let mut records = follower.records().into_iter();
            match records.find(|record| record.request_id.as_deref() == Some(&id)) {
                Some(record) if record.gpu.is_empty() => break,
                Some(record) => return record,
                None => quiet(Duration::from_millis(100)),
            }
        }
    }
    panic!("no request of {name} has a GPU");
}

/// The kubelet's answers, as long as the value is there.
struct Kubelet {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Kubelet {
    fn start(socket: std::path::PathBuf, pod: &'static str, id: String) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                kubelet::serve(&socket, &[(pod, "nvidia.com/gpu", &[&id])]);
                let _told = stopped.await;
            });
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.send(()).expect("it waits for that");
        self.thread.join().expect("it ends");
    }
}

#[test]
fn an_engine_of_four_processes_beside_three_neighbours() {
    if !privileged() {
        return;
    }
    let cluster = Cluster::start();
    let (engine, first, second) = (
        Pod::start(&cluster, 1, "engine", &json!({})),
        Pod::start(&cluster, 2, "first", &json!({})),
        Pod::start(&cluster, 3, "second", &json!({})),
    );
    // The API server has no context on a GPU. Its engine core and one worker share a GPU with two neighbours by time, the
    // other worker has half of one, whose other half is a third neighbour's.
    let (api, port) = server();
    engine.add(&api);
    let (core, worker_0, worker_1) = (engine.idler(), engine.idler(), engine.idler());
    let (beside_0, beside_1, beside_2) = (first.idler(), second.idler(), second.idler());
    let mut devices = two_h100();
    devices[0].processes = vec![
        process(&core, 2, 5),
        process(&worker_0, 20, 55),
        process(&beside_0, 8, 25),
        process(&beside_1, 9, 10),
    ];
    let instance = |at: usize, workload: &Workload, gib| Instance {
        processes: vec![process(workload, gib, 0)],
        used: gib << 30,
        ..devices[1].mig[at].clone()
    };
    devices[1].mig = vec![instance(0, &worker_1, 15), instance(1, &beside_2, 6)];
    let driver = Driver::install(devices);
    let agent = cluster.agent(&[&driver.setting()]);
    let follower = agent.follow();
    let pids = [&api, &core, &worker_0, &worker_1, &beside_0, &beside_1, &beside_2].map(Workload::pid);
    assert!((1..7).all(|at| !pids[..at].contains(&pids[at])), "{pids:?}");

    let record = served(&follower, &port, "engine");
    assert_eq!((record.pod.as_str(), record.pid), ("engine", api.pid()));
    let half = driver.scenario.devices[1].mig[0].uuid.clone();
    let expected = [(0, None, UsedBy::Container), (1, Some(half), UsedBy::Container)];
    assert_eq!(uses(&driver, &record), expected, "{record:?}");

    let of = |name: &str, pod: &str, workload: &Workload| {
        let pid = workload.pid().to_string();
        let labels = [("namespace", "ml"), ("pod", pod), ("container", "server"), ("pid", pid.as_str())];
        agent.metrics().value(name, &labels)
    };
    let metrics = wait_for("names of all pods", || {
        of("llm_gpu_process_memory_bytes", "second", &beside_2).map(|_| agent.metrics())
    });
    metrics.assert_lint();
    for (pod, workload, gib, share) in [
        ("engine", &core, 2.0, Some(0.05)),
        ("engine", &worker_0, 20.0, Some(0.55)),
        ("engine", &worker_1, 15.0, None),
        ("first", &beside_0, 8.0, Some(0.25)),
        ("second", &beside_1, 9.0, Some(0.1)),
        ("second", &beside_2, 6.0, None),
    ] {
        assert_eq!(of("llm_gpu_process_memory_bytes", pod, workload), Some(gib * GIB), "{pod}");
        assert_eq!(of("llm_gpu_process_utilization_ratio", pod, workload), share, "{pod}");
    }
    let engine_alone: u64 = metrics.sum("llm_gpu_process_memory_bytes", &[("pod", "engine")]).expect("bytes");
    assert_eq!(engine_alone, 37 << 30);
    assert_eq!(metrics.sum("llm_gpu_allocation_info", &[("source", "nvml")]), Some(5), "{}", metrics.0);
    assert_eq!(of("llm_gpu_process_memory_bytes", "engine", &api), None, "it has no context");
    agent.end(Signal::INT).assert_prompt("SIGINT with seven processes");
}

/// A process that nobody waits for; it ends with the value.
struct Orphan(u32);

impl Drop for Orphan {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.cast_signed()).expect("a pid");
        let _gone = kill_process(pid, Signal::KILL);
    }
}

/// A server outside of containers whose child, in a container of its own, has the GPU; and its port.
fn parent(cgroup: &Cgroup) -> (Workload, Orphan, String) {
    let script = folder("python").join("openai_server.py");
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 600 & echo $!; exec python3 -u \"$0\" --events 6 --gap 0.02"]).arg(script);
    let (mut workload, child) = Workload::start(command);
    let port = workload.line();
    let child = Orphan(child.parse().expect("a pid"));
    cgroup.add(child.0);
    (workload, child, port)
}

#[test]
fn gpus_are_found_by_container_then_tree_then_pod_then_group_then_allocation() {
    if !privileged() {
        return;
    }
    let cluster = Cluster::start();
    let alone = Pod::start(&cluster, 1, "alone", &json!({}));
    // Two containers of one pod.
    let pair = Pod::start(&cluster, 2, "pair", &json!({}));
    let sidecar = Cgroup::at(&pair.place.cgroupfs().replace(&pair.place.id, &"f".repeat(64)));
    let group = |index: &str| json!({"leaderworkerset.sigs.k8s.io/name": "set", "leaderworkerset.sigs.k8s.io/group-index": index});
    let leader = Pod::start(&cluster, 3, "leader", &group("0"));
    let worker = Pod::start(&cluster, 4, "worker", &group("0"));
    let stranger = Pod::start(&cluster, 5, "stranger", &group("1"));
    let idle = Pod::start(&cluster, 6, "idle", &json!({}));
    let elsewhere = Cgroup::container(7);

    let [(api_0, port_0), (api_2, port_2), (api_3, port_3), (api_5, port_5)] = [(); 4].map(|()| server());
    alone.add(&api_0);
    pair.add(&api_2);
    leader.add(&api_3);
    idle.add(&api_5);
    let (tree, child, port_1) = parent(&elsewhere);
    let (core, beside, of_group, of_other) = (alone.idler(), idler(), worker.idler(), stranger.idler());
    sidecar.add(beside.pid());
    let driver = Driver::install(vec![
        gpu(0, vec![process(&core, 1, 1)]),
        gpu(1, vec![Process { pid: child.0, memory: 1 << 30, sm: 1, mps: false }]),
        gpu(2, vec![process(&beside, 1, 1)]),
        gpu(3, vec![process(&of_group, 1, 1)]),
        gpu(4, vec![process(&of_other, 1, 1)]),
        gpu(5, Vec::new()),
    ]);
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("kubelet.sock");
    let kubelet = Kubelet::start(socket.clone(), "idle", driver.scenario.devices[5].uuid.clone());
    let pod_resources = format!("gpu.pod_resources={}", socket.display());
    let agent: Agent = cluster.agent(&[&driver.setting(), &pod_resources]);
    let follower = agent.follow();
    for (port, name, pid, gpu, by, word) in [
        (&port_0, "alone", api_0.pid(), 0, UsedBy::Container, "container"),
        (&port_1, "tree", tree.pid(), 1, UsedBy::ProcessTree, "process_tree"),
        (&port_2, "pair", api_2.pid(), 2, UsedBy::Pod, "pod"),
        (&port_3, "leader", api_3.pid(), 3, UsedBy::PodGroup, "pod_group"),
        (&port_5, "idle", api_5.pid(), 5, UsedBy::PodResources, "pod_resources"),
    ] {
        let record = served(&follower, port, name);
        println!("{name}: {:?}", record.gpu);
        assert_eq!(record.pid, pid, "{name}");
        assert_eq!(uses(&driver, &record), [(gpu, None, by)], "{name}: {record:?}");
        let json = serde_json::to_value(&record).expect("JSON");
        assert_eq!(json["gpu"][0]["by"], word);
        let power = record.gpu[0].whole.and_then(|whole| whole.power).expect("power");
        assert!((power.mean - 300.0).abs() < 1e-6, "{name}: {power:?}");
    }
    // Of those whose processes are seen the kubelet says nothing: that is a disagreement for each container with a pod.
    let disagreements = agent.metrics().value("observer_gpu_allocation_disagreements", &[]);
    assert_eq!(disagreements, Some(4.0));
    agent.end(Signal::INT).assert_prompt("SIGINT with a kubelet");
    kubelet.end();
}
