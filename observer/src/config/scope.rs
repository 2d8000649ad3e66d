//! `kubernetes.namespaces.*`, `kubernetes.selector`, `kubernetes.opt_out`, `kubernetes.unknown`: whose pods are observed.

use std::collections::BTreeMap;

use wildmatch::WildMatch;

use super::selector::Selector;

/// What an annotation says to stay unobserved.
const NO: &str = "false";

/// Which pods may be observed.
#[derive(Clone, Debug, PartialEq)]
pub struct PodScope {
    /// Only pods of namespaces that one of these patterns matches, unless empty.
    pub include: Vec<String>,
    /// No pods of these; wins over `include`.
    pub exclude: Vec<String>,
    /// Only pods whose labels meet this.
    pub selector: Selector,
    /// Annotation by which a pod opts out, with the value `false`.
    pub opt_out: String,
    /// What becomes of pods of which nobody tells.
    pub unknown: Unknown,
}

/// What becomes of processes in pods of which nobody tells, because the API server is away or may not be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Observed after a while, unless namespaces or labels were named.
    #[default]
    Auto,
    /// Observed after a while.
    Observe,
    /// Not observed.
    Ignore,
}

impl Default for PodScope {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            selector: Selector::default(),
            opt_out: "llm-observer/observe".to_owned(),
            unknown: Unknown::Auto,
        }
    }
}

impl PodScope {
    /// Whether a pod of this namespace, with these labels and annotations, may be observed.
    pub fn admits(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> bool {
        self.admits_namespace(namespace)
            && self.selector.matches(labels)
            && annotations.get(&self.opt_out).is_none_or(|value| value != NO)
    }

    /// Whether anything of this namespace may be observed.
    pub fn admits_namespace(&self, namespace: &str) -> bool {
        let any =
            |patterns: &[String]| patterns.iter().any(|pattern| WildMatch::new(pattern).matches(namespace));
        !any(&self.exclude) && (self.include.is_empty() || any(&self.include))
    }

    /// Whether only what was named is observed, so that what is in no pod is not.
    pub fn names_pods(&self) -> bool {
        !self.include.is_empty() || !self.selector.is_empty()
    }

    /// Whether pods of which nobody tells are observed after a while.
    pub fn admits_unknown(&self) -> bool {
        match self.unknown {
            Unknown::Auto => !self.names_pods() && self.exclude.is_empty(),
            Unknown::Observe => true,
            Unknown::Ignore => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn everything_has_to_agree() {
        let scope = PodScope {
            include: vec!["ml-*".to_owned(), "prod".to_owned()],
            exclude: vec!["ml-secret".to_owned()],
            selector: Selector::parse("app=vllm").unwrap(),
            ..PodScope::default()
        };
        let app = pairs(&[("app", "vllm")]);
        for (namespace, labels, annotations, admitted) in [
            ("ml-a", &app, pairs(&[]), true),
            ("prod", &app, pairs(&[("llm-observer/observe", "true")]), true),
            ("prod", &app, pairs(&[("llm-observer/observe", "false")]), false),
            ("ml-secret", &app, pairs(&[]), false),
            ("dev", &app, pairs(&[]), false),
            ("ml-a", &pairs(&[("app", "web")]), pairs(&[]), false),
        ] {
            assert_eq!(scope.admits(namespace, labels, &annotations), admitted, "{namespace} {labels:?}");
        }
        assert!(PodScope::default().admits("any", &pairs(&[]), &pairs(&[])));
    }

    #[test]
    fn unknown_means_unwatched_where_a_scope_is_set() {
        let set = |exclude: &[&str], selector: &str, unknown| PodScope {
            exclude: exclude.iter().map(|&name| name.to_owned()).collect(),
            selector: Selector::parse(selector).unwrap(),
            unknown,
            ..PodScope::default()
        };
        assert!(set(&[], "", Unknown::Auto).admits_unknown());
        assert!(!set(&["a"], "", Unknown::Auto).admits_unknown());
        assert!(!set(&[], "a", Unknown::Auto).admits_unknown());
        assert!(set(&["a"], "a", Unknown::Observe).admits_unknown());
        assert!(!set(&[], "", Unknown::Ignore).admits_unknown());
        assert!(set(&[], "a", Unknown::Auto).names_pods() && !set(&["a"], "", Unknown::Auto).names_pods());
    }
}
