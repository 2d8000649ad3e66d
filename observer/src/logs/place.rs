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

/// Up to where logs were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The files of each log, by the path of the log.
    pub files: BTreeMap<String, Vec<Place>>,
    /// The cursor of the last entry of the journal that is in a row, if it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
}

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
