use proptest::prelude::*;

use super::*;
use crate::exchange::{Clocks, TokenSource, Tokens};

const PID: u32 = 7;
const SECOND: u64 = 1_000_000_000;

/// What a test tells an estimator of: exchanges with a number, a start in seconds, and a model.
#[derive(Default)]
struct Bench {
    estimator: Estimator,
    next: u32,
}

impl Bench {
    fn start(&mut self, at: f64) -> ExchangeId {
        let id = ExchangeId { connection: 1, sequence: self.next };
        self.next += 1;
        let time = 100 * SECOND + (at * 1e9) as u64;
        self.estimator.observe(&mut Observation::Started { id, pid: PID, time, operation: None });
        id
    }

    fn ask(&mut self, id: ExchangeId, model: Option<&str>) {
        let model = model.map(str::to_owned);
        self.estimator.observe(&mut Observation::Requested { id, stream: true, model });
    }

    fn begin(&mut self, at: f64, model: &str) -> ExchangeId {
        let id = self.start(at);
        self.ask(id, Some(model));
        id
    }

    fn end(&mut self, id: ExchangeId, record: RequestRecord) -> Option<f64> {
        let mut observation = Observation::Finished { id, record: Box::new(record) };
        self.estimator.observe(&mut observation);
        let Observation::Finished { record, .. } = observation else { unreachable!() };
        record.queue.estimate
    }

    /// An exchange by itself.
    fn idle(&mut self, at: f64, record: RequestRecord) -> Option<f64> {
        let id = self.begin(at, &record.model.clone().unwrap());
        self.end(id, record)
    }

    /// One more of each than must have been seen, with these prefills and the fastest among them.
    fn learn(&mut self, model: &str, input: u64, fastest: f64) {
        for n in 0..ENOUGH {
            self.idle(f64::from(n), record(model, input, fastest + 0.01 * f64::from(n)));
        }
    }

    fn seen(&self, model: &str) -> u32 {
        let lane = self.estimator.lanes.get(&(PID, model.to_owned()));
        lane.map_or(0, |lane| lane.sizes.iter().map(|idle| idle.seen).sum())
    }
}

/// A stream whose request arrived within 0.1 s, and whose first token came so many seconds later.
fn record(model: &str, input: u64, prefill: f64) -> RequestRecord {
    RequestRecord {
        pid: PID,
        model: Some(model.to_owned()),
        ttft: Some(0.1 + prefill),
        clocks: Clocks { request_end: Some(0.1), first_token: Some(0.1 + prefill), ..Clocks::default() },
        tokens: Tokens { input: Some(input), source: Some(TokenSource::Usage), ..Tokens::default() },
        ..RequestRecord::default()
    }
}

fn is(estimate: Option<f64>, expected: f64) -> bool {
    estimate.is_some_and(|estimate| (estimate - expected).abs() < 1e-9)
}

#[test]
fn a_wait_is_what_the_fastest_idle_prefill_does_not_explain() {
    let mut bench = Bench::default();
    bench.learn("m", 100, 0.3);
    let (first, second) = (bench.begin(50.0, "m"), bench.begin(50.0, "m"));
    assert!(is(bench.end(first, record("m", 127, 0.3)), 0.0));
    assert!(is(bench.end(second, record("m", 64, 2.3)), 2.0));
    let (first, second) = (bench.begin(60.0, "m"), bench.begin(60.0, "m"));
    assert!(is(bench.end(first, record("m", 100, 0.2)), 0.0), "never below 0");
    assert_eq!(bench.end(second, record("m", 128, 2.3)), None, "of another size nothing is known");
}

#[test]
fn there_is_no_estimate_before_enough_was_seen() {
    let mut bench = Bench::default();
    for n in 1..ENOUGH {
        assert_eq!(bench.idle(f64::from(n), record("m", 100, 0.5)), None);
    }
    assert_eq!(bench.idle(40.0, record("other", 100, 0.5)), None);
    assert!(is(bench.idle(50.0, record("m", 100, 0.7)), 0.2));
}

#[test]
fn who_was_not_alone_is_not_idle() {
    let mut bench = Bench::default();
    // Joined before its first token, at 0.6, and beside one that went on; and joined after it.
    let long = bench.begin(0.0, "m");
    bench.idle(0.3, record("m", 100, 0.5));
    bench.end(long, record("m", 100, 0.5));
    assert_eq!(bench.seen("m"), 0, "neither was alone");

    let long = bench.begin(0.0, "m");
    let late = bench.begin(0.7, "m");
    bench.end(long, record("m", 100, 0.5));
    bench.end(late, record("m", 100, 0.5));
    assert_eq!(bench.seen("m"), 1, "the first had its token when the second came");

    let long = bench.begin(0.0, "m");
    bench.idle(0.3, record("other", 100, 0.5));
    bench.end(long, record("m", 100, 0.5));
    assert_eq!((bench.seen("m"), bench.seen("other")), (2, 1), "other models do not count");
}

