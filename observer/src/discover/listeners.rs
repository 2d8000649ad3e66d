//! Processes that listened before the probes were there.

use std::{collections::HashSet, ffi::OsStr};

use procfs::{
    net::TcpState,
    process::{FDTarget, all_processes},
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
        let Ok(all) = process.namespaces() else { continue };
        let Some(net) = all.0.get(OsStr::new("net")) else { continue };
        if !namespaces.insert(net.identifier) {
            continue;
        }
        let sockets = process.tcp().into_iter().chain(process.tcp6()).flatten();
        inodes.extend(sockets.filter(|socket| socket.state == TcpState::Listen).map(|socket| socket.inode));
    }
    processes
        .iter()
        .filter(|process| {
            process.fd().is_ok_and(|fds| {
                fds.filter_map(Result::ok)
                    .any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
            })
        })
        .map(|process| process.pid.cast_unsigned())
        .collect()
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
}
