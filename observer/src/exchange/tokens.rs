//! Token counts: what each source said, and the best of them at the end.

use std::collections::BTreeMap;

use super::record::{TokenSource, Tokens};
use crate::llm::{Facts, Usage};

/// Choices of one response that are told apart; tokens of those beyond count as one choice's.
const CHOICES: usize = 256;

/// Counts by source while a response goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    usage: Usage,
    /// No tokens came after the last `usage`.
    usage_is_latest: bool,
    /// An event told why generation ended.
    finished: bool,
    engine: Usage,
    /// What the engine said last of each choice's output: it counts them one by one.
    engine_output: BTreeMap<u32, u64>,
    /// The highest number of a choice that was met.
    last_choice: u32,
    ids: u64,
    /// Events that bore tokens.
    pub(super) events: u64,
    /// Tokens in the first token-bearing event, if it told.
    first: Option<u64>,
}

impl Counts {
    /// Takes in one event; true if it bears a token that none before it bore.
    pub(super) fn add(&mut self, facts: &Facts) -> bool {
        let bears = facts.bears_token() && self.is_new(facts);
        if bears {
            self.events += 1;
            if self.events == 1 {
                let told = [Some(facts.ids()), facts.usage.output, facts.engine.output];
                self.first = told.into_iter().flatten().find(|count| *count > 0);
            }
        }
        self.finished |= facts.finish_reason.is_some();
        if facts.usage.is_some() {
            self.usage.update(&facts.usage);
            self.usage_is_latest = true;
        } else if bears {
            self.usage_is_latest = false;
        }
        self.note_engine(facts);
        self.ids += facts.ids();
        bears
    }

    /// Whether a stream whose events repeat what came before has come further.
    fn is_new(&self, facts: &Facts) -> bool {
        facts.cumulative.is_none_or(|count| count > self.of_choice(facts.index))
    }

    fn of_choice(&self, index: u32) -> u64 {
        self.engine_output.get(&index).copied().unwrap_or(0)
    }

    fn note_engine(&mut self, facts: &Facts) {
        self.last_choice = self.last_choice.max(facts.index);
        if facts.engine.is_some() {
            self.engine.update(&facts.engine);
            let known = self.engine_output.contains_key(&facts.index);
            if let Some(output) = facts.engine.output
                && (known || self.engine_output.len() < CHOICES)
            {
                self.engine_output.insert(facts.index, output);
            }
        }
    }

    /// Takes in what the head of the response tells.
    pub(super) fn add_head(&mut self, facts: &Facts) {
        self.note_engine(facts);
    }

    /// A plain response is one document: its usage is final, and what it bears was not an event.
    pub(super) fn add_plain(&mut self, facts: &Facts) {
        self.usage = facts.usage;
        self.usage_is_latest = true;
        self.finished = true;
        self.note_engine(facts);
        self.ids = facts.ids();
    }

    /// Whether there were tokens of more than one choice, whatever was asked for.
    pub(super) fn has_several_choices(&self) -> bool {
        self.last_choice > 0
    }

    /// Tokens in the first token-bearing event; one if it did not tell.
    pub(super) fn in_first(&self) -> u64 {
        self.first.unwrap_or(1)
    }

    /// The best source's counts; `terminated` if the stream came to its end.
    pub(super) fn best(&self, terminated: bool) -> Tokens {
        let mut tokens = if self.usage.is_some() {
            // Continuous usage rides on every event: it is final once generation ended.
            let is_final = self.usage_is_latest && (self.finished || terminated);
            disjoint(&self.usage, if is_final { TokenSource::Usage } else { TokenSource::UsagePartial })
        } else if self.engine.is_some() {
            self.engine_tokens()
        } else {
            Tokens::default()
        };
        // A stream that broke off may have told its input alone. The source is then that of the weaker count.
        if tokens.output_total().is_none() {
            let engine = self.engine_tokens();
            let counted = [
                (engine.output_total().unwrap_or(0), TokenSource::Engine),
                (self.ids, TokenSource::Ids),
                (self.events, TokenSource::Estimated),
            ];
            if let Some((output, source)) = counted.into_iter().find(|(count, _)| *count > 0) {
                (tokens.output, tokens.source) = (Some(output), Some(source));
            }
        }
        tokens
    }

    /// What the engine counted, choice by choice. Whether choices share a prompt is not known.
    fn engine_tokens(&self) -> Tokens {
        if !self.engine.is_some() {
            return Tokens::default();
        }
        let mut engine = self.engine;
        if !self.engine_output.is_empty() {
            engine.output =
                Some(self.engine_output.values().fold(0, |sum, count| sum.saturating_add(*count)));
        }
        if self.has_several_choices() {
            engine = Usage { output: engine.output, output_reasoning: None, ..Usage::default() };
        }
        disjoint(&engine, TokenSource::Engine)
    }
}

