//! The vocabulary that all dialects share.

use serde::{Deserialize, Serialize};

/// Longest name that is kept of a model, an id, a reason or a type.
const NAME: usize = 256;

/// Operation, by OpenTelemetry's GenAI names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A chat completion.
    Chat,
    /// A text completion.
    TextCompletion,
}

impl Operation {
    /// The word used in records and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Model.
    pub model: Option<String>,
    /// Whether to stream.
    pub stream: Option<bool>,
    /// Number of choices.
    pub choices: Option<u32>,
    /// Limit on generated tokens.
    pub max_tokens: Option<u64>,
}

/// Token counts as an API reports them. Totals: `input` includes cached ones, `output` includes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub input: Option<u64>,
    /// Of them, served from a cache.
    pub input_cached: Option<u64>,
    /// Generated tokens.
    pub output: Option<u64>,
    /// Of them, reasoning.
    pub output_reasoning: Option<u64>,
}

impl Usage {
    /// Whether it says anything. Some servers send an all-zero object with every event.
    pub fn is_some(&self) -> bool {
        self.input.is_some_and(|n| n > 0) || self.output.is_some_and(|n| n > 0)
    }
}

/// What one event, or one plain response, tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Non-empty reasoning text.
    pub reasoning: bool,
    /// Non-empty text, tool-call arguments or refusal.
    pub answer: bool,
    /// Log-probability entries, one per token.
    pub logprobs: u64,
    /// Token ids.
    pub token_ids: u64,
    /// Token counts in the `usage` object.
    pub usage: Usage,
    /// Counts that the engine reports beside `usage`.
    pub engine: Usage,
    /// Why generation ended.
    pub finish_reason: Option<String>,
    /// An error object: its type, else its code, else a bare word.
    pub error: Option<String>,
    /// Model that answered.
    pub model: Option<String>,
    /// Id of the response.
    pub id: Option<String>,
    /// Fingerprint of the serving software.
    pub fingerprint: Option<String>,
    /// Seconds that the engine says the request waited.
    pub queue: Option<f64>,
    /// The document has a member that only one engine writes.
    pub provider: Option<&'static str>,
}

impl Facts {
    /// Tokens that it lists, by whichever list it has: a response may have both.
    pub fn ids(&self) -> u64 {
        self.logprobs.max(self.token_ids)
    }

    /// Whether it bears a token.
    pub const fn bears_token(&self) -> bool {
        self.reasoning || self.answer
    }
}

/// Keeps a name, cut to a bound, if it is not empty.
pub(super) fn name(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.chars().take(NAME).collect())
}
