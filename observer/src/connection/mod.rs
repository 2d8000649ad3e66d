//! One socket: who holds it, who is at its other end, and one byte stream per direction with explicit gaps.
//!
//! In: records of one connection. Out: [`Piece`]s of its streams, in order, each byte exactly once.

mod stream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use observer_ebpf::{Open, family};
pub use stream::{Piece, Stream};

/// A descriptor of a process that refers to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process.
    pub tgid: u32,
    /// Descriptor.
    pub fd: i32,
}

/// Descriptors of one socket that are remembered; more are counted as one, which only delays its end.
const HOLDERS: usize = 64;

/// One socket.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Socket cookie.
    pub id: u64,
    /// Process that read from it last.
    pub tgid: u32,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// This end.
    pub local: Option<SocketAddr>,
    /// When TCP became ESTABLISHED, monotonic nanoseconds.
    pub connected: Option<u64>,
    /// When `accept` returned it.
    pub accepted: Option<u64>,
    /// Bytes that the process read.
    pub received: Stream,
    /// Bytes that it wrote.
    pub sent: Stream,
    holders: Vec<Holder>,
}

impl Connection {
    /// A connection whose opening was seen.
    pub fn new(open: &Open) -> Self {
        let mut connection = Self::unseen(open.connection, open.header.tgid);
        connection.peer = address(open.family, &open.remote, open.remote_port);
        connection.local = address(open.family, &open.local, open.local_port);
        connection.connected = nonzero(open.connected);
        connection.accepted = nonzero(open.accepted);
        connection.hold(Holder { tgid: open.header.tgid, fd: open.fd });
        connection
    }

    /// A connection of which some record was seen, but not its opening.
    pub fn unseen(id: u64, tgid: u32) -> Self {
        Self {
            id,
            tgid,
            peer: None,
            local: None,
            connected: None,
            accepted: None,
            received: Stream::default(),
            sent: Stream::default(),
            holders: Vec::new(),
        }
    }

    /// Whether it was seen from its first byte: an accepted connection whose accept was seen.
    pub fn is_whole(&self) -> bool {
        self.accepted.is_some()
    }

    /// Another descriptor refers to the socket, perhaps of another process.
    pub fn hold(&mut self, holder: Holder) {
        self.tgid = holder.tgid;
        if !self.holders.contains(&holder) && self.holders.len() < HOLDERS {
            self.holders.push(holder);
        }
    }

    /// A descriptor was closed; true if it was the last one.
    pub fn release(&mut self, holder: Holder) -> bool {
        self.holders.retain(|held| *held != holder);
        self.holders.is_empty()
    }

    /// A process is gone, with all its descriptors; true if it held the last one.
    pub fn release_all(&mut self, tgid: u32) -> bool {
        let before = self.holders.len();
        self.holders.retain(|held| held.tgid != tgid);
        self.holders.is_empty() && (before > 0 || self.tgid == tgid)
    }
}

fn nonzero(time: u64) -> Option<u64> {
    (time != 0).then_some(time)
}

fn address(family: u16, bytes: &[u8; 16], port: u16) -> Option<SocketAddr> {
    let ip = match family {
        family::INET => {
            let [a, b, c, d, ..] = *bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        // A dual-stack listener names IPv4 peers by their mapped address.
        family::INET6 => Ipv6Addr::from(*bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_with_its_last_holder() {
        let mut connection = Connection::unseen(1, 10);
        let (parent, child) = (Holder { tgid: 10, fd: 4 }, Holder { tgid: 11, fd: 4 });
        connection.hold(parent);
        connection.hold(child);
        assert_eq!(connection.tgid, 11);
        assert!(!connection.release(parent));
        assert!(!connection.release_all(12));
        assert!(connection.release_all(11));
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mut bytes = [0; 16];
        bytes[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 7]);
        assert_eq!(address(family::INET6, &bytes, 80), "10.0.0.7:80".parse().ok());
        assert_eq!(address(1, &bytes, 80), None);
    }
}