/// APIs report totals with their parts beside them, or parts; ours are parts.
fn disjoint(usage: &Usage, source: TokenSource) -> Tokens {
    let rest =
        |total: Option<u64>, part: Option<u64>| total.map(|total| total.saturating_sub(part.unwrap_or(0)));
    let processed =
        usage.input_uncached.map(|uncached| uncached.saturating_add(usage.input_written.unwrap_or(0)));
    Tokens {
        input: processed.or_else(|| rest(usage.input, usage.input_cached)),
        input_cached: usage.input_cached,
        output: rest(usage.output, usage.output_reasoning),
        output_reasoning: usage.output_reasoning,
        source: Some(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bears: bool, output: Option<u64>, finish: bool) -> Facts {
        Facts {
            answer: bears,
            usage: Usage { input: output.map(|_| 9), output, ..Usage::default() },
            finish_reason: finish.then(|| "stop".into()),
            ..Facts::default()
        }
    }

    #[test]
    fn the_best_source_wins() {
        let mut counts = Counts::default();
        counts.add(&event(true, None, false));
        counts.add(&event(true, None, false));
        assert_eq!(counts.best(false).source, Some(TokenSource::Estimated));
        assert_eq!(counts.best(false).output, Some(2));
        counts.add(&Facts {
            engine: Usage { input: Some(12), input_cached: Some(4), output: Some(5), ..Usage::default() },
            ..Facts::default()
        });
        let tokens = counts.best(false);
        assert_eq!((tokens.source, tokens.output), (Some(TokenSource::Engine), Some(5)));
        assert_eq!((tokens.input, tokens.input_cached, tokens.input_total()), (Some(8), Some(4), Some(12)));
        counts.add(&event(false, Some(6), false));
        assert_eq!(counts.best(true).source, Some(TokenSource::Usage));
    }

    #[test]
    fn continuous_usage_is_partial_until_the_end() {
        let mut counts = Counts::default();
        // The chunk that names the role bears no token, and comes first.
        counts.add(&event(false, Some(0), false));
        assert_eq!(counts.best(false).source, Some(TokenSource::UsagePartial));
        counts.add(&event(true, Some(2), false));
        counts.add(&event(true, Some(3), false));
        assert_eq!(counts.best(false).source, Some(TokenSource::UsagePartial));
        assert_eq!(counts.in_first(), 2);
        counts.add(&event(true, Some(4), true));
        assert_eq!(counts.best(false).source, Some(TokenSource::Usage));
    }

    #[test]
    fn repeated_tokens_are_counted_once_for_each_choice() {
        let mut counts = Counts::default();
        let mut told = |index, total| {
            let engine = Usage { input: Some(9), output: Some(total), ..Usage::default() };
            counts.add(&Facts { answer: true, cumulative: Some(total), index, engine, ..Facts::default() })
        };
        assert_eq!([told(0, 2), told(1, 1), told(0, 2), told(1, 3)], [true, true, false, true]);
        let tokens = counts.best(true);
        assert_eq!((tokens.input, tokens.output, counts.events), (None, Some(5), 3));
        assert!(counts.has_several_choices());
    }

    #[test]
    fn parts_beside_parts_are_not_taken_off() {
        let usage = Usage {
            input_uncached: Some(5),
            input_written: Some(20),
            input_cached: Some(100),
            ..Usage::default()
        };
        let mut counts = Counts::default();
        counts.add(&Facts { usage, ..Facts::default() });
        counts.add(&event(true, None, false));
        // Nothing but the input was told before it broke off.
        let tokens = counts.best(false);
        assert_eq!((tokens.input, tokens.input_cached, tokens.output), (Some(25), Some(100), Some(1)));
        assert_eq!(tokens.source, Some(TokenSource::Estimated));
        let output = Usage { output: Some(7), ..Usage::default() };
        counts.add(&Facts { usage: output, finish_reason: Some("end_turn".into()), ..Facts::default() });
        let tokens = counts.best(true);
        assert_eq!((tokens.input_total(), tokens.output), (Some(125), Some(7)));
        assert_eq!(tokens.source, Some(TokenSource::Usage));
    }

    #[test]
    fn all_zero_usage_says_nothing() {
        let mut counts = Counts::default();
        let mut zero = event(true, Some(0), false);
        zero.usage.input = Some(0);
        counts.add(&zero);
        assert_eq!(counts.best(false).source, Some(TokenSource::Estimated));
    }
}
