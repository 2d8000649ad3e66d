//! Synthetic records through the core: no root, no kernel, no clock.

mod coding;
mod dialects;
mod garbage;
mod known;
mod large;
mod loss;
mod recording;
mod recut;
mod stall;
mod unknown;
mod wire;

use observer_tests::script::{Owned, Seen, observe};
use proptest::{prelude::ProptestConfig, test_runner::RngSeed};

/// So many cases, the same in each run; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for others.
fn cases(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Runs records through a pipeline that has room for their connections.
fn run(records: &[Owned]) -> Seen {
    observe(records.iter().map(Owned::record), 64)
}
