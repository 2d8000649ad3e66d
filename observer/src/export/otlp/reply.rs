//! What a receiver's answer means (OTLP 1.10, "Failures" of OTLP/gRPC and OTLP/HTTP), and when to try again.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};
use prost::Message;
use tonic::Code;

/// Between the first failure and the next attempt; doubled each time.
const FIRST: Duration = Duration::from_secs(1);

/// The longest that is waited without being asked to.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest that a receiver may ask for.
const ASKED: Duration = Duration::from_mins(10);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It arrived, but for so many items; and what the receiver has to say about that.
    Arrived { rejected: u64, says: String },
    /// It may arrive if it is sent again; not before this time, if one is told.
    Again { after: Option<Duration>, why: String },
    /// It is too large.
    TooLarge,
    /// It makes no sense to send it again.
    Refused { why: String },
}

/// Of a status other than success, over HTTP. `now`: nanoseconds since 1970.
pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8], now: i64) -> Reply {
    let why = match Status::decode(body).map(|status| status.message) {
        Ok(message) if !message.is_empty() => format!("{status}: {}", shortened(&message)),
        _ => status.to_string(),
    };
    match status.as_u16() {
        429 | 502 | 503 | 504 => {
            let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            Reply::Again { after: after.and_then(|text| retry_after(text, now)), why }
        }
        413 => Reply::TooLarge,
        _ => Reply::Refused { why },
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: i64) -> Option<Duration> {
    let wait = if let Ok(seconds) = text.trim().parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let date: Timestamp = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
        let wait = date.as_nanosecond().saturating_sub(i128::from(now));
        Duration::from_nanos(u64::try_from(wait.max(0)).unwrap_or(u64::MAX))
    };
    Some(wait.min(ASKED))
}

/// `google.rpc.Status` (googleapis: `google/rpc/status.proto`), which answers carry over HTTP, too.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo` (googleapis: `google/rpc/error_details.proto`).
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Of a status other than success, over gRPC.
pub(super) fn of_grpc(status: &tonic::Status) -> Reply {
    if let Some(cause) = std::error::Error::source(status) {
        // Not the receiver's: it was not reached, or broke off.
        return Reply::Again { after: None, why: chain(cause) };
    }
    let why = format!("{:?}: {}", status.code(), shortened(status.message()));
    let after = retry_info(status.details());
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Reply::Again { after, why },
        // It recovers only if it says so.
        Code::ResourceExhausted if after.is_some() => Reply::Again { after, why },
        // A message beyond what the receiver takes (grpc: `MaxRecvMsgSize`), which has no code of its own.
        Code::ResourceExhausted if status.message().contains("larger than max") => Reply::TooLarge,
        _ => Reply::Refused { why },
    }
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let details = Status::decode(details).ok()?.details;
    let info = details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.delay.unwrap_or_default();
    let seconds = Duration::from_secs(u64::try_from(delay.seconds).unwrap_or(0));
    Some((seconds + Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or(0))).min(ASKED))
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a receiver says, as far as it is worth showing.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How long to wait after so many failures in a row; `random` spreads senders over half of it, so that they do not
/// come back all at once.
pub(super) fn backoff(failures: u32, after: Option<Duration>, random: u64) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let longest = doubled.min(LONGEST);
    let spread = longest.mul_f64(0.5 + (random % 1000) as f64 / 2000.0);
    spread.max(after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_772_366_400_000_000_000;

    fn http(status: u16, after: Option<&str>) -> Reply {
        let headers = after.map(|value| (header::RETRY_AFTER, value.parse().unwrap())).into_iter().collect();
        of_http(StatusCode::from_u16(status).unwrap(), &headers, b"", NOW)
    }

    /// The seconds that are to be waited at least; none if it is not sent again.
    fn waits(reply: &Reply) -> Option<u64> {
        match reply {
            Reply::Again { after, .. } => Some(after.map_or(0, |after| after.as_secs())),
            _ => None,
        }
    }

    #[test]
    fn over_http() {
        for status in [429, 502, 503, 504] {
            assert_eq!(waits(&http(status, None)), Some(0), "{status}");
        }
        assert_eq!(waits(&http(503, Some("7"))), Some(7));
        assert_eq!(waits(&http(503, Some("999999"))), Some(600), "not for ever");
        assert_eq!(waits(&http(429, Some("Sun, 01 Mar 2026 12:00:09 GMT"))), Some(9));
        assert_eq!(waits(&http(429, Some("Sun, 01 Mar 2026 11:00:00 GMT"))), Some(0));
        assert_eq!(waits(&http(429, Some("soon"))), Some(0));
        assert_eq!(http(413, None), Reply::TooLarge);
        for status in [301, 400, 401, 403, 404, 500, 501] {
            assert!(matches!(http(status, None), Reply::Refused { .. }), "{status}");
        }
        let status = Status { code: 3, message: "no\nsuch field".to_owned(), details: Vec::new() };
        let reply = of_http(StatusCode::BAD_REQUEST, &HeaderMap::new(), &status.encode_to_vec(), NOW);
        assert_eq!(reply, Reply::Refused { why: "400 Bad Request: no such field".to_owned() });
    }

    #[test]
    fn over_grpc() {
        let info = RetryInfo { delay: Some(Delay { seconds: 3, nanos: 500_000_000 }) };
        let any = Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        };
        let details = Status { code: 8, message: String::new(), details: vec![any] }.encode_to_vec();
        let plain = |code| of_grpc(&tonic::Status::new(code, ""));
        let asked = |code| of_grpc(&tonic::Status::with_details(code, "", details.clone().into()));
        for code in
            [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::DataLoss]
        {
            assert_eq!(waits(&plain(code)), Some(0), "{code:?}");
        }
        assert_eq!(waits(&asked(Code::Unavailable)), Some(3));
        assert_eq!(waits(&asked(Code::ResourceExhausted)), Some(3));
        for code in
            [Code::ResourceExhausted, Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented]
        {
            assert!(matches!(plain(code), Reply::Refused { .. }), "{code:?}");
        }
        let large =
            tonic::Status::new(Code::ResourceExhausted, "grpc: received message larger than max (5 vs. 4)");
        assert_eq!(of_grpc(&large), Reply::TooLarge);
    }

    #[test]
    fn waits_double_up_to_a_bound_and_are_as_long_as_asked_for() {
        let seconds: Vec<_> =
            (1..=8).map(|failures| backoff(failures, None, 999).as_secs_f64().round() as u64).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(backoff(1, None, 0), Duration::from_millis(500));
        assert_eq!(backoff(u32::MAX, None, 0), Duration::from_secs(15));
        assert_eq!(backoff(1, Some(Duration::from_secs(90)), 0), Duration::from_secs(90));
    }
}
