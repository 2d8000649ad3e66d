//! Upper bounds of histogram buckets: defaults and what makes a list usable.
//!
//! Each default list contains OpenTelemetry's list for the same metric, so that its buckets can be derived
//! exactly; ours go on where slow models and fast hardware fall outside of it. What has no such list, queue
//! waits and times between deliveries, is coarser: every bound is a series for each model, operation and part.

/// Bounds that one histogram may have.
pub const MAX_BUCKETS: usize = 64;

/// Bucket bounds in seconds, without +Inf.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// Request duration.
    pub duration: Vec<f64>,
    /// Time to first token.
    pub ttft: Vec<f64>,
    /// Time per output token.
    pub tpot: Vec<f64>,
    /// Time between deliveries of a stream.
    pub chunk: Vec<f64>,
    /// Waits: each part of the queue wait and its estimate, and the upload of a request.
    pub wait: Vec<f64>,
}

const DURATION: [f64; 16] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 655.36];

const TTFT: [f64; 19] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 40.0,
    160.0,
];

const TPOT: [f64; 21] = [
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4,
    0.5, 0.75, 1.0, 2.5, 5.0,
];

/// A stutter is told by its order of magnitude: about a factor of two from one bound to the next, from a fast
/// engine's step to a pause that everybody notices.
const CHUNK: [f64; 12] = [0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Most waits are either nothing or far too long, so what counts is their order of magnitude, and in between the
/// bounds that alerts and autoscalers use. All are bounds of the time to first token, which waits are a part
/// of, so that shares of it can be taken.
const WAIT: [f64; 9] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 10.0, 40.0, 160.0];

impl Default for Buckets {
    fn default() -> Self {
        Self {
            duration: DURATION.to_vec(),
            ttft: TTFT.to_vec(),
            tpot: TPOT.to_vec(),
            chunk: CHUNK.to_vec(),
            wait: WAIT.to_vec(),
        }
    }
}

/// What is wrong with a list of bounds, if anything.
pub(super) fn check(bounds: &[f64]) -> Result<(), String> {
    if bounds.is_empty() || bounds.len() > MAX_BUCKETS {
        return Err(format!("has {} bounds", bounds.len()));
    }
    if let Some(bad) = bounds.iter().find(|bound| !bound.is_finite() || **bound <= 0.0) {
        return Err(format!("{bad} is not a finite number above 0"));
    }
    match bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(format!("{} is followed by {}", pair[0], pair[1])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_usable_and_contain_opentelemetrys() {
        let buckets = Buckets::default();
        for list in [&buckets.duration, &buckets.ttft, &buckets.tpot, &buckets.chunk, &buckets.wait] {
            assert_eq!(check(list), Ok(()));
        }
        assert!(buckets.wait.iter().all(|bound| buckets.ttft.contains(bound)));
        let otel_duration = (0..14).map(|doubled| 0.01 * f64::from(1 << doubled));
        assert!(otel_duration.into_iter().all(|bound| buckets.duration.contains(&bound)));
        let otel_ttft =
            [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
        let otel_tpot = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
        assert!(otel_ttft.iter().all(|bound| buckets.ttft.contains(bound)));
        assert!(otel_tpot.iter().all(|bound| buckets.tpot.contains(bound)));
    }

    #[test]
    fn unusable_lists() {
        for (bounds, reason) in [
            (vec![], "has 0 bounds"),
            (vec![1.0; 65], "has 65 bounds"),
            (vec![1.0, f64::NAN], "NaN is not a finite number above 0"),
            (vec![1.0, f64::INFINITY], "inf is not a finite number above 0"),
            (vec![0.0, 1.0], "0 is not a finite number above 0"),
            (vec![1.0, 1.0], "1 is followed by 1"),
            (vec![2.0, 1.0], "2 is followed by 1"),
        ] {
            assert_eq!(check(&bounds), Err(reason.to_owned()));
        }
    }
}
