use super::{Asked, JSON, NDJSON, check, lines};

/// Who does not say, streams.
const CHAT: Asked<'static> = Asked { path: "/api/chat", body: r#"{"model":"m","messages":[]}"# };
const HI: &str =
    r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":"Hi"},"done":false}"#;
const HM: &str = r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":"","thinking":"Hm"},"done":false}"#;
const LAST: &str = r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":90,"load_duration":1,"prompt_eval_count":9,"prompt_eval_duration":20000000,"eval_count":3,"eval_duration":30000000}"#;

#[test]
fn chat() {
    let call = r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},"done":false}"#;
    let stream = CHAT.streamed(NDJSON, &lines(&[HM, HI, call, LAST]));
    assert!(stream.stream && stream.clocks.first_answer > stream.clocks.first_token);
    assert_eq!((stream.timings.prefill, stream.timings.decode), (Some(0.02), Some(0.03)));
    assert_eq!(stream.provider.as_deref(), Some("ollama"));
    let not_streamed = Asked { body: r#"{"model":"m","messages":[],"stream":false}"#, ..CHAT };
    check(&[
        (stream, "ok m stop - 9+- 3+- engine 3"),
        (
            not_streamed.plain(200, JSON, &LAST.replace(r#""content":"""#, r#""content":"Hi""#)),
            "ok m stop - 9+- 3+- engine 0",
        ),
        (CHAT.plain(404, JSON, r#"{"error":"model 'm' not found"}"#), "client_error m - error -+- -+- - 0"),
        (
            CHAT.streamed(NDJSON, &lines(&[HI, r#"{"error":"llama runner process has terminated"}"#])),
            "stream_error m - error -+- 1+- estimated 1",
        ),
        (CHAT.streamed(NDJSON, &lines(&[HI])), "unterminated m - - -+- 1+- estimated 1"),
        (CHAT.aborted(NDJSON, &lines(&[HI, HI])), "aborted_by_client m - - -+- 2+- estimated 2"),
        (CHAT.streamed(NDJSON, &lines(&[LAST])), "ok m stop - 9+- 3+- engine 0 empty"),
    ]);
}

#[test]
fn generate() {
    let asked =
        Asked { path: "/api/generate", body: r#"{"model":"m","prompt":"a","options":{"num_predict":5}}"# };
    let hi = r#"{"model":"m","created_at":"t","response":"Hi","done":false}"#;
    let hm = r#"{"model":"m","created_at":"t","response":"","thinking":"Hm","done":false}"#;
    let last = r#"{"model":"m","response":"","done":true,"done_reason":"length","context":[1,2],"prompt_eval_count":9,"eval_count":3}"#;
    let record = asked.streamed(NDJSON, &lines(&[hm, hi, last]));
    assert_eq!(record.max_tokens, Some(5));
    check(&[
        (record, "ok m length - 9+- 3+- engine 2"),
        (
            Asked { body: r#"{"model":"m","prompt":"a","stream":false}"#, ..asked }.plain(
                200,
                JSON,
                &last.replace(r#""response":"""#, r#""response":"Hi""#),
            ),
            "ok m length - 9+- 3+- engine 0",
        ),
        (asked.plain(400, JSON, r#"{"error":"x"}"#), "client_error m - error -+- -+- - 0"),
        (
            asked.streamed(NDJSON, &lines(&[hi, r#"{"error":"x"}"#])),
            "stream_error m - error -+- 1+- estimated 1",
        ),
        (asked.aborted(NDJSON, &lines(&[hi])), "aborted_by_client m - - -+- 1+- estimated 1"),
    ]);
}

#[test]
fn embed() {
    let asked = Asked { path: "/api/embed", body: r#"{"model":"m","input":"a"}"# };
    let record = asked.plain(200, JSON, r#"{"model":"m","embeddings":[[0.5,-0.25]],"total_duration":9,"load_duration":1,"prompt_eval_count":9}"#);
    assert!(!record.stream);
    check(&[
        (record, "ok m - - 9+- -+- engine 0"),
        (asked.plain(404, JSON, r#"{"error":"x"}"#), "client_error m - error -+- -+- - 0"),
    ]);
}
