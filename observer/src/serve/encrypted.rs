//! Connections over TLS: handshakes go on beside each other, so that one that takes long holds up no other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tracing::debug;

use super::listener::{Connection, Limited, Peer, Way};
use crate::tls::HANDSHAKE;

/// Connections that are encrypted and not served yet. As many again may be in a handshake as [`Limited`] lets in.
const WAITING: usize = 16;

/// A connection, and whether its peer showed who it is.
type Shaken = (TlsStream<Connection>, Shown);

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    address: SocketAddr,
    way: Way,
}

/// A listener whose connections are encrypted.
pub(super) struct Encrypted {
    shaken: Receiver<Shaken>,
    address: SocketAddr,
    /// Ends with it.
    _accepting: JoinSet<()>,
}

impl Encrypted {
    /// Shows who this is by these settings.
    pub(super) fn new(listener: Limited, config: Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, shaken) = channel(WAITING);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, TlsAcceptor::from(config), sender));
        Ok(Self { shaken, address, _accepting: accepting })
    }
}

async fn accept(mut listener: Limited, acceptor: TlsAcceptor, shaken: Sender<Shaken>) {
    let mut handshakes = JoinSet::new();
    while !shaken.is_closed() {
        let (stream, address) = listener.accept().await;
        let (acceptor, shaken) = (acceptor.clone(), shaken.clone());
        handshakes.spawn(async move {
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    // What it showed has been verified: others are not let in with it.
                    let is_vouched =
                        stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
                    let way = if is_vouched { Way::Vouched } else { Way::Encrypted };
                    // Nobody is left to serve it if there is no receiver.
                    let _ended = shaken.send((stream, Shown { address, way })).await;
                }
                Ok(Err(error)) => debug!(%address, %error, "no TLS with this peer"),
                Err(_late) => debug!(%address, "no TLS with this peer in time"),
            }
        });
        while handshakes.try_join_next().is_some() {}
    }
}

impl Listener for Encrypted {
    type Io = TlsStream<Connection>;
    type Addr = Shown;

    async fn accept(&mut self) -> (Self::Io, Shown) {
        match self.shaken.recv().await {
            Some(shaken) => shaken,
            // The task that accepts never ends by itself.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Shown> {
        Ok(Shown { address: self.address, way: Way::Encrypted })
    }
}

impl Connected<IncomingStream<'_, Encrypted>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Encrypted>) -> Self {
        let Shown { address, way } = *stream.remote_addr();
        Self { address, way }
    }
}
