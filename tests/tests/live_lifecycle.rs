//! What is told of processes: that they listen, replace their program, end, and are killed for memory.

use std::{net::TcpStream, process::Command, time::Duration};

use observer_tests::{
    live::{Live, privileged},
    memory::MemoryCgroup,
    workload::Workload,
};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_process_listens_once_and_exits_once() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (server, port) = Workload::script("identity.py", &["echo"]);
    for _ in 0..3 {
        drop(TcpStream::connect(("127.0.0.1", port.parse().expect("port"))).expect("connect"));
    }
    let pid = server.pid();
    server.kill();
    live.wait_until("its exit", LIMIT, |seen| seen.raw.get(&pid).is_some_and(|raw| raw.exit > 0));
    let raw = live.look(|seen| seen.raw[&pid]);
    assert_eq!((raw.listen, raw.exec, raw.exit), (1, 0, 1), "{raw:?}");
    drop(live.stop());
}

#[test]
fn an_exec_of_a_watched_process_is_told() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let (mut server, port) = Workload::script("identity.py", &["cloexec"]);
    let stream = TcpStream::connect(("127.0.0.1", port.parse().expect("port"))).expect("connect");
    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert_eq!(server.line(), "done");
    let pid = server.pid();
    live.wait_until("its exec", LIMIT, |seen| seen.raw.get(&pid).is_some_and(|raw| raw.exec == 1));
    drop(live.stop());
}

#[test]
fn a_victim_of_the_out_of_memory_killer_is_named() {
    if !privileged() {
        return;
    }
    let live = Live::start_default();
    let cgroup = MemoryCgroup::new(32 << 20);
    let script = format!(
        "import os\nopen('{}/cgroup.procs', 'w').write(str(os.getpid()))\nprint(os.getpid(), flush=True)\n\
         hog = [bytearray(1 << 20) for _ in range(4096)]",
        cgroup.path().display()
    );
    let mut command = Command::new("python3");
    command.args(["-c", &script]);
    let (victim, pid) = Workload::start(command);
    let pid: u32 = pid.parse().expect("pid");
    live.wait_until("the kill", LIMIT, |seen| seen.raw.get(&pid).is_some_and(|raw| raw.oom == 1));
    victim.kill();
    drop(live.stop());
}
