//! What a scanner reports.

/// A scalar, or an empty container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// Where it stands: keys joined by `.`, and `[]` for any element of an array, as in
    /// `choices[].delta.content`. A `.`, `[` or `]` within a key is written as `?`, as are an empty key and
    /// one that is too long.
    pub path: &'a str,
    /// Index in the outermost array of the path; 0 if there is none.
    pub index: u32,
    /// What stands there.
    pub value: Value<'a>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A string.
    String {
        /// Its first 256 bytes, without escapes; what is not UTF-8 is replaced.
        text: &'a str,
        /// Bytes between the quotes, as they stand on the wire.
        length: u64,
    },
    /// A number, as it stands on the wire.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// `[]`, reported at the path of the array itself.
    EmptyArray,
    /// `{}`.
    EmptyObject,
}

impl<'a> Value<'a> {
    /// The start of a string.
    pub fn text(self) -> Option<&'a str> {
        match self {
            Self::String { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether it is a string with something in it.
    pub fn is_text(self) -> bool {
        matches!(self, Self::String { length, .. } if length > 0)
    }

    /// A number that counts something.
    pub fn count(self) -> Option<u64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A number that measures something: finite and not negative.
    pub fn measure(self) -> Option<f64> {
        match self {
            Self::Number(text) => text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0),
            _ => None,
        }
    }
}

/// How much of a document was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// All of it.
    Complete,
    /// Bytes were missing within.
    Holed,
    /// It ended early.
    Truncated,
    /// It is not JSON.
    NotJson,
}
