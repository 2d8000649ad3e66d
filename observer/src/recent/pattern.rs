//! Names as questions spell them.

use wildmatch::WildMatch;

/// A name, or a pattern of names: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(WildMatch);

impl Pattern {
    /// Names of objects: the whole of one.
    pub(super) fn name(text: &str) -> Self {
        Self(WildMatch::new(text))
    }

    /// Names of models, in any case. Without `*` and `?` a part of the name is enough: `llama` means
    /// `meta-llama/Llama-3.1-8B-Instruct`, too.
    pub(super) fn model(text: &str) -> Self {
        let text = if text.contains(['*', '?']) { text.to_owned() } else { format!("*{text}*") };
        Self(WildMatch::new_case_insensitive(&text))
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
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