#[test]
fn whose_model_is_not_known_may_be_of_any() {
    let mut bench = Bench::default();
    let uploading = bench.start(0.0);
    bench.idle(0.1, record("m", 100, 0.5));
    assert_eq!(bench.seen("m"), 0, "beside one that still arrives");
    let long = bench.begin(0.2, "m");
    bench.ask(uploading, Some("other"));
    bench.end(uploading, record("other", 100, 9.0));
    bench.end(long, record("m", 100, 0.5));
    assert_eq!(bench.seen("m"), 0, "it could have been, when this one began");

    let long = bench.begin(0.0, "m");
    let uploading = bench.start(0.3);
    bench.end(long, record("m", 100, 0.5));
    assert_eq!(bench.seen("m"), 0, "joined by one that still arrives");
    bench.ask(uploading, None);
    bench.end(uploading, record("m", 100, 0.5));
    assert_eq!(bench.seen("m"), 0, "beside the first, for any model");
}

#[test]
fn what_is_not_known_is_not_estimated() {
    let partial = |record| RequestRecord { partial: vec!["lost".to_owned()], ..record };
    let plain = |record| RequestRecord { ttft: None, ..record };
    let uncounted = |record| RequestRecord { tokens: Tokens::default(), ..record };
    let changes: [&dyn Fn(RequestRecord) -> RequestRecord; 3] = [&partial, &plain, &uncounted];
    for (at, change) in changes.into_iter().enumerate() {
        let mut bench = Bench::default();
        for n in 0..2 * ENOUGH {
            assert_eq!(bench.idle(f64::from(n), change(record("m", 100, 0.5))), None, "{at}");
        }
        assert_eq!(bench.seen("m"), 0, "and nothing is learned from it: {at}");
        bench.learn("m", 100, 0.5);
        assert_eq!(bench.idle(90.0, change(record("m", 100, 0.5))), None, "{at}");
    }
}

#[test]
fn memory_is_bounded_and_goes_with_the_process() {
    let mut bench = Bench::default();
    for n in 0..2 * LANES {
        bench.idle(n as f64, record(&format!("made-up-{n}"), u64::MAX, 0.5));
    }
    assert_eq!(bench.estimator.lanes.len(), LANES);
    assert_eq!((bench.seen("made-up-0"), bench.seen(&format!("made-up-{}", 2 * LANES - 1))), (0, 1));
    bench.start(9999.0);
    bench.estimator.process_gone(PID);
    assert!(bench.estimator.lanes.is_empty() && bench.estimator.served_by.is_empty());
    assert!(bench.estimator.processes.is_empty());
}

proptest! {
    /// Whatever prefills take, idle and not: who waits longer by a constant, before a prefill that does not
    /// change, has an estimate that is greater by that constant.
    #[test]
    fn a_constant_wait_moves_the_estimate_by_itself(
        idle in prop::collection::vec((1_u64..5000, 0.001_f64..2.0), 1..60),
        busy in prop::collection::vec((1_u64..5000, 0.0_f64..3.0), 1..20),
        wait in 0.0_f64..100.0,
    ) {
        let run = |wait: f64| {
            let mut bench = Bench::default();
            for (at, (input, prefill)) in idle.iter().enumerate() {
                bench.idle(10.0 * at as f64, record("m", *input, *prefill));
            }
            let company = bench.begin(5000.0, "m");
            let begun: Vec<_> = busy.iter().map(|_| bench.begin(5001.0, "m")).collect();
            let told: Vec<_> = begun
                .into_iter()
                .zip(&busy)
                // Slower than the slowest of the idle ones, so that 0 is no bound.
                .map(|(id, (input, more))| bench.end(id, record("m", *input, 2.0 + more + wait)))
                .collect();
            bench.end(company, RequestRecord::default());
            told
        };
        for (without, with) in run(0.0).into_iter().zip(run(wait)) {
            prop_assert_eq!(without.is_some(), with.is_some());
            if let (Some(without), Some(with)) = (without, with) {
                prop_assert!((with - without - wait).abs() < 1e-9, "{} {} {}", without, with, wait);
            }
        }
    }
}
