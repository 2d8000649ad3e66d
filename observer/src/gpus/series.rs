//! A value over time, bounded, and its mean and maximum over a window.

use std::collections::VecDeque;

use crate::exchange::Spread;

/// Times, monotonic nanoseconds, and values, in order.
pub type Samples = Vec<(u64, f64)>;

/// Samples that are kept: ten minutes of power at 50 a second.
const MOST: usize = 30_000;

/// A longer silence between two samples is a hole: nothing is known of it.
pub(super) const HOLE: u64 = 5_000_000_000;

/// What lies between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The later sample is the mean since the one before.
    Step,
    /// The value went straight from one to the other.
    Linear,
}

/// Samples of one value.
#[derive(Clone, Debug)]
pub struct Series {
    shape: Shape,
    samples: VecDeque<(u64, f64)>,
}

impl Series {
    /// Of means: each sample is about the time since the one before.
    pub fn of_means() -> Self {
        Self { shape: Shape::Step, samples: VecDeque::new() }
    }

    /// Of moments: each sample is the value then.
    pub fn of_moments() -> Self {
        Self { shape: Shape::Linear, samples: VecDeque::new() }
    }

    /// Takes samples that are later than those before; others are left out. Those that were taken.
    pub fn add(&mut self, samples: &[(u64, f64)]) {
        for &(time, value) in samples {
            if value.is_finite() && self.samples.back().is_none_or(|(last, _)| *last < time) {
                if self.samples.len() >= MOST {
                    self.samples.pop_front();
                }
                self.samples.push_back((time, value));
            }
        }
    }

    /// The time until which it is known.
    pub fn known_until(&self) -> Option<u64> {
        self.samples.back().map(|(time, _)| *time)
    }

    /// The last sample.
    pub fn last(&self) -> Option<(u64, f64)> {
        self.samples.back().copied()
    }

    /// Mean and maximum from one time to another; none unless all of it is known.
    pub fn window(&self, from: u64, to: u64) -> Option<Spread> {
        if to <= from || self.known_until()? < to || self.samples.front()?.0 > from {
            return None;
        }
        let first = self.samples.partition_point(|(time, _)| *time <= from).max(1);
        let (mut area, mut max) = (0.0, f64::NEG_INFINITY);
        for at in first..self.samples.len() {
            let ((t0, v0), (t1, v1)) = (self.samples[at - 1], self.samples[at]);
            if t0 >= to {
                break;
            }
            if t1 - t0 > HOLE {
                return None;
            }
            let (a, b) = (t0.max(from), t1.min(to));
            let along = |time: u64| v0 + (v1 - v0) * ((time - t0) as f64 / (t1 - t0) as f64);
            let (start, end) = match self.shape {
                Shape::Step => (v1, v1),
                Shape::Linear => (along(a), along(b)),
            };
            area += f64::midpoint(start, end) * (b - a) as f64;
            max = max.max(start).max(end);
        }
        Some(Spread { mean: area / (to - from) as f64, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn means_hold_backwards_and_moments_are_joined() {
        let samples = [(0, 0.0), (SECOND, 10.0), (2 * SECOND, 30.0)];
        let (mut means, mut moments) = (Series::of_means(), Series::of_moments());
        means.add(&samples);
        moments.add(&samples);
        let window =
            |series: &Series, from, to| series.window(from, to).map(|spread| (spread.mean, spread.max));
        assert_eq!(window(&means, 0, 2 * SECOND), Some((20.0, 30.0)));
        assert_eq!(window(&means, SECOND / 2, SECOND), Some((10.0, 10.0)));
        assert_eq!(window(&moments, 0, 2 * SECOND), Some((12.5, 30.0)));
        assert_eq!(window(&moments, 0, SECOND / 2), Some((2.5, 5.0)));
    }

    #[test]
    fn what_is_not_known_to_its_end_is_not_told() {
        let mut series = Series::of_means();
        assert_eq!(series.window(0, 1), None);
        series.add(&[(10, 1.0), (20, 2.0)]);
        assert_eq!(series.window(9, 20), None, "before the first");
        assert_eq!(series.window(10, 21), None, "after the last");
        assert_eq!(series.window(15, 15), None, "nothing");
        series.add(&[(15, 7.0), (30, f64::NAN)]);
        assert_eq!(series.known_until(), Some(20), "what comes late or is no number");
        series.add(&[(21 + HOLE, 3.0)]);
        assert_eq!(series.window(10, 30), None, "a hole");
        assert!(series.window(10, 20).is_some());
    }

    #[test]
    fn there_is_a_bound() {
        let mut series = Series::of_moments();
        for time in 0..MOST as u64 + 10 {
            series.add(&[(time, 1.0)]);
        }
        assert_eq!(series.samples.len(), MOST);
        assert_eq!(series.window(5, 20), None);
    }
}
