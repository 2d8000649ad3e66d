//! Token counts: what each source said, and the best of them at the end.

use super::record::{TokenSource, Tokens};
use crate::llm::{Facts, Usage};

/// Counts by source while a response goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    usage: Usage,
    /// No tokens came after the last `usage`.
    usage_is_latest: bool,
    /// An event told why generation ended.
    finished: bool,
    engine: Usage,
    ids: u64,
    /// Events that bore tokens.
    pub(super) events: u64,
    /// Tokens in the first token-bearing event, if it told.
    first: Option<u64>,
}

impl Counts {
    /// Takes in one event, or one plain response.
    pub(super) fn add(&mut self, facts: &Facts) {
        let bears = facts.bears_token();
        if bears {
            self.events += 1;
            if self.events == 1 {
                self.first =
                    if facts.ids() > 0 { Some(facts.ids()) } else { facts.usage.output.filter(|n| *n > 0) };
            }
        }
        self.finished |= facts.finish_reason.is_some();
        if facts.usage.is_some() {
            self.usage = facts.usage;
            self.usage_is_latest = true;
        } else if bears {
            self.usage_is_latest = false;
        }
        if facts.engine.is_some() {
            self.engine = facts.engine;
        }
        self.ids += facts.ids();
    }

    /// A plain response is one document: its usage is final, and what it bears was not an event.
    pub(super) fn add_plain(&mut self, facts: &Facts) {
        self.usage = facts.usage;
        self.usage_is_latest = true;
        self.finished = true;
        self.engine = facts.engine;
        self.ids = facts.ids();
    }

    /// Tokens in the first token-bearing event; one if it did not tell.
    pub(super) fn in_first(&self) -> u64 {
        self.first.unwrap_or(1)
    }

    /// The best source's counts; `terminated` if the stream came to its end.
    pub(super) fn best(&self, terminated: bool) -> Tokens {
        if self.usage.is_some() {
            // Continuous usage rides on every event: it is final once generation ended.
            let is_final = self.usage_is_latest && (self.finished || terminated);
            let source = if is_final { TokenSource::Usage } else { TokenSource::UsagePartial };
            return disjoint(self.usage, source);
        }
        if self.engine.is_some() {
            return disjoint(self.engine, TokenSource::Engine);
        }
        let counted =
            |output, source| Tokens { output: Some(output), source: Some(source), ..Tokens::default() };
        if self.ids > 0 {
            counted(self.ids, TokenSource::Ids)
        } else if self.events > 0 {
            counted(self.events, TokenSource::Estimated)
        } else {
            Tokens::default()
        }
    }
}

/// APIs report totals with their parts beside them; ours are disjoint.
fn disjoint(usage: Usage, source: TokenSource) -> Tokens {
    let rest =
        |total: Option<u64>, part: Option<u64>| total.map(|total| total.saturating_sub(part.unwrap_or(0)));
    Tokens {
        input: rest(usage.input, usage.input_cached),
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
    fn all_zero_usage_says_nothing() {
        let mut counts = Counts::default();
        let mut zero = event(true, Some(0), false);
        zero.usage.input = Some(0);
        counts.add(&zero);
        assert_eq!(counts.best(false).source, Some(TokenSource::Estimated));
    }
}
