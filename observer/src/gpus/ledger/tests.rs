use super::*;
use crate::exchange::{Clocks, Spread, Tokens, UsedBy};
use crate::gpus::{Device, Instance, Memory, Process};

const SECOND: u64 = 1_000_000_000;
const HALF: u64 = SECOND / 2;

fn id(sequence: u32) -> ExchangeId {
    ExchangeId { connection: 1, sequence }
}

fn server(pid: u32) -> Owner {
    Owner { pid, cgroup: Some("/c".into()), ..Owner::default() }
}

/// One round that ends at this second: power and utilisation twice a second.
fn round(second: u64, watts: f64, busy: f64) -> Round {
    let time = second * SECOND;
    let pair = |value: f64| vec![(time - HALF, value), (time, value)];
    let worker = Process {
        instance: None,
        memory: Some(1),
        utilization: None,
        owner: Arc::new(Owner { pid: 99, cgroup: Some("/c".into()), ..Owner::default() }),
    };
    let reading = Reading {
        device: Arc::new(Device { uuid: "GPU-1".into(), ..Device::default() }),
        power: pair(watts),
        utilization: pair(busy),
        memory: Some(Memory { total: 10, used: second, ..Memory::default() }),
        processes: Some(vec![worker]),
        ..Reading::default()
    };
    Round { time, readings: vec![reading] }
}

fn record(pid: u32, duration: f64, output: u64) -> Box<RequestRecord> {
    Box::new(RequestRecord {
        pid,
        model: Some("m".into()),
        duration: Some(duration),
        clocks: Clocks {
            request_end: Some(0.0),
            first_token: Some(duration / 4.0),
            last_token: Some(duration),
            ..Clocks::default()
        },
        tokens: Tokens { input: Some(0), output: Some(output), ..Tokens::default() },
        ..RequestRecord::default()
    })
}

fn ledger(rounds: std::ops::RangeInclusive<u64>) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.process(server(1));
    for second in rounds {
        ledger.read(round(second, 100.0, 0.5));
    }
    ledger
}

#[test]
fn a_record_waits_for_the_readings_that_reach_its_end() {
    let mut ledger = ledger(1..=2);
    ledger.started(id(0), 1, 2 * SECOND);
    assert!(ledger.finished(id(0), record(1, 1.5, 10), 3 * SECOND + HALF).is_none());
    assert!(ledger.poll(3 * SECOND + HALF).is_none());
    ledger.read(round(3, 300.0, 1.0));
    assert!(ledger.poll(3 * SECOND + HALF).is_none(), "half a second of it is not read yet");
    ledger.read(round(4, 300.0, 1.0));
    let record = ledger.poll(4 * SECOND).unwrap();
    let [gpu] = record.gpu.as_slice() else { panic!("{:?}", record.gpu) };
    assert_eq!((gpu.uuid.as_str(), gpu.by), ("GPU-1", UsedBy::Container));
    let whole = gpu.whole.unwrap();
    assert_eq!(whole.utilization, Some(Spread { mean: 1.0, max: 1.0 }));
    assert_eq!(whole.power.map(|power| power.max), Some(300.0));
    // Up from 100 to 300 W in the first half second, then two more halves of 300 W.
    let joules = gpu.apportioned_joules.unwrap();
    assert!((joules - (100.0 + 300.0)).abs() < 1e-6, "{joules}");
    assert!((gpu.apportioned_seconds.unwrap() - 1.5).abs() < 1e-9);
    assert!(gpu.queue.is_none(), "the engine did not tell");
    assert!(gpu.prefill.is_some() && gpu.decode.is_some());
    let key = ["", "", "", "m"].map(str::to_owned);
    assert_eq!(ledger.told().shares[&key].output, 10);
    assert_eq!(ledger.told().unsettled, 0);
}

#[test]
fn a_record_does_not_wait_for_readings_that_do_not_come() {
    let mut ledger = ledger(1..=2);
    ledger.started(id(0), 1, 2 * SECOND);
    assert!(ledger.finished(id(0), record(1, 1.0, 1), 3 * SECOND).is_none());
    assert!(ledger.poll(3 * SECOND).is_none());
    let record = ledger.poll(2 * SECOND + PATIENCE + 1).unwrap();
    assert_eq!((record.gpu[0].whole, record.gpu[0].apportioned_joules), (None, None));
    assert_eq!(ledger.told().unsettled, 1);
    // And none waits any more.
    ledger.started(id(1), 1, 5 * SECOND);
    assert!(ledger.finished(id(1), self::record(1, 1.0, 1), 6 * SECOND).is_some());
}

