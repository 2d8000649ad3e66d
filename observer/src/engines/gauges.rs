//! Which of an engine's own gauges mean what.
//!
//! Sources: vLLM `v1/metrics/loggers.py`, SGLang `srt/observability/metrics_collector.py`, TGI
//! `router/src/server.rs`, Triton `docs/user_guide/metrics.md` with its TensorRT-LLM backend.

use std::collections::BTreeMap;

use procfs::process::Process;

use super::exposition::{Sample, samples};

/// An engine whose gauges may be read. llama.cpp is not among them: a scrape resets its gauges, so that whoever
/// scrapes it besides would read something else than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// Hugging Face's Text Generation Inference.
    Tgi,
    /// NVIDIA's Triton.
    Triton,
}

/// What an engine says; absent what it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Requests in its queue.
    pub waiting: Option<f64>,
    /// Requests that it works on.
    pub running: Option<f64>,
    /// Share of the key-value cache that is in use, 0 to 1.
    pub kv_cache: Option<f64>,
}

/// A metric, and the value of a label that its samples must have.
type Source = (&'static str, Option<(&'static str, &'static str)>);

/// The sources of waiting, running and cache use; of each, the first that is there.
const fn sources(engine: Engine) -> [&'static [Source]; 3] {
    match engine {
        Engine::Vllm => [
            &[("vllm:num_requests_waiting", None)],
            &[("vllm:num_requests_running", None)],
            // The second is its name before the first engine of the second generation.
            &[("vllm:kv_cache_usage_perc", None), ("vllm:gpu_cache_usage_perc", None)],
        ],
        Engine::Sglang => [
            &[("sglang:num_queue_reqs", None)],
            &[("sglang:num_running_reqs", None)],
            &[("sglang:token_usage", None)],
        ],
        Engine::Tgi => [&[("tgi_queue_size", None)], &[("tgi_batch_current_size", None)], &[]],
        Engine::Triton => [
            &[
                ("nv_trt_llm_request_metrics", Some(("request_type", "waiting"))),
                ("nv_inference_pending_request_count", None),
            ],
            &[("nv_trt_llm_request_metrics", Some(("request_type", "scheduled")))],
            &[("nv_trt_llm_kv_cache_block_metrics", Some(("kv_cache_block_type", "fraction")))],
        ],
    }
}

/// Labels of ranks that work on the same requests, so that each says the same: SGLang's, with metrics for all
/// schedulers.
const SAME: [&str; 3] = ["tp_rank", "pp_rank", "moe_ep_rank"];

impl Engine {
    /// The engine of a provider's name.
    pub fn of(provider: &str) -> Option<Self> {
        [Self::Vllm, Self::Sglang, Self::Tgi, Self::Triton]
            .into_iter()
            .find(|engine| engine.as_str() == provider)
    }

    /// Its provider's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tgi => "tgi",
            Self::Triton => "triton",
        }
    }

    /// The port of its metrics, if it is not the one that it serves on: Triton's, as its command line says.
    pub(super) fn metrics_port(self, pid: u32) -> Option<u16> {
        (self == Self::Triton).then(|| {
            let arguments = Process::new(pid.cast_signed()).and_then(|process| process.cmdline());
            triton_port(&arguments.unwrap_or_default())
        })
    }

    /// What its metrics say; none if they are not its.
    pub fn gauges(self, text: &str) -> Option<Gauges> {
        let [waiting, running, kv_cache] = sources(self)
            .map(|list| list.iter().map(|source| values(text, *source)).find(|found| !found.is_empty()));
        let sum = |found: Option<Vec<f64>>| found.map(|values| values.into_iter().sum());
        let gauges = Gauges {
            waiting: sum(waiting),
            running: sum(running),
            // Requests go to one cache: the fullest is the one that makes some of them wait.
            kv_cache: kv_cache.and_then(|values| values.into_iter().reduce(f64::max)),
        };
        (gauges != Gauges::default()).then_some(gauges)
    }
}

/// The values of one source, one for each model, data-parallel rank and so on.
fn values(text: &str, (name, must): Source) -> Vec<f64> {
    let mut groups: BTreeMap<Vec<(&str, String)>, f64> = BTreeMap::new();
    let is_one = |sample: &Sample<'_>| {
        must.is_none_or(|(label, value)| sample.label(label) == value)
            && sample.value.is_finite()
            && sample.value >= 0.0
    };
    for mut sample in samples(text, name).filter(is_one) {
        sample.labels.retain(|(label, value)| !SAME.contains(label) && !value.is_empty());
        sample.labels.sort();
        let value = groups.entry(sample.labels).or_default();
        *value = value.max(sample.value);
    }
    // SGLang shows the whole beside the share of each priority.
    let of_priority = |labels: &[(&str, String)]| labels.iter().any(|(label, _)| *label == "priority");
    let has_whole = groups.keys().any(|labels| !of_priority(labels));
    groups
        .into_iter()
        .filter(|(labels, _)| !(has_whole && of_priority(labels)))
        .map(|(_, value)| value)
        .collect()
}

/// Triton's option and default, from `tritonserver --help`.
fn triton_port(arguments: &[String]) -> u16 {
    const OPTION: &str = "--metrics-port";
    const DEFAULT: u16 = 8002;
    let given = arguments.iter().enumerate().find_map(|(at, argument)| {
        let rest = argument.strip_prefix(OPTION)?;
        if rest.is_empty() {
            arguments.get(at + 1).cloned()
        } else {
            rest.strip_prefix('=').map(str::to_owned)
        }
    });
    given.and_then(|port| port.parse().ok()).unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests;
