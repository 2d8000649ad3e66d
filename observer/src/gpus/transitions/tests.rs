use super::*;
use crate::gpus::{Owner, Process};

const SECOND: u64 = 1_000_000_000;

fn names(pod: &str) -> Names {
    ["ml", pod, "server"].map(str::to_owned)
}

/// A reading of a device with processes of these pods.
fn reading(uuid: &str, pods: &[&str]) -> Reading {
    let process = |pod: &&str| Process {
        instance: None,
        memory: None,
        utilization: None,
        owner: Arc::new(Owner { names: names(pod), ..Owner::default() }),
    };
    Reading {
        device: Arc::new(Device { uuid: uuid.into(), ..Device::default() }),
        processes: Some(pods.iter().map(process).collect()),
        ..Reading::default()
    }
}

fn lost(uuid: &str) -> Reading {
    Reading { lost: true, processes: None, ..reading(uuid, &[]) }
}

fn held(causes: &[&'static str]) -> Reading {
    Reading { throttled_by: causes.to_vec(), ..reading("a", &["x"]) }
}

fn failed(xids: &[u64], pods: &[&str]) -> Reading {
    Reading { xids: xids.to_vec(), ..reading("a", pods) }
}

/// What is told of rounds at these moments.
fn told(transitions: &mut Transitions, rounds: &[(u64, &[Reading])]) -> Vec<(u64, Change)> {
    let round = |(time, readings): &(u64, &[Reading])| Round { time: *time, readings: readings.to_vec() };
    let told = rounds.iter().flat_map(|one| transitions.read(&round(one), &[]));
    told.map(|one| (one.time, one.change)).collect()
}

#[test]
fn clocks_that_are_held_back_for_a_second_begin_and_end_once() {
    let mut all = Transitions::default();
    let (on, off) = ([held(&["hw_thermal"])], [held(&["idle"])]);
    assert_eq!(told(&mut all, &[(0, &off), (SECOND, &on), (SECOND * 3 / 2, &on)]), [], "for half a second");
    let begin = told(&mut all, &[(2 * SECOND, &on), (3 * SECOND, &on)]);
    assert_eq!(begin, [(SECOND, Change::ThrottleBegin("hw_thermal"))], "since it was first seen");
    assert_eq!(told(&mut all, &[(5 * SECOND, &off), (7 * SECOND, &on), (8 * SECOND, &off)]), [], "goes on");
    let end = told(&mut all, &[(11 * SECOND, &off), (12 * SECOND, &off), (13 * SECOND, &off)]);
    assert_eq!(end, [(7 * SECOND, Change::ThrottleEnd("hw_thermal", 6.0))]);
    let again = told(&mut all, &[(20 * SECOND, &on), (21 * SECOND, &on)]);
    assert_eq!(again, [(20 * SECOND, Change::ThrottleBegin("hw_thermal"))]);
}

#[test]
fn a_moment_is_not_told_and_causes_are_told_apart() {
    let mut all = Transitions::default();
    for second in 0..20 {
        let on = [held(if second % 2 == 0 { &["sw_power_cap"] } else { &[] })];
        assert_eq!(told(&mut all, &[(second * SECOND, &on)]), []);
    }
    let both = [held(&["sw_power_cap", "hw_power_brake"])];
    let mut found = told(&mut all, &[(30 * SECOND, &both), (31 * SECOND, &both)]);
    found.sort_by_key(|(_, change)| format!("{change:?}"));
    let begin = |cause| (30 * SECOND, Change::ThrottleBegin(cause));
    assert_eq!(found, [begin("hw_power_brake"), begin("sw_power_cap")]);
    // After a hole nobody knows whether it went on.
    let found = told(&mut all, &[(90 * SECOND, &[held(&["sw_power_cap"])])]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|(time, change)| *time == 31 * SECOND
        && matches!(change, Change::ThrottleEnd(_, seconds) if (seconds - 1.0).abs() < 1e-9)));
}

#[test]
fn a_device_is_lost_and_returns_once() {
    let mut all = Transitions::default();
    let (here, gone) = ([held(&["hw_thermal"])], [lost("a")]);
    assert_eq!(told(&mut all, &[(0, &here)]), []);
    assert_eq!(told(&mut all, &[(SECOND, &here)]).len(), 1);
    let found = told(&mut all, &[(2 * SECOND, &gone), (3 * SECOND, &gone), (4 * SECOND, &[])]);
    assert_eq!(
        found,
        [(2 * SECOND, Change::Lost), (SECOND, Change::ThrottleEnd("hw_thermal", 1.0))],
        "what was held back is not any more"
    );
    let back = told(&mut all, &[(5 * SECOND, &here), (6 * SECOND, &here)]);
    assert_eq!(back, [(5 * SECOND, Change::Returned), (5 * SECOND, Change::ThrottleBegin("hw_thermal"))]);
    // The driver does not list it any more.
    assert_eq!(told(&mut all, &[(7 * SECOND, &[])])[0], (7 * SECOND, Change::Lost));
}

