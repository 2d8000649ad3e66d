//! `/api`: questions, and their answers as lines of JSON.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query as Pairs, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Sight;
use super::{AppState, Feed, HEARTBEAT, Lines, Question, STREAMS};
use crate::recent::{Asked, Query};

/// What is asked for, as names and values.
type Parameters = Result<Pairs<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>;

/// Whoever answers about one thing: lines of JSON and then a trailer, or what comes from now on. A follower that was too
/// slow gets `{"lagged":N}` in place of the N lines that it missed.
pub(super) fn about(what: Asked) -> MethodRouter<AppState> {
    get(async move |State(state), Extension(sight), raw: RawQuery, pairs: Parameters| {
        asked(what, state, sight, raw, pairs).await
    })
}

/// Events, and what is asked for beside them.
pub(super) async fn events(
    State(state): State<AppState>,
    Extension(sight): Extension<Sight>,
    raw: RawQuery,
    pairs: Parameters,
) -> Response {
    let is_bare = raw.0.as_deref().unwrap_or_default().is_empty();
    match state.sources.events.clone().filter(|_| is_bare) {
        Some(feed) => follow(&state, &feed, sight),
        None => asked(Asked::Events, state, sight, raw, pairs).await,
    }
}

async fn asked(what: Asked, state: AppState, sight: Sight, raw: RawQuery, pairs: Parameters) -> Response {
    let question = match question(what, raw, pairs) {
        Ok(question) => question,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let permit = if question.query.follow {
        match place(&state) {
            None => return full(),
            permit => permit,
        }
    } else {
        turn(&state.questions).await
    };
    let lines = state.sources.api.answer(what, question).await;
    answer(&state, sight.of(lines), permit)
}

/// Streams what a feed tells, one JSON record per line, from now on. A follower that was too slow gets
/// `{"lagged":N}` in place of the N records that it missed.
pub(super) fn follow(state: &AppState, feed: &Feed, sight: Sight) -> Response {
    let Some(permit) = place(state) else { return full() };
    let lines = stream::unfold(feed.follow(), async |mut lines| match lines.recv().await {
        Ok(line) => Some((line, lines)),
        Err(RecvError::Lagged(missed)) => Some((Bytes::from(format!("{{\"lagged\":{missed}}}\n")), lines)),
        Err(RecvError::Closed) => None,
    });
    answer(state, sight.of(lines.boxed()), Some(permit))
}

/// A place among the streams, if there is one.
fn place(state: &AppState) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&state.streams).try_acquire_owned().ok()
}

fn full() -> Response {
    let why = format!("{STREAMS} streams are open already: close one\n");
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

fn question(asked: Asked, RawQuery(raw): RawQuery, pairs: Parameters) -> Result<Question, String> {
    let Pairs(pairs) = pairs.map_err(|rejection| {
        format!("{rejection}; write parameters as name=value, with & between, and %XX for other characters\n")
    })?;
    let query = Query::parse(asked, &pairs).map_err(|bad| format!("{bad}\n"))?;
    Ok(Question { query, text: raw.unwrap_or_default() })
}

/// Waits until few enough questions are being answered. Those who wait are bounded as connections are.
async fn turn(questions: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    // An error would mean that the semaphore was closed, and nobody closes it.
    Arc::clone(questions).acquire_owned().await.ok()
}

/// Lines as they come, and empty ones while none does: the other end can tell silence from death.
fn answer(state: &AppState, lines: Lines, permit: Option<OwnedSemaphorePermit>) -> Response {
    let open = (lines, state.stop.clone(), permit);
    let lines = stream::unfold(open, |(mut lines, mut stop, permit)| async move {
        let line = tokio::select! {
            // What was told before the end is told.
            biased;
            line = lines.next() => line?,
            () = tokio::time::sleep(HEARTBEAT) => Bytes::from_static(b"\n"),
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        Some((Ok::<_, Infallible>(line), (lines, stop, permit)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
