//! The energy and the time of one device, and what of it each request takes.
//!
//! The curve of its power is cut into pieces. A request that ends takes its share of each piece that it was in flight
//! for: its rate of tokens beside the rates of those that were in flight, too. What it takes is gone, so a later one
//! shares what is left, and the last takes the rest: shares add up to what was drawn while anything was in flight.

use std::collections::VecDeque;

use super::series::HOLE;

/// Pieces that are kept: ten minutes at 50 a second, and some for cuts.
const MOST: usize = 40_000;

/// Joules and seconds between two times, as far as nobody took them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    from: u64,
    to: u64,
    joules: f64,
    seconds: f64,
}

/// A request as its neighbours see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sharer {
    /// When it began.
    pub(super) from: u64,
    /// When it ended; for one that goes on, the end of time.
    pub(super) to: u64,
    /// Tokens a second.
    pub(super) rate: f64,
}

impl Sharer {
    fn has(&self, piece: &Piece) -> bool {
        self.from <= piece.from && piece.to <= self.to
    }
}

/// What a request takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Share {
    pub(super) joules: f64,
    pub(super) seconds: f64,
}

/// The account of one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Energy {
    pieces: VecDeque<Piece>,
    last: Option<(u64, f64)>,
}

impl Energy {
    /// Takes moments of power, watts, later than those before.
    pub(super) fn add(&mut self, samples: &[(u64, f64)]) {
        for &(time, watts) in samples {
            if !watts.is_finite() || self.last.is_some_and(|(last, _)| last >= time) {
                continue;
            }
            if let Some((from, before)) = self.last.replace((time, watts))
                && time - from <= HOLE
            {
                if self.pieces.len() >= MOST {
                    self.pieces.pop_front();
                }
                let seconds = (time - from) as f64 / 1e9;
                let joules = f64::midpoint(before, watts) * seconds;
                self.pieces.push_back(Piece { from, to: time, joules, seconds });
            }
        }
    }

    /// Forgets what ended before a time: nobody is left who was in flight then.
    pub(super) fn forget(&mut self, before: u64) {
        while self.pieces.front().is_some_and(|piece| piece.to <= before) {
            self.pieces.pop_front();
        }
    }

    /// Cuts the piece that a time lies in.
    fn cut(&mut self, time: u64) {
        let at = self.pieces.partition_point(|piece| piece.to <= time);
        if let Some(piece) = self.pieces.get(at).copied()
            && piece.from < time
        {
            let share = (time - piece.from) as f64 / (piece.to - piece.from) as f64;
            let part = |share: f64| (piece.joules * share, piece.seconds * share);
            let ((j1, s1), (j2, s2)) = (part(share), part(1.0 - share));
            self.pieces[at] = Piece { from: time, joules: j2, seconds: s2, ..piece };
            self.pieces.insert(at, Piece { to: time, joules: j1, seconds: s1, ..piece });
        }
    }

    /// What a request takes that has ended, beside others; none unless all of its time is known.
    pub(super) fn take(&mut self, own: Sharer, others: &[Sharer]) -> Option<Share> {
        for time in others.iter().chain([&own]).flat_map(|sharer| [sharer.from, sharer.to]) {
            self.cut(time);
        }
        let first = self.pieces.partition_point(|piece| piece.from < own.from);
        let (mut share, mut known) = (Share::default(), 0);
        for piece in self.pieces.iter_mut().skip(first).take_while(|piece| piece.to <= own.to) {
            let rates: f64 = others.iter().filter(|other| other.has(piece)).map(|other| other.rate).sum();
            let part = own.rate / (own.rate + rates);
            share.joules += piece.joules * part;
            share.seconds += piece.seconds * part;
            piece.joules -= piece.joules * part;
            piece.seconds -= piece.seconds * part;
            known += piece.to - piece.from;
        }
        (own.to > own.from && known == own.to - own.from).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn sharer(from: u64, to: u64, rate: f64) -> Sharer {
        Sharer { from: from * SECOND, to: to.saturating_mul(SECOND), rate }
    }

    fn steady(watts: f64, seconds: u64) -> Energy {
        let mut energy = Energy::default();
        energy.add(&(0..=seconds).map(|at| (at * SECOND, watts)).collect::<Vec<_>>());
        energy
    }

    #[test]
    fn one_alone_takes_all_of_its_time() {
        let mut energy = Energy::default();
        energy.add(&[(0, 100.0), (4 * SECOND, 300.0)]);
        let own = Sharer { from: SECOND, to: 3 * SECOND, rate: 1.0 };
        let share = energy.take(own, &[]).unwrap();
        // The ramp is cut as if it were even: its samples are 20 ms apart.
        assert!((share.joules - 400.0).abs() < 1e-9 && (share.seconds - 2.0).abs() < 1e-9, "{share:?}");
    }

    #[test]
    fn two_share_by_their_tokens_and_the_last_takes_the_rest() {
        let mut energy = steady(200.0, 10);
        let (fast, slow) = (sharer(0, 4, 3.0), sharer(2, 8, 1.0));
        let going = Sharer { to: u64::MAX, ..slow };
        let first = energy.take(fast, &[going]).unwrap();
        assert!((first.joules - (400.0 + 300.0)).abs() < 1e-9, "{first:?}");
        let second = energy.take(slow, &[]).unwrap();
        assert!((second.joules - (100.0 + 800.0)).abs() < 1e-9, "{second:?}");
        assert!((first.seconds + second.seconds - 8.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        assert_eq!(steady(100.0, 10).take(sharer(8, 11, 1.0), &[]), None);
        assert_eq!(Energy::default().take(sharer(0, 1, 1.0), &[]), None);
        let mut holed = steady(100.0, 2);
        holed.add(&[(9 * SECOND, 100.0), (10 * SECOND, 100.0)]);
        assert_eq!(holed.take(sharer(1, 10, 1.0), &[]), None);
        assert!(holed.take(sharer(9, 10, 1.0), &[]).is_some());
    }

    proptest! {
        #[test]
        fn shares_add_up(requests in prop::collection::vec((0_u64..50, 1_u64..50, 0.1_f64..100.0), 1..12)) {
            let mut energy = steady(100.0, 100);
            let mut left: Vec<Sharer> =
                requests.iter().map(|(from, length, rate)| sharer(*from, from + length, *rate)).collect();
            let busy = (0..100).filter(|at| left.iter().any(|one| one.from <= at * SECOND && at * SECOND < one.to));
            let expected = busy.count() as f64 * 100.0;
            left.sort_by_key(|one| one.to);
            let mut sum = 0.0;
            while !left.is_empty() {
                let own = left.remove(0);
                let others: Vec<Sharer> = left.iter().map(|one| Sharer { to: u64::MAX, ..*one }).collect();
                sum += energy.take(own, &others).unwrap().joules;
            }
            prop_assert!((sum - expected).abs() < 1e-6, "{sum} {expected}");
        }
    }
}
