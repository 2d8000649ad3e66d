use super::{Asked, JSON, SSE, check, named};

const ASKED: Asked<'static> =
    Asked { path: "/v1/responses", body: r#"{"model":"m","input":"a","stream":true}"# };
const CREATED: &str = r#"{"type":"response.created","response":{"id":"r","status":"in_progress","model":"m","output":[],"usage":null},"sequence_number":0}"#;
const ADDED: &str =
    r#"{"type":"response.content_part.added","part":{"type":"output_text","text":""},"sequence_number":1}"#;
/// vLLM writes `type` last.
const HI: &str = r#"{"content_index":0,"delta":"Hi","item_id":"i","output_index":0,"sequence_number":2,"type":"response.output_text.delta"}"#;
const HM: &str = r#"{"type":"response.reasoning_text.delta","delta":"Hm"}"#;
const DONE: &str = r#"{"type":"response.output_text.done","text":"HiHi","sequence_number":9}"#;
const COMPLETED: &str = r#"{"type":"response.completed","response":{"id":"r","status":"completed","model":"m","output":[{"type":"message","content":[{"type":"output_text","text":"HiHi"}]}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":12}}}"#;

#[test]
fn responses() {
    let incomplete = r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"model":"m","usage":{"input_tokens":9,"output_tokens":2}}}"#;
    let failed = r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"x"},"model":"m"}}"#;
    let error = r#"{"type":"error","code":"rate_limited","message":"x","param":null}"#;
    let plain = r#"{"id":"r","object":"response","status":"completed","model":"m","error":null,"output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"Hm"}]},{"type":"function_call","name":"f","arguments":"{}"}],"usage":{"input_tokens":9,"output_tokens":3}}"#;
    let stream = ASKED.streamed(SSE, &named(&[CREATED, ADDED, HM, HI, HI, DONE, COMPLETED]));
    assert!(stream.clocks.first_answer > stream.clocks.first_token);
    assert!(stream.clocks.first_event < stream.clocks.first_token);
    assert_eq!(stream.response_id.as_deref(), Some("r"));
    let not_streamed = Asked { body: r#"{"model":"m","input":"a"}"#, ..ASKED };
    check(&[
        (stream, "ok m completed - 5+4 2+1 usage 3"),
        (
            ASKED.streamed(SSE, &named(&[CREATED, HI, HI, incomplete])),
            "ok m max_output_tokens - 9+- 2+- usage 2",
        ),
        (not_streamed.plain(200, JSON, plain), "ok m completed - 9+- 3+- usage 0"),
        (
            ASKED.plain(404, JSON, r#"{"error":{"message":"x","type":"NotFoundError","code":404}}"#),
            "client_error m - NotFoundError -+- -+- - 0",
        ),
        (
            ASKED.plain(400, JSON, r#"{"object":"error","message":"x","type":"BadRequestError","code":400}"#),
            "client_error m - BadRequestError -+- -+- - 0",
        ),
        (
            ASKED.streamed(SSE, &named(&[CREATED, HI, failed])),
            "stream_error m failed server_error -+- 1+- estimated 1",
        ),
        (
            ASKED.streamed(SSE, &named(&[CREATED, HI, error])),
            "stream_error m - rate_limited -+- 1+- estimated 1",
        ),
        (ASKED.streamed(SSE, &named(&[CREATED, HI])), "unterminated m - - -+- 1+- estimated 1"),
        (ASKED.aborted(SSE, &named(&[CREATED, HI])), "aborted_by_client m - - -+- 1+- estimated 1"),
        (ASKED.streamed(SSE, &named(&[CREATED, COMPLETED])), "ok m completed - 5+4 2+1 usage 0 empty"),
    ]);
}
