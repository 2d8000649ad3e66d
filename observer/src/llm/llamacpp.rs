//! llama.cpp's own completion and infill. No `[DONE]`: the last event of a choice has `stop: true`.
//!
//! Source: llama.cpp `tools/server/server-task.cpp`. `tokens_evaluated` counts the whole prompt; `tokens_cached`
//! is what the slot's cache holds afterwards, and not what the prompt took from it: that is `timings.cache_n`.

use super::{
    Dialect,
    facts::{Facts, Operation, Request, Terminal, name},
    openai,
};
use crate::body::json::{Field, Value};

/// `POST …/completion` and `…/infill`; `/completions` without a version is the older name of the first here,
/// and a gateway's name of OpenAI's completions: both are understood.
pub(super) struct Completion;

impl Dialect for Completion {
    fn operation(&self, path: &str) -> Option<Operation> {
        let is_ours = path.ends_with("/completion") || path.ends_with("/infill") || path == "/completions";
        is_ours.then_some(Operation::TextCompletion)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        match (field.path, field.value) {
            // -1 is no limit.
            ("n_predict", value) => request.max_tokens = value.count(),
            ("n_cmpl", value) => request.choices = openai::choices(value),
            (path, value) => openai::request(path, value, request),
        }
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        // Several prompts are answered by an array.
        match (field.path.strip_prefix("[].").unwrap_or(field.path), value) {
            ("content", _) => facts.answer |= value.is_text(),
            ("tokens[]", _) => facts.token_ids += 1,
            ("completion_probabilities[].id", _) => facts.logprobs += 1,
            ("index", _) => facts.index = facts.index.max(openai::choices(value).unwrap_or(0)),
            ("stop", Value::Bool(true)) => facts.terminal = Terminal::Choice,
            ("stop_type", Value::String { text, .. }) if text != "none" => facts.finish_reason = name(text),
            ("tokens_evaluated", _) => facts.engine.input = value.count(),
            ("tokens_predicted", _) => {
                facts.engine.output = Some(facts.engine.output.unwrap_or(0) + value.count().unwrap_or(0));
            }
            (path, value) => openai::document(path, value, facts),
        }
    }
}

/// The `timings` object: counts and times of this very request, in all of its APIs.
pub(super) fn timings(path: &str, value: Value<'_>, facts: &mut Facts) {
    facts.provider = Some("llama.cpp");
    let seconds = || value.measure().map(|ms| ms / 1000.0);
    match path {
        "cache_n" => facts.engine.input_cached = value.count(),
        "prompt_n" => facts.engine.input_uncached = value.count(),
        "predicted_n" => facts.engine.output = value.count(),
        "prompt_ms" => facts.timings.prefill = seconds(),
        "predicted_ms" => facts.timings.decode = seconds(),
        _ => {}
    }
}
