//! `/v1/logs`: lines of logs that agents send, as OTLP over HTTP, to be kept here.
//!
//! What is answered with success waits to be written, and is there within a second. Where there is no room, the sender is
//! told to come again (OTLP: `503` with `Retry-After`). Events are not kept: agents answer for theirs.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::AppState;
use super::access::Sight;
use crate::export::otlp::received;
use crate::lines::{LONGEST, Redactor};
use crate::store::Store;
use crate::telemetry::ReceivedCounts;
use crate::timeline::Row;

/// Bytes of a message, as it comes and decompressed: more than batches of agents and collectors have.
const LARGEST: usize = 16 << 20;

/// Messages that are taken in at a time; others wait.
const AT_A_TIME: usize = 4;

/// How long a message may take to come.
const COMES: Duration = Duration::from_secs(10);

/// How long a message waits for room. Senders wait for longer.
const ROOM: Duration = Duration::from_secs(5);

/// Between looks for room.
const LOOK: Duration = Duration::from_millis(20);

/// Status and reason of a refusal.
type Refused = (StatusCode, String);

/// Takes lines in. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    store: Store,
    redactor: Arc<Redactor>,
    wall: fn() -> i64,
    counts: Arc<Counts>,
    turns: Arc<Semaphore>,
}

#[derive(Default)]
struct Counts {
    lines: AtomicU64,
    events: AtomicU64,
    no_room: AtomicU64,
    malformed: AtomicU64,
}

impl Intake {
    /// Into this store; senders redact, and what they missed is taken out here if that is wanted.
    pub fn new(store: Store, redacts: bool, wall: fn() -> i64) -> Self {
        Self {
            store,
            redactor: Arc::new(Redactor::new(redacts)),
            wall,
            counts: Arc::default(),
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// What was received.
    pub fn counts(&self) -> ReceivedCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { lines, events, no_room, malformed } = &*self.counts;
        ReceivedCounts {
            lines: of(lines),
            events: of(events),
            no_room: of(no_room),
            malformed: of(malformed),
        }
    }

    async fn take(&self, headers: &HeaderMap, body: Body) -> Result<(), Refused> {
        // An error would mean that the semaphore was closed, and nobody closes it.
        let _turn = Arc::clone(&self.turns).acquire_owned().await.ok();
        let message = read(headers, body).await.inspect_err(|_refused| add(&self.counts.malformed, 1))?;
        let intake = self.clone();
        let taken = tokio::task::spawn_blocking(move || intake.decoded(&message)).await;
        let (rows, events) = match taken {
            Ok(Ok(taken)) => taken,
            Ok(Err(why)) => {
                add(&self.counts.malformed, 1);
                return Err((StatusCode::BAD_REQUEST, why));
            }
            Err(error) => return Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
        };
        let count = rows.len() as u64;
        if timeout(ROOM, self.offer(rows)).await.is_err() {
            add(&self.counts.no_room, 1);
            let why = "the store has no room for more at once: send it again\n";
            return Err((StatusCode::SERVICE_UNAVAILABLE, why.to_owned()));
        }
        add(&self.counts.lines, count);
        add(&self.counts.events, events);
        Ok(())
    }

    /// Waits for room. Whoever stops to wait has handed nothing over.
    async fn offer(&self, mut rows: Vec<Row>) {
        while !rows.is_empty() {
            match self.store.try_lines(rows) {
                Ok(()) => return,
                Err(back) => rows = back,
            }
            sleep(LOOK).await;
        }
    }

    /// Lines, and how many events came beside.
    fn decoded(&self, message: &[u8]) -> Result<(Vec<Row>, u64), String> {
        let came = received(message)
            .map_err(|error| format!("this is no message of the logs service: {error}\n"))?;
        let now = (self.wall)();
        let rows = came.lines.into_iter().map(|row| self.kept(row, now));
        Ok((rows.collect(), came.events))
    }

    fn kept(&self, mut row: Row, now: i64) -> Row {
        if row.time <= 0 {
            row.time = now;
        }
        let cut = row.message.floor_char_boundary(LONGEST);
        let left_out = row.message.len() - cut;
        row.message.truncate(cut);
        row.left_out = row.left_out.saturating_add(u32::try_from(left_out).unwrap_or(u32::MAX));
        let redacted = self.redactor.redact(&row.message);
        if redacted.places > 0 {
            row.redacted = row.redacted.saturating_add(redacted.places);
            row.message = redacted.text.into_owned();
        }
        if row.id.is_empty() {
            row.id = digest(&row);
        }
        row
    }
}

/// Names a line whose sender has no name for it: the same line, sent again, is the same.
fn digest(row: &Row) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [&row.namespace, &row.pod, &row.container, &row.message] {
        digest.update(part.as_bytes());
        digest.update(&[0]);
    }
    digest.update(&row.time.to_be_bytes());
    let half = digest.finish().as_ref().first_chunk().copied().unwrap_or_default();
    format!("{:032x}", u128::from_be_bytes(half))
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

/// Takes a message in, from whoever sees everything.
pub(super) async fn logs(
    State(state): State<AppState>,
    Extension(sight): Extension<Sight>,
    request: Request,
) -> Response {
    let Some(intake) = state.sources.intake.clone() else {
        let why = "no lines are taken in here: set cluster.logs of the cluster role\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    if !matches!(sight, Sight::All) {
        let why = "lines are taken in from those who present the token of api.token_file, or a certificate\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let (head, body) = request.into_parts();
    match intake.take(&head.headers, body).await {
        // An empty message: all of it was taken (OTLP: full success).
        Ok(()) => ([(header::CONTENT_TYPE, PROTOBUF)], Body::empty()).into_response(),
        Err(refused @ (StatusCode::SERVICE_UNAVAILABLE, _)) => {
            ([(header::RETRY_AFTER, "5")], refused).into_response()
        }
        Err(refused) => refused.into_response(),
    }
}

const PROTOBUF: &str = "application/x-protobuf";

/// The message of a request, decompressed.
async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
    let is = |name, value: &str| {
        headers.get(name).is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    let unsupported = |why: &'static str| Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why.to_owned()));
    // A page in a browser may send other types without being asked whether it may.
    if !is(header::CONTENT_TYPE, PROTOBUF) {
        return unsupported("only application/x-protobuf is taken in: set the protocol to http/protobuf\n");
    }
    let is_gzip = is(header::CONTENT_ENCODING, "gzip");
    if !is_gzip && headers.contains_key(header::CONTENT_ENCODING) {
        return unsupported("only gzip, or no compression, is taken in\n");
    }
    let too_large = || {
        let why = format!("a message is larger than {LARGEST} bytes: send smaller batches\n");
        (StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    let came = match timeout(COMES, Limited::new(body, LARGEST).collect()).await {
        Ok(Ok(came)) => came.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) => return Err((StatusCode::BAD_REQUEST, format!("{error}\n"))),
        Err(_late) => {
            return Err((
                StatusCode::REQUEST_TIMEOUT,
                format!("the message did not come whole in {COMES:?}\n"),
            ));
        }
    };
    if !is_gzip {
        return Ok(came);
    }
    let mut plain = Vec::new();
    let most = LARGEST as u64 + 1;
    match GzDecoder::new(came.as_ref()).take(most).read_to_end(&mut plain) {
        Ok(_) if plain.len() > LARGEST => Err(too_large()),
        Ok(_) => Ok(plain.into()),
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("this is no gzip: {error}\n"))),
    }
}