#[test]
fn errors_are_told_at_once_and_what_repeats_is_counted() {
    let mut all = Transitions::default();
    let mut at = |second: u64, xids: &[u64]| told(&mut all, &[(second * SECOND, &[failed(xids, &[])])]);
    let told = |second: u64, xid, times| (second * SECOND, Change::Xid(xid, times));
    assert_eq!(at(1, &[31, 79, 31]), [told(1, 31, 2), told(1, 79, 1)]);
    for second in 2..10 {
        assert_eq!(at(second, &[31, 31]), [], "{second}");
    }
    assert_eq!(at(11, &[]), [told(11, 31, 16)], "none is lost");
    assert_eq!(at(12, &[79]), [told(12, 79, 1)]);
    assert_eq!(at(29, &[]), []);
    let many: Vec<u64> = (1000..1000 + 2 * XIDS as u64).collect();
    let found = at(30, &many);
    assert_eq!(found.len(), XIDS + 1);
    let sum: u64 =
        found.iter().map(|(_, change)| if let Change::Xid(_, times) = change { *times } else { 0 }).sum();
    assert_eq!(sum, many.len() as u64);
}

#[test]
fn the_only_container_that_has_it_is_named_also_after_its_end() {
    let owner = |rounds: &[(u64, Reading)], kubelet: &[Allocation]| {
        let mut all = Transitions::default();
        let told = rounds.iter().flat_map(|(second, reading)| {
            all.read(&Round { time: second * SECOND, readings: vec![reading.clone()] }, kubelet)
        });
        told.last().expect("a change").owner
    };
    let crash = |pods: &[&str]| failed(&[79], pods);
    assert_eq!(owner(&[(0, crash(&["x"]))], &[]), Some(names("x")));
    assert_eq!(owner(&[(0, crash(&["x", "y"]))], &[]), None, "it is shared");
    assert_eq!(owner(&[(0, reading("a", &["x"])), (1, crash(&[]))], &[]), Some(names("x")), "it crashed");
    let one_left = [(0, reading("a", &["x", "y"])), (1, crash(&["y"]))];
    assert_eq!(owner(&one_left, &[]), None, "whoever is left may not be whose it was");
    assert_eq!(owner(&[(0, reading("a", &["x"])), (40, crash(&[]))], &[]), None, "long ago");
    let in_cgroup = |pod: &str, xids: &[u64]| {
        let mut reading = failed(xids, &[pod]);
        let process = reading.processes.iter_mut().flatten().next().expect("one");
        Arc::make_mut(&mut process.owner).cgroup = Some("/c".into());
        reading
    };
    let named = [(0, in_cgroup("", &[])), (1, in_cgroup("x", &[79]))];
    assert_eq!(owner(&named, &[]), Some(names("x")), "its name was not known yet");
    let given = [Allocation { names: names("z"), ids: vec!["a".into()] }];
    assert_eq!(owner(&[(0, crash(&[]))], &given), Some(names("z")), "by the kubelet");
}

#[test]
fn what_is_known_is_bounded() {
    let mut all = Transitions::default();
    for number in 0..3 * DEVICES as u64 {
        all.read(
            &Round { time: number * SECOND, readings: vec![reading(&format!("GPU-{number}"), &[])] },
            &[],
        );
    }
    assert!(all.0.len() <= DEVICES + 1, "{}", all.0.len());
}

#[test]
fn in_words() {
    let device = Arc::new(Device { uuid: "GPU-1".into(), index: 3, ..Device::default() });
    for (change, reason, text) in [
        (Change::Xid(79, 1), "xid", "GPU 3 (GPU-1) told of XID 79: the GPU has fallen off the bus"),
        (Change::Xid(777, 2), "xid", "GPU 3 (GPU-1) told of XID 777, 2 times"),
        (Change::Xid(OTHER_XID, 1), "xid", "GPU 3 (GPU-1) told of an XID error without its number"),
        (
            Change::ThrottleBegin("hw_thermal"),
            "throttle_begin",
            "GPU 3 (GPU-1) is held back by its hardware, for heat (hw_thermal)",
        ),
        (
            Change::ThrottleEnd("sw_power_cap", 2.04),
            "throttle_end",
            "GPU 3 (GPU-1) was held back by its power limit (sw_power_cap) for 2.0 s",
        ),
        (
            Change::Lost,
            "lost",
            "GPU 3 (GPU-1) has fallen off the bus, or has to be reset: it is not read any more",
        ),
        (Change::Returned, "returned", "GPU 3 (GPU-1) is read again"),
    ] {
        let one = Transition { device: Arc::clone(&device), time: 0, change, owner: None };
        assert_eq!((one.change.reason(), one.to_string().as_str()), (reason, text));
    }
}
