//! What is lost marks what it touched: no record looks complete and is wrong.

use std::collections::BTreeSet;

use observer::exchange::{Outcome, RequestRecord, Tokens};
use observer_ebpf::Record;
use observer_tests::script::{Choices, Expected, FIRST_TGID, Owned, Script, script};
use proptest::{collection::vec, prelude::*};

use crate::run;

/// A sequence of which some records are missing, or some payloads have holes.
#[derive(Debug)]
struct Lossy {
    records: Vec<Owned>,
    /// Connections of which a record of their end is missing: only those tell who hung up.
    end_lost: BTreeSet<u64>,
}

/// The connection whose end a record tells; an exit ends those of its process.
fn end_of(record: &Owned) -> Option<u64> {
    match record.record() {
        Record::State(_) | Record::Ended(_) | Record::Close(_) => record.connection(),
        Record::Exit(exit) => Some(u64::from(exit.header.tgid - FIRST_TGID)),
        _ => None,
    }
}

fn damage(script: &Script, list: &[u16]) -> Lossy {
    let mut choices = Choices::new(list);
    // Few losses in most cases, since many of them hide one another.
    let rarity = choices.pick(&[10, 30, 3]);
    let holes = choices.below(3);
    let mut end_lost = BTreeSet::new();
    let mut records = Vec::new();
    for record in &script.records {
        if choices.one_in(rarity) {
            if holes == 1
                && let Owned::Data(data, payload) = record
            {
                let captured = choices.below(payload.len() + 1);
                let mut data = *data;
                data.captured = captured as u32;
                records.push(Owned::Data(data, payload[..captured].to_vec()));
                // As the kernel side does it: the tail of a call follows its hole.
                if choices.one_in(2) {
                    let tail = choices.below(payload.len() - captured + 1);
                    let Some(Owned::Data(head, _)) = records.last_mut() else { continue };
                    head.length = (payload.len() - tail) as u32;
                    let position = data.position + u64::from(head.length);
                    let (length, captured) = (tail as u32, tail as u32);
                    let payload = payload[payload.len() - tail..].to_vec();
                    if tail > 0 {
                        records.push(Owned::Data(
                            observer_ebpf::Data { position, length, captured, ..data },
                            payload,
                        ));
                    }
                }
                continue;
            }
            end_lost.extend(end_of(record));
            continue;
        }
        records.push(record.clone());
    }
    Lossy { records, end_lost }
}

/// Absent, or the same.
fn agrees<T: PartialEq>(found: Option<&T>, whole: Option<&T>) -> bool {
    found.is_none() || found == whole
}

/// Counts may come from another source that the response told, with the same totals, or be unknown: where they are
/// members of the document itself, one may be in the hole and another behind it.
fn counts_agree(found: &Tokens, whole: &Tokens) -> bool {
    found == whole
        || agrees(found.input_total().as_ref(), whole.input_total().as_ref())
            && agrees(found.output_total().as_ref(), whole.output_total().as_ref())
}

/// What is wrong with a record that looks complete.
fn wrong(found: &RequestRecord, whole: &RequestRecord, end_lost: bool) -> Option<&'static str> {
    // A plain document with a hole in it says so, and what was in the hole is unknown.
    let holed = found.defects.iter().any(|defect| defect.starts_with("document_"));
    let tokens =
        if holed { counts_agree(&found.tokens, &whole.tokens) } else { found.tokens == whole.tokens };
    let finish = if holed {
        agrees(found.finish_reason.as_ref(), whole.finish_reason.as_ref())
    } else {
        found.finish_reason == whole.finish_reason
    };
    // Who hung up is told by these records alone.
    let cut = |outcome| {
        use Outcome::{AbortedByClient, AbortedByServer, Unterminated};
        matches!(outcome, Some(AbortedByClient | AbortedByServer | Unterminated))
    };
    let outcome = found.outcome == whole.outcome || end_lost && cut(found.outcome) && cut(whole.outcome);
    [
        (tokens, "tokens"),
        (found.token_events == whole.token_events, "token_events"),
        (outcome, "outcome"),
        (finish, "finish_reason"),
        (found.status == whole.status, "status"),
        // Until a response tells, what was asked for stands here; a hole may have hidden it.
        (found.stream == whole.stream || found.status.is_none(), "stream"),
        (found.ttft == whole.ttft, "ttft"),
        (found.ttfb == whole.ttfb, "ttfb"),
        (agrees(found.tpot.as_ref(), whole.tpot.as_ref()), "tpot"),
        (found.duration == whole.duration, "duration"),
        (found.gap_micros == whole.gap_micros, "gaps"),
        (found.clocks.last_token == whole.clocks.last_token, "last_token"),
        (agrees(found.clocks.request_end.as_ref(), whole.clocks.request_end.as_ref()), "request_end"),
        (agrees(found.model.as_ref(), whole.model.as_ref()), "model"),
    ]
    .into_iter()
    .find_map(|(right, what)| (!right).then_some(what))
}

fn differences(found: &RequestRecord, whole: &RequestRecord) -> String {
    Expected::of(found).differences(&Expected::of(whole))
}

proptest! {
    #![proptest_config(crate::cases(10_000))]

    #[test]
    fn what_is_lost_is_marked(script in script(), losses in vec(any::<u16>(), 0..200)) {
        let whole = run(&script.records);
        let lossy = damage(&script, &losses);
        let seen = run(&lossy.records);
        prop_assert_eq!(seen.stats.received, lossy.records.len() as u64);
        prop_assert_eq!(seen.stats.received, seen.stats.decoded + seen.stats.dropped_table_full);
        prop_assert_eq!(seen.unfinished, 0);
        for found in seen.records.iter().filter(|record| record.is_complete()) {
            let same = whole.records.iter().find(|record| record.request_id == found.request_id);
            let same = same.expect("every request is named");
            let connection = u64::from_str_radix(found.id.split('-').next().unwrap_or_default(), 16).expect("a number");
            let wrong = wrong(found, same, lossy.end_lost.contains(&connection));
            prop_assert_eq!(wrong, None, "{}: {} of {:#?}", found.id, differences(found, same), lossy.records);
        }
    }
}
