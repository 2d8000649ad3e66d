//! How many series there are, what a scrape of them costs, and when they go.

use std::time::Duration;

use super::{super::series::EXPIRY, *};
use crate::capture::monotonic;
use crate::exchange::Clocks;

/// A request with all that a busy server shows of one.
fn busy(pid: u32, model: &str, operation: Operation, outcome: Outcome) -> RequestRecord {
    let clocks = Clocks { request_end: Some(0.1), ..Clocks::default() };
    RequestRecord {
        operation: Some(operation),
        ttfb: Some(0.1),
        clocks,
        outcome: Some(outcome),
        client_stalls: Some(0),
        queue: Queue {
            accept: Some(0.1),
            socket: Some(0.1),
            engine: Some(0.1),
            estimate: Some(0.1),
            ..Queue::default()
        },
        ..record(pid, model)
    }
}

const OUTCOMES: [Outcome; 3] = [Outcome::Ok, Outcome::ServerError, Outcome::AbortedByClient];

#[test]
fn one_model_and_operation_of_a_pod_takes_at_most_245() {
    let mut bench = Bench::new(&MetricsConfig { profile: MetricsProfile::Full, ..MetricsConfig::default() });
    for (n, outcome) in OUTCOMES.into_iter().enumerate() {
        bench.exchange(n as u32, busy(1, "m", Operation::Chat, outcome));
    }
    let text = bench.text();
    let count = |text: &str| series(text).iter().filter(|line| line.contains("request_model=\"m\"")).count();
    let full = count(&text);
    let of_profile =
        ["llm_response_start_seconds", "llm_request_read_seconds", "llm_queue_wait_estimate_seconds"]
            .map(|name| series(&text).iter().filter(|line| line.starts_with(name)).count());
    println!(
        "{} series, {} more with the full profile",
        full - of_profile.iter().sum::<usize>(),
        of_profile.iter().sum::<usize>()
    );
    assert!((150..=245).contains(&(full - of_profile.iter().sum::<usize>())), "{full}");
    assert!(full <= 300, "{full}");
}

/// A node with 8 pods, which serve two models by two operations each; and how many requests it had.
fn busy_node(profile: MetricsProfile) -> (Bench, u64) {
    let mut bench = Bench::new(&MetricsConfig { profile, ..MetricsConfig::default() });
    let mut n = 0;
    for pid in 1..=8 {
        // Names as long as they are: a deployment's pod, models of a hub.
        let pod = format!("vllm-llama-3-1-8b-instruct-6d5f9c7b8-x2kq{pid}");
        bench.identities.insert(pid, Identity { pod, ..identity(pid) });
        for operation in [Operation::Chat, Operation::TextCompletion] {
            for model in ["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct"] {
                for outcome in OUTCOMES {
                    bench.exchange(n, busy(pid, model, operation, outcome));
                    n += 1;
                }
            }
        }
    }
    (bench, u64::from(n))
}

#[test]
fn a_busy_node_stays_within_its_budget() {
    let (bench, expected) = busy_node(MetricsProfile::Default);
    let text = bench.text();
    let fastest = (0..5)
        .map(|_| {
            let begin = monotonic();
            assert_eq!(bench.text().len(), text.len());
            Duration::from_nanos(monotonic() - begin)
        })
        .min()
        .unwrap();
    let of_one = series(&text).iter().filter(|line| line.contains("-x2kq1\"")).count();
    println!(
        "8 pods x 2 models x 2 operations: {} series ({of_one} of one pod), {} bytes, {fastest:?} a scrape",
        series(&text).len(),
        text.len()
    );
    assert_eq!(bench.sum("llm_requests_total", &[]), expected);
    assert!(!text.contains("\"other\""), "all have series of their own");
    assert_eq!(bench.sum("observer_series_limited_total", &[]), 0);
    assert!(text.len() <= 2_000_000, "{} bytes", text.len());
    // What is not optimised takes longer, and says nothing about what is.
    assert!(cfg!(debug_assertions) || fastest.as_millis() <= 50, "{fastest:?}");
}

