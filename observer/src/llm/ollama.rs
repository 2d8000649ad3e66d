//! Ollama's own API: generate, chat, embed. Lines of JSON; a request that does not say streams.
//!
//! Sources: Ollama `api/types.go`, `server/routes.go`. `prompt_eval_count` counts cached tokens, too, and does
//! not tell how many they were. Durations are nanoseconds.

use super::{
    Dialect, error,
    facts::{Facts, Operation, Request, Terminal, name},
    openai,
};
use crate::body::json::{Field, Value};

/// `POST …/api/chat`.
pub(super) const CHAT: Ollama = Ollama { suffixes: &["/api/chat"], operation: Operation::Chat };

/// `POST …/api/generate`.
pub(super) const GENERATE: Ollama =
    Ollama { suffixes: &["/api/generate"], operation: Operation::TextCompletion };

/// `POST …/api/embed`, and the older `…/api/embeddings`. Never streamed.
pub(super) const EMBED: Ollama =
    Ollama { suffixes: &["/api/embed", "/api/embeddings"], operation: Operation::Embeddings };

/// The operations share everything but their route and where the text is.
pub(super) struct Ollama {
    suffixes: &'static [&'static str],
    operation: Operation,
}

impl Dialect for Ollama {
    fn operation(&self, path: &str) -> Option<Operation> {
        self.suffixes.iter().any(|suffix| path.ends_with(suffix)).then_some(self.operation)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        match (field.path, field.value) {
            ("options.num_predict", value) => request.max_tokens = value.count(),
            ("model" | "stream", value) => openai::request(field.path, value, request),
            _ => {}
        }
    }

    fn streams_by_default(&self) -> bool {
        self.operation.generates()
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        let seconds = || value.measure().map(|nanos| nanos / 1e9);
        match (field.path, value) {
            ("model", Value::String { text, .. }) => facts.model = name(text),
            ("response" | "message.content", _) => facts.answer |= value.is_text(),
            ("thinking" | "message.thinking", _) => facts.reasoning |= value.is_text(),
            // Calls come whole, their arguments as an object.
            ("message.tool_calls[].function.name", _) => facts.answer |= value.is_text(),
            ("done", Value::Bool(done)) => {
                facts.terminal = Terminal::stream_if(done);
                // No other engine says so on every line.
                facts.provider = Some("ollama");
            }
            ("done_reason", Value::String { text, .. }) => facts.finish_reason = name(text),
            ("prompt_eval_count", _) => facts.engine.input = value.count(),
            ("eval_count", _) => facts.engine.output = value.count(),
            ("prompt_eval_duration", _) => facts.timings.prefill = seconds(),
            ("eval_duration", _) => facts.timings.decode = seconds(),
            (path, value) => error::note(path, value, facts),
        }
    }
}
