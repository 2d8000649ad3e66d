//! Why a configuration is refused. Each message names where, what, and what to do.

use std::path::PathBuf;

use super::typed::Source;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {}: {cause}; check the path given by --config or OBSERVER_CONFIG",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not valid TOML; correct this place:\n{cause}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        #[source]
        cause: Box<toml::de::Error>,
    },
    /// No field has this name.
    #[error("{source_name}: there is no field `{field}` (value {value}); {remedy}")]
    UnknownField {
        /// Where it was typed.
        source_name: Source,
        /// The name that was typed.
        field: String,
        /// The value that was typed.
        value: String,
        /// What to do.
        remedy: String,
    },
    /// A field has a value that cannot be used.
    #[error("{source_name}: `{field}` = {value}: {reason}; {remedy}")]
    BadValue {
        /// Where it was typed.
        source_name: Source,
        /// The field.
        field: &'static str,
        /// The value that was typed.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// Two fields contradict each other.
    #[error("`{field}` = {value} contradicts `{other}` = {other_value}; {remedy}")]
    Contradiction {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The field that it contradicts.
        other: &'static str,
        /// The value of that field.
        other_value: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The host name, which would be the node name, cannot be used.
    #[error("the host name {value:?} cannot serve as node name; set `node`")]
    NoNodeName {
        /// The host name.
        value: String,
    },
}
