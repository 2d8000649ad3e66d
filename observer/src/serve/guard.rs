//! Who may ask `/api`, and `/metrics` where that is guarded.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::access::{self, Admission, Reviewer, Sight};
use super::listener::{Peer, Way};
use super::token::TokenFile;

/// Lets loopback peers through, others that present the token, and others whom the API server knows; those see what
/// they may.
pub(super) async fn guard(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let sight = match refusal(peer, request.headers(), &state.sources.token, state.has_tls) {
        None => Sight::All,
        Some(refused) => match presented(&state, peer, request.headers()) {
            None => return refuse(refused),
            Some((reviewer, token)) => match admission(access::admit(&reviewer, &token).await, refused) {
                Ok(sight) => sight,
                Err(refused) => return refuse(refused),
            },
        },
    };
    request.extensions_mut().insert(sight);
    next.run(request).await
}

/// Lets through to metrics whom [`guard`] lets through to everything, and whoever may read `/metrics` of the cluster.
pub(super) async fn guard_metrics(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(refused) = refusal(peer, request.headers(), &state.sources.token, state.has_tls) {
        let Some((reviewer, token)) = presented(&state, peer, request.headers()) else {
            return refuse(refused);
        };
        if let Err(refused) = admission(access::admit_to_metrics(&reviewer, &token).await, refused) {
            return refuse(refused);
        }
    }
    next.run(request).await
}

/// A token that the API server may know, where it is asked.
fn presented(state: &AppState, peer: Peer, headers: &HeaderMap) -> Option<(Arc<Reviewer>, String)> {
    let reviewer = state.sources.reviewer.clone().filter(|_| may_present(peer, state.has_tls))?;
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty()).then(|| (reviewer, token.to_owned()))
}

fn admission(
    admitted: Result<Admission, String>,
    refused: (StatusCode, String),
) -> Result<Sight, (StatusCode, String)> {
    match admitted {
        Ok(Admission::As(sight)) => Ok(sight),
        Ok(Admission::Nobody) => Err(refused),
        Ok(Admission::Forbidden) => Err((
            StatusCode::FORBIDDEN,
            "the owner of this token may not get /metrics: grant it\n".to_owned(),
        )),
        Err(why) => {
            tracing::warn!(why, "the API server does not tell whose a token is");
            let why = "the API server does not tell whose this token is: try again\n".to_owned();
            Err((StatusCode::SERVICE_UNAVAILABLE, why))
        }
    }
}

fn refuse((status, why): (StatusCode, String)) -> Response {
    if status == StatusCode::UNAUTHORIZED {
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
        return (status, challenge, why).into_response();
    }
    (status, why).into_response()
}

/// Why a request to `/api` is refused, if it is.
///
/// The name in `Host` counts too: without it, a web page could reach the API from a browser on this machine
/// by a name of its own that resolves to 127.0.0.1. The token it does not know.
fn refusal(
    peer: Peer,
    headers: &HeaderMap,
    token: &TokenFile,
    has_tls: bool,
) -> Option<(StatusCode, String)> {
    if peer.way == Way::Vouched {
        return None;
    }
    let may_present = may_present(peer, has_tls);
    let peer = peer.address;
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let is_here = peer.ip().to_canonical().is_loopback();
    if is_here && is_local_name(text(header::HOST)) {
        return None;
    }
    if may_present && token.admits(text(header::AUTHORIZATION)) {
        return None;
    }
    if is_here {
        let why = "/api answers to the names localhost, 127.0.0.1 and [::1] only, unless it is shown the token of \
                   api.token_file: use one of them in the URL\n";
        return Some((StatusCode::FORBIDDEN, why.to_owned()));
    }
    let peer = peer.ip();
    if !may_present {
        let why = format!(
            "/api answers to other machines, and {peer} is one, over TLS only: ask at the port of tls.listen\n"
        );
        return Some((StatusCode::FORBIDDEN, why));
    }
    if token.is_named() {
        let why = format!(
            "/api answers to other machines, and {peer} is one, if they present the token of api.token_file \
             (Authorization: Bearer …, or --token-file)\n"
        );
        return Some((StatusCode::UNAUTHORIZED, why));
    }
    let why = format!(
        "/api answers to this machine only, and {peer} is another: ask from the node itself, forward the port to it \
         (kubectl port-forward, ssh -L), or set api.token_file\n"
    );
    Some((StatusCode::FORBIDDEN, why))
}

