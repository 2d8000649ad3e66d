//! Error objects, in the shapes that servers use.
//!
//! OpenAI, vLLM, llama.cpp, Anthropic: `{"error": {"type", "code", "message"}}`; Gemini: `{"error": {"code",
//! "message", "status"}}`; TGI: `{"error": "…", "error_type": "…"}`; Ollama, Triton: `{"error": "…"}`; SGLang,
//! plain: `{"object": "error", "message", "type", "code"}`.

use super::facts::{Facts, name};
use crate::body::json::Value;

/// An error that has told neither its type nor its code.
const UNNAMED: &str = "error";

/// There was an error, whatever else is told of it.
pub(super) fn happened(facts: &mut Facts) {
    facts.error.get_or_insert_with(|| UNNAMED.into());
}

/// It has this type; nothing says more.
fn kind(text: &str, facts: &mut Facts) {
    match name(text) {
        Some(kind) => facts.error = Some(kind),
        None => happened(facts),
    }
}

/// A code names an error that has no better name.
pub(super) fn code(text: &str, facts: &mut Facts) {
    if facts.error.as_deref().is_none_or(|error| error == UNNAMED) {
        kind(text, facts);
    }
}

/// Notes a member of an error object. `path` is that of the document, without what wraps it.
pub(super) fn note(path: &str, value: Value<'_>, facts: &mut Facts) {
    match (path, value) {
        ("error.type" | "error_type" | "error.status", Value::String { text, .. }) => kind(text, facts),
        ("error.code", Value::String { text, .. } | Value::Number(text)) => code(text, facts),
        ("error.message" | "error.detail" | "error", Value::String { .. }) => happened(facts),
        ("object", Value::String { text: "error", .. }) => happened(facts),
        ("type", Value::String { text, .. }) if facts.error.is_some() => kind(text, facts),
        _ => {}
    }
}
