//! OpenAI chat completions and completions, as OpenAI, vLLM, SGLang, llama.cpp, Ollama, TGI and LiteLLM
//! send them.
//!
//! Sources: OpenAI API reference, "Chat Completions" and "Completions"; vLLM
//! `entrypoints/openai/chat_completion/serving.py`; SGLang `srt/entrypoints/openai/serving_chat.py`; llama.cpp
//! `tools/server/server-task.cpp`.

use super::{
    Dialect,
    facts::{Facts, Operation, Request, name},
};
use crate::body::json::{Field, Value};

/// An error that has told neither its type nor its code.
const UNNAMED: &str = "error";

/// `POST …/chat/completions`.
pub(super) const CHAT: OpenAi = OpenAi { suffix: "/chat/completions", operation: Operation::Chat };

/// `POST …/completions`.
pub(super) const COMPLETIONS: OpenAi =
    OpenAi { suffix: "/completions", operation: Operation::TextCompletion };

/// Both APIs share everything but their route and where the text is.
pub(super) struct OpenAi {
    suffix: &'static str,
    operation: Operation,
}

impl Dialect for OpenAi {
    fn operation(&self, path: &str) -> Option<Operation> {
        path.trim_end_matches('/').ends_with(self.suffix).then_some(self.operation)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        match (field.path, field.value) {
            ("model", Value::String { text, .. }) => request.model = name(text),
            ("stream", Value::Bool(stream)) => request.stream = Some(stream),
            ("n", value) => request.choices = count(value).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            ("max_tokens" | "max_completion_tokens", value) => {
                request.max_tokens = count(value).or(request.max_tokens);
            }
            _ => {}
        }
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let Field { path, value, .. } = *field;
        if let Some(rest) = path.strip_prefix("choices[].") {
            choice(rest, value, facts);
        } else if let Some(rest) = path.strip_prefix("usage.") {
            let usage = &mut facts.usage;
            match rest {
                "prompt_tokens" => usage.input = count(value),
                "prompt_tokens_details.cached_tokens" => usage.input_cached = count(value),
                "completion_tokens" => usage.output = count(value),
                "completion_tokens_details.reasoning_tokens" => usage.output_reasoning = count(value),
                _ => {}
            }
        } else if let Some(rest) = path.strip_prefix("timings.") {
            timings(rest, value, facts);
        } else {
            top(path, value, facts);
        }
    }

    fn is_terminator(&self, data: &[u8]) -> bool {
        data.trim_ascii() == b"[DONE]"
    }
}

/// Members of one choice. `delta` when streamed, `message` when plain, `text` for completions.
fn choice(path: &str, value: Value<'_>, facts: &mut Facts) {
    let is_text = matches!(value, Value::String { length, .. } if length > 0);
    match path {
        "finish_reason" => {
            if let Value::String { text, .. } = value {
                facts.finish_reason = name(text);
            }
        }
        "text" | "delta.content" | "message.content" | "delta.refusal" | "message.refusal" => {
            facts.answer |= is_text;
        }
        // Content given as typed parts.
        "delta.content[].text" | "message.content[].text" => facts.answer |= is_text,
        "delta.tool_calls[].function.arguments"
        | "message.tool_calls[].function.arguments"
        | "delta.function_call.arguments"
        | "message.function_call.arguments" => facts.answer |= is_text,
        // vLLM and Ollama say `reasoning`, SGLang, llama.cpp and older vLLM `reasoning_content`.
        "delta.reasoning" | "delta.reasoning_content" | "message.reasoning" | "message.reasoning_content" => {
            facts.reasoning |= is_text;
        }
        // One entry per token: chat log-probabilities, legacy ones, vLLM's `return_token_ids`.
        "logprobs.content[].token" | "logprobs.tokens[]" => facts.logprobs += 1,
        "token_ids[]" => facts.token_ids += 1,
        _ => {}
    }
}

/// llama.cpp: counts and times of this very request, on the last event or the plain response.
fn timings(path: &str, value: Value<'_>, facts: &mut Facts) {
    facts.provider = Some("llama.cpp");
    let engine = &mut facts.engine;
    match path {
        "cache_n" => {
            engine.input_cached = count(value);
            engine.input = sum(engine.input, engine.input_cached);
        }
        "prompt_n" => engine.input = sum(engine.input, count(value)),
        "predicted_n" => engine.output = count(value),
        _ => {}
    }
}

fn top(path: &str, value: Value<'_>, facts: &mut Facts) {
    match (path, value) {
        ("id", Value::String { text, .. }) => facts.id = name(text),
        ("model", Value::String { text, .. }) => facts.model = name(text),
        ("system_fingerprint", Value::String { text, .. }) => facts.fingerprint = name(text),
        // vLLM with `--enable-per-request-metrics`.
        ("metrics.queue_time_ms", Value::Number(text)) => {
            facts.queue = text.parse::<f64>().ok().filter(|ms| ms.is_finite()).map(|ms| ms / 1000.0);
        }
        // `{"error": {"type", "code", "message"}}`; TGI and others: `{"error": "…", "error_type": "…"}`;
        // SGLang, plain: `{"object": "error", "type", "code"}`.
        ("error.type" | "error_type", Value::String { text, .. }) => facts.error = name(text),
        ("error.code", Value::String { text, .. } | Value::Number(text)) => {
            let named = facts.error.take().filter(|error| error != UNNAMED);
            facts.error = named.or_else(|| name(text)).or_else(|| Some(UNNAMED.into()));
        }
        ("error.message" | "error", Value::String { .. }) => {
            facts.error.get_or_insert_with(|| UNNAMED.into());
        }
        ("object", Value::String { text: "error", .. }) => {
            facts.error.get_or_insert_with(|| UNNAMED.into());
        }
        ("type", Value::String { text, .. }) if facts.error.is_some() => {
            facts.error = name(text).or(facts.error.take());
        }
        _ => {}
    }
}

fn count(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Number(text) => text.parse().ok(),
        _ => None,
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    }
}
