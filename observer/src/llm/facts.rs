//! The vocabulary that all dialects share.

use serde::{Deserialize, Serialize};

/// Longest name that is kept of a model, an id, a reason or a type.
const NAME: usize = 256;

/// Operation, by OpenTelemetry's GenAI names where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A chat completion.
    Chat,
    /// A text completion.
    TextCompletion,
    /// Content of several kinds, as Gemini calls it.
    GenerateContent,
    /// Vectors of texts.
    Embeddings,
    /// An order of documents.
    Rerank,
    /// A score of pairs of texts.
    Score,
    /// Classes of texts.
    Classify,
    /// Hidden states of a pooling model.
    Pooling,
    /// An inference on tensors, whatever they hold.
    Infer,
    /// Not known, but tokens came.
    Unknown,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 10] = [
        Self::Chat,
        Self::TextCompletion,
        Self::GenerateContent,
        Self::Embeddings,
        Self::Rerank,
        Self::Score,
        Self::Classify,
        Self::Pooling,
        Self::Infer,
        Self::Unknown,
    ];

    /// The word used in records and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::GenerateContent => "generate_content",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::Classify => "classify",
            Self::Pooling => "pooling",
            Self::Infer => "infer",
            Self::Unknown => "unknown",
        }
    }

    /// Whether its answer is made of tokens, so that one without any is worth a mark.
    pub const fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::TextCompletion | Self::GenerateContent)
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
    /// It asks for a prefill alone: another engine decodes.
    pub prefill_only: bool,
}

/// Token counts as APIs report them: most give totals with their parts beside them, some give parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All prompt tokens, cached ones included.
    pub input: Option<u64>,
    /// Prompt tokens that were neither read from a cache nor written to one (Anthropic), or that were
    /// processed (llama.cpp). Excludes `input_cached`; where it is told, `input` is not looked at.
    pub input_uncached: Option<u64>,
    /// Prompt tokens that were processed and written to a cache, beside `input_uncached`.
    pub input_written: Option<u64>,
    /// Prompt tokens that were served from a cache.
    pub input_cached: Option<u64>,
    /// All generated tokens, reasoning included.
    pub output: Option<u64>,
    /// Of them, reasoning.
    pub output_reasoning: Option<u64>,
}

impl Usage {
    /// Whether it says anything. Some servers send an all-zero object with every event.
    pub fn is_some(&self) -> bool {
        [self.input, self.input_uncached, self.input_written, self.input_cached, self.output]
            .iter()
            .any(|count| count.is_some_and(|count| count > 0))
    }

    /// Takes over what a later report tells.
    pub fn update(&mut self, later: &Self) {
        *self = Self {
            input: later.input.or(self.input),
            input_uncached: later.input_uncached.or(self.input_uncached),
            input_written: later.input_written.or(self.input_written),
            input_cached: later.input_cached.or(self.input_cached),
            output: later.output.or(self.output),
            output_reasoning: later.output_reasoning.or(self.output_reasoning),
        };
    }
}

/// Times that an engine reports about one request, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// It waited to be scheduled; part of the queue wait, and reported there.
    #[serde(skip)]
    pub queue: Option<f64>,
    /// Its prompt was processed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill: Option<f64>,
    /// Its tokens were generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<f64>,
}

impl Timings {
    /// Takes over what a later report tells.
    pub fn update(&mut self, later: &Self) {
        *self = Self {
            queue: later.queue.or(self.queue),
            prefill: later.prefill.or(self.prefill),
            decode: later.decode.or(self.decode),
        };
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.prefill.is_none() && self.decode.is_none()
    }
}

/// What an event says is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terminal {
    /// Nothing.
    #[default]
    No,
    /// One choice of the stream: it is over once all of them are.
    Choice,
    /// The stream.
    Stream,
}

impl Terminal {
    /// The whole stream, if so.
    pub(super) const fn stream_if(over: bool) -> Self {
        if over { Self::Stream } else { Self::No }
    }
}

/// What one event, or one plain response, tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Non-empty reasoning text.
    pub reasoning: bool,
    /// Non-empty text, tool-call arguments or refusal; of APIs that send ids alone, ids.
    pub answer: bool,
    /// Tokens of this choice up to here, of APIs whose events repeat what came before: only an event whose
    /// number is larger than the last one bears a token.
    pub cumulative: Option<u64>,
    /// The highest index of a choice, or of a prompt, that it is about.
    pub index: u32,
    /// What it says is over.
    pub terminal: Terminal,
    /// Log-probability entries, one per token.
    pub logprobs: u64,
    /// Token ids.
    pub token_ids: u64,
    /// Token counts in the `usage` object.
    pub usage: Usage,
    /// Counts that the engine reports beside `usage`.
    pub engine: Usage,
    /// Times that the engine reports.
    pub timings: Timings,
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
    /// The document has a member that only one engine writes.
    pub provider: Option<&'static str>,
    /// What a dialect must remember until the document is over, because members come in any order.
    pub(crate) pending: Pending,
}

/// Members that tell something only together with others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pending {
    /// The document's `type`.
    pub(super) kind: Option<String>,
    /// A code on top of it.
    pub(super) code: Option<String>,
    /// A number, of a choice or of a token.
    pub(super) index: u32,
    /// All of it is an error.
    pub(super) is_error: bool,
    /// Non-empty texts.
    pub(super) texts: u32,
    /// Texts that are thoughts, or tokens that are control tokens.
    pub(super) set_apart: u32,
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
    // Most are short, and a stream names its model and its id in each event.
    let end = if text.len() <= NAME { None } else { text.char_indices().nth(NAME) };
    (!text.is_empty()).then(|| end.map_or(text, |(end, _)| text.split_at(end).0).to_owned())
}
