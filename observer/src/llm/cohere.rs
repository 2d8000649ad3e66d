//! Cohere's chat, version 2, as Cohere and vLLM serve it. The last event is `message-end`.
//!
//! Sources: Cohere API reference, "Chat (v2)" and "Streaming"; vLLM `entrypoints/cohere/`.

use super::{
    Dialect, error,
    facts::{Facts, Operation, Request, Terminal, name},
    openai,
};
use crate::body::json::{Field, Value};

/// `POST …/v2/chat`.
pub(super) struct Chat;

impl Dialect for Chat {
    fn operation(&self, path: &str) -> Option<Operation> {
        path.ends_with("/v2/chat").then_some(Operation::Chat)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        if field.path != "n" {
            openai::request(field.path, field.value, request);
        }
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        // Streamed, everything is in `delta`.
        match (field.path.strip_prefix("delta.").unwrap_or(field.path), value) {
            ("type", Value::String { text: "message-end", .. }) => facts.terminal = Terminal::Stream,
            ("id", Value::String { text, .. }) => facts.id = name(text),
            ("finish_reason", Value::String { text, .. }) => {
                // Its word for an error is the reason for an end.
                if text == "ERROR" {
                    error::happened(facts);
                }
                facts.finish_reason = name(text);
            }
            ("message.content.text" | "message.content[].text", _) => facts.answer |= value.is_text(),
            (
                "message.tool_calls.function.arguments"
                | "message.tool_calls[].function.arguments"
                | "message.tool_calls[].function.name",
                _,
            ) => facts.answer |= value.is_text(),
            ("message.content.thinking" | "message.content[].thinking" | "message.tool_plan", _) => {
                facts.reasoning |= value.is_text();
            }
            ("usage.tokens.input_tokens", _) => facts.usage.input = value.count(),
            ("usage.tokens.output_tokens", _) => facts.usage.output = value.count(),
            ("usage.cached_tokens", _) => facts.usage.input_cached = value.count(),
            (path, value) => error::note(path, value, facts),
        }
    }
}
