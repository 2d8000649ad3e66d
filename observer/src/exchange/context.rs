//! What a conversation is told of its connection, and why it may not be decoded.

use std::net::SocketAddr;

/// What the connection knows and an exchange needs.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Socket cookie.
    pub connection: u64,
    /// Process that serves.
    pub tgid: u32,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// This end.
    pub local: Option<SocketAddr>,
    /// When TCP became ESTABLISHED.
    pub connected: Option<u64>,
    /// When `accept` returned.
    pub accepted: Option<u64>,
    /// The last moment that is known on both clocks: monotonic, realtime.
    pub clock: Option<(u64, u64)>,
    /// Nanoseconds for which any stream may be silent and not stall.
    pub stalls_after: u64,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server closed its last descriptor.
    Closed,
    /// The serving process is gone.
    Exited,
    /// It is not observed any more; nothing is known of its end.
    Dropped,
}

/// Why bytes of a connection are not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Undecoded {
    /// TLS, outside any library that is observed.
    Tls,
    /// HTTP/2.
    Http2,
    /// Upgraded to another protocol.
    Upgraded,
    /// No protocol that is known here.
    Other,
}

impl Undecoded {
    /// The word used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Upgraded => "upgraded",
            Self::Other => "other",
        }
    }
}
