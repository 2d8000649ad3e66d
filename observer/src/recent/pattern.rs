//! Names as questions spell them.

use wildmatch::WildMatch;

/// A name, or a pattern of names: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    matcher: WildMatch,
    /// The name, if it is one.
    exact: Option<String>,
}

impl Pattern {
    /// Names of objects: the whole of one.
    pub(super) fn name(text: &str) -> Self {
        let exact = Some(text).filter(|text| !text.contains(['*', '?'])).map(str::to_owned);
        Self { matcher: WildMatch::new(text), exact }
    }

    /// This name and no other, whatever characters it has.
    pub(super) fn literal(name: &str) -> Self {
        Self { matcher: WildMatch::new(name), exact: Some(name.to_owned()) }
    }

    /// Names of models, in any case. Without `*` and `?` a part of the name is enough: `llama` means
    /// `meta-llama/Llama-3.1-8B-Instruct`, too.
    pub(super) fn model(text: &str) -> Self {
        let text = if text.contains(['*', '?']) { text.to_owned() } else { format!("*{text}*") };
        Self { matcher: WildMatch::new_case_insensitive(&text), exact: None }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.matcher.matches(name)
    }

    /// The one name that it matches, if it is no pattern.
    pub(super) fn exact(&self) -> Option<&str> {
        self.exact.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_by_their_whole_name_models_by_a_part() {
        assert!(Pattern::name("ml").matches("ml") && !Pattern::name("ml").matches("mlops"));
        assert!(Pattern::name("llama-*").matches("llama-0") && !Pattern::name("Llama-*").matches("llama-0"));
        for (pattern, name, matches) in [
            ("llama", "meta-llama/Llama-3.1-8B-Instruct", true),
            ("LLAMA-3", "meta-llama/Llama-3.1-8B-Instruct", true),
            ("llama*", "meta-llama/Llama-3.1-8B-Instruct", false),
            ("*8b*", "meta-llama/Llama-3.1-8B-Instruct", true),
            ("gpt", "llama", false),
        ] {
            assert_eq!(Pattern::model(pattern).matches(name), matches, "{pattern} {name}");
        }
    }
}
