//! What a request record says about the operator's objectives.

use serde::{Deserialize, Serialize};

/// The objectives that a request was judged by, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Judged {
    /// Those that it met.
    pub met: Vec<String>,
    /// Those that it missed.
    pub missed: Vec<String>,
    /// Those that it says nothing about, and why; not part of the JSON.
    #[serde(skip)]
    pub excluded: Vec<(String, &'static str)>,
}

impl Judged {
    /// Whether it was eligible for none.
    pub fn is_empty(&self) -> bool {
        self.met.is_empty() && self.missed.is_empty()
    }
}
