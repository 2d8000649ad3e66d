use super::{Asked, JSON, SSE, check, events};

#[test]
fn embeddings_and_scores() {
    let ask = |path| Asked { path, body: r#"{"model":"m","input":"a"}"# };
    let vectors = r#"{"id":"e","object":"list","model":"m","data":[{"index":0,"object":"embedding","embedding":[0.5,-1e-3]}],"usage":{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0,"prompt_tokens_details":null}}"#;
    let ranks = r#"{"id":"r","model":"m","usage":{"total_tokens":9},"results":[{"index":0,"document":{"text":"a"},"relevance_score":0.5}]}"#;
    check(&[
        (ask("/v1/embeddings").plain(200, JSON, vectors), "ok m - - 9+- -+- usage 0"),
        (
            ask("/v1/embeddings").plain(200, "Content-Type: application/octet-stream\r\n", "\0\0\0"),
            "ok m - - -+- -+- - 0",
        ),
        (ask("/rerank").plain(200, JSON, ranks), "ok m - - 9+- -+- usage 0"),
        (ask("/score").plain(200, JSON, vectors), "ok m - - 9+- -+- usage 0"),
        (ask("/classify").plain(200, JSON, vectors), "ok m - - 9+- -+- usage 0"),
        (ask("/pooling").plain(200, JSON, vectors), "ok m - - 9+- -+- usage 0"),
        (
            ask("/v2/embed").plain(
                200,
                JSON,
                r#"{"id":"e","embeddings":{"float":[[0.5]]},"meta":{"billed_units":{"input_tokens":9}}}"#,
            ),
            "ok m - - 9+- -+- engine 0",
        ),
        (
            ask("/v1/embeddings").plain(
                400,
                JSON,
                r#"{"error":{"message":"x","type":"BadRequestError","code":400}}"#,
            ),
            "client_error m - BadRequestError -+- -+- - 0",
        ),
        (
            ask("/v1/rerank").plain(
                400,
                JSON,
                r#"{"object":"error","message":"x","type":"BadRequestError","code":400}"#,
            ),
            "client_error m - BadRequestError -+- -+- - 0",
        ),
    ]);
}

#[test]
fn cohere_chat() {
    let asked = Asked { path: "/cohere/v2/chat", body: r#"{"model":"m","messages":[],"stream":true}"# };
    let start = r#"{"type":"message-start","id":"c","delta":{"message":{"role":"assistant","content":[]}}}"#;
    let hi = r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hi"}}}}"#;
    let end = r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":5},"tokens":{"input_tokens":9,"output_tokens":3}}}}"#;
    let failed = r#"{"type":"message-end","delta":{"finish_reason":"ERROR"}}"#;
    let plain = r#"{"id":"c","finish_reason":"COMPLETE","message":{"role":"assistant","content":[{"type":"text","text":"Hi"}]},"usage":{"tokens":{"input_tokens":9,"output_tokens":3}}}"#;
    check(&[
        (asked.streamed(SSE, &events(&[start, hi, hi, end])), "ok m COMPLETE - 9+- 3+- usage 2"),
        (
            Asked { body: r#"{"model":"m","messages":[]}"#, ..asked }.plain(200, JSON, plain),
            "ok m COMPLETE - 9+- 3+- usage 0",
        ),
        (asked.plain(400, JSON, r#"{"message":"x"}"#), "client_error m - - -+- -+- - 0"),
        (
            asked.streamed(SSE, &events(&[start, hi, failed])),
            "stream_error m ERROR error -+- 1+- estimated 1",
        ),
        (asked.aborted(SSE, &events(&[start, hi])), "aborted_by_client m - - -+- 1+- estimated 1"),
    ]);
}