#[test]
fn what_no_gpu_is_known_of_goes_on_at_once() {
    let mut empty = Ledger::default();
    empty.process(server(1));
    empty.started(id(0), 1, SECOND);
    assert!(empty.finished(id(0), record(1, 1.0, 1), 2 * SECOND).is_some());
    let mut ledger = ledger(1..=2);
    ledger.process(Owner { pid: 2, ..Owner::default() });
    ledger.started(id(0), 2, 2 * SECOND);
    assert!(ledger.finished(id(0), record(2, 1.0, 1), 3 * SECOND).unwrap().gpu.is_empty());
}

#[test]
fn requests_in_flight_share_by_their_tokens_and_all_is_shared() {
    let mut ledger = ledger(1..=2);
    for (sequence, began) in [(0, 2), (1, 2)] {
        ledger.started(id(sequence), 1, began * SECOND);
    }
    for _ in 0..10 {
        ledger.delivered(id(1));
    }
    assert!(ledger.finished(id(0), record(1, 1.0, 30), 3 * SECOND).is_none());
    ledger.read(round(3, 100.0, 0.5));
    let first = ledger.poll(3 * SECOND).unwrap().gpu[0].apportioned_joules.unwrap();
    assert!((first - 75.0).abs() < 1e-6, "30 of 40 tokens: {first}");
    assert!(ledger.finished(id(1), record(1, 2.0, 20), 4 * SECOND).is_none());
    ledger.read(round(4, 100.0, 0.5));
    let second = ledger.poll(4 * SECOND).unwrap().gpu[0].apportioned_joules.unwrap();
    assert!((first + second - 200.0).abs() < 1e-6, "{first} {second}");
}

#[test]
fn a_gpu_that_is_lost_or_left_by_its_processes_stays_the_requests() {
    for lost in [true, false] {
        let mut ledger = ledger(1..=2);
        ledger.started(id(0), 1, 2 * SECOND);
        ledger.read(round(3, 100.0, 0.5));
        let mut gone = round(4, 100.0, 0.5);
        let reading = &mut gone.readings[0];
        if lost {
            *reading = Reading { device: Arc::clone(&reading.device), lost, ..Reading::default() };
        } else {
            reading.processes = Some(Vec::new());
        }
        ledger.read(gone);
        assert!(ledger.finished(id(0), record(1, 1.0, 1), 4 * SECOND).is_none());
        let record = ledger.drain().unwrap();
        assert_eq!(record.gpu.len(), 1, "lost: {lost}");
        assert!(record.gpu[0].apportioned_joules.is_some(), "until its end it was read");
        // Later ones find nothing there.
        let mut gone = round(6, 100.0, 0.5);
        gone.readings[0].processes = Some(Vec::new());
        ledger.read(gone);
        ledger.started(id(1), 1, 6 * SECOND);
        assert!(ledger.finished(id(1), self::record(1, 1.0, 1), 6 * SECOND).unwrap().gpu.is_empty());
    }
}

#[test]
fn what_the_kubelet_allocated_is_used_where_no_process_is_seen() {
    let names = ["ml", "a", "server"].map(str::to_owned);
    let mut ledger = Ledger::default();
    ledger.process(Owner { names: names.clone(), ..server(1) });
    ledger.allocated(vec![Allocation { names, ids: vec!["GPU-1".into()] }]);
    let empty = |second| {
        let mut round = round(second, 100.0, 0.0);
        round.readings[0].processes = None;
        round
    };
    ledger.read(empty(1));
    ledger.read(empty(2));
    ledger.started(id(0), 1, 2 * SECOND);
    ledger.phase(id(0), Phase::Waiting);
    ledger.read(empty(3));
    assert!(ledger.finished(id(0), record(1, 1.0, 10), 3 * SECOND).is_none());
    let record = ledger.poll(3 * SECOND).unwrap();
    assert_eq!((record.gpu.len(), record.gpu[0].by), (1, UsedBy::PodResources));
    assert!((record.gpu[0].apportioned_joules.unwrap() - 100.0).abs() < 1e-6);
    let waits = Diagnosis { idle_while_waiting: 1.0, ..Diagnosis::default() };
    assert_eq!(ledger.told().diagnosis["GPU-1"], waits);
}

