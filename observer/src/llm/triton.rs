//! Triton's `generate` and `generate_stream`, the Open Inference Protocol's generate, and inference on tensors.
//!
//! Sources: Triton `docs/protocol/extension_generate.md`, `src/http_server.cc`; `kserve/open-inference-protocol`,
//! "generate" and "inference". The model is in the path. A stream has no terminator: it ends with its framing.

use super::{
    Dialect, error,
    facts::{Facts, Operation, Request, name},
};
use crate::body::json::{Field, Value};

/// `POST …/v2/models/M[/versions/V]/generate`, `…/generate_stream` and `…/infer`.
pub(super) struct Models;

/// The model of such a path, and what is done with it.
fn parts(path: &str) -> Option<(&str, &str)> {
    let (_, rest) = path.rsplit_once("/v2/models/")?;
    let (model, rest) = rest.split_once('/')?;
    let verb = match rest.strip_prefix("versions/") {
        Some(versioned) => versioned.split_once('/')?.1,
        None => rest,
    };
    Some((model, verb))
}

impl Dialect for Models {
    fn operation(&self, path: &str) -> Option<Operation> {
        match parts(path)?.1 {
            "generate" | "generate_stream" => Some(Operation::TextCompletion),
            "infer" => Some(Operation::Infer),
            _ => None,
        }
    }

    fn path(&self, path: &str, request: &mut Request) {
        if let Some((model, verb)) = parts(path) {
            request.model = name(model);
            request.stream = Some(verb == "generate_stream");
        }
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        if let "max_tokens" | "parameters.max_tokens" = field.path {
            request.max_tokens = field.value.count();
        }
    }

    fn has_terminator(&self) -> bool {
        false
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        match (field.path, value) {
            // A string, or an array of them.
            ("text_output" | "text_output[]", _) => facts.answer |= value.is_text(),
            ("model_name", Value::String { text, .. }) => facts.model = name(text),
            ("id", Value::String { text, .. }) => facts.id = name(text),
            ("details.finish_reason", Value::String { text, .. }) => facts.finish_reason = name(text),
            ("details.token.id", _) => facts.token_ids += 1,
            (path, value) => error::note(path, value, facts),
        }
    }
}
