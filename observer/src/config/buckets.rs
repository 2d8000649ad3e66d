//! Upper bounds of histogram buckets: defaults and what makes a list usable.
//!
//! Each default list contains OpenTelemetry's list for the same metric, so that its buckets can be derived
//! exactly; ours go on where slow models and fast hardware fall outside of it.

/// Bounds that one histogram may have.
pub const MAX_BUCKETS: usize = 64;

/// Bucket bounds in seconds, without +Inf.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// Request duration.
    pub duration: Vec<f64>,
    /// Time to first token; queue waits use it too.
    pub ttft: Vec<f64>,
    /// Time per output token.
    pub tpot: Vec<f64>,
    /// Time between deliveries of a stream.
    pub chunk: Vec<f64>,
}

const DURATION: [f64; 17] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
    655.36,
];

const TTFT: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0, 160.0, 320.0,
];

const PER_TOKEN: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4,
    0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
];

impl Default for Buckets {
    fn default() -> Self {
        Self {
            duration: DURATION.to_vec(),
            ttft: TTFT.to_vec(),
            tpot: PER_TOKEN.to_vec(),
            chunk: PER_TOKEN.to_vec(),
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
        for list in [&buckets.duration, &buckets.ttft, &buckets.tpot, &buckets.chunk] {
            assert_eq!(check(list), Ok(()));
        }
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
