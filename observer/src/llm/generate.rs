//! `POST …/generate`, which SGLang and TGI both serve, and TGI's `…/generate_stream`.
//!
//! The path does not tell them apart and their members do: [`sglang`] and [`tgi`] are read side by side.

use super::{
    Dialect, error,
    facts::{Facts, Operation, Request, name},
    openai, sglang, tgi,
};
use crate::body::json::{Field, Value};

/// Either engine's generate.
pub(super) struct Generate;

impl Dialect for Generate {
    fn operation(&self, path: &str) -> Option<Operation> {
        (path.ends_with("/generate") || path.ends_with("/generate_stream"))
            .then_some(Operation::TextCompletion)
    }

    fn path(&self, path: &str, request: &mut Request) {
        if path.ends_with("/generate_stream") {
            request.stream = Some(true);
        }
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        match (field.path, field.value) {
            ("parameters.max_new_tokens" | "sampling_params.max_new_tokens", value) => {
                request.max_tokens = value.count();
            }
            ("sampling_params.n", value) => request.choices = openai::choices(value),
            ("stream", Value::Bool(stream)) => request.stream = Some(request.stream.unwrap_or(stream)),
            // A name of an adapter or of a model behind a gateway.
            ("model", Value::String { text, .. }) => request.model = name(text),
            _ => {}
        }
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        // Several prompts or choices are answered by an array.
        let (path, place) =
            field.path.strip_prefix("[].").map_or((field.path, 0), |rest| (rest, field.index));
        facts.index = facts.index.max(place);
        if !sglang::note(path, field.value, facts) && !tgi::note(path, field.value, facts) {
            error::note(path, field.value, facts);
        }
    }

    fn concluded(&self, facts: &mut Facts) {
        sglang::concluded(facts);
        tgi::concluded(facts);
    }
}
