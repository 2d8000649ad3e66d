//! Splitting or merging reads and writes never changes an exchange.

use observer_tests::script::{Expected, Script, Seen, recut, script};
use proptest::{collection::vec, prelude::*};

use crate::run;

/// Each exchange that was written was seen, as it was written, and no other.
fn check(script: &Script, seen: &Seen) {
    let mut left: Vec<&String> = script.expected.keys().collect();
    for record in &seen.records {
        let name = record.request_id.clone().expect("every request is named");
        let expected = script.expected.get(&name).unwrap_or_else(|| panic!("{name} was not expected"));
        left.retain(|left| **left != name);
        let mut found = Expected::of(record);
        // A request that was cut off has told its choices and its model or not; nobody depends on it.
        if found.clocks[0].is_none() {
            found.choices = expected.choices;
            found.model.clone_from(&expected.model);
            found.stream = expected.stream;
        }
        // Likewise of an error that was cut off.
        if record.defects.iter().any(|defect| defect.starts_with("document_")) {
            found.error_type.clone_from(&expected.error_type);
        }
        let wrong = found.differences(expected);
        assert!(wrong.is_empty(), "{name}: {wrong} {:?} {:?}", record.partial, record.defects);
        if found.clocks[0].is_some() {
            let (stream, model) = &seen.requested[&record.id];
            assert_eq!(model, &expected.model, "{name} was said to ask for another model");
            assert!(*stream || !record.stream, "{name} streams and was not said to be asked to");
        }
    }
    assert!(left.is_empty(), "not seen: {left:?}");
    assert_eq!(seen.unfinished, 0, "each exchange that starts finishes");
    assert_eq!(seen.stats.received, seen.stats.decoded + seen.stats.dropped_table_full);
    assert_eq!((seen.stats.lost_bytes, seen.stats.repeated_bytes), (0, 0));
}

proptest! {
    #![proptest_config(crate::cases(10_000))]

    #[test]
    fn cutting_calls_changes_nothing(script in script(), cuts in vec(any::<u16>(), 0..60)) {
        let whole = run(&script.records);
        check(&script, &whole);
        let mut cut = run(&recut(&script.records, &cuts));
        prop_assert!(cut.stats.received >= whole.stats.received);
        cut.stats = whole.stats;
        prop_assert_eq!(&cut, &whole);
        prop_assert_eq!(&run(&script.records), &whole);
    }
}
