mod budget;
mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::config::{Buckets, LabelStyle};
use crate::exchange::{Outcome, Phase, Queue, Role, TokenSource, Tokens};
use crate::slo::Measure;
use crate::telemetry::Probe;

const SECOND: u64 = 1_000_000_000;

struct Bench {
    metrics: RequestMetrics,
    scrape: Scrape,
    identities: Identities,
}

impl Bench {
    fn new(config: &MetricsConfig) -> Self {
        let (metrics, scrape) = exporter(config, &[]).unwrap();
        let mut identities = Identities::on_node("node-1");
        for pid in 1..=3 {
            identities.insert(pid, identity(pid));
        }
        Self { metrics, scrape, identities }
    }

    fn see(&mut self, observation: &Observation) {
        self.metrics.observe(observation, &self.identities);
    }

    fn start(&mut self, n: u32, pid: u32, time: u64) {
        self.see(&Observation::Started { id: id(n), pid, time, operation: Some(Operation::Chat) });
    }

    fn request(&mut self, n: u32, record: &RequestRecord) {
        let model = record.model.clone();
        self.see(&Observation::Requested { id: id(n), stream: record.stream, model });
    }

    fn finish(&mut self, n: u32, record: RequestRecord) {
        self.see(&Observation::Finished { id: id(n), record: Box::new(record) });
    }

    fn exchange(&mut self, n: u32, record: RequestRecord) {
        self.start(n, record.pid, 0);
        self.request(n, &record);
        self.finish(n, record);
    }

    fn text(&self) -> String {
        self.scrape.gather(10 * SECOND, &Beside::default()).unwrap()
    }

