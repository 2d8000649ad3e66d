//! What rows tell of a request.

use super::super::happenings;
use super::*;
use crate::timeline::{Kind, Level, Row};

fn row(kind: Kind, reason: &str, level: Level, seconds: f64, message: &str) -> Row {
    Row {
        time: 1_767_225_600_000_000_000 + ((100.0 + seconds) * 1e9) as i64,
        node: "n1".into(),
        id: format!("{seconds}"),
        kind,
        reason: reason.into(),
        namespace: "ml".into(),
        pod: "llama-0".into(),
        container: "server".into(),
        level: Some(level),
        message: message.into(),
        ..Row::default()
    }
}

fn gpu(uuid: &str, reason: &str, level: Level, seconds: f64, message: &str) -> Row {
    Row { gpu: Some(uuid.into()), ..row(Kind::Gpu, reason, level, seconds, message) }
}

#[test]
fn rows_become_happenings_of_the_request_that_they_are_about() {
    let record = with_gpu(one(), "GPU-1");
    let own = |row: Row| Row { pid: Some(7), ..row };
    let rows = [
        own(row(Kind::Process, "exit", Level::Error, 0.9, "ended by signal 9")),
        gpu(
            "GPU-1",
            "throttle_begin",
            Level::Warn,
            -600.0,
            "is held back by its hardware, for heat (hw_thermal)",
        ),
        gpu("GPU-1", "throttle_end", Level::Info, 0.5, "was held back (hw_thermal) for 600.5 s"),
        gpu(
            "GPU-2",
            "throttle_begin",
            Level::Warn,
            -50.0,
            "is held back by its hardware, for heat (hw_thermal)",
        ),
        gpu("GPU-1", "throttle_begin", Level::Info, 0.2, "is held back by its power limit (sw_power_cap)"),
        gpu("GPU-1", "xid", Level::Error, 0.6, "told of XID 79"),
        row(Kind::Log, "", Level::Error, 0.7, "CUDA error\n  at x"),
        row(Kind::Log, "", Level::Info, 0.7, "GET /health"),
        Row { request_id: Some("r".into()), ..row(Kind::Log, "", Level::Info, 0.1, "added r") },
        Row { pod: "other".into(), ..row(Kind::Log, "", Level::Error, 0.7, "not ours") },
        row(Kind::Kubernetes, "Unhealthy", Level::Warn, -90.0, "not ready"),
        Row {
            age: Some(300.0),
            ..own(row(Kind::Process, "observed", Level::Info, -3.0, "is observed, 300.0 s after it began"))
        },
        Row {
            age: Some(2.0),
            ..own(row(Kind::Process, "observed", Level::Info, -3.0, "is observed, 2.0 s after it began"))
        },
        Row { pid: Some(9), ..row(Kind::Process, "exit", Level::Error, 0.8, "a worker ended") },
        Row {
            pod: String::new(),
            ..row(Kind::Observer, "dropped", Level::Warn, 0.3, "5 records were dropped")
        },
    ];
    let record = RequestRecord { request_id: Some("r".into()), ..record };
    let told: Vec<(f64, What, String)> = happenings(&rows, &record)
        .into_iter()
        .map(|one| ((one.at * 10.0).round() / 10.0, one.what, one.text))
        .collect();
    let expected = [
        (-600.0, What::GpuThrottle, "is held back by its hardware, for heat (hw_thermal)"),
        (-90.0, What::Other, "not ready"),
        (-5.0, What::ProcessStart, "is observed, 2.0 s after it began"),
        (0.1, What::Log, "added r"),
        (0.2, What::Other, "is held back by its power limit (sw_power_cap)"),
        (0.3, What::Other, "5 records were dropped"),
        (0.6, What::GpuError, "told of XID 79"),
        (0.7, What::Log, "CUDA error"),
        (0.8, What::Other, "a worker ended"),
        (0.9, What::ProcessEnd, "ended by signal 9"),
    ];
    assert_eq!(told, expected.map(|(at, what, text)| (at, what, text.to_owned())));
    let throttle = &happenings(&rows, &record)[0];
    assert!((throttle.until.unwrap() - 0.5).abs() < 1e-6, "{throttle:?}");
    // One that was over before the request is none of its, and the end of another cause is not its end.
    let over = gpu("GPU-1", "throttle_end", Level::Info, -300.0, "was held back (hw_thermal) for 300.0 s");
    assert_eq!(happenings(&[rows[1].clone(), over], &record), []);
    let other = gpu("GPU-1", "throttle_end", Level::Info, 0.1, "was held back (sw_thermal) for 1.0 s");
    assert_eq!(happenings(&[rows[1].clone(), other], &record)[0].until, None);
}

#[test]
fn what_stopped_being_watched_is_not_known_to_last() {
    let record = with_gpu(one(), "GPU-1");
    let begin = |at| gpu("GPU-1", "throttle_begin", Level::Warn, at, "is held back (hw_thermal)");
    let stopped = Row {
        pod: String::new(),
        namespace: String::new(),
        ..row(Kind::Observer, "stopped", Level::Info, -540.0, "the observer was told to stop")
    };
    assert_eq!(happenings(&[begin(-600.0), stopped], &record), []);
    let again = happenings(&[begin(-600.0), begin(-30.0)], &record);
    assert_eq!(again.len(), 1, "the first had an end before the second: {again:?}");
}

#[test]
fn ends_beside_the_container_are_not_its_own() {
    let other = |row: Row| Row { container: "exporter".into(), ..row };
    let killed = row(Kind::Process, "oom_kill", Level::Error, 1.0, "killed for memory");
    let told = |rows: &[Row]| happenings(rows, &one()).iter().map(|one| one.what).collect::<Vec<_>>();
    assert_eq!(told(std::slice::from_ref(&killed)), [What::OutOfMemory], "one of its workers");
    assert_eq!(told(&[other(killed)]), [What::Other]);
}
