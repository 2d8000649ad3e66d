//! Synthetic records through the core: no root, no kernel, no clock.

mod garbage;
mod known;
mod loss;
mod recording;
mod recut;

use observer_tests::script::{Owned, Seen, observe};
use proptest::prelude::ProptestConfig;

/// So many cases; `PROPTEST_CASES` asks for another number.
fn cases(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

/// Runs records through a pipeline that has room for their connections.
fn run(records: &[Owned]) -> Seen {
    observe(records.iter().map(Owned::record), 64)
}
