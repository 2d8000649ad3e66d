//! Words, phrases and expressions that a message may have to hold.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Bytes that an expression may take when it is compiled.
const EXPRESSION: usize = 1 << 20;

/// A regular expression (syntax of the crate `regex`: linear in time whatever it is).
#[derive(Clone, Debug)]
pub struct Expression(Regex);

impl Expression {
    /// Compiles one; none if it is none, or too large.
    pub fn of(text: &str) -> Option<Self> {
        RegexBuilder::new(text).size_limit(EXPRESSION).build().ok().map(Self)
    }

    /// Whether it is found somewhere.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// What a message has to hold. Without anything, every message will do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// All of these words, in any case.
    pub words: Vec<String>,
    /// These words one after the other, in any case; what stands between words does not matter.
    pub phrase: Vec<String>,
    /// This expression.
    pub expression: Option<Expression>,
}

/// Whether a character belongs to a word: the others part words.
pub fn is_word_character(c: char) -> bool {
    c.is_alphanumeric()
}

/// The words of a text, in lower case.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !is_word_character(c)).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

impl Wanted {
    /// Whether a message will do.
    pub fn is_met_by(&self, message: &str) -> bool {
        if !self.words.is_empty() || !self.phrase.is_empty() {
            let held: Vec<String> = words(message).collect();
            let phrase = &self.phrase;
            let has_phrase = phrase.is_empty() || held.windows(phrase.len()).any(|there| there == phrase);
            if !has_phrase || !self.words.iter().all(|word| held.contains(word)) {
                return false;
            }
        }
        self.expression.as_ref().is_none_or(|expression| expression.is_in(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(all: &str, phrase: &str, expression: &str) -> Wanted {
        Wanted {
            words: words(all).collect(),
            phrase: words(phrase).collect(),
            expression: Some(expression)
                .filter(|text| !text.is_empty())
                .map(|text| Expression::of(text).unwrap()),
        }
    }

    #[test]
    fn words_phrases_and_expressions() {
        let message = "ERROR 11-24 [core.py:12] CUDA out of memory: Größe 12 GiB";
        for (all, phrase, expression, met) in [
            ("", "", "", true),
            ("memory cuda", "", "", true),
            ("memory rocm", "", "", false),
            ("größe", "", "", true),
            ("", "out of memory", "", true),
            ("", "OUT-OF: memory", "", true),
            ("", "memory out", "", false),
            ("", "core.py:12", "", true),
            ("", "", r"\d+ GiB$", true),
            ("", "", r"cuda", false),
            ("cuda", "out of", "(?i)cuda", true),
            ("cuda", "out of", "rocm", false),
        ] {
            assert_eq!(
                wanted(all, phrase, expression).is_met_by(message),
                met,
                "{all} {phrase} {expression}"
            );
        }
        assert!(Expression::of("(").is_none() && Expression::of("(?:a{1000}){1000}").is_none());
    }
}
