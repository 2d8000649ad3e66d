//! One question over one connection, and its answer line by line.

use std::io;
use std::time::Duration;

use axum::http::{Request, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::serve::{HEARTBEAT, Token};

/// Bytes of a line; a record is far shorter, the longest message with its escapes is not.
const LONGEST: usize = 2 << 20;

/// How long whoever answers may say nothing: it sends the end of a line every so often to show that it is there.
const SILENCE: Duration = HEARTBEAT.saturating_mul(4);

/// Bytes of what a refusal says that are read.
const SAID: usize = 500;

/// A connection to whoever is asked.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Name and port of whoever is asked, for the header `Host`.
    pub host: &'a str,
    /// Path and parameters, such as `/api/v1/top?since=1m`.
    pub path: &'a str,
    /// What is presented, if anything is.
    pub token: Option<&'a Token>,
}

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The name, the path or the token is none.
    #[error("cannot ask: {0}")]
    Nonsense(#[from] axum::http::Error),
    /// The connection broke, or what came over it is not HTTP.
    #[error("{}", innermost(.0))]
    Broken(#[from] hyper::Error),
    /// A status other than 200.
    #[error("status {status}: {said}")]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of what it said, on one line.
        said: String,
    },
    /// Nothing came in so many seconds.
    #[error("no answer in {0} s")]
    Late(u64),
    /// A line without an end.
    #[error("a line is longer than {LONGEST} bytes")]
    TooLong,
}

/// What went wrong at the bottom: hyper's own words say where it noticed.
fn innermost(error: &hyper::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    match innermost.downcast_ref::<io::Error>() {
        // Without the number that follows in the system's own words.
        Some(error) if error.raw_os_error().is_some() => error.kind().to_string(),
        _ => innermost.to_string(),
    }
}

/// Asks over a connection that is used for nothing else.
///
/// # Errors
/// When there is no answer, or a refusal.
pub async fn ask(io: impl Io, call: Call<'_>) -> Result<Answer, AskError> {
    let mut request = Request::get(call.path).header(header::HOST, call.host);
    if let Some(token) = call.token {
        request = request.header(header::AUTHORIZATION, token.header());
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async {
        // What goes wrong is told to whoever reads the answer.
        let _told_there = connection.await;
    });
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let mut answer =
        Answer { body: response.into_body(), buffer: BytesMut::new(), searched: 0, _driver: driver };
    if status == 200 {
        return Ok(answer);
    }
    while answer.buffer.len() < SAID
        && let Ok(true) = answer.more().await
    {}
    let said = String::from_utf8_lossy(&answer.buffer[..answer.buffer.len().min(SAID)]);
    let said = said.trim().replace(char::is_control, " ");
    Err(AskError::Refused { status, said })
}

/// An answer that comes.
pub struct Answer {
    body: Incoming,
    buffer: BytesMut,
    /// Bytes at the beginning of the buffer without the end of a line.
    searched: usize,
    /// Moves bytes for as long as the answer is read.
    _driver: JoinSet<()>,
}

impl Answer {
    /// The next line that is not empty, with its end if it has one; none after the last.
    ///
    /// # Errors
    /// When the answer broke off.
    pub async fn line(&mut self) -> Result<Option<Bytes>, AskError> {
        loop {
            if let Some(at) = memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST {
                return Err(AskError::TooLong);
            }
            if !self.more().await? {
                self.searched = 0;
                let rest = self.buffer.split().freeze();
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
        }
    }

    /// Reads on; whether there was more.
    async fn more(&mut self) -> Result<bool, AskError> {
        let frame = timeout(SILENCE, self.body.frame()).await;
        let Some(frame) = frame.map_err(|_late| AskError::Late(SILENCE.as_secs()))? else { return Ok(false) };
        if let Some(data) = frame?.data_ref() {
            self.buffer.extend_from_slice(data);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What comes of an answer in these pieces: its lines, and how it ended; and the request.
    async fn answered(pieces: &'static [&'static str]) -> (Result<Vec<String>, AskError>, String) {
        let (near, mut far) = duplex(1 << 20);
        let server = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(far.read_u8().await.unwrap());
            }
            for piece in pieces {
                far.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            String::from_utf8(request).unwrap()
        });
        let call = Call { host: "localhost:1", path: "/api/v1/top?limit=1", token: None };
        let read = async {
            let (mut answer, mut lines) = (ask(near, call).await?, Vec::new());
            while let Some(line) = answer.line().await? {
                lines.push(String::from_utf8(line.to_vec()).unwrap());
            }
            Ok(lines)
        };
        let result = read.await;
        (result, server.await.unwrap())
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_were_cut() {
        let (lines, request) = answered(&[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n",
            "5\r\n\":1}\n\r\n4\r\nx\ny\n\r\n2\r\nen\r\n1\r\nd\r\n0\r\n\r\n",
        ])
        .await;
        assert_eq!(lines.unwrap(), ["{\"a\":1}\n", "x\n", "y\n", "end"]);
        assert!(request.starts_with("GET /api/v1/top?limit=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("host: localhost:1\r\n"), "{request}");
        assert!(!request.to_ascii_lowercase().contains("authorization"), "{request}");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told() {
        let (refused, _) =
            answered(&["HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\nnot\nyou\n\n"]).await;
        assert_eq!(refused.unwrap_err().to_string(), "status 401: not you");
        let (cut, _) = answered(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf"]).await;
        assert!(matches!(cut, Err(AskError::Broken(_))), "{cut:?}");
        let (silent, _) = answered(&[]).await;
        assert!(matches!(silent, Err(AskError::Broken(_))), "{silent:?}");
        let (other, _) = answered(&["SSH-2.0-OpenSSH\r\n"]).await;
        assert!(matches!(other, Err(AskError::Broken(_))), "{other:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn empty_lines_are_signs_of_life_and_silence_is_none() {
        let (near, mut far) = duplex(1 << 20);
        let server = tokio::spawn(async move {
            assert_ne!(far.read(&mut [0; 1024]).await.unwrap(), 0);
            far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            for _ in 0..20 {
                tokio::time::sleep(HEARTBEAT).await;
                far.write_all(b"1\r\n\n\r\n").await.unwrap();
            }
            far.write_all(b"2\r\nx\n\r\n").await.unwrap();
            far
        });
        let call = Call { host: "h", path: "/", token: None };
        let mut answer = ask(near, call).await.unwrap();
        assert_eq!(answer.line().await.unwrap().unwrap(), "x\n");
        let far = server.await.unwrap();
        assert_eq!(answer.line().await.unwrap_err().to_string(), "no answer in 60 s");
        drop(far);
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_given_up() {
        let (near, mut far) = duplex(1 << 20);
        let server = tokio::spawn(async move {
            let mut request = [0; 1024];
            assert_ne!(far.read(&mut request).await.unwrap(), 0);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LONGEST * 4);
            far.write_all(head.as_bytes()).await.unwrap();
            // Whoever reads gives up in the middle of it.
            let _given_up = far.write_all(&vec![b'x'; LONGEST * 2]).await;
            far
        });
        let call = Call { host: "h", path: "/", token: None };
        let error = ask(near, call).await.unwrap().line().await.unwrap_err();
        assert!(matches!(error, AskError::TooLong), "{error}");
        drop(server.await.unwrap());
    }
}
