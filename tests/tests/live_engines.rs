//! Engines' own gauges: read when asked to, gone when they cannot be read, never merged with what is measured.

use std::time::Duration;

use observer_tests::{
    agent::{Agent, wait_for},
    fake_engine::{FakeEngine, VLLM_METRICS},
    live::privileged,
    workload::quiet,
};

const READING: [&str; 4] = ["--set", "engines.metrics=true", "--set", "engines.interval=1s"];

fn vllm() -> FakeEngine {
    let engine = FakeEngine::start("Server: uvicorn\r\n", "vllm-0.33.0-tp1-fake");
    engine.tell(Some(VLLM_METRICS));
    engine
}

fn answered(agent: &Agent, engine: &FakeEngine, provider: &str) {
    engine.ask();
    wait_for("the request", || {
        let finished = agent.metrics().sum("llm_requests_total", &[("gen_ai_provider_name", provider)]);
        finished.is_some_and(|finished| finished > 0).then_some(())
    });
}

#[test]
fn gauges_come_by_their_own_name_and_go_with_a_read_that_fails() {
    if !privileged() {
        return;
    }
    let engine = vllm();
    let agent = Agent::start(&READING);
    assert_eq!(agent.metrics().sum("observer_engine_reads_total", &[]), Some(0));
    answered(&agent, &engine, "vllm");
    let of_vllm = [("gen_ai_provider_name", "vllm"), ("namespace", ""), ("pod", "")];
    let waiting = || agent.metrics().sum("llm_engine_requests_waiting", &of_vllm);
    wait_for("gauges", || {
        // Of a connection that was accepted while the probes attached, no address is known: the next one tells it.
        waiting().or_else(|| {
            engine.ask();
            quiet(Duration::from_secs(1));
            None
        })
    });
    let metrics = agent.metrics();
    assert_eq!(waiting(), Some(3));
    assert_eq!(metrics.sum("llm_engine_requests_running", &of_vllm), Some(8));
    let ratio = metrics.0.lines().find(|line| line.starts_with("llm_engine_kv_cache_usage_ratio{"));
    assert!(ratio.is_some_and(|line| line.ends_with(" 0.5")), "{ratio:?}");
    assert_eq!(metrics.sum("llm_requests_in_flight", &[]), Some(0), "ours stay ours");
    metrics.assert_lint();

    engine.tell(None);
    wait_for("a read that fails", || {
        agent.metrics().sum("observer_engine_reads_total", &[("result", "status")]).filter(|reads| *reads > 0)
    });
    assert!(!agent.metrics().0.contains("llm_engine_"), "nothing goes stale");
    engine.tell(Some(&VLLM_METRICS.replace("3.0", "4.0")));
    wait_for("gauges again", || waiting().filter(|waiting| *waiting == 4));
}

#[test]
fn nothing_is_read_unless_asked_to_and_llama_cpp_never() {
    if !privileged() {
        return;
    }
    let (engine, llama) = (vllm(), FakeEngine::start("Server: llama.cpp\r\n", "b1-fake"));
    llama.tell(Some("llamacpp:requests_deferred 1\n"));
    let agent = Agent::start(&[]);
    answered(&agent, &engine, "vllm");
    let reading = Agent::start(&READING);
    answered(&reading, &llama, "llama.cpp");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((engine.reads(), llama.reads()), (0, 0));
    assert!(!agent.metrics().0.contains("engine_reads"), "and nothing is said of reads");
    assert_eq!(reading.metrics().sum("observer_engine_reads_total", &[]), Some(0));
}
