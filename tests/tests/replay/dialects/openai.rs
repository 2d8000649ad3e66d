use observer::exchange::Role;

use super::{Asked, JSON, SSE, check, events};

const CHAT: Asked<'static> = Asked {
    path: "/v1/chat/completions",
    body: r#"{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
};
const PLAIN: Asked<'static> = Asked { path: "/v1/chat/completions", body: r#"{"model":"m","messages":[]}"# };
const ROLE: &str = r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}"#;
const HI: &str = r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}]}"#;
const STOP: &str = r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#;
const ERROR: &str = r#"{"error":{"message":"x","type":"InternalServerError","param":null,"code":500}}"#;

#[test]
fn vllm_chat() {
    let metrics = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":2}},"metrics":{"time_to_first_token_ms":12.5,"generation_time_ms":40,"queue_time_ms":3}}"#;
    let reasoning = r#"{"choices":[{"index":0,"delta":{"reasoning":"Hm"}}]}"#;
    let tool =
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}"#;
    let abort = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}"#;
    let timed = CHAT.streamed(SSE, &events(&[ROLE, reasoning, tool, STOP, metrics, "[DONE]"]));
    assert_eq!(timed.queue.engine, Some(0.003));
    assert_eq!((timed.timings.prefill, timed.timings.decode), (Some(0.0125), Some(0.04)));
    assert!(timed.clocks.first_answer > timed.clocks.first_token);
    check(&[
        (CHAT.streamed(SSE, &events(&[ROLE, HI, HI, STOP, USAGE, "[DONE]"])), "ok m stop - 5+4 3+- usage 2"),
        (timed, "ok m stop - 9+- 1+2 usage 2"),
        (
            PLAIN.plain(200, JSON, r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":null}}"#),
            "ok m stop - 9+- 3+- usage 0",
        ),
        (CHAT.plain(401, JSON, r#"{"error":"Unauthorized"}"#), "client_error m - error -+- -+- - 0"),
        (CHAT.plain(503, "", ""), "rejected m - - -+- -+- - 0"),
        (CHAT.streamed(SSE, &events(&[ROLE, HI, ERROR, "[DONE]"])), "stream_error m - InternalServerError -+- 1+- estimated 1"),
        (CHAT.streamed(SSE, &events(&[ROLE, HI, abort, "[DONE]"])), "aborted_by_server m abort - -+- 1+- estimated 1"),
        (CHAT.aborted(SSE, &events(&[ROLE, HI, HI])), "aborted_by_client m - - -+- 2+- estimated 2"),
        (CHAT.streamed(SSE, &events(&[ROLE, HI])), "unterminated m - - -+- 1+- estimated 1"),
        // Keep-alives between events, and an answer without a token.
        (CHAT.streamed(SSE, &[": keep-alive\n\n".into(), events(&[ROLE, STOP, "[DONE]"]).concat()]), "ok m stop - -+- -+- - 0 empty"),
    ]);
}

#[test]
fn vllm_prefill() {
    let body = |decode| {
        format!(
            r#"{{"model":"m","stream":false,"max_tokens":1,"messages":[],"kv_transfer_params":{{"do_remote_decode":{decode},"do_remote_prefill":false}}}}"#
        )
    };
    for (decode, role) in [(true, Role::Prefill), (false, Role::Server)] {
        let asked = Asked { path: "/v1/completions", body: &body(decode) };
        let answer = r#"{"model":"m","choices":[{"index":0,"text":"a","finish_reason":"length"}],"kv_transfer_params":{}}"#;
        assert_eq!(asked.plain(200, JSON, answer).role, role);
    }
}

#[test]
fn sglang_chat() {
    let hi = r#"{"model":"m","choices":[{"index":0,"delta":{"role":null,"content":null,"reasoning_content":"Hm","tool_calls":null},"finish_reason":null,"matched_stop":null}]}"#;
    let error =
        r#"{"error":{"object":"error","message":"x","type":"InternalServerError","param":null,"code":500}}"#;
    check(&[
        (CHAT.streamed(SSE, &events(&[hi, HI, STOP, USAGE, "[DONE]"])), "ok m stop - 5+4 3+- usage 2"),
        (
            PLAIN.plain(
                400,
                JSON,
                r#"{"object":"error","message":"x","type":"BadRequestError","param":null,"code":400}"#,
            ),
            "client_error m - BadRequestError -+- -+- - 0",
        ),
        (
            CHAT.streamed(SSE, &events(&[HI, error, "[DONE]"])),
            "stream_error m - InternalServerError -+- 1+- estimated 1",
        ),
    ]);
}

#[test]
fn llamacpp_chat() {
    let role = r#"{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]}"#;
    let progress = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9,"cache":0,"processed":4,"time_ms":1}}"#;
    let last = r#"{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"timings":{"cache_n":4,"prompt_n":5,"prompt_ms":20.5,"predicted_n":3,"predicted_ms":30}}"#;
    let timed = CHAT.streamed(SSE, &events(&[progress, role, HI, HI, last, "[DONE]"]));
    assert_eq!((timed.timings.prefill, timed.timings.decode), (Some(0.0205), Some(0.03)));
    assert_eq!(timed.provider.as_deref(), Some("llama.cpp"));
    check(&[
        (timed, "ok m length - 5+4 3+- engine 2"),
        (
            CHAT.plain(500, JSON, r#"{"error":{"code":500,"message":"x","type":"server_error"}}"#),
            "server_error m - server_error -+- -+- - 0",
        ),
        // An error ends the stream without its terminator.
        (
            CHAT.streamed(
                SSE,
                &events(&[role, HI, r#"{"error":{"code":500,"message":"x","type":"server_error"}}"#]),
            ),
            "stream_error m - server_error -+- 1+- estimated 1",
        ),
    ]);
}

#[test]
fn ollama_tgi_and_dynamo_chat() {
    let ollama = r#"{"model":"m","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}"#;
    let record = CHAT.streamed(SSE, &events(&[ollama, STOP, USAGE, "[DONE]"]));
    assert_eq!(record.provider.as_deref(), Some("ollama"));
    check(&[
        (record, "ok m stop - 5+4 3+- usage 1"),
        (
            CHAT.streamed(SSE, &events(&[HI, r#"{"error":"x","error_type":"generation"}"#])),
            "stream_error m - generation -+- 1+- estimated 1",
        ),
        (
            CHAT.plain(429, JSON, r#"{"error":"Model is overloaded","error_type":"overloaded"}"#),
            "rejected m - overloaded -+- -+- - 0",
        ),
        (
            CHAT.streamed(
                SSE,
                &events(&[HI, r#"{"error":{"message":"x","type":"internal","code":500}}"#, "[DONE]"]),
            ),
            "stream_error m - internal -+- 1+- estimated 1",
        ),
        (
            CHAT.streamed(
                SSE,
                &events(&[HI, r#"{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}"#, "[DONE]"]),
            ),
            "stream_error m error error -+- 1+- estimated 1",
        ),
    ]);
}

#[test]
fn completions() {
    let asked = Asked { path: "/v1/completions", body: r#"{"model":"m","prompt":"a","stream":true}"# };
    let hi = r#"{"object":"text_completion","model":"m","choices":[{"index":0,"text":"Hi","logprobs":null,"finish_reason":null}],"usage":null}"#;
    let stop = r#"{"object":"text_completion","model":"m","choices":[{"index":0,"text":"","finish_reason":"length"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#;
    // Ollama counts nothing on every chunk.
    let zero = r#"{"object":"text_completion","choices":[{"index":0,"text":"Hi","finish_reason":null}],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#;
    check(&[
        (asked.streamed(SSE, &events(&[hi, hi, stop, "[DONE]"])), "ok m length - 9+- 2+- usage 2"),
        (asked.streamed(SSE, &events(&[zero, zero, "[DONE]"])), "ok m - - -+- 2+- estimated 2"),
        (
            Asked { body: r#"{"model":"m","prompt":"a"}"#, ..asked }.plain(200, JSON, r#"{"object":"text_completion","model":"m","choices":[{"index":0,"text":"Hi","logprobs":{"tokens":["H","i"]},"finish_reason":"stop"}]}"#),
            "ok m stop - -+- 2+- ids 0",
        ),
        (asked.plain(404, JSON, ERROR), "client_error m - InternalServerError -+- -+- - 0"),
        (asked.streamed(SSE, &events(&[hi, ERROR, "[DONE]"])), "stream_error m - InternalServerError -+- 1+- estimated 1"),
        (asked.aborted(SSE, &events(&[hi])), "aborted_by_client m - - -+- 1+- estimated 1"),
    ]);
}

/// Two prompts are two choices, although one was asked for: what a token of theirs took is not known.
#[test]
fn prompts_of_one_request_are_choices() {
    let asked = Asked { path: "/v1/completions", body: r#"{"model":"m","prompt":["a","b"],"stream":true}"# };
    let of = |index: u32| format!(r#"{{"model":"m","choices":[{{"index":{index},"text":"Hi"}}]}}"#);
    let (zero, one) = (of(0), of(1));
    let two = asked.streamed(SSE, &events(&[&zero, &one, &zero, &one, "[DONE]"]));
    assert!(two.ttft.is_some() && two.tpot.is_none());
    let one = asked.streamed(SSE, &events(&[&zero, &zero, "[DONE]"]));
    assert!(one.tpot.is_some());
}
