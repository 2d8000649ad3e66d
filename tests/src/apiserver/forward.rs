//! `pods/portforward` over a WebSocket, as the kubelet behind a server answers it (kubernetes:
//! kubelet/pkg/cri/streaming/portforward/websocket.go): for each port a channel for data and one for an error; the first
//! frame of each bears the port.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::Response,
};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, handshake::derive_accept_key, protocol::Role},
};

use super::{ApiServer, Shared, seen::Seen, status::Failure};

const PROTOCOL: &str = "v4.channel.k8s.io";

/// Where the ports of pods are: a stand-in for their loopback.
pub(super) type Forwards = HashMap<(String, String), SocketAddr>;

impl ApiServer {
    /// Forwards whatever port of a pod to this address.
    pub fn forward(&self, namespace: &str, pod: &str, address: SocketAddr) {
        self.shared.change(|state| {
            state.forwards.insert((namespace.to_owned(), pod.to_owned()), address);
        });
    }
}

/// Answers a request for the subresource.
pub(super) fn answer(shared: &Arc<Shared>, seen: &Seen, parts: &mut Parts) -> Response {
    let request = &seen.request;
    if request.user.is_empty() {
        return Failure::unauthorized().response();
    }
    let state = shared.state();
    if !state.access.allows(&request.user, request) {
        return Failure::forbidden(request, &request.user).response();
    }
    let key = (request.namespace.clone(), request.name.clone());
    let Some(to) = state.forwards.get(&key).copied() else {
        return Failure::bad_request(&format!("pod {} does not run", request.name)).response();
    };
    let port = request.parameter("ports").parse::<u16>().ok();
    let accepted = websocket_key(&parts.headers).map(|key| derive_accept_key(key.as_bytes()));
    let (Some(port), Some(accepted), Some(upgrade)) =
        (port, accepted, parts.extensions.remove::<OnUpgrade>())
    else {
        return Failure::bad_request("no WebSocket, or not one port").response();
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            // The client may leave in the middle of anything.
            let _left = serve(socket, port, to).await;
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accepted)
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Body::empty())
        .expect("a response")
}

fn websocket_key(headers: &HeaderMap) -> Option<&str> {
    let protocols = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let speaks = protocols.split(',').any(|protocol| protocol.trim() == PROTOCOL);
    speaks.then(|| headers.get(header::SEC_WEBSOCKET_KEY)?.to_str().ok()).flatten()
}

fn frame(channel: u8, data: &[u8]) -> Message {
    Message::binary([&[channel], data].concat())
}

async fn serve(
    mut socket: WebSocketStream<TokioIo<Upgraded>>,
    port: u16,
    to: SocketAddr,
) -> Result<(), Error> {
    for channel in [0, 1] {
        socket.send(frame(channel, &port.to_le_bytes())).await?;
    }
    let mut stream = match TcpStream::connect(to).await {
        Ok(stream) => stream,
        Err(error) => {
            let said = format!("error forwarding port {port} to pod: {error}");
            socket.send(frame(1, said.as_bytes())).await?;
            return socket.close(None).await;
        }
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(data))) if data.first() == Some(&0) => stream.write_all(&data[1..]).await?,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => {}
            },
            read = stream.read(&mut buffer) => match read? {
                0 => return socket.close(None).await,
                read => socket.send(frame(0, &buffer[..read])).await?,
            },
        }
    }
}
