//! What a line says of itself: how bad it is, which request it is about.

use std::sync::LazyLock;

use memchr::memmem;
use regex::Regex;

use crate::timeline::Level;

/// Bytes of a line in which its head is looked for.
const HEAD: usize = 160;

/// The head of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// How bad it is.
    pub level: Option<Level>,
    /// Bytes of the head, up to where the text begins; 0 if there is none.
    pub length: usize,
}

fn compiled(pattern: &str) -> Regex {
    // They are constants, and a test compiles each.
    Regex::new(pattern).expect("a constant expression")
}

/// Heads of text logs: a time or a name may stand before the level, and times and places after it.
///
/// vLLM: `(EngineCore_DP0 pid=7) INFO 11-24 16:00:00 [core.py:12] text` (`vllm/logging_utils/formatter.py`); SGLang:
/// `[2026-11-24 16:00:00] INFO:     text`; uvicorn: `INFO:     text`; Python's `logging`: `WARNING:name:text` and
/// `2026-11-24 16:00:00,123 - name - ERROR - text`; tracing of Rust: `2026-11-24T16:00:00Z  INFO name: text`.
static TEXT: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"(?-u)^(?:\([A-Za-z_][\w.-]* pid=\d+\)\s+)?",
        r"(?:[\[(]?\d{2,4}[-/.]\d{2}[-/.T ]?[\dT :.,+Z-]*[\])]?\s*(?:-\s+)?)?",
        r"(?:[\w.:-]{1,40} - )?",
        r"\[?(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|ERR|CRITICAL|FATAL|PANIC|trace|debug|info|warn|warning|error|fatal)\b\]?",
        r"(?::[\w.]{1,40}:|\s+-\s|:)?",
        r"(?:\s+\d{2}-\d{2} \d{2}:\d{2}:\d{2}(?:[.,]\d+)?)?",
        r"(?:\s+\[[\w./ -]{1,60}:\d+\])?",
        r"\s?",
    ))
});

/// klog's: `E1124 16:00:00.123456       1 file.go:12] text`.
static KLOG: LazyLock<Regex> =
    LazyLock::new(|| compiled(r"(?-u)^([IWEF])\d{4} \d{2}:\d{2}:\d{2}\.\d+\s+\d+ [\w./-]+:\d+\] "));

/// llama.cpp's with `--log-prefix --log-timestamps`: `0.01.234.567 I text` (`common/log.cpp`).
static LLAMA: LazyLock<Regex> = LazyLock::new(|| compiled(r"(?-u)^(?:\d+\.\d{2}\.\d{3}\.\d{3} )?([DIWE]) "));

/// logfmt and JSON: `level=info`, `"level":"info"`.
static FIELD: LazyLock<Regex> = LazyLock::new(|| {
    compiled(r#"(?-u)(?:^|[\s,{])"?(?:level|lvl|severity|levelname)"?\s*[:=]\s*"?([A-Za-z]+)"#)
});

/// An id of a request: as OpenAI-like APIs make them, or named so.
static REQUEST: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"(?-u)\b((?:chatcmpl|cmpl|msg|resp|embd)[-_][A-Za-z0-9-]{8,64})\b",
        r#"|(?i:\b(?:x[-_])?(?:request|req)[-_ ]?id["']?\s*[:=]\s*["']?([A-Za-z0-9_-]{4,64}))"#,
        r#"|(?i:\brid\s*=\s*["']?([A-Za-z0-9_-]{8,64}))"#,
    ))
});

static TRACE: LazyLock<Regex> = LazyLock::new(|| {
    compiled(
        r#"(?i-u)\btrace[-_]?id["']?\s*[:=]\s*["']?([0-9a-f]{32})\b|\b00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\b"#,
    )
});

impl Header {
    /// Of a text.
    pub fn of(text: &str) -> Self {
        let mut end = text.len().min(HEAD);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let head = &text[..end];
        // A line that goes on with another begins with a space, and has none.
        let Some(first) = head.chars().next().filter(|first| !first.is_whitespace()) else {
            return Self::default();
        };
        if let Some(found) = TEXT.captures(head) {
            let level = found.get(1).and_then(|level| Level::of(level.as_str()));
            return Self { level, length: found.get(0).map_or(0, |all| all.end()) };
        }
        if first.is_ascii_uppercase() || first.is_ascii_digit() {
            for letters in [&*KLOG, &*LLAMA] {
                if let Some(found) = letters.captures(head) {
                    let level = found.get(1).and_then(|letter| of_letter(letter.as_str()));
                    return Self { level, length: found.get(0).map_or(0, |all| all.end()) };
                }
            }
        }
        let named = FIELD.captures(head).and_then(|found| Level::of(found.get(1)?.as_str()));
        Self { level: named, length: 0 }
    }

