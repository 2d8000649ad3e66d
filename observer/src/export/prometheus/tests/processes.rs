//! Starts and ends of processes: of containers that serve only, and from the beginning.

use super::*;

#[test]
fn what_became_of_processes_is_told_once_their_container_serves() {
    let mut bench = Bench::new(&small());
    let (serves, idle) = (Arc::new(identity(1)), Arc::new(identity(2)));
    for identity in [&serves, &idle] {
        bench.metrics.process_started(identity);
        bench.metrics.process_ended(identity, "oom_kill");
        bench.metrics.process_started(identity);
    }
    assert!(!bench.text().contains("\nllm_process_"), "neither has answered a request yet");
    bench.exchange(1, record(1, "m"));
    let starts = |bench: &Bench| bench.sum("llm_process_starts_total", &["pod=\"llm-1\""]);
    let exits = |bench: &Bench, reason: &str| {
        bench.sum("llm_process_exits_total", &["pod=\"llm-1\"", &format!("reason=\"{reason}\"")])
    };
    assert_eq!((starts(&bench), exits(&bench, "oom_kill"), exits(&bench, "crash")), (2, 1, 0));
    let shown = bench.text().lines().filter(|line| line.starts_with("llm_process_exits_total{")).count();
    assert_eq!(shown, crate::capture::REASONS.len(), "what did not happen is there at 0");
    bench.metrics.process_ended(&serves, "crash");
    bench.metrics.process_started(&serves);
    bench.exchange(2, record(1, "m"));
    assert_eq!((starts(&bench), exits(&bench, "oom_kill"), exits(&bench, "crash")), (3, 1, 1));
    assert!(!bench.text().contains("llm-2"), "it serves nothing");
}
