//! Who listens: processes that did before the probes were there, and whether one does at an address.

use std::{collections::HashSet, ffi::OsStr, net::SocketAddr};

use procfs::{
    net::TcpState,
    process::{FDTarget, Process, all_processes},
};

/// Process ids that hold a listening TCP socket in any network namespace.
///
/// A process that cannot be looked at, or that goes away meanwhile, is left out.
pub fn listening() -> Vec<u32> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    let processes: Vec<_> = processes.filter_map(Result::ok).collect();
    let mut namespaces = HashSet::new();
    let mut inodes = HashSet::new();
    for process in &processes {
        let Some(namespace) = network(process) else { continue };
        if !namespaces.insert(namespace) {
            continue;
        }
        let sockets = process.tcp().into_iter().chain(process.tcp6()).flatten();
        inodes.extend(sockets.filter(|socket| socket.state == TcpState::Listen).map(|socket| socket.inode));
    }
    processes
        .iter()
        .filter(|process| holds(process, &inodes))
        .map(|process| process.pid.cast_unsigned())
        .collect()
}

/// Whether a process listens at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerAt {
    /// It does, in this process's network namespace: whoever connects there reaches it, or one that shares its
    /// listener.
    Here,
    /// It does not, or is gone.
    Nowhere,
    /// Its addresses are those of another network namespace.
    OtherNamespace,
}

/// Whether a process listens at an address, by what /proc says.
pub fn listener_at(tgid: u32, address: SocketAddr) -> ListenerAt {
    let (Ok(process), Ok(own)) = (Process::new(tgid.cast_signed()), Process::myself()) else {
        return ListenerAt::Nowhere;
    };
    match (network(&process), network(&own)) {
        (Some(namespace), Some(own)) if namespace == own => {}
        (Some(_), Some(_)) => return ListenerAt::OtherNamespace,
        _ => return ListenerAt::Nowhere,
    }
    let sockets = process.tcp().into_iter().chain(process.tcp6()).flatten();
    let inodes = sockets
        .filter(|socket| socket.state == TcpState::Listen && socket.local_address.port() == address.port())
        .filter(|socket| {
            let ip = socket.local_address.ip().to_canonical();
            ip.is_unspecified() || ip == address.ip()
        })
        .map(|socket| socket.inode)
        .collect();
    if holds(&process, &inodes) { ListenerAt::Here } else { ListenerAt::Nowhere }
}

/// The network namespace of a process.
fn network(process: &Process) -> Option<u64> {
    Some(process.namespaces().ok()?.0.get(OsStr::new("net"))?.identifier)
}

/// Whether a process has one of these sockets.
fn holds(process: &Process, inodes: &HashSet<u64>) -> bool {
    process.fd().is_ok_and(|fds| {
        fds.filter_map(Result::ok)
            .any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_process_while_it_listens() {
        let own = std::process::id();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening().contains(&own));
        drop(listener);
    }

    #[test]
    fn finds_an_address_while_this_process_listens_there() {
        let own = std::process::id();
        for bound in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = std::net::TcpListener::bind(bound).unwrap();
            let port = listener.local_addr().unwrap().port();
            let at = |ip: [u8; 4]| listener_at(own, SocketAddr::from((ip, port)));
            assert_eq!(at([127, 0, 0, 1]), ListenerAt::Here);
            let elsewhere = if bound.starts_with('0') { ListenerAt::Here } else { ListenerAt::Nowhere };
            assert_eq!(at([10, 0, 0, 1]), elsewhere);
            assert_eq!(listener_at(1, SocketAddr::from(([127, 0, 0, 1], port))), ListenerAt::Nowhere);
            drop(listener);
            assert_eq!(at([127, 0, 0, 1]), ListenerAt::Nowhere);
        }
    }
}
