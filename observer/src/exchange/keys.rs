//! What tells that a request which a gateway sends was caused by one that it received.

use std::hash::{DefaultHasher, Hasher as _};

use crate::{
    body::json::{Field, Value},
    http::Fields,
};

/// Fields that carry an id of the request from hop to hop.
const IDS: [&str; 3] = ["x-request-id", "x-correlation-id", "request-id"];

/// Keys of a request. Absent means that it has none, or that it was not seen whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Trace id of a `traceparent`.
    pub(super) trace: Option<String>,
    /// Id of the request.
    pub(super) id: Option<String>,
    /// Digest of what it asks.
    pub(super) content: Option<u64>,
}

impl Keys {
    /// Keys of a request with these fields and this content.
    pub(super) fn new(fields: &Fields, content: Option<u64>) -> Self {
        let text = |name: &str| fields.text(name).filter(|text| !text.is_empty() && text.len() <= 256);
        Self {
            trace: text("traceparent").and_then(trace_parent).map(|(trace, _)| trace),
            id: IDS.into_iter().find_map(text).map(str::to_owned),
            content,
        }
    }
}

/// Digest of the text that a request asks about, in whatever API: a gateway may translate the request, but passes
/// on what its client said. Only the digest is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Digest {
    hasher: DefaultHasher,
    texts: u32,
}

impl Digest {
    /// Takes in a scalar of the request's content.
    pub(super) fn add(&mut self, field: &Field<'_>) {
        let Value::String { text, length } = field.value else { return };
        let (root, leaf) = (first(field.path), last(field.path));
        let asks = matches!(root, "messages" | "prompt" | "input" | "inputs" | "contents" | "text")
            && matches!(leaf, "content" | "text" | "prompt" | "input" | "inputs");
        if asks && length > 0 {
            self.hasher.write(text.as_bytes());
            self.hasher.write_u64(length);
            self.texts = self.texts.saturating_add(1);
        }
    }

    /// The digest, if there was any text.
    pub(super) fn finish(&self) -> Option<u64> {
        (self.texts > 0).then(|| self.hasher.finish())
    }
}

fn first(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or_default()
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or_default().trim_end_matches("[]")
}

/// Trace id and parent id of a `traceparent` (W3C Trace Context 2, section 3.2.2): version, 32 hex digits, 16 hex
/// digits, flags. Versions to come may append to it.
pub(super) fn trace_parent(value: &str) -> Option<(String, String)> {
    let mut parts = value.trim().split('-');
    let mut id = |digits: usize| {
        let id = parts.next()?;
        let is_id = id.len() == digits && id.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| id.to_ascii_lowercase())
    };
    let is_set = |id: &String| id.bytes().any(|b| b != b'0');
    let (version, trace, parent, _flags) = (id(2)?, id(32)?, id(16)?, id(2)?);
    (version != "ff" && is_set(&trace) && is_set(&parent)).then_some((trace, parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::json::Scanner;

    #[test]
    fn trace_ids_are_checked() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let ids = Some((trace.to_owned(), parent.to_owned()));
        assert_eq!(trace_parent(&format!("00-{trace}-{parent}-01")), ids);
        assert_eq!(trace_parent(&format!("cc-{}-{parent}-00-more", trace.to_uppercase())), ids);
        for nonsense in [
            "nonsense".to_owned(),
            format!("00-{trace}-{parent}"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}-{parent}0-01"),
            format!("00-{trace}-00f067aa0ba902bg-01"),
        ] {
            assert_eq!(trace_parent(&nonsense), None, "{nonsense}");
        }
    }

    fn digest(document: &str) -> Option<u64> {
        let (mut scanner, mut digest) = (Scanner::new(), Digest::default());
        scanner.push(document.as_bytes(), &mut |field| digest.add(&field));
        scanner.finish(&mut |field| digest.add(&field));
        digest.finish()
    }

    #[test]
    fn a_translated_request_asks_the_same() {
        let openai = digest(
            r#"{"model":"a","messages":[{"role":"user","content":"What is a lathe?"}],"stream":true}"#,
        );
        let parts = digest(
            r#"{"max_tokens":5,"messages":[{"content":[{"type":"text","text":"What is a lathe?"}]}]}"#,
        );
        assert_eq!(openai, parts);
        assert_ne!(openai, digest(r#"{"messages":[{"role":"user","content":"What is a latch?"}]}"#));
        assert_eq!(digest(r#"{"model":"a","input":[1,2]}"#), None);
    }
}
