//! Anthropic messages, as Anthropic, vLLM, SGLang, llama.cpp, Ollama and Dynamo send them.
//!
//! Sources: Anthropic API reference, "Messages" and "Streaming messages"; vLLM `entrypoints/anthropic/`;
//! llama.cpp `tools/server/server-task.cpp`. `input_tokens` excludes what was read from a cache and what was
//! written to one. `…/messages/count_tokens` generates nothing and is not of this API.

use super::{
    Dialect, error,
    facts::{Facts, Operation, Request, Terminal, Usage, name},
    openai,
};
use crate::body::json::{Field, Value};

/// `POST …/v1/messages`.
pub(super) struct Messages;

impl Dialect for Messages {
    fn operation(&self, path: &str) -> Option<Operation> {
        path.ends_with("/v1/messages").then_some(Operation::Chat)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        if field.path != "n" {
            openai::request(field.path, field.value, request);
        }
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        // The first event carries the message as a plain response has it, without content.
        let (path, is_start) =
            field.path.strip_prefix("message.").map_or((field.path, false), |rest| (rest, true));
        match (path, value) {
            ("type", Value::String { text: "message_stop", .. }) => facts.terminal = Terminal::Stream,
            ("type", Value::String { text: "error", .. }) => error::happened(facts),
            ("id", Value::String { text, .. }) => facts.id = name(text),
            ("model", Value::String { text, .. }) => facts.model = name(text),
            ("stop_reason" | "delta.stop_reason", Value::String { text, .. }) => {
                facts.finish_reason = name(text);
            }
            // `delta` when streamed, `content_block` where one starts, `content` when plain.
            ("delta.text" | "delta.partial_json" | "content_block.text" | "content[].text", _) => {
                facts.answer |= value.is_text();
            }
            ("delta.thinking" | "content_block.thinking" | "content[].thinking", _) => {
                facts.reasoning |= value.is_text();
            }
            // A plain call of a tool, whatever its input.
            ("content[].name", _) => facts.answer |= value.is_text(),
            // At the start nothing was generated yet, whatever it says.
            ("usage.output_tokens", _) if is_start => {}
            _ => {
                if let Some(rest) = path.strip_prefix("usage.") {
                    usage(rest, value, &mut facts.usage);
                } else {
                    error::note(path, value, facts);
                }
            }
        }
    }
}

fn usage(path: &str, value: Value<'_>, usage: &mut Usage) {
    match path {
        "input_tokens" => usage.input_uncached = value.count(),
        "cache_read_input_tokens" => usage.input_cached = value.count(),
        "cache_creation_input_tokens" => usage.input_written = value.count(),
        "output_tokens" => usage.output = value.count(),
        _ => {}
    }
}
