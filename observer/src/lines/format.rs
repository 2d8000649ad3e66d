//! How a file says when and where a line was written.
//!
//! CRI: `2016-10-06T00:17:09.669794202Z stdout P text`, where `P` says that the line goes on (kubernetes
//! `pkg/kubelet/kuberuntime/logs`). docker: `{"log":"text\n","stream":"stdout","time":"…"}`, where a missing `\n` says so
//! (moby `daemon/logger/jsonfilelog`). Others: the text alone.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use crate::timeline::{Stream, nanos};

/// What a line of a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// When it was written, if the format says so, nanoseconds since 1970.
    pub time: Option<i64>,
    /// Where to.
    pub stream: Stream,
    /// Whether the line goes on in the next piece of the same stream.
    pub goes_on: bool,
    /// The text.
    pub text: Cow<'a, [u8]>,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Of container runtimes for Kubernetes.
    Cri,
    /// docker's json-file.
    Docker,
    /// Text alone.
    Plain,
}

#[derive(Deserialize)]
struct Docker<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl Format {
    /// By a first line of a container's file.
    pub fn of_container(line: &[u8]) -> Self {
        match (cri(line), docker(line)) {
            (Some(_), _) => Self::Cri,
            (None, Some(_)) => Self::Docker,
            (None, None) => Self::Plain,
        }
    }

    /// The piece in a line. One that does not keep to the format is text: nothing is lost for it.
    pub fn piece(self, line: &[u8]) -> Piece<'_> {
        let known = match self {
            Self::Cri => cri(line),
            Self::Docker => docker(line),
            Self::Plain => None,
        };
        known.unwrap_or(Piece {
            time: None,
            stream: Stream::Stdout,
            goes_on: false,
            text: Cow::Borrowed(line),
        })
    }

    /// When a line was written, as far as it says so.
    pub fn time(self, line: &[u8]) -> Option<i64> {
        match self {
            Self::Cri => time(line.split(|byte| *byte == b' ').next()?),
            Self::Docker => docker(line)?.time,
            Self::Plain => starts_with_time(std::str::from_utf8(line.get(..line.len().min(64))?).ok()?),
        }
    }
}

fn time(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse::<Timestamp>().ok().map(nanos)
}

fn cri(line: &[u8]) -> Option<Piece<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (written, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // More tags may follow the first, with colons between.
    let goes_on = match tags.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Piece { time: Some(time(written)?), stream, goes_on, text: Cow::Borrowed(text) })
}

fn docker(line: &[u8]) -> Option<Piece<'_>> {
    if !line.starts_with(b"{") {
        return None;
    }
    let parsed: Docker<'_> = serde_json::from_slice(line).ok()?;
    let time = time(parsed.time.as_bytes())?;
    let stream = if parsed.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    let goes_on = !parsed.log.ends_with('\n');
    let text = match parsed.log {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(['\r', '\n']).as_bytes()),
        Cow::Owned(mut text) => {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
            Cow::Owned(text.into_bytes())
        }
    };
    Some(Piece { time: Some(time), stream, goes_on, text })
}

/// The moment that a text begins with, if it names its offset from UTC: without one it could be anywhere.
pub fn starts_with_time(text: &str) -> Option<i64> {
    let text = text.trim_start_matches(['[', '(', '"']);
    let end = text.char_indices().find(|(at, c)| {
        !(c.is_ascii_digit()
            || matches!(c, '-' | ':' | '.' | '+' | 'T' | 'Z' | ',')
            || (*c == ' ' && *at == 10))
    });
    let moment = text.get(..end.map_or(text.len(), |(at, _)| at))?;
    if moment.len() < 20 || !moment.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    moment.trim_end_matches([':', ',', '.']).replace(',', ".").parse::<Timestamp>().ok().map(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cri_lines() {
        let line = b"1970-01-01T00:00:01.000000002Z stderr P:more a  b ";
        let piece = Format::Cri.piece(line);
        assert_eq!((piece.time, piece.stream, piece.goes_on), (Some(1_000_000_002), Stream::Stderr, true));
        assert_eq!(&*piece.text, b"a  b ");
        assert_eq!(Format::of_container(line), Format::Cri);
        assert_eq!(Format::Cri.time(line), Some(1_000_000_002));
        assert_eq!(&*Format::Cri.piece(b"1970-01-01T00:00:01Z stdout F").text, b"");
        assert_eq!(&*Format::Cri.piece(b"1970-01-01T02:00:01+02:00 stdout F \xff\xfe").text, b"\xff\xfe");
        for broken in [
            &b"yesterday stdout F x"[..],
            b"1970-01-01T00:00:01Z stdin F x",
            b"1970-01-01T00:00:01Z stdout X x",
            b"",
        ] {
            let piece = Format::Cri.piece(broken);
            assert_eq!((piece.time, &*piece.text), (None, broken), "kept as it is");
        }
    }

    #[test]
    fn docker_lines() {
        let line = br#"{"log":"a \"b\"\n","stream":"stderr","time":"1970-01-01T00:00:01Z"}"#;
        let piece = Format::Docker.piece(line);
        assert_eq!((piece.time, piece.stream, piece.goes_on), (Some(1_000_000_000), Stream::Stderr, false));
        assert_eq!(&*piece.text, b"a \"b\"");
        assert_eq!(Format::of_container(line), Format::Docker);
        assert!(
            Format::Docker.piece(br#"{"log":"a","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#).goes_on
        );
        assert_eq!(&*Format::Docker.piece(b"{\"log\":\"cut").text, b"{\"log\":\"cut");
        assert_eq!(Format::of_container(b"hello"), Format::Plain);
    }

    #[test]
    fn moments_at_the_beginning_of_a_text() {
        let second = Some(1_000_000_000);
        for (text, time) in [
            ("1970-01-01T00:00:01Z INFO x", second),
            ("[1970-01-01T00:00:01.0+00:00] x", second),
            ("1970-01-01 00:00:01Z x", second),
            ("1970-01-01 00:00:01,000 x", None),
            ("1970-01-01T00:00:01 x", None),
            ("1970-01-01", None),
            ("ü", None),
            ("", None),
        ] {
            assert_eq!(starts_with_time(text), time, "{text}");
        }
    }
}