    /// What follows the head.
    pub fn rest(self, text: &str) -> &str {
        text.get(self.length..).unwrap_or_default()
    }
}

fn of_letter(letter: &str) -> Option<Level> {
    Some(match letter {
        "D" => Level::Debug,
        "I" => Level::Info,
        "W" => Level::Warn,
        "E" => Level::Error,
        "F" => Level::Fatal,
        _ => return None,
    })
}

/// The id of the request that a text names first.
pub(super) fn request_id(text: &str) -> Option<String> {
    // Most lines name none, and a search for a few bytes is far cheaper than the expression.
    let hints: [&[u8]; 8] = [b"cmpl", b"msg_", b"resp_", b"embd", b"eq", b"EQ", b"rid", b"Rid"];
    if !hints.iter().any(|hint| memmem::find(text.as_bytes(), hint).is_some()) {
        return None;
    }
    let found = REQUEST.captures(text)?;
    (1..=3).find_map(|group| found.get(group)).map(|id| id.as_str().to_owned())
}

/// The trace that a text names first.
pub(super) fn trace_id(text: &str) -> Option<String> {
    let hints: [&[u8]; 4] = [b"trace", b"Trace", b"TRACE", b"00-"];
    if !hints.iter().any(|hint| memmem::find(text.as_bytes(), hint).is_some()) {
        return None;
    }
    let found = TRACE.captures(text)?;
    found.get(1).or_else(|| found.get(2)).map(|id| id.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_real_heads() {
        use Level::{Debug, Error, Fatal, Info, Warn};
        for (text, level, rest) in [
            ("(EngineCore_DP0 pid=71) ERROR 11-24 16:00:00 [core.py:842] boom", Some(Error), "boom"),
            ("INFO 11-24 16:00:00 [loggers.py:248] Engine 000: Avg", Some(Info), "Engine 000: Avg"),
            ("WARNING 11-24 16:00:00 [vllm/config.py:1] x", Some(Warn), "x"),
            ("INFO:     127.0.0.1:5 - \"GET /\" 200 OK", Some(Info), "    127.0.0.1:5 - \"GET /\" 200 OK"),
            ("[2026-11-24 16:00:00] INFO:     ready", Some(Info), "    ready"),
            ("2026-11-24 16:00:00,123 - vllm - ERROR - text", Some(Error), "text"),
            ("WARNING:root:careful", Some(Warn), "careful"),
            ("2026-11-24T16:00:00.1Z  INFO text_generation: up", Some(Info), "text_generation: up"),
            ("E1124 16:00:00.123456       1 file.go:12] text", Some(Error), "text"),
            ("0.01.234.567 W srv  x: y", Some(Warn), "srv  x: y"),
            ("I srv  x: y", Some(Info), "srv  x: y"),
            (
                "{\"ts\":1,\"level\":\"error\",\"msg\":\"x\"}",
                Some(Error),
                "{\"ts\":1,\"level\":\"error\",\"msg\":\"x\"}",
            ),
            (
                "time=2026-11-24T16:00:00Z level=DEBUG source=x msg=y",
                Some(Debug),
                "time=2026-11-24T16:00:00Z level=DEBUG source=x msg=y",
            ),
            ("FATAL: no memory", Some(Fatal), "no memory"),
            ("error: no memory", Some(Error), "no memory"),
            ("no error here", None, "no error here"),
            ("errors were many", None, "errors were many"),
            ("  File \"x.py\", line 1", None, "  File \"x.py\", line 1"),
            ("", None, ""),
        ] {
            let header = Header::of(text);
            assert_eq!((header.level, header.rest(text)), (level, rest), "{text}");
        }
        let long = "ü".repeat(200);
        assert_eq!(Header::of(&long), Header::default());
    }

    #[test]
    fn ids_that_a_line_names() {
        for (text, id) in [
            ("Received request chatcmpl-0a1b2c3d4e: prompt", Some("chatcmpl-0a1b2c3d4e")),
            ("Finish: rid=9f8e7d6c5b4a, x", Some("9f8e7d6c5b4a")),
            ("{\"request_id\":\"abc-123\"}", Some("abc-123")),
            ("X-Request-ID: r42x", Some("r42x")),
            ("a required idea", None),
            ("nothing", None),
        ] {
            assert_eq!(request_id(text).as_deref(), id, "{text}");
        }
        let trace = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace_id(&format!("trace_id={trace} x")).as_deref(), Some(trace));
        assert_eq!(trace_id(&format!("traceparent 00-{trace}-b7ad6b7169203331-01")).as_deref(), Some(trace));
        assert_eq!(trace_id("trace_id=0af7"), None);
    }
}
