//! Whatever bears tokens under a path that is not known: told by the names that texts have in the known APIs.
//!
//! Some routes are known to serve LLMs and not to be of one API: vLLM's `/invocations` takes any of OpenAI's
//! requests, `/inference/v1/generate` takes and gives token ids, transcriptions stream as chat does.
//! Source: vLLM `entrypoints/`.

use super::{
    Dialect,
    facts::{Facts, Operation, Request, Terminal, name},
    openai, tgi,
};
use crate::body::json::{Field, Value};

/// Routes that are observed without a look at what they answer.
const ROUTES: &[&str] =
    &["/invocations", "/inference/v1/generate", "/v1/audio/transcriptions", "/v1/audio/translations"];

/// An API that is not known.
pub(super) struct Unknown;

impl Dialect for Unknown {
    fn operation(&self, path: &str) -> Option<Operation> {
        ROUTES.iter().any(|route| path.ends_with(route)).then_some(Operation::Unknown)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        match (field.path, field.value) {
            ("sampling_params.max_tokens" | "parameters.max_new_tokens", value) => {
                request.max_tokens = value.count();
            }
            (path, value) => openai::request(path, value, request),
        }
    }

    fn has_terminator(&self) -> bool {
        false
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        match (field.path, value) {
            (
                "text" | "content" | "response" | "output" | "answer" | "text_output" | "delta"
                | "delta.text" | "delta.content" | "message.content",
                _,
            ) => facts.answer |= value.is_text(),
            ("thinking" | "reasoning" | "reasoning_content" | "delta.thinking", _) => {
                facts.reasoning |= value.is_text();
            }
            // Ids alone are what this route was asked for.
            ("choices[].token_ids[]", _) => {
                facts.answer = true;
                facts.token_ids += 1;
            }
            ("done", Value::Bool(true)) => facts.terminal = Terminal::Stream,
            ("request_id", Value::String { text, .. }) => facts.id = name(text),
            (path, value) => {
                if !tgi::note(path, value, facts) {
                    openai::document(path, value, facts);
                }
            }
        }
    }

    fn concluded(&self, facts: &mut Facts) {
        tgi::concluded(facts);
    }
}
