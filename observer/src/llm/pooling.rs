//! Embeddings, reranking, scores, classes and pooling: one document, no generated tokens.
//!
//! Sources: OpenAI API reference, "Embeddings"; vLLM `entrypoints/pooling/`; llama.cpp
//! `tools/server/server-task.cpp`; Cohere API reference, "Rerank" and "Embed". Vectors may also come as bytes
//! of another media type, which are counted and not read.

use super::{
    Dialect,
    facts::{Facts, Operation, Request, name},
    openai,
};
use crate::body::json::{Field, Value};

/// Routes by their end, and by the whole where the word alone is anyone's.
const ROUTES: &[(&str, Operation)] = &[
    ("/embeddings", Operation::Embeddings),
    ("/embedding", Operation::Embeddings),
    ("/embed", Operation::Embeddings),
    ("/rerank", Operation::Rerank),
    ("/reranking", Operation::Rerank),
    ("/v1/score", Operation::Score),
    ("/v1/classify", Operation::Classify),
    ("/v1/pooling", Operation::Pooling),
];
const WHOLE: &[(&str, Operation)] =
    &[("/score", Operation::Score), ("/classify", Operation::Classify), ("/pooling", Operation::Pooling)];

/// Whatever a pooling model is asked for.
pub(super) struct Pooling;

impl Dialect for Pooling {
    fn operation(&self, path: &str) -> Option<Operation> {
        let by_end = ROUTES.iter().find(|(route, _)| path.ends_with(route));
        by_end.or_else(|| WHOLE.iter().find(|(route, _)| path == *route)).map(|(_, operation)| *operation)
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        if let ("model", Value::String { text, .. }) = (field.path, field.value) {
            request.model = name(text);
        }
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        match field.path {
            // Where it is the only count, there is nothing else in it.
            "usage.total_tokens" => facts.usage.input = facts.usage.input.or(value.count()),
            "meta.billed_units.input_tokens" => facts.engine.input = value.count(),
            path => openai::document(path, value, facts),
        }
    }

    fn concluded(&self, facts: &mut Facts) {
        (facts.usage.output, facts.usage.output_reasoning) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anyones_words_are_taken_whole() {
        assert_eq!(Pooling.operation("/score"), Some(Operation::Score));
        assert_eq!(Pooling.operation("/game/score"), None);
        assert_eq!(Pooling.operation("/proxy/v1/embeddings"), Some(Operation::Embeddings));
    }
}
