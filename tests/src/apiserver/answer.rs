//! One request and its answer: who, may it, what goes wrong, and then what was asked for.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    extract::State as Extracted,
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use serde_json::Value;

use super::{
    Shared, State,
    discovery::discovery,
    faults::Orders,
    forward, read, reviews,
    seen::{Request, Seen},
    shape::Shape,
    status::{self, Failure},
    watch::Watch,
    write::Write,
};

/// More than any object (etcd takes 1.5 MB).
const LARGEST_BODY: usize = 3 << 20;

/// Answers a request.
pub(super) async fn handle(
    Extracted(shared): Extracted<Arc<Shared>>,
    request: axum::extract::Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let (seen, orders) = shared.change(|state| state.register(&parts));
    tokio::time::sleep(orders.delay).await;
    if seen.request.subresource == "portforward" {
        let response = forward::answer(&shared, &seen, &mut parts);
        seen.answered(response.status().as_u16());
        return response;
    }
    let response = match to_bytes(body, LARGEST_BODY).await {
        Ok(body) => respond(&shared, &seen, &parts.headers, &body, orders),
        Err(why) => Failure::bad_request(&why.to_string()).response(),
    };
    seen.answered(response.status().as_u16());
    response
}

impl State {
    fn register(&mut self, parts: &Parts) -> (Arc<Seen>, Orders) {
        let mut request = Request::new(&parts.method, &parts.uri, &parts.headers);
        let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        self.access.user(token).unwrap_or_default().clone_into(&mut request.user);
        let orders = self.faults.orders(&request);
        let seen = Arc::new(Seen::new(request));
        self.seen.push(Arc::clone(&seen));
        (seen, orders)
    }
}

fn respond(
    shared: &Arc<Shared>,
    seen: &Arc<Seen>,
    headers: &HeaderMap,
    body: &[u8],
    orders: Orders,
) -> Response {
    let request = &seen.request;
    if let Some((code, retry_after)) = orders.code {
        let mut response = Failure::ordered(code).response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        return response;
    }
    if request.user.is_empty() {
        return Failure::unauthorized().response();
    }
    let mut state = shared.state();
    if !state.access.allows(&request.user, request) {
        return Failure::forbidden(request, &request.user).response();
    }
    let answered = if matches!(request.path.as_str(), "/healthz" | "/livez" | "/readyz") {
        return "ok".into_response();
    } else if let Some(kind) = reviews::kind(request) {
        review(&state, request, kind, body)
    } else if let Some(shape) = state.shape(request) {
        if request.verb == "watch" {
            match Watch::new(shared, &state, shape, seen, orders.gone_in_head) {
                Ok(watch) => return frames(watch),
                Err(failure) => Err(failure),
            }
        } else {
            perform(&mut state, shape, request, headers, body)
        }
    } else {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match discovery(&state.resources, request, accept.contains("as=APIGroupDiscoveryList")) {
            Some(found) => Ok((200, found)),
            None => return status::no_such_path(),
        }
    };
    drop(state);
    shared.tell();
    let (code, value) = answered.unwrap_or_else(|failure| (failure.code(), failure.0));
    let text = value.to_string();
    seen.sent(text.len());
    status::answer(code, text)
}

fn review(state: &State, request: &Request, kind: &str, body: &[u8]) -> Result<(u16, Value), Failure> {
    let review = serde_json::from_slice(body).map_err(|why| Failure::bad_request(&why.to_string()))?;
    Ok((201, reviews::answer(&state.access, state.reviewer.as_ref(), kind, &request.user, review)))
}

fn perform(
    state: &mut State,
    shape: Shape,
    request: &Request,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(u16, Value), Failure> {
    match request.verb.as_str() {
        "get" => read::get(state, shape, request).map(|found| (200, found)),
        "list" => read::list(state, shape, request).map(|found| (200, found)),
        _ => Write { request, headers, body }.perform(state, shape),
    }
}

fn frames(watch: Watch) -> Response {
    let frames = stream::unfold(watch, async |mut watch| watch.next().await.map(|frame| (frame, watch)));
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from_stream(frames))
        .into_response()
}
