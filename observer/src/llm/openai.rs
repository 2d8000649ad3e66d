//! OpenAI chat completions and completions, as OpenAI, vLLM, SGLang, llama.cpp, Ollama, TGI, Dynamo and
//! LiteLLM send them.
//!
//! Sources: OpenAI API reference, "Chat Completions" and "Completions"; vLLM
//! `entrypoints/openai/chat_completion/serving.py`; SGLang `srt/entrypoints/openai/serving_chat.py`; llama.cpp
//! `tools/server/server-task.cpp`; TGI `router/src/server.rs`.

use super::{
    Dialect, error,
    facts::{Facts, Operation, Request, Usage, name},
    llamacpp,
};
use crate::body::json::{Field, Value};

/// `POST …/chat/completions`, and vLLM's `…/chat/completions/batch`.
pub(super) const CHAT: OpenAi =
    OpenAi { suffixes: &["/chat/completions", "/chat/completions/batch"], operation: Operation::Chat };

/// `POST …/completions`.
pub(super) const COMPLETIONS: OpenAi =
    OpenAi { suffixes: &["/completions"], operation: Operation::TextCompletion };

/// Both APIs share everything but their route and where the text is.
pub(super) struct OpenAi {
    suffixes: &'static [&'static str],
    operation: Operation,
}

impl Dialect for OpenAi {
    fn operation(&self, path: &str) -> Option<Operation> {
        self.suffixes.iter().any(|suffix| path.ends_with(suffix)).then_some(self.operation)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        self::request(field.path, field.value, request);
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        document(field.path, field.value, facts);
    }
}

/// Members of a request that most APIs have in common.
pub(super) fn request(path: &str, value: Value<'_>, request: &mut Request) {
    match (path, value) {
        ("model", Value::String { text, .. }) => request.model = name(text),
        ("stream", Value::Bool(stream)) => request.stream = Some(stream),
        ("n", value) => request.choices = choices(value),
        ("max_tokens" | "max_completion_tokens", value) => {
            request.max_tokens = value.count().or(request.max_tokens);
        }
        // A prefill engine of a disaggregated vLLM is asked so by the proxy before it.
        ("kv_transfer_params.do_remote_decode", Value::Bool(remote)) => request.prefill_only = remote,
        _ => {}
    }
}

/// A number of choices.
pub(super) fn choices(value: Value<'_>) -> Option<u32> {
    value.count().map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

/// A chunk, or a plain response.
pub(super) fn document(path: &str, value: Value<'_>, facts: &mut Facts) {
    if let Some(rest) = path.strip_prefix("choices[].") {
        choice(rest, value, facts);
    } else if let Some(rest) = path.strip_prefix("usage.") {
        usage(rest, value, &mut facts.usage);
    } else if let Some(rest) = path.strip_prefix("timings.") {
        llamacpp::timings(rest, value, facts);
    } else if let Some(rest) = path.strip_prefix("metrics.") {
        metrics(rest, value, facts);
    } else {
        match (path, value) {
            ("id", Value::String { text, .. }) => facts.id = name(text),
            ("model", Value::String { text, .. }) => facts.model = name(text),
            ("system_fingerprint", Value::String { text, .. }) => facts.fingerprint = name(text),
            _ => error::note(path, value, facts),
        }
    }
}

/// Members of one choice. `delta` when streamed, `message` when plain, `text` for completions.
fn choice(path: &str, value: Value<'_>, facts: &mut Facts) {
    let member = path.strip_prefix("delta.").or_else(|| path.strip_prefix("message."));
    match member.unwrap_or(path) {
        "finish_reason" => facts.finish_reason = value.text().and_then(name).or(facts.finish_reason.take()),
        "index" => facts.index = facts.index.max(choices(value).unwrap_or(0)),
        "text" | "content" | "refusal" => facts.answer |= value.is_text(),
        // Content given as typed parts, and what a model speaks.
        "content[].text" | "audio.data" | "audio.transcript" => facts.answer |= value.is_text(),
        "tool_calls[].function.arguments" | "tool_calls[].custom.input" | "function_call.arguments" => {
            facts.answer |= value.is_text();
        }
        // A plain call without arguments is an answer; a streamed name is the start of one.
        "tool_calls[].function.name" => facts.answer |= path.starts_with("message.") && value.is_text(),
        // vLLM and Ollama say `reasoning`, SGLang, llama.cpp and older vLLM `reasoning_content`, Mistral sends
        // parts, gateways `thinking` or `reasoning_details`.
        "reasoning"
        | "reasoning_content"
        | "thinking"
        | "content[].thinking[].text"
        | "reasoning_details[].text"
        | "reasoning_details[].summary" => facts.reasoning |= value.is_text(),
        // One entry per token: chat log-probabilities, legacy ones, vLLM's `return_token_ids`.
        "logprobs.content[].token" | "logprobs.tokens[]" => facts.logprobs += 1,
        "token_ids[]" => facts.token_ids += 1,
        _ => {}
    }
}

/// The `usage` object: totals, with their parts beside them.
pub(super) fn usage(path: &str, value: Value<'_>, usage: &mut Usage) {
    match path {
        "prompt_tokens" => usage.input = value.count(),
        "prompt_tokens_details.cached_tokens" => usage.input_cached = value.count(),
        "completion_tokens" => usage.output = value.count(),
        "completion_tokens_details.reasoning_tokens" => usage.output_reasoning = value.count(),
        _ => {}
    }
}

/// vLLM with `--enable-per-request-metrics`.
fn metrics(path: &str, value: Value<'_>, facts: &mut Facts) {
    let seconds = value.measure().map(|ms| ms / 1000.0);
    match path {
        "queue_time_ms" => facts.timings.queue = seconds,
        // From being scheduled to the first token.
        "time_to_first_token_ms" => facts.timings.prefill = seconds,
        "generation_time_ms" => facts.timings.decode = seconds,
        _ => {}
    }
}
