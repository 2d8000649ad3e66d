//! First stage: what was typed, as a list of fields and values with their source, weakest source first.
//!
//! In: a TOML text, environment variables, flags. Out: [`Typed`] values; no meaning is given to them yet.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;

use super::cli::FlagSetting;
use super::error::ConfigError;

/// Prefix of every environment variable that is read.
const PREFIX: &str = "OBSERVER_";

/// Where a value was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the configuration file.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
    /// With a flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "configuration file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One value as it was typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Typed {
    /// Dotted name: `metrics.labels`.
    pub field: String,
    /// The value; text when it came from environment or flags.
    pub value: Value,
    /// Where it was typed.
    pub source: Source,
}

/// Values of a TOML file, tables flattened to dotted names.
pub(super) fn from_file(path: &Path, text: &str, fields: &[&'static str]) -> Result<Vec<Typed>, ConfigError> {
    let table: toml::Table = toml::from_str(text)
        .map_err(|cause| ConfigError::NotToml { path: path.to_owned(), cause: Box::new(cause) })?;
    let mut typed = Vec::new();
    flatten("", table, &Source::File(path.to_owned()), fields, &mut typed);
    Ok(typed)
}

fn flatten(
    prefix: &str,
    table: toml::Table,
    source: &Source,
    fields: &[&'static str],
    typed: &mut Vec<Typed>,
) {
    for (key, value) in table {
        let field = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            // A table with nothing in it would vanish here, so a mistyped name of one is kept for refusal.
            Value::Table(inner) if !inner.is_empty() || is_table(&field, fields) => {
                flatten(&field, inner, source, fields, typed);
            }
            value => typed.push(Typed { field, value, source: source.clone() }),
        }
    }
}

fn is_table(name: &str, fields: &[&'static str]) -> bool {
    fields.iter().any(|field| field.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// Values of environment variables that start with `OBSERVER_`; the others are nobody's business.
///
/// `fields` are all known names. A variable that matches none keeps its own spelling and is refused later.
pub(super) fn from_environment(
    variables: impl IntoIterator<Item = (String, String)>,
    fields: &[&'static str],
) -> Vec<Typed> {
    let mut typed: Vec<Typed> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && name != "OBSERVER_CONFIG" && !is_service_link(name))
        .map(|(name, value)| {
            let field = fields.iter().find(|field| variable(field) == name);
            Typed {
                field: field.map_or_else(|| name.clone(), |&field| field.to_owned()),
                value: Value::String(value),
                source: Source::Environment(name),
            }
        })
        .collect();
    typed.sort_by(|a, b| a.field.cmp(&b.field));
    typed
}

/// Values that came with flags.
pub(super) fn from_flags(flags: Vec<FlagSetting>) -> Vec<Typed> {
    flags
        .into_iter()
        .map(|flag| Typed {
            field: flag.field,
            value: Value::String(flag.value),
            source: Source::Flag(flag.flag),
        })
        .collect()
}

/// The environment variable of a field: `metrics.max_series` is `OBSERVER_METRICS_MAX_SERIES`.
pub fn variable(field: &str) -> String {
    format!("{PREFIX}{}", field.replace('.', "_").to_ascii_uppercase())
}

/// Whether Kubernetes made this variable for a Service whose name begins with `observer`: every pod of the
/// namespace gets them unless `enableServiceLinks` is off, and they are no typing mistake.
fn is_service_link(name: &str) -> bool {
    let numbered_port = |rest: &str| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.match_indices("_PORT_").any(|(at, found)| numbered_port(&name[at + found.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_dotted_names() {
        let typed =
            from_file(Path::new("a.toml"), "log = 'warn'\n[metrics.buckets]\nttft = [1]\n", &[]).unwrap();
        let names: Vec<_> = typed.iter().map(|typed| typed.field.as_str()).collect();
        assert_eq!(names, ["log", "metrics.buckets.ttft"]);
    }

    #[test]
    fn service_links_are_not_settings() {
        for name in [
            "OBSERVER_PORT",
            "OBSERVER_PORT_9842_TCP",
            "OBSERVER_PORT_9842_TCP_ADDR",
            "OBSERVER_SERVICE_HOST",
            "OBSERVER_SERVICE_PORT",
            "OBSERVER_SERVICE_PORT_HTTP",
            "OBSERVER_CLUSTER_PORT_443_TCP_PROTO",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for name in
            ["OBSERVER_LISTEN", "OBSERVER_PORTS", "OBSERVER_LISTEN_PORT_TCP", "OBSERVER_METRICS_LABELS"]
        {
            assert!(!is_service_link(name), "{name}");
        }
    }

    #[test]
    fn only_our_variables_are_read() {
        let variables =
            [("PATH", "/bin"), ("OBSERVER_CONFIG", "x"), ("OBSERVER_LOG", "warn"), ("OBSERVER_NOPE", "1")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let typed = from_environment(variables, &["log"]);
        let names: Vec<_> = typed.iter().map(|typed| typed.field.as_str()).collect();
        assert_eq!(names, ["OBSERVER_NOPE", "log"]);
    }
}
