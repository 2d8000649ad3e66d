//! Gemini's generateContent, streamGenerateContent and embedContent, as Google and gateways serve them.
//!
//! Source: Gemini API reference, "Generating content". The model is in the path.
//! A stream is one of events with `alt=sse`, else an array that grows; neither has a terminator.
//! `candidatesTokenCount` excludes thoughts, `promptTokenCount` includes cached tokens.

use super::{
    Dialect, error,
    facts::{Facts, Operation, Request, name},
    openai,
};
use crate::body::json::{Field, Value};

/// `POST …/models/M:generateContent` and its siblings.
pub(super) struct Gemini;

impl Dialect for Gemini {
    fn operation(&self, path: &str) -> Option<Operation> {
        match path.rsplit_once(':')?.1 {
            "generateContent" | "streamGenerateContent" => Some(Operation::GenerateContent),
            "embedContent" | "batchEmbedContents" => Some(Operation::Embeddings),
            _ => None,
        }
    }

    fn path(&self, path: &str, request: &mut Request) {
        let Some((before, verb)) = path.rsplit_once(':') else { return };
        request.model = before.rsplit('/').next().and_then(name);
        request.stream = Some(verb == "streamGenerateContent");
    }

    fn request(&self, field: &Field<'_>, request: &mut Request) {
        match field.path {
            "generationConfig.maxOutputTokens" => request.max_tokens = field.value.count(),
            "generationConfig.candidateCount" => request.choices = openai::choices(field.value),
            _ => {}
        }
    }

    fn has_terminator(&self) -> bool {
        false
    }

    fn streams_arrays(&self) -> bool {
        true
    }

    fn response(&self, field: &Field<'_>, facts: &mut Facts) {
        let value = field.value;
        // Before an array starts to grow, an error is wrapped in one, too.
        match (field.path.strip_prefix("[].").unwrap_or(field.path), value) {
            ("candidates[].content.parts[].text", _) => facts.pending.texts += u32::from(value.is_text()),
            ("candidates[].content.parts[].thought", Value::Bool(thought)) => {
                facts.pending.set_apart += u32::from(thought);
            }
            ("candidates[].content.parts[].functionCall.name", _) => facts.answer |= value.is_text(),
            ("candidates[].finishReason" | "promptFeedback.blockReason", Value::String { text, .. }) => {
                facts.finish_reason = name(text);
            }
            ("candidates[].index", _) => facts.index = facts.index.max(openai::choices(value).unwrap_or(0)),
            ("usageMetadata.promptTokenCount", _) => facts.usage.input = value.count(),
            ("usageMetadata.cachedContentTokenCount", _) => facts.usage.input_cached = value.count(),
            ("usageMetadata.candidatesTokenCount", _) => facts.usage.output = value.count(),
            ("usageMetadata.thoughtsTokenCount", _) => facts.usage.output_reasoning = value.count(),
            ("modelVersion", Value::String { text, .. }) => facts.model = name(text),
            ("responseId", Value::String { text, .. }) => facts.id = name(text),
            (path, value) => error::note(path, value, facts),
        }
    }

    fn concluded(&self, facts: &mut Facts) {
        let pending = std::mem::take(&mut facts.pending);
        facts.reasoning |= pending.set_apart > 0;
        facts.answer |= pending.texts > pending.set_apart;
        if let Some(thoughts) = facts.usage.output_reasoning {
            facts.usage.output = Some(facts.usage.output.unwrap_or(0).saturating_add(thoughts));
        }
    }
}
