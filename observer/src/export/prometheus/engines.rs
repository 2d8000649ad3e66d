//! What engines say of themselves, as metric families: a snapshot in, families out, no state.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts};

use crate::engines::{Gauges, Told};

use super::labels::bounded;

const WAITING: &str = "Requests in the engine's queue, in its own word, summed over its models and data-parallel ranks: vLLM \
     vllm:num_requests_waiting, SGLang sglang:num_queue_reqs, TGI tgi_queue_size, Triton \
     nv_trt_llm_request_metrics{request_type=waiting}, else nv_inference_pending_request_count. Not measured by the \
     observer. Only with engines.metrics=true.";
const RUNNING: &str = "Requests that the engine works on, in its own word, summed over its models and data-parallel ranks: vLLM \
     vllm:num_requests_running, SGLang sglang:num_running_reqs, TGI tgi_batch_current_size, Triton \
     nv_trt_llm_request_metrics{request_type=scheduled}. Not measured by the observer. Only with \
     engines.metrics=true.";
const KV_CACHE: &str = "Share of the engine's key-value cache in use, 0 to 1, in its own word, of the fullest of its caches: vLLM \
     vllm:kv_cache_usage_perc (before: gpu_cache_usage_perc), SGLang sglang:token_usage, Triton \
     nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}; TGI has none. Not measured by the observer. Only \
     with engines.metrics=true.";
const READS: &str = "Reads of engines' own metrics by result: ok, not_listening (any more, or Triton not at its metrics \
                     port), other_namespace (not the observer's network namespace: not read), unreachable (or not \
                     within 2 s), status (not 200), too_large, no_gauges. What failed is not exported, and counts \
                     again at the next try.";

/// Families of `llm_engine_*` with the workload labels of these names, and of the reads.
pub(super) fn families(names: &[&'static str], told: &Told) -> prometheus::Result<Vec<MetricFamily>> {
    let names: Vec<&str> = names.iter().copied().chain(["gen_ai_provider_name"]).collect();
    let mut totals: BTreeMap<[String; 4], Gauges> = BTreeMap::new();
    for reading in &told.readings {
        let identity = &reading.identity;
        let [namespace, pod, container] =
            [&identity.namespace, &identity.pod, &identity.container].map(|name| bounded(name));
        let labels = [namespace, pod, container, reading.engine.as_str().to_owned()];
        let total = totals.entry(labels).or_default();
        // Several engines of one container: requests add up, caches do not.
        let both =
            |a: Option<f64>, b: Option<f64>, with: fn(f64, f64) -> f64| a.into_iter().chain(b).reduce(with);
        let Gauges { waiting, running, kv_cache } = reading.gauges;
        *total = Gauges {
            waiting: both(total.waiting, waiting, |a, b| a + b),
            running: both(total.running, running, |a, b| a + b),
            kv_cache: both(total.kv_cache, kv_cache, f64::max),
        };
    }
    let mut families = Vec::new();
    let metrics = [
        ("llm_engine_requests_waiting", WAITING),
        ("llm_engine_requests_running", RUNNING),
        ("llm_engine_kv_cache_usage_ratio", KV_CACHE),
    ];
    for (at, (name, help)) in metrics.into_iter().enumerate() {
        let vector = GaugeVec::new(Opts::new(name, help), &names)?;
        for (labels, gauges) in &totals {
            let values = [gauges.waiting, gauges.running, gauges.kv_cache];
            if let Some(value) = values[at] {
                vector.with_label_values(labels).set(value);
            }
        }
        families.extend(vector.collect());
    }
    let reads = IntCounterVec::new(Opts::new("observer_engine_reads_total", READS), &["result"])?;
    for (result, count) in &told.results {
        reads.with_label_values(&[result]).inc_by(*count);
    }
    families.extend(reads.collect());
    families.retain(|family| !family.get_metric().is_empty());
    Ok(families)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engines::{Engine, Reading};
    use crate::enrich::Identity;

    #[test]
    fn engines_of_one_container_share_series_and_absent_gauges_have_none() {
        let reading = |container: &str, engine, gauges| {
            let identity = Identity { container: container.to_owned(), ..Identity::default() };
            Reading { identity: Arc::new(identity), engine, gauges, time: 0 }
        };
        let gauges = |waiting, kv_cache| Gauges { waiting: Some(waiting), running: None, kv_cache };
        let told = Told {
            readings: vec![
                reading("a", Engine::Vllm, gauges(1.0, Some(0.5))),
                reading("a", Engine::Vllm, gauges(2.0, Some(0.25))),
                reading("b", Engine::Tgi, gauges(4.0, None)),
            ],
            results: BTreeMap::from([("ok", 3), ("status", 0)]),
        };
        let families = families(&["namespace", "pod", "container"], &told).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&families).unwrap();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = |container, provider| {
            format!(
                "{{container=\"{container}\",gen_ai_provider_name=\"{provider}\",namespace=\"\",pod=\"\"}}"
            )
        };
        let mut expected = vec![
            format!("llm_engine_requests_waiting{} 3", labels("a", "vllm")),
            format!("llm_engine_requests_waiting{} 4", labels("b", "tgi")),
            format!("llm_engine_kv_cache_usage_ratio{} 0.5", labels("a", "vllm")),
            "observer_engine_reads_total{result=\"ok\"} 3".to_owned(),
            "observer_engine_reads_total{result=\"status\"} 0".to_owned(),
        ];
        let mut samples: Vec<_> = samples.into_iter().map(str::to_owned).collect();
        samples.sort();
        expected.sort();
        assert_eq!(samples, expected);
    }
}
