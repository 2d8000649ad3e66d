//! What LLM APIs say: which requests ask for a model's answer, and what their messages tell.
//!
//! One file per API dialect, in the ordered list [`DIALECTS`]. A dialect is handed the scalars of a JSON
//! document with their paths and notes what it knows in a vocabulary that all dialects share. It sees no
//! framing and no time, and keeps no state: whatever spans events is for the exchange.

mod anthropic;
mod cohere;
mod error;
mod facts;
mod gemini;
mod generate;
mod head;
mod llamacpp;
mod ollama;
mod openai;
mod pooling;
mod provider;
mod responses;
mod sglang;
mod tgi;
mod triton;
mod unknown;

#[cfg(test)]
mod tests;

pub use facts::{Facts, Operation, Request, Terminal, Timings, Usage};
pub use head::head;
pub use provider::provider;

use crate::body::json::Field;

/// One API.
pub trait Dialect: Sync {
    /// The operation that a request to `path` asks for, or `None` if it is not of this API. The path has no
    /// query and does not end in a slash.
    fn operation(&self, path: &str) -> Option<Operation>;

    /// Notes what the path of a request tells.
    fn path(&self, _path: &str, _request: &mut Request) {}

    /// Notes a scalar of the request's content.
    fn request(&self, field: &Field<'_>, request: &mut Request);

    /// Whether a request that does not say asks for a stream.
    fn streams_by_default(&self) -> bool {
        false
    }

    /// Notes a scalar of a response: of its content when plain, of one event when streamed.
    fn response(&self, field: &Field<'_>, facts: &mut Facts);

    /// The document is over: notes what its members tell together.
    fn concluded(&self, _facts: &mut Facts) {}

    /// Whether a stream says when it is over, by `[DONE]` or by an event with [`Facts::terminal`]. If not, it
    /// is over with its framing.
    fn has_terminator(&self) -> bool {
        true
    }

    /// Whether a stream may be one JSON array, an event per element.
    fn streams_arrays(&self) -> bool {
        false
    }
}

/// All dialects, the first match wins: what is told by more of its path stands before what is told by less.
pub const DIALECTS: &[&dyn Dialect] = &[
    &openai::CHAT,
    &llamacpp::Completion,
    &openai::COMPLETIONS,
    &responses::Responses,
    &anthropic::Messages,
    &ollama::CHAT,
    &ollama::GENERATE,
    &ollama::EMBED,
    &cohere::Chat,
    &triton::Models,
    &gemini::Gemini,
    &unknown::Unknown,
    &generate::Generate,
    &pooling::Pooling,
];

/// The dialect and operation of a request.
pub fn classify(method: &str, path: &str) -> Option<(&'static dyn Dialect, Operation)> {
    if method != "POST" {
        return None;
    }
    let path = path.trim_end_matches('/');
    DIALECTS.iter().find_map(|dialect| Some((*dialect, dialect.operation(path)?)))
}

/// The dialect of a request whose path is not known, if it may turn out to ask for tokens: it sends something,
/// and what it sends is not said to be anything else than JSON.
pub fn candidate(method: &str, content_type: Option<&str>) -> Option<(&'static dyn Dialect, Operation)> {
    let may_be =
        method == "POST" && content_type.is_none_or(|media| media.eq_ignore_ascii_case("application/json"));
    may_be.then_some((&unknown::Unknown as &dyn Dialect, Operation::Unknown))
}

/// Paths that clients of an LLM server ask for before, between or beside completions: vLLM's, llama.cpp's,
/// SGLang's, TGI's, Ollama's. A connection that carries one of them may carry a completion next.
const BESIDE: &[&str] = &[
    "/models",
    "/health",
    "/health_generate",
    "/metrics",
    "/version",
    "/props",
    "/slots",
    "/tokenize",
    "/detokenize",
    "/ping",
    "/info",
    "/get_model_info",
    "/get_server_info",
    "/api/tags",
    "/api/show",
    "/api/ps",
];

/// Whether a request that is no LLM operation still tells that its server may be one, or tells nothing at all: HEAD
/// is how clients ask whether anyone is there.
pub fn is_beside(method: &str, path: &str) -> bool {
    method == "HEAD"
        || ["/v1/", "/v1beta/", "/v2/"].iter().any(|version| path.starts_with(version))
        || BESIDE.iter().any(|suffix| path.ends_with(suffix))
}
