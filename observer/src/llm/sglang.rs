//! Members of SGLang's generate: `{"text", "output_ids", "meta_info"}`, ended by `[DONE]`.
//!
//! Sources: SGLang `srt/managers/tokenizer_manager.py`, `srt/observability/req_time_stats.py`. Unless the
//! server streams increments, `text` and `output_ids` repeat everything from the start; the count of tokens
//! grows in both modes, so it tells which events bear one.

use super::{
    facts::{Facts, name},
    openai,
};
use crate::body::json::Value;

/// Notes a member; false if it is none of SGLang's.
pub(super) fn note(path: &str, value: Value<'_>, facts: &mut Facts) -> bool {
    match (path, value) {
        ("text", _) => facts.answer |= value.is_text(),
        // Without a tokenizer there is no text.
        ("output_ids[]", _) => facts.answer = true,
        // TGI numbers tokens by that name.
        ("index", _) => facts.pending.index = openai::choices(value).unwrap_or(0),
        ("meta_info.id", Value::String { text, .. }) => facts.id = name(text),
        ("meta_info.finish_reason.type", Value::String { text, .. }) => facts.finish_reason = name(text),
        ("meta_info.prompt_tokens", _) => facts.engine.input = sum(facts.engine.input, value),
        ("meta_info.cached_tokens", _) => facts.engine.input_cached = sum(facts.engine.input_cached, value),
        ("meta_info.completion_tokens", _) => {
            facts.engine.output = sum(facts.engine.output, value);
            facts.cumulative = facts.engine.output;
            facts.provider = Some("sglang");
        }
        ("meta_info.reasoning_tokens", _) => {
            facts.engine.output_reasoning = sum(facts.engine.output_reasoning, value);
        }
        // With `--enable-metrics`.
        ("meta_info.queue_time", _) => facts.timings.queue = value.measure(),
        _ => return false,
    }
    true
}

/// The document is over.
pub(super) fn concluded(facts: &mut Facts) {
    if facts.cumulative.is_some() {
        facts.index = facts.index.max(facts.pending.index);
    }
}

/// Results of several prompts add up.
fn sum(so_far: Option<u64>, value: Value<'_>) -> Option<u64> {
    value.count().map(|count| so_far.unwrap_or(0).saturating_add(count)).or(so_far)
}
