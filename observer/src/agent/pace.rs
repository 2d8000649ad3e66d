//! How many events of one kind are told in a while: what comes faster is counted, and the count is told.

use std::collections::BTreeMap;

/// So many of one reason are told ...
const MOST: u64 = 100;

/// ... in so many nanoseconds.
const SPAN: u64 = 10_000_000_000;

/// One for those who tell of processes, one for those who tell of pods.
#[derive(Debug, Default)]
pub(super) struct Pace {
    began: u64,
    told: BTreeMap<String, u64>,
}

impl Pace {
    /// Whether one more may be told, at this monotonic time.
    pub(super) fn admits(&mut self, reason: &str, now: u64) -> bool {
        if self.told.is_empty() {
            self.began = now;
        }
        let told = self.told.entry(reason.to_owned()).or_default();
        *told += 1;
        *told <= MOST
    }

    /// Of which reasons more came than were told, and how many, when the while is over.
    pub(super) fn left_out(&mut self, now: u64) -> Vec<(String, u64)> {
        if now.saturating_sub(self.began) < SPAN {
            return Vec::new();
        }
        let told = std::mem::take(&mut self.told).into_iter();
        told.filter(|(_, count)| *count > MOST).map(|(reason, count)| (reason, count - MOST)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_fast_is_counted() {
        let mut pace = Pace::default();
        let told = (0..250).filter(|_| pace.admits("exec", 5)).count();
        assert!(pace.admits("exit", 6));
        assert_eq!((told, pace.left_out(SPAN)), (100, Vec::new()));
        assert_eq!(pace.left_out(SPAN + 5), [("exec".to_owned(), 150)]);
        assert!(pace.admits("exec", SPAN + 6) && pace.left_out(3 * SPAN).is_empty());
    }
}
