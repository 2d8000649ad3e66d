//! OpenAI responses, as OpenAI, vLLM, llama.cpp and Ollama send them. No `[DONE]`: the last event says so.
//!
//! Sources: OpenAI API reference, "Responses" and "Streaming"; vLLM `entrypoints/openai/responses/`; llama.cpp
//! `tools/server/server-task.cpp`.

use super::{
    Dialect, error,
    facts::{Facts, Operation, Request, Terminal, Usage, name},
    llamacpp, openai,
};
use crate::body::json::{Field, Value};

/// `POST …/responses`.
pub(super) struct Responses;

impl Dialect for Responses {
    fn operation(&self, path: &str) -> Option<Operation> {
        path.ends_with("/responses").then_some(Operation::Chat)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        match (field.path, field.value) {
            ("max_output_tokens", value) => request.max_tokens = value.count(),
            // There is no such parameter here.
            ("n", _) => {}
            (path, value) => openai::request(path, value, request),
        }
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        // The snapshot that the first and the last event carry is a plain response.
        let (path, is_snapshot) =
            field.path.strip_prefix("response.").map_or((field.path, false), |rest| (rest, true));
        match (path, value) {
            // In an event, `type` and `delta` tell together: either may come first.
            ("type", Value::String { text, .. }) if !is_snapshot => facts.pending.kind = name(text),
            ("delta", _) if !is_snapshot => facts.pending.texts += u32::from(value.is_text()),
            ("object", Value::String { text: "error", .. }) => {
                facts.pending.is_error = true;
                error::happened(facts);
            }
            ("status", Value::String { text, .. }) => status(text, facts),
            ("incomplete_details.reason", Value::String { text, .. }) => facts.finish_reason = name(text),
            ("id", Value::String { text, .. }) => facts.id = name(text),
            ("model", Value::String { text, .. }) => facts.model = name(text),
            // An `error` event has its code on top.
            ("code", Value::String { text, .. }) if !is_snapshot => facts.pending.code = name(text),
            _ => {
                if let Some(rest) = path.strip_prefix("usage.") {
                    usage(rest, value, &mut facts.usage);
                } else if let Some(rest) = path.strip_prefix("timings.") {
                    llamacpp::timings(rest, value, facts);
                } else if let Some(rest) = path.strip_prefix("output[].") {
                    output(rest, value, facts);
                } else {
                    error::note(path, value, facts);
                }
            }
        }
    }

    fn concluded(&self, facts: &mut Facts) {
        let Some(kind) = facts.pending.kind.take() else { return };
        // What a snapshot repeats was borne by the events before it.
        (facts.answer, facts.reasoning) = (false, false);
        if kind.strip_suffix(".delta").is_some() && facts.pending.texts > 0 {
            facts.reasoning = kind.contains("reasoning");
            facts.answer = !facts.reasoning;
        }
        facts.terminal = Terminal::stream_if(matches!(
            kind.as_str(),
            "response.completed" | "response.incomplete" | "response.failed" | "error"
        ));
        if matches!(kind.as_str(), "response.failed" | "error") {
            error::happened(facts);
            error::code(&facts.pending.code.take().unwrap_or_default(), facts);
        } else if facts.error.is_some() && facts.pending.is_error {
            // SGLang's plain errors are on top.
            facts.error = Some(kind);
        }
    }
}

/// A status that is an end.
fn status(text: &str, facts: &mut Facts) {
    match text {
        // Why it is not complete is told beside it, before or after.
        "incomplete" => facts.finish_reason = facts.finish_reason.take().or_else(|| name(text)),
        "completed" | "failed" | "cancelled" => facts.finish_reason = name(text),
        _ => {}
    }
}

/// Items of a plain response.
fn output(path: &str, value: Value<'_>, facts: &mut Facts) {
    match path {
        "content[].text" | "content[].refusal" | "arguments" | "input" | "name" => {
            facts.answer |= value.is_text();
        }
        "summary[].text" => facts.reasoning |= value.is_text(),
        _ => {}
    }
}

fn usage(path: &str, value: Value<'_>, usage: &mut Usage) {
    match path {
        "input_tokens" => usage.input = value.count(),
        "input_tokens_details.cached_tokens" => usage.input_cached = value.count(),
        "output_tokens" => usage.output = value.count(),
        "output_tokens_details.reasoning_tokens" => usage.output_reasoning = value.count(),
        _ => {}
    }
}