#[test]
fn instances_of_one_gpu_cost_its_energy_once() {
    let split = |second| {
        let mut round = round(second, 100.0, 0.5);
        let reading = &mut round.readings[0];
        let worker = reading.processes.iter_mut().flatten().next().unwrap().clone();
        let of = |uuid: &str| Process { instance: Some(uuid.into()), ..worker.clone() };
        reading.processes = Some(vec![of("MIG-1"), of("MIG-2")]);
        let one = |uuid: &str, used| Instance {
            uuid: uuid.into(),
            memory: Some(Memory { used, ..Memory::default() }),
            ..Instance::default()
        };
        reading.instances = vec![one("MIG-1", 1), one("MIG-2", 2)];
        round
    };
    let mut ledger = Ledger::default();
    ledger.process(server(1));
    (1..=2).for_each(|second| ledger.read(split(second)));
    ledger.started(id(0), 1, 2 * SECOND);
    (3..=4).for_each(|second| ledger.read(split(second)));
    assert!(ledger.finished(id(0), record(1, 2.0, 1), 4 * SECOND).is_none());
    let record = ledger.poll(4 * SECOND).unwrap();
    let told: Vec<_> = record
        .gpu
        .iter()
        .map(|one| {
            let memory = one.whole.and_then(|whole| whole.memory).map(|memory| memory.max);
            (one.instance.as_deref(), one.apportioned_joules.map(f64::round), memory)
        })
        .collect();
    assert_eq!(told, [(Some("MIG-1"), Some(200.0), Some(1.0)), (Some("MIG-2"), None, Some(2.0))]);
    assert!((ledger.told().shares.values().next().unwrap().joules - 200.0).abs() < 1e-6);
}

#[test]
fn windows_are_cut_where_the_engine_says_that_it_began() {
    let mut record = record(1, 4.0, 1);
    record.queue.engine = Some(0.25);
    let parts = Parts::of(&record, 0, 4 * SECOND);
    assert_eq!((parts.queue, parts.prefill), (Some((0, SECOND / 4)), Some((SECOND / 4, SECOND))));
    record.timings.prefill = Some(0.5);
    let parts = Parts::of(&record, 0, 4 * SECOND);
    assert_eq!((parts.queue, parts.prefill), (Some((0, HALF)), Some((HALF, SECOND))));
    assert_eq!(parts.decode, Some((SECOND, 4 * SECOND)));
}

#[test]
fn what_is_to_be_looked_at_is_counted() {
    let mut ledger = ledger(1..=2);
    let diagnosis = |ledger: &Ledger| ledger.told().diagnosis.get("GPU-1").copied();
    let busy = Diagnosis { busy_without_request: 1.0, ..Diagnosis::default() };
    assert_eq!(diagnosis(&ledger), Some(busy), "the first round has no length");
    ledger.started(id(0), 1, 2 * SECOND);
    ledger.phase(id(0), Phase::Waiting);
    ledger.read(round(3, 100.0, 0.0));
    assert_eq!(diagnosis(&ledger), Some(Diagnosis { idle_while_waiting: 1.0, ..busy }));
    let mut throttled = round(4, 100.0, 1.0);
    throttled.readings[0].throttled_by = vec!["sw_thermal"];
    ledger.read(throttled.clone());
    let mut idle = round(5, 100.0, 1.0);
    idle.readings[0].throttled_by = vec!["idle"];
    ledger.read(idle);
    let expected =
        Diagnosis { throttled_while_serving: 1.0, idle_while_waiting: 1.0, busy_without_request: 1.0 };
    assert_eq!(diagnosis(&ledger), Some(expected));
    // A tenth of the time is neither idle nor busy.
    ledger.read(round(6, 100.0, 0.1));
    assert!(ledger.finished(id(0), record(1, 1.0, 1), 6 * SECOND).is_none());
    ledger.read(round(7, 100.0, 0.1));
    assert_eq!(diagnosis(&ledger), Some(expected));
}

#[test]
fn what_waits_is_bounded_and_all_of_it_comes_out() {
    let mut ledger = ledger(1..=2);
    let count = WAITING as u32 + 3;
    for sequence in 0..count {
        ledger.started(id(sequence), 1, 2 * SECOND);
        assert!(ledger.finished(id(sequence), record(1, 1.0, 1), 3 * SECOND).is_none());
    }
    let mut early = 0;
    while ledger.poll(3 * SECOND).is_some() {
        early += 1;
    }
    assert_eq!(early, 3);
    assert_eq!(std::iter::from_fn(|| ledger.drain()).count(), WAITING);
}
