//! `/api`: who may ask, and streams of what happens.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;

use super::listener::Peer;
use super::{AppState, Feed, STREAMS};

/// Lets only loopback peers through.
pub(super) async fn guard(
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(peer, request.headers()) {
        None => next.run(request).await,
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
    }
}

/// Why a request to `/api` is refused, if it is.
///
/// The name in `Host` counts too: without it, a web page could reach the API from a browser on this machine
/// by a name of its own that resolves to 127.0.0.1.
fn refusal(peer: SocketAddr, headers: &HeaderMap) -> Option<String> {
    if !peer.ip().to_canonical().is_loopback() {
        return Some(format!(
            "/api answers to this machine only, and {} is another: ask from the node itself, or forward the port \
             to it (kubectl port-forward, ssh -L)\n",
            peer.ip()
        ));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_local_name(host) {
        return None;
    }
    Some(
        "/api answers to the names localhost, 127.0.0.1 and [::1] only: use one of them in the URL\n"
            .to_owned(),
    )
}

fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Streams what a feed tells, one JSON record per line, from now on. A follower that was too slow gets
/// `{"lagged":N}` in place of the N records that it missed.
pub(super) fn follow(state: &AppState, feed: &Feed) -> Response {
    let Ok(permit) = Arc::clone(&state.streams).try_acquire_owned() else {
        let why = format!("{STREAMS} streams are open already: close one\n");
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    let open = (feed.follow(), state.stop.clone(), permit);
    let lines = stream::unfold(open, |(mut lines, mut stop, permit)| async move {
        let line = tokio::select! {
            // What was told before the end is told.
            biased;
            received = lines.recv() => match received {
                Ok(line) => line,
                Err(RecvError::Lagged(missed)) => Bytes::from(format!("{{\"lagged\":{missed}}}\n")),
                Err(RecvError::Closed) => return None,
            },
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        Some((Ok::<_, Infallible>(line), (lines, stop, permit)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_by_its_own_names() {
        let headers = |host: &str| HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        let refusal = |peer: &str, host: &str| refusal(peer.parse().unwrap(), &headers(host));
        for (peer, host) in [
            ("127.0.0.1:5", "127.0.0.1:9842"),
            ("127.8.0.1:5", "localhost:9842"),
            ("[::1]:5", "[::1]:9842"),
            ("[::ffff:127.0.0.1]:5", "LOCALHOST"),
        ] {
            assert_eq!(refusal(peer, host), None, "{peer} {host}");
        }
        let why = refusal("10.0.0.7:5", "localhost").unwrap();
        assert!(why.contains("10.0.0.7") && why.contains("port-forward"), "{why}");
        assert!(refusal("[2001:db8::1]:5", "localhost").is_some());
        for host in ["rebound.example:9842", "", "127.0.0.1.rebound.example", "10.0.0.1:9842"] {
            assert!(refusal("127.0.0.1:5", host).unwrap().contains("localhost"), "{host}");
        }
    }
}