    /// Sum of the samples of this name whose labels contain all of these; all are whole numbers here.
    fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.text();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

fn id(n: u32) -> ExchangeId {
    ExchangeId { connection: 1, sequence: n }
}

fn identity(pid: u32) -> Identity {
    Identity {
        node: "node-1".to_owned(),
        namespace: "ml".to_owned(),
        pod: format!("llm-{pid}"),
        container: "server".to_owned(),
        process: "llama-server".to_owned(),
        provider: "llama.cpp".to_owned(),
    }
}

fn record(pid: u32, model: &str) -> RequestRecord {
    RequestRecord {
        pid,
        provider: Some("llama.cpp".to_owned()),
        operation: Some(Operation::Chat),
        model: Some(model.to_owned()),
        stream: true,
        status: Some(200),
        outcome: Some(Outcome::Ok),
        finish_reason: Some("stop".to_owned()),
        duration: Some(0.75),
        ttft: Some(0.25),
        tpot: Some(0.125),
        gap_micros: vec![62_500, 125_000, 2_000_000],
        deliveries: 4,
        tokens: Tokens {
            input: Some(12),
            input_cached: Some(4),
            output: Some(41),
            output_reasoning: None,
            source: Some(TokenSource::Usage),
        },
        queue: Queue { accept: Some(0.125), ..Queue::default() },
        ..RequestRecord::default()
    }
}

fn small() -> MetricsConfig {
    let buckets = Buckets {
        duration: vec![0.5, 1.0],
        ttft: vec![0.25, 1.0],
        tpot: vec![0.125, 1.0],
        chunk: vec![0.125, 1.0],
        wait: vec![0.25, 1.0],
    };
    MetricsConfig { buckets, ..MetricsConfig::default() }
}

/// One of everything: an answered request, an error, an abort, a partial one and one in flight.
fn one_of_everything() -> (Bench, AgentStats) {
    let mut bench = Bench::new(&small());
    bench.start(0, 1, 0);
    bench.see(&Observation::Phase { id: id(0), phase: Phase::Waiting });
    bench.see(&Observation::Phase { id: id(0), phase: Phase::Generating });
    for _ in 0..4 {
        bench.see(&Observation::Delivered { id: id(0) });
    }
    bench.finish(0, record(1, "smollm2"));
    bench.exchange(
        1,
        RequestRecord {
            pid: 1,
            model: Some("made-up".to_owned()),
            operation: Some(Operation::Chat),
            status: Some(404),
            outcome: Some(Outcome::ClientError),
            duration: Some(0.5),
            ..RequestRecord::default()
        },
    );
    bench.exchange(
        2,
        RequestRecord {
            outcome: Some(Outcome::AbortedByClient),
            finish_reason: None,
            ..record(1, "smollm2")
        },
    );
    bench.exchange(3, RequestRecord { partial: vec!["ring_full".to_owned()], ..record(1, "smollm2") });
    bench.start(4, 1, 4 * SECOND);
    bench.start(5, 1, 6 * SECOND);
    bench.see(&Observation::Phase { id: id(5), phase: Phase::Generating });
    let owner = Arc::new(identity(1));
    bench.metrics.undecoded(&owner, "not_http", 77);

    let mut stats = AgentStats {
        received: 9,
        decoded: 7,
        dropped: BTreeMap::from([("malformed", 2)]),
        connections: BTreeMap::from([("llm", 3), ("ignored", 1)]),
        upstream: [("matched", 6), ("ambiguous", 1), ("alone", 2)],
        recent: [3, 4096, 12],
        probes: vec![
            Probe { name: "raw_tp/sys_enter".to_owned(), attached: true, missed: 5 },
            Probe { name: "sk_data_ready".to_owned(), attached: false, missed: 0 },
        ],
        ..AgentStats::default()
    };
    for (at, value) in stats.kernel.iter_mut().enumerate() {
        *value = 100 + at as u64;
    }
    (bench, stats)
}

#[test]
fn what_runs_is_told_by_whose_it_is() {
    let (bench, _) = one_of_everything();
    let mut running = bench.scrape.running();
    running.sort_by_key(|running| running.whose.clone());
    let told: Vec<_> = running.iter().map(|one| (one.whose.join("/"), &*one.model, one.requests)).collect();
    assert_eq!(told, [("ml/llm-1/server".to_owned(), "", 2)]);
}

#[test]
fn golden_text() {
    let (bench, stats) = one_of_everything();
    let text = bench.scrape.gather(10 * SECOND, &Beside { agent: stats, ..Beside::default() }).unwrap();
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let golden = include_str!("golden.prom");
    for (at, (is, should)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, should, "line {}", at + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn promtool_accepts_the_text() {
    let (bench, stats) = one_of_everything();
    let text = bench.scrape.gather(10 * SECOND, &Beside { agent: stats, ..Beside::default() }).unwrap();
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(cause) => {
            let missing = format!("promtool cannot be run ({cause}): install the package `prometheus`");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            eprintln!("skipped: {missing}");
            return;
        }
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn a_model_is_a_label_once_it_was_answered() {
    let mut bench = Bench::new(&small());
    let failed =
        || RequestRecord { status: Some(500), outcome: Some(Outcome::ServerError), ..record(1, "m") };
    bench.exchange(0, failed());
    assert_eq!(bench.sum("llm_requests_total", &["gen_ai_request_model=\"m\""]), 0);
    assert_eq!(bench.sum("llm_requests_total", &["gen_ai_request_model=\"\"", "server_error"]), 1);
    bench.exchange(1, record(1, "m"));
    bench.exchange(2, failed());
    assert_eq!(bench.sum("llm_requests_total", &["gen_ai_request_model=\"m\"", "server_error"]), 1);
    // Another container has not answered for that model.
    bench.exchange(3, RequestRecord { pid: 2, ..failed() });
    assert_eq!(bench.sum("llm_requests_total", &["llm-2", "gen_ai_request_model=\"m\""]), 0);
    assert_eq!(bench.sum("llm_requests_total", &[]), 4);
}

#[test]
fn what_the_wire_says_is_sanitised() {
    let mut bench = Bench::new(&small());
    let nasty = format!("a\"b\\c\n{}", "é".repeat(300));
    let finish_reason = Some("because\"}".to_owned());
    bench.exchange(
        0,
        RequestRecord { status: Some(999), finish_reason: finish_reason.clone(), ..record(1, &nasty) },
    );
    bench.exchange(1, RequestRecord { finish_reason, ..record(1, &nasty) });
    let text = bench.text();
    assert!(text.contains("gen_ai_request_model=\"a\\\"b\\\\c\u{fffd}é"), "{text}");
    assert!(!text.contains(&"é".repeat(129)));
    assert_eq!(bench.sum("llm_requests_total", &["code=\"other\"", "finish_reason=\"other\""]), 1);
    assert_eq!(bench.sum("llm_requests_total", &["code=\"200\"", "finish_reason=\"other\""]), 1);
}

#[test]
fn labels_in_opentelemetrys_spelling() {
    let mut bench = Bench::new(&MetricsConfig { labels: LabelStyle::Otel, ..small() });
    bench.exchange(0, record(1, "m"));
    let text = bench.text();
    assert!(text.contains("k8s_namespace_name=\"ml\"") && text.contains("k8s_pod_name=\"llm-1\""));
    assert!(text.contains("k8s_container_name=\"server\"") && !text.contains(" namespace=\""));
    assert!(!text.contains(",namespace=\"") && !text.contains("{container=\""));
}

#[test]
fn outside_kubernetes_the_workload_labels_are_there_and_empty() {
    let mut bench = Bench::new(&small());
    bench.exchange(0, record(99, "m"));
    for name in
        ["llm_requests_total", "llm_requests_in_flight", "gen_ai_server_time_to_first_token_seconds_count"]
    {
        let text = bench.text();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert!(!lines.is_empty(), "{name}");
        for line in lines {
            assert!(line.contains("namespace=\"\"") && line.contains("pod=\"\""), "{line}");
            assert!(line.contains("container=\"\""), "{line}");
        }
    }
}

#[test]
fn in_flight_follows_phases_and_goes_back_to_zero() {
    let mut bench = Bench::new(&small());
    bench.start(0, 1, 2 * SECOND);
    bench.start(1, 1, 3 * SECOND);
    let phase = |phase: &str| format!("phase=\"{phase}\"");
    assert_eq!(bench.sum("llm_requests_in_flight", &[&phase("receiving")]), 2);
    assert_eq!(bench.sum("llm_requests_oldest_age_seconds", &[&phase("receiving")]), 8);
    bench.see(&Observation::Phase { id: id(0), phase: Phase::Waiting });
    assert_eq!(bench.sum("llm_requests_oldest_age_seconds", &[&phase("receiving")]), 7);
    assert_eq!(bench.sum("llm_requests_oldest_age_seconds", &[&phase("waiting")]), 8);
    bench.finish(0, record(1, "m"));
    bench.finish(1, record(1, "m"));
    assert_eq!(bench.sum("llm_requests_in_flight", &[]), 0);
    assert_eq!(bench.sum("llm_requests_oldest_age_seconds", &[]), 0);
    assert!(bench.text().contains("llm_requests_in_flight{"), "the gauge stays, at 0");
}

#[test]
fn an_exchange_whose_start_was_not_seen_is_counted() {
    let mut bench = Bench::new(&small());
    bench.finish(7, record(2, "m"));
    bench.see(&Observation::Delivered { id: id(8) });
    bench.see(&Observation::Phase { id: id(8), phase: Phase::Waiting });
    assert_eq!(bench.sum("llm_requests_total", &["llm-2"]), 1);
    assert_eq!(bench.sum("observer_dropped_total", &["stage=\"metrics\"", "unmatched"]), 2);
}

/// Series of request metrics in a text.
fn series(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("llm_") || line.starts_with("gen_ai_")).collect()
}

#[test]
fn series_of_a_container_never_pass_the_cap_and_no_request_is_lost() {
    let config = MetricsConfig::default();
    let mut bench = Bench::new(&config);
    for n in 0..100 {
        bench.exchange(n, record(1, &format!("model-{n}")));
    }
    let text = bench.text();
    let count = series(&text).len();
    assert!(count <= config.max_series_per_process, "{count}");
    assert_eq!(bench.metrics.series.used(), count, "the account agrees with the text");
    assert_eq!(bench.sum("llm_requests_total", &[]), 100);
    let other = bench.sum("llm_requests_total", &["gen_ai_request_model=\"other\"", "pod=\"llm-1\""]);
    assert!((90..100).contains(&other), "{other}");
    assert_eq!(bench.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), 100);
    assert!(bench.sum("observer_series_limited_total", &["llm_requests_total"]) >= 90);
    assert_eq!(bench.sum("observer_dropped_total", &["series_limit"]), 0);
}

#[test]
fn series_of_all_containers_never_pass_the_cap() {
    let config = MetricsConfig { max_series: 2000, ..MetricsConfig::default() };
    let mut bench = Bench::new(&config);
    for pid in 10..60 {
        bench.identities.insert(pid, identity(pid));
        bench.exchange(pid, record(pid, "m"));
    }
    let text = bench.text();
    assert!(series(&text).len() <= config.max_series, "{}", series(&text).len());
    assert_eq!(bench.sum("llm_requests_total", &[]), 50);
    assert!(bench.sum("llm_requests_total", &["namespace=\"other\"", "pod=\"other\""]) >= 40);
    assert_eq!(bench.sum("observer_dropped_total", &["series_limit"]), 0);
}

#[test]
fn a_cap_too_small_for_one_group_drops_and_counts() {
    let config = MetricsConfig { max_series: 100, max_series_per_process: 100, ..MetricsConfig::default() };
    let mut bench = Bench::new(&config);
    for n in 0..10 {
        bench.exchange(n, record(1, "m"));
    }
    let text = bench.text();
    assert!(series(&text).len() <= 100);
    assert!(bench.sum("observer_dropped_total", &["series_limit"]) > 0);
    assert!(bench.sum("llm_requests_total", &[]) > 0, "what fits is still counted");
}

#[test]
fn made_up_codes_and_reasons_have_a_bound() {
    let mut bench = Bench::new(&small());
    for n in 0..500 {
        bench.exchange(
            n,
            RequestRecord { status: Some(100 + n as u16), outcome: Some(Outcome::Unknown), ..record(1, "m") },
        );
    }
    let text = bench.text();
    let ends = series(&text).into_iter().filter(|line| line.starts_with("llm_requests_total{")).count();
    assert!(ends <= 2 * (64 + 9), "{ends}");
    assert_eq!(bench.sum("llm_requests_total", &[]), 500);
}

#[test]
fn no_label_value_is_written_twice() {
    let (bench, stats) = one_of_everything();
    let text = bench.scrape.gather(0, &Beside { agent: stats, ..Beside::default() }).unwrap();
    let names: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[test]
fn a_scrape_may_run_while_observations_come() {
    let mut bench = Bench::new(&small());
    let scrape = bench.scrape.clone();
    let reader = std::thread::spawn(move || {
        (0..50).map(|now| scrape.gather(now, &Beside::default()).unwrap().len()).max()
    });
    for n in 0..500 {
        bench.exchange(n, record(1 + n % 3, "m"));
    }
    assert!(reader.join().unwrap() > Some(0));
    assert_eq!(bench.sum("llm_requests_total", &[]), 500);
    assert_eq!(bench.sum("llm_requests_started_total", &[]), 500);
}

#[test]
fn a_gateway_keeps_its_role_for_the_next_start() {
    let mut bench = Bench::new(&small());
    bench.exchange(0, RequestRecord { role: Role::Gateway, ..record(1, "m") });
    bench.start(1, 1, 0);
    bench.request(1, &record(1, "m"));
    assert_eq!(bench.sum("llm_requests_started_total", &["role=\"gateway\""]), 1);
}

#[test]
fn objectives_are_there_at_zero_once_a_model_is_asked_for() {
    let objective = |name: &str, models: &str| Objective {
        name: name.to_owned(),
        models: models.to_owned(),
        bounds: vec![(Measure::Ttft, 0.2)],
    };
    let objectives = [objective("fast", "m*"), objective("others", "x*")];
    let mut bench = Bench::new(&small());
    bench.metrics.objectives = objectives.to_vec();
    let count = |bench: &Bench, met: &str| bench.sum("llm_slo_requests_total", &["slo=\"fast\"", met]);
    bench.exchange(0, record(1, "m"));
    bench.start(1, 1, 0);
    bench.request(1, &record(1, "m"));
    assert_eq!((count(&bench, "met=\"true\""), count(&bench, "met=\"false\"")), (0, 0));
    assert_eq!(
        bench.text().matches("\nllm_slo_requests_total{").count(),
        4,
        "of the model, and before it was known"
    );
    for (n, ttft) in [(2, 0.1), (3, 0.1), (4, 0.3)] {
        let mut judged = RequestRecord { ttft: Some(ttft), ..record(1, "m") };
        judged.slo = crate::slo::judge(&objectives, &judged);
        bench.exchange(n, judged);
    }
    let mut partial = RequestRecord { partial: vec!["lost".to_owned()], ..record(1, "m") };
    partial.slo = crate::slo::judge(&objectives, &partial);
    bench.exchange(5, partial);
    assert_eq!((count(&bench, "met=\"true\""), count(&bench, "met=\"false\"")), (2, 1));
    assert_eq!(bench.sum("llm_slo_excluded_requests_total", &["slo=\"fast\"", "reason=\"partial\""]), 1);
    assert!(!bench.text().contains("slo=\"others\""));
}

#[test]
fn the_full_profile_adds_three_histograms() {
    for (profile, expected) in [(MetricsProfile::Default, 0), (MetricsProfile::Full, 1)] {
        let mut bench = Bench::new(&MetricsConfig { profile, ..small() });
        let mut record = RequestRecord { ttfb: Some(0.1), ..record(1, "m") };
        record.clocks.request_end = Some(0.01);
        record.queue.estimate = Some(0.0);
        bench.exchange(0, record);
        for name in [
            "llm_response_start_seconds_count",
            "llm_request_read_seconds_count",
            "llm_queue_wait_estimate_seconds_count",
        ] {
            assert_eq!(bench.sum(name, &[]), expected, "{name}");
        }
    }
}

#[test]
fn stalls_are_counted_when_they_are_told() {
    let mut bench = Bench::new(&small());
    bench.start(0, 1, 0);
    for phase in [Phase::Generating, Phase::Stalled, Phase::Generating, Phase::Stalled] {
        bench.see(&Observation::Phase { id: id(0), phase });
    }
    assert_eq!(bench.sum("llm_stream_stalls_total", &[]), 2);
    assert_eq!(bench.sum("llm_requests_in_flight", &["phase=\"stalled\""]), 1);
    assert_eq!(bench.sum("llm_requests_oldest_age_seconds", &["phase=\"stalled\""]), 10);
    bench.finish(0, RequestRecord { client_stalls: Some(3), ..record(1, "m") });
    assert_eq!(bench.sum("llm_stream_client_stalls_total", &[]), 3);
}
