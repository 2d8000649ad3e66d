//! What user space decided about a connection.

/// Verdict on a connection; no entry in the map means that none was given yet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It carries an LLM API: copy requests whole and responses head and tail.
    Observe = 1,
    /// It carries HTTP that is not of interest: only look again at requests with a body.
    Ignore = 2,
    /// It was upgraded or cannot be decoded: count bytes, copy nothing.
    Opaque = 3,
}
