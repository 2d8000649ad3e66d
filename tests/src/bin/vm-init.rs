//! The first and only program of a machine under emulation: it makes the machine usable, tests the kernel side
//! there, says `vm: ok` on the console and turns the machine off. `cargo xtask vm` boots it.
//!
//! `vm-init events N`, `vm-init writes N` and `vm-init end HOW` are the servers that the test observes; `vm-init attach N`
//! attaches the probes with the capabilities whose bits are set in N.

use std::ffi::CStr;
use std::fs;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use observer_tests::{small_server, vm};
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, bind, netlink, recv, send, socket};
use rustix::system::{RebootCommand, reboot, uname};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, count] = &arguments[..] {
        if mode == "attach" {
            return vm::attach_with(count.parse().expect("capabilities"));
        }
        if mode == "end" {
            return small_server::end(count).expect("somebody connects");
        }
        let count = count.parse().expect("a number of events or writes");
        let served = if mode == "events" { small_server::events(count) } else { small_server::writes(count) };
        return served.expect("serves until its client hangs up");
    }
    match prepare().and_then(|()| check()) {
        Ok(()) => println!("vm: ok"),
        Err(error) => println!("vm: failed: {error:#}"),
    }
    // The console is a serial line: what was written must have left before the power does.
    drop(std::io::stdout().flush());
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        println!("vm: cannot power off: {error}");
    }
}

/// File systems and the loopback interface.
fn prepare() -> Result<()> {
    const NONE: Option<&CStr> = None;
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("bpf", "/sys/fs/bpf"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(at).or_else(|error| if fs::metadata(at).is_ok() { Ok(()) } else { Err(error) })?;
        mount(kind, at, kind, MountFlags::empty(), NONE).with_context(|| format!("cannot mount {at}"))?;
    }
    loopback_up().context("cannot bring the loopback interface up")
}

/// Sets `IFF_UP` on interface 1 by an `RTM_NEWLINK` message (rtnetlink(7)); the kernel then gives it 127.0.0.1.
fn loopback_up() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST: u16 = 1;
    const NLM_F_ACK: u16 = 4;
    const NLMSG_ERROR: u16 = 2;
    const IFF_UP: u32 = 1;

    // NETLINK_ROUTE is 0, the default protocol.
    let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    bind(&netlink, &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut message = Vec::new();
    // struct nlmsghdr: length, type, flags, sequence, port.
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    // struct ifinfomsg: family, padding, type, index, flags, mask of the flags that change.
    message.extend([0; 4]);
    message.extend(1_i32.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    send(&netlink, &message, SendFlags::empty())?;

    // The answer: a header of the same shape, then an error number that is 0 for success.
    let mut answer = [0_u8; 256];
    let (got, _) = recv(&netlink, &mut answer[..], RecvFlags::empty())?;
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    anyhow::ensure!(got >= 20 && kind == Some(NLMSG_ERROR), "an answer that is none: {:?}", &answer[..got]);
    anyhow::ensure!(error == Some(0), "errno {:?}", error.map(i32::abs));
    Ok(())
}

/// What is tested on this kernel.
fn check() -> Result<()> {
    println!("vm: Linux {}", uname().release().to_string_lossy());
    let parameters = fs::read_to_string("/proc/cmdline")?;
    if parameters.contains("preempt=") {
        let mode = fs::read_to_string("/sys/kernel/debug/sched/preempt").context("no dynamic preemption")?;
        println!("vm: preemption {}", mode.trim());
    }
    vm::check("/init")
}
