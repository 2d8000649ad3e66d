//! Label selectors as kubectl spells them: `app=vllm,tier in (gpu,cpu),!canary`.
//!
//! In: text. Out: [`Selector`], which says whether labels meet it (Kubernetes `apimachinery/pkg/labels`).

use std::collections::{BTreeMap, BTreeSet};

/// All of its requirements have to be met; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    /// Reads a selector; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let inside = rest.find('(').filter(|open| rest.find(',').is_none_or(|comma| *open < comma));
            let from = inside.map_or(Some(0), |open| Some(open + rest[open..].find(')')?))?;
            let end = rest[from..].find(',').map_or(rest.len(), |comma| from + comma);
            requirements.push(requirement(rest[..end].trim())?);
            rest = match rest.get(end + 1..).map(str::trim) {
                // A comma announces another one.
                Some("") => return None,
                rest => rest.unwrap_or_default(),
            };
        }
        Some(Self(requirements))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these labels meet it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }
}

fn requirement(text: &str) -> Option<Requirement> {
    if let Some(key) = text.strip_prefix('!') {
        return Some(Requirement::Absent(name(key)?));
    }
    if let Some((left, values)) = text.split_once('(') {
        let values = values.strip_suffix(')')?.split(',').map(value).collect::<Option<_>>()?;
        let mut words = left.split_whitespace();
        let key = name(words.next()?)?;
        return match (words.next()?, words.next()) {
            ("in", None) => Some(Requirement::In(key, values)),
            ("notin", None) => Some(Requirement::NotIn(key, values)),
            _ => None,
        };
    }
    let set = |text: &str| Some(BTreeSet::from([value(text)?]));
    if let Some((key, other)) = text.split_once("!=") {
        return Some(Requirement::NotIn(name(key)?, set(other)?));
    }
    if let Some((key, other)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Requirement::In(name(key)?, set(other)?));
    }
    Some(Requirement::Exists(name(text)?))
}

/// A label's key: an optional DNS prefix, then up to 63 letters, digits, `-`, `_` and `.`.
pub(super) fn name(text: &str) -> Option<String> {
    let text = text.trim();
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = prefix.is_none_or(|prefix| !prefix.is_empty() && prefix.len() <= 253 && fits(prefix));
    (!name.is_empty() && name.len() <= 63 && fits(name) && prefix_fits).then(|| text.to_owned())
}

fn value(text: &str) -> Option<String> {
    let text = text.trim();
    (text.len() <= 63 && fits(text)).then(|| text.to_owned())
}

fn fits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Selector::parse(selector).unwrap_or_else(|| panic!("{selector}")).matches(&labels)
    }

    #[test]
    fn every_kind_of_requirement() {
        let labels = [("app", "vllm"), ("tier", "gpu"), ("example.com/team", "ml")];
        for selector in [
            "",
            "app=vllm",
            "app == vllm",
            "app!=tgi",
            "zone!=a",
            "app",
            "!canary",
            "tier in (gpu, cpu)",
            "tier notin (cpu)",
            "zone notin (a,b)",
            "app=vllm,tier in (gpu,cpu),!canary",
            "example.com/team=ml",
            "canary notin (), app",
        ] {
            assert!(meets(selector, &labels), "{selector}");
        }
        for selector in [
            "app=tgi",
            "app!=vllm",
            "canary",
            "!app",
            "tier in (cpu)",
            "tier notin (gpu,cpu)",
            "app=vllm,zone",
            "app=",
        ] {
            assert!(!meets(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector() {
        for text in [
            "=",
            "a=b=c",
            "a in b",
            "a in (b",
            "a foo (b)",
            "a in (b) c",
            ",",
            "a,",
            "a=b,,c",
            "a b",
            "a=ü",
            "/a",
            "a/",
        ] {
            assert_eq!(Selector::parse(text), None, "{text}");
        }
    }
}