#[test]
fn the_full_profile_moves_nothing_to_other() {
    let (bench, _) = busy_node(MetricsProfile::Full);
    let text = bench.text();
    println!("with the full profile: {} series, {} bytes", series(&text).len(), text.len());
    assert!(text.contains("llm_queue_wait_estimate_seconds") && !text.contains("\"other\""));
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    procfs::process::Process::myself().unwrap().statm().unwrap().resident * procfs::page_size()
}

#[test]
fn a_client_that_makes_up_models_makes_few_series() {
    // What is not optimised takes ten times as long, and finds the same.
    let names = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    for (status, outcome) in [(200, Outcome::Ok), (404, Outcome::ClientError)] {
        let config = MetricsConfig::default();
        let mut bench = Bench::new(&config);
        let mut measured = (0, 0, 0);
        for n in 0..names {
            let record = record(1, &format!("made-up-{n}"));
            bench.exchange(n, RequestRecord { status: Some(status), outcome: Some(outcome), ..record });
            if n == names / 10 {
                measured = (bench.metrics.series.used(), bench.text().len(), resident());
            }
        }
        let text = bench.text();
        let grown = resident().saturating_sub(measured.2);
        println!(
            "{names} models, {status}: {} series, {} bytes, {grown} bytes of memory more",
            series(&text).len(),
            text.len()
        );
        assert_eq!(bench.sum("llm_requests_total", &[]), u64::from(names));
        assert!(series(&text).len() <= config.max_series_per_process, "{}", series(&text).len());
        assert_eq!(measured.0, bench.metrics.series.used(), "no series since the first tenth");
        assert!(text.len() < measured.1 + 2000, "only numbers grow");
        // A process that runs other tests besides, as `cargo test` does, has their memory too.
        let is_alone = std::env::var_os("NEXTEST").is_some();
        assert!(!is_alone || grown < 1 << 20, "{grown} bytes since the first tenth");
        assert!(bench.metrics.live.is_empty(), "nothing is kept of what has ended");
    }
}

#[test]
fn series_outlive_their_container_for_a_while() {
    let mut bench = Bench::new(&small());
    bench.exchange(0, record(1, "m"));
    bench.exchange(1, record(2, "m"));
    let second_lives = |identity: &Identity| identity.pod == "llm-2";
    bench.metrics.expire(SECOND, second_lives);
    bench.metrics.expire(EXPIRY, second_lives);
    bench.exchange(2, record(1, "m"));
    assert_eq!(bench.sum("llm_requests_total", &["llm-1"]), 2, "started again, it counts on");

    bench.metrics.expire(2 * EXPIRY, |_| true);
    bench.start(3, 1, 0);
    bench.metrics.expire(4 * EXPIRY, second_lives);
    bench.metrics.expire(6 * EXPIRY, second_lives);
    assert_eq!(bench.sum("llm_requests_total", &["llm-1"]), 2, "one is still in flight");
    bench.finish(3, record(1, "m"));
    bench.metrics.expire(8 * EXPIRY, second_lives);
    assert_eq!(bench.sum("llm_requests_total", &["llm-1"]), 3, "gone for no time yet");
    bench.metrics.expire(9 * EXPIRY, second_lives);
    let text = bench.text();
    assert!(!text.contains("llm-1") && text.contains("llm-2"), "{text}");
    assert_eq!(bench.metrics.series.used(), series(&text).len());
    bench.exchange(4, record(1, "m"));
    assert_eq!(bench.sum("llm_requests_total", &["llm-1"]), 1, "from zero");
}

#[test]
fn what_is_gone_makes_room_for_what_is_not() {
    let mut bench = Bench::new(&MetricsConfig { max_series: 2000, ..small() });
    for pid in 10..30 {
        bench.identities.insert(pid, identity(pid));
        bench.exchange(pid, record(pid, "m"));
    }
    assert!(bench.sum("llm_requests_total", &["pod=\"other\""]) > 0, "it is full");
    bench.metrics.expire(SECOND, |_| false);
    bench.exchange(30, record(29, "m"));
    assert_eq!(bench.sum("llm_requests_total", &["llm-29"]), 1, "at once");
}
