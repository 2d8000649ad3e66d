//! Members of TGI's `generate` and `generate_stream`. No `[DONE]`: the last event has the whole text.
//!
//! Source: TGI `router/src/server.rs`, `router/src/lib.rs`. A plain response has its counts and times in
//! fields of its head: see [`super::head`].

use super::facts::{Facts, Terminal, name};
use crate::body::json::Value;

/// Notes a member; false if it is none of TGI's.
pub(super) fn note(path: &str, value: Value<'_>, facts: &mut Facts) -> bool {
    match (path, value) {
        ("token.text", _) => facts.pending.texts += u32::from(value.is_text()),
        // The end of a sequence is a token that no client gets to see.
        ("token.special", Value::Bool(special)) => facts.pending.set_apart += u32::from(special),
        ("token.id", _) => facts.token_ids += 1,
        ("generated_text", Value::String { .. }) => {
            facts.terminal = Terminal::Stream;
            facts.pending.kind = value.is_text().then(|| "generated_text".into());
        }
        ("details.finish_reason", Value::String { text, .. }) => facts.finish_reason = name(text),
        ("details.generated_tokens", _) => facts.engine.output = value.count(),
        ("details.input_length", _) => facts.engine.input = value.count(),
        // Only with `decoder_input_details`, and only when plain.
        ("details.tokens[].id", _) => facts.token_ids += 1,
        _ => return false,
    }
    true
}

/// The document is over.
pub(super) fn concluded(facts: &mut Facts) {
    let pending = std::mem::take(&mut facts.pending);
    facts.answer |= pending.texts > pending.set_apart;
    // The whole text of a plain response; that of a stream's last event was borne before.
    facts.answer |= pending.kind.is_some() && pending.texts == 0 && pending.set_apart == 0;
}
