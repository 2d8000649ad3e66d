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
            trace: text("traceparent").and_then(trace_id),
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

/// Trace id of a W3C `traceparent`: version, 32 hex digits, parent id, flags.
pub(super) fn trace_id(traceparent: &str) -> Option<String> {
    let id = traceparent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0'))
        .then(|| id.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::json::Scanner;

    #[test]
    fn trace_ids_are_checked() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        assert_eq!(trace_id("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None);
        assert_eq!(trace_id("nonsense"), None);
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
