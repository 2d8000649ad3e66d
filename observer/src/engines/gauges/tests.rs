//! Texts in the shapes that the engines' sources give them.

use super::*;

fn gauges(waiting: f64, running: f64, kv_cache: Option<f64>) -> Gauges {
    Gauges { waiting: Some(waiting), running: Some(running), kv_cache }
}

const VLLM: &str = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 8.0
vllm:num_requests_running{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 7.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 3.0
vllm:num_requests_waiting{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct",reason="capacity"} 3.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.9125
vllm:kv_cache_usage_perc{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.25
"#;

#[test]
fn vllm() {
    assert_eq!(Engine::Vllm.gauges(VLLM), Some(gauges(3.0, 15.0, Some(0.9125))));
    let older = VLLM.replace("kv_cache_usage_perc", "gpu_cache_usage_perc");
    assert_eq!(Engine::Vllm.gauges(&older), Some(gauges(3.0, 15.0, Some(0.9125))));
    assert_eq!(Engine::Sglang.gauges(VLLM), None, "not its own");
    let broken = VLLM.replace("8.0", "NaN").replace("7.0", "-1").replace("0.9125", "1e999");
    let told = Engine::Vllm.gauges(&broken).unwrap();
    assert_eq!((told.waiting, told.running, told.kv_cache), (Some(3.0), None, Some(0.25)));
}

#[test]
fn sglang_ranks_and_priorities_count_a_request_once() {
    let text = r#"
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0",moe_ep_rank="0"} 5.0
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="1",pp_rank="0",moe_ep_rank="0"} 5.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0",dp_rank="0",priority=""} 4.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0",dp_rank="0",priority="1"} 3.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0",dp_rank="0",priority="2"} 1.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0",dp_rank="1",priority=""} 2.0
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0",pp_rank="0"} 0.28
"#;
    assert_eq!(Engine::Sglang.gauges(text), Some(gauges(6.0, 5.0, Some(0.28))));
    let parts = "sglang:num_queue_reqs{priority=\"1\"} 3\nsglang:num_queue_reqs{priority=\"2\"} 1\n";
    assert_eq!(Engine::Sglang.gauges(parts).unwrap().waiting, Some(4.0), "without the whole, its parts");
}

#[test]
fn tgi_has_no_cache() {
    let text = "# TYPE tgi_queue_size gauge\ntgi_queue_size 2\n\n# TYPE tgi_batch_current_size gauge\n\
                tgi_batch_current_size 6\n\ntgi_batch_current_max_tokens 4096\n";
    assert_eq!(Engine::Tgi.gauges(text), Some(gauges(2.0, 6.0, None)));
}

#[test]
fn triton_with_and_without_tensorrt_llm() {
    let plain = r#"# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="ensemble",version="1"} 1
nv_inference_pending_request_count{model="postprocessing",version="1"} 2
"#;
    let told = Engine::Triton.gauges(plain).unwrap();
    assert_eq!((told.waiting, told.running, told.kv_cache), (Some(3.0), None, None));
    let backend = r#"nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 4
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 9
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.5
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"#;
    assert_eq!(Engine::Triton.gauges(&format!("{plain}{backend}")), Some(gauges(4.0, 9.0, Some(0.5))));
}

#[test]
fn tritons_metrics_have_a_port_of_their_own() {
    let port = |line: &str| triton_port(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(port("tritonserver --model-repository=/models"), 8002);
    assert_eq!(port("tritonserver --metrics-port=9002 --http-port=9000"), 9002);
    assert_eq!(port("tritonserver --http-port 9000 --metrics-port 9002"), 9002);
    assert_eq!(Engine::Vllm.metrics_port(std::process::id()), None);
}

#[test]
fn llama_cpp_is_never_read() {
    for provider in ["llama.cpp", "ollama", "litellm", ""] {
        assert_eq!(Engine::of(provider), None);
    }
    for engine in ["vllm", "sglang", "tgi", "triton"] {
        assert_eq!(Engine::of(engine).map(Engine::as_str), Some(engine));
    }
}
