use super::{Asked, JSON, SSE, check, events};

const ASKED: Asked<'static> =
    Asked { path: "/generate", body: r#"{"text":"a","sampling_params":{"max_new_tokens":9},"stream":true}"# };
const ERROR: &str = r#"{"error":{"message":"x","type":"InternalServerError","code":500,"retryable":false}}"#;

fn event(text: &str, index: u32, count: u32, finish: &str) -> String {
    format!(
        r#"{{"text":"{text}","output_ids":[1,2],"meta_info":{{"id":"r","finish_reason":{finish},"prompt_tokens":9,"weight_version":"d","completion_tokens":{count},"cached_tokens":4,"queue_time":0.25,"e2e_latency":0.1}},"index":{index}}}"#
    )
}

const STOP: &str = r#"{"type":"stop","matched":2}"#;

#[test]
fn generate() {
    let (one, two) = (event("Hi", 0, 1, "null"), event("Hi there", 0, 3, "null"));
    // The last event repeats the text without a token of its own.
    let last = event("Hi there", 0, 3, STOP);
    let stream = ASKED.streamed(SSE, &events(&[&one, &two, &last, "[DONE]"]));
    assert_eq!((stream.queue.engine, stream.provider.as_deref()), (Some(0.25), Some("sglang")));
    assert_eq!(stream.max_tokens, Some(9));
    let abort = event("Hi", 0, 1, r#"{"type":"abort","message":"x","status_code":500}"#);
    check(&[
        (stream, "ok - stop - 5+4 3+- engine 2"),
        // Increments.
        (
            ASKED.streamed(SSE, &events(&[&one, &event(" there", 0, 3, STOP), "[DONE]"])),
            "ok - stop - 5+4 3+- engine 2",
        ),
        (Asked { body: r#"{"text":"a"}"#, ..ASKED }.plain(200, JSON, &last), "ok - stop - 5+4 3+- engine 0"),
        (ASKED.plain(400, JSON, ERROR), "client_error - - InternalServerError -+- -+- - 0"),
        (
            ASKED.streamed(SSE, &events(&[&one, ERROR, "[DONE]"])),
            "stream_error - - InternalServerError 5+4 1+- engine 1",
        ),
        (
            ASKED.streamed(SSE, &events(&[&one, &abort, "[DONE]"])),
            "aborted_by_server - abort - 5+4 1+- engine 1",
        ),
        (ASKED.streamed(SSE, &events(&[&one])), "unterminated - - - 5+4 1+- engine 1"),
        (ASKED.aborted(SSE, &events(&[&one, &two])), "aborted_by_client - - - 5+4 3+- engine 2"),
        (
            ASKED.streamed(SSE, &events(&[&event("", 0, 0, STOP).replace("[1,2]", "[]"), "[DONE]"])),
            "ok - stop - 5+4 0+- engine 0 empty",
        ),
    ]);
}

/// Each choice repeats its own text.
#[test]
fn choices() {
    let asked = Asked { body: r#"{"text":"a","sampling_params":{"n":2},"stream":true}"#, ..ASKED };
    let documents = [
        event("Hi", 0, 1, "null"),
        event("Yo", 1, 1, "null"),
        event("Yo", 1, 1, STOP),
        event("Hi there", 0, 2, STOP),
    ];
    let mut documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    documents.push("[DONE]");
    let whole = asked.streamed(SSE, &events(&documents));
    assert!(whole.tpot.is_none());
    check(&[
        (whole, "ok - stop - -+- 3+- engine 3"),
        (
            Asked { body: r#"{"text":["a","b"]}"#, ..ASKED }.plain(
                200,
                JSON,
                &format!("[{},{}]", event("Hi", 0, 2, STOP), event("Yo", 0, 3, STOP)),
            ),
            "ok - stop - -+- 5+- engine 0",
        ),
    ]);
}
