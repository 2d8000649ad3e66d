//! Up to where files were read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Up to where one file was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Names the file by its content.
    pub file: u64,
    /// Where the first line stands that is in no row yet, on standard output and on standard error: the streams of a file
    /// get on apart from each other.
    pub read: [u64; 2],
}

/// Up to where the files of each log were read, by the path of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places(pub BTreeMap<String, Vec<Place>>);

impl Places {
    /// From text that [`Places::text`] made; none if it is something else.
    pub fn of(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As text.
    pub fn text(&self) -> String {
        // Numbers and texts always have a form.
        serde_json::to_string(self).unwrap_or_default()
    }
}