/// Whether a token counts. Where TLS is spoken, one that came in the clear may be another's by now.
fn may_present(peer: Peer, has_tls: bool) -> bool {
    peer.way != Way::Plain || !has_tls || peer.address.ip().to_canonical().is_loopback()
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

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: [(&str, &str); 4] = [
        ("127.0.0.1:5", "127.0.0.1:9842"),
        ("127.8.0.1:5", "localhost:9842"),
        ("[::1]:5", "[::1]:9842"),
        ("[::ffff:127.0.0.1]:5", "LOCALHOST"),
    ];

    /// The status and the reason of a refusal.
    fn refused(peer: &str, host: &str, header: Option<&str>, token: &TokenFile) -> Option<(u16, String)> {
        refused_by((peer, Way::Plain), (host, header), token, false)
    }

    fn refused_by(
        (peer, way): (&str, Way),
        (host, header): (&str, Option<&str>),
        token: &TokenFile,
        has_tls: bool,
    ) -> Option<(u16, String)> {
        let peer = Peer { address: peer.parse().unwrap(), way };
        let mut headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        headers.extend(header.map(|value| (header::AUTHORIZATION, value.parse().unwrap())));
        refusal(peer, &headers, token, has_tls).map(|(status, why)| (status.as_u16(), why))
    }

    #[test]
    fn without_a_token_only_this_machine_by_its_own_names() {
        let none = TokenFile::default();
        for (peer, host) in HERE {
            assert_eq!(refused(peer, host, None, &none), None, "{peer} {host}");
        }
        for header in [None, Some("Bearer "), Some("Bearer x")] {
            let (status, why) = refused("10.0.0.7:5", "localhost", header, &none).unwrap();
            assert_eq!(status, 403);
            assert!(
                why.contains("10.0.0.7") && why.contains("port-forward") && why.contains("api.token_file"),
                "{why}"
            );
        }
        assert!(refused("[2001:db8::1]:5", "localhost", None, &none).is_some());
        for host in ["rebound.example:9842", "", "127.0.0.1.rebound.example", "10.0.0.1:9842"] {
            let (status, why) = refused("127.0.0.1:5", host, None, &none).unwrap();
            assert!(status == 403 && why.contains("localhost"), "{host}: {why}");
        }
    }

    #[test]
    fn with_a_token_every_combination() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = TokenFile::at(Some(path.clone()));
        let (good, bad) = (Some("Bearer right"), Some("Bearer wrong"));
        let status = |peer, host, header| refused(peer, host, header, &token).map(|(status, _)| status);
        for there in [false, true] {
            if there {
                std::fs::write(&path, "right\n").unwrap();
            }
            for (peer, host) in HERE {
                for header in [None, good, bad] {
                    assert_eq!(status(peer, host, header), None, "this machine needs none: {peer} {host}");
                }
            }
            let with = |refusal| if there { None } else { Some(refusal) };
            for host in ["10.0.0.1:9842", "observer-agent", "localhost"] {
                assert_eq!(status("10.0.0.7:5", host, None), Some(401));
                assert_eq!(status("10.0.0.7:5", host, bad), Some(401));
                assert_eq!(status("10.0.0.7:5", host, good), with(401), "{there} {host}");
            }
            assert_eq!(status("127.0.0.1:5", "rebound.example", bad), Some(403));
            assert_eq!(status("127.0.0.1:5", "rebound.example", good), with(403));
        }
        let (_, why) = refused("10.0.0.7:5", "x", bad, &token).unwrap();
        assert!(
            why.contains("Authorization: Bearer") && !why.contains("right") && !why.contains("wrong"),
            "{why}"
        );
    }
    #[test]
    fn where_tls_is_spoken_no_token_counts_in_the_clear() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "right").unwrap();
        let token = TokenFile::at(Some(file.path().to_owned()));
        let (good, bad, other, here) =
            (Some("Bearer right"), Some("Bearer wrong"), "10.0.0.7:5", "127.0.0.1:5");
        for (peer, way, header, expected) in [
            (other, Way::Plain, good, Some(403)),
            (other, Way::Plain, None, Some(403)),
            (other, Way::Encrypted, good, None),
            (other, Way::Encrypted, bad, Some(401)),
            (other, Way::Encrypted, None, Some(401)),
            (other, Way::Vouched, None, None),
            (here, Way::Plain, None, None),
        ] {
            let status =
                refused_by((peer, way), ("localhost", header), &token, true).map(|(status, _)| status);
            assert_eq!(status, expected, "{peer} {way:?} {header:?}");
        }
        let (_, why) = refused_by((other, Way::Plain), ("x", good), &token, true).unwrap();
        assert!(why.contains("tls.listen"), "{why}");
        let elsewhere = refused_by((here, Way::Plain), ("rebound.example", good), &token, true);
        assert_eq!(elsewhere, None, "nobody hears what does not leave the machine");
    }
}
