//! What LLM APIs say: which requests ask for a model's answer, and what their messages tell.
//!
//! One file per API dialect, in the ordered list [`DIALECTS`]. A dialect is handed the scalars of a JSON
//! document with their paths and notes what it knows in a vocabulary that all dialects share. It sees no
//! framing and no time.

mod facts;
mod openai;
mod provider;

pub use facts::{Facts, Operation, Request, Usage};
pub use provider::provider;

use crate::body::json::Field;

/// One API.
pub trait Dialect: Sync {
    /// The operation that a request to `path` asks for, or `None` if it is not of this API.
    fn operation(&self, path: &str) -> Option<Operation>;

    /// Notes a scalar of the request's content.
    fn request(&self, field: &Field<'_>, request: &mut Request);

    /// Notes a scalar of a response: of its content when plain, of one event when streamed.
    fn response(&self, field: &Field<'_>, facts: &mut Facts);

    /// Whether the data of an event is the stream's terminator instead of a document.
    fn is_terminator(&self, data: &[u8]) -> bool;
}

/// All dialects, the first match wins.
pub const DIALECTS: &[&dyn Dialect] = &[&openai::CHAT, &openai::COMPLETIONS];

/// The dialect and operation of a request.
pub fn classify(method: &str, path: &str) -> Option<(&'static dyn Dialect, Operation)> {
    if method != "POST" {
        return None;
    }
    DIALECTS.iter().find_map(|dialect| Some((*dialect, dialect.operation(path)?)))
}

/// Paths that clients of an LLM server ask for before, between or beside completions. A connection that
/// carries one of them may carry a completion next.
const BESIDE: &[&str] = &["/models", "/health", "/metrics", "/version", "/props", "/tokenize", "/ping"];

/// Whether a request that is no LLM operation still tells that its server may be one.
pub fn is_beside(path: &str) -> bool {
    path.starts_with("/v1/") || BESIDE.iter().any(|suffix| path.ends_with(suffix))
}
