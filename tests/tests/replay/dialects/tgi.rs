use super::{Asked, JSON, SSE, check};

const ASKED: Asked<'static> =
    Asked { path: "/generate_stream", body: r#"{"inputs":"a","parameters":{"max_new_tokens":9}}"# };
const HI: &str = r#"{"index":1,"token":{"id":17,"text":"Hi","logprob":-0.1,"special":false},"generated_text":null,"details":null}"#;
/// The last token is a control token.
const END: &str = r#"{"index":3,"token":{"id":2,"text":"</s>","logprob":-0.1,"special":true},"generated_text":"HiHi","details":{"finish_reason":"eos_token","generated_tokens":3,"input_length":9,"seed":null}}"#;
/// The last token is one of the text.
const FULL: &str = r#"{"index":2,"token":{"id":17,"text":"Hi","logprob":-0.1,"special":false},"generated_text":"HiHi","details":{"finish_reason":"length","generated_tokens":2,"input_length":9}}"#;
const ERROR: &str = r#"{"error":"Request failed during generation","error_type":"generation"}"#;

/// Without a space after the colon.
fn events(documents: &[&str]) -> Vec<String> {
    documents.iter().map(|document| format!("data:{document}\n\n")).collect()
}

#[test]
fn generate_stream() {
    let stream = ASKED.streamed(SSE, &events(&[HI, HI, END]));
    assert!(stream.stream && stream.tpot.is_some());
    check(&[
        (stream, "ok - eos_token - 9+- 3+- engine 2"),
        (ASKED.streamed(SSE, &events(&[HI, FULL])), "ok - length - 9+- 2+- engine 2"),
        (
            ASKED.plain(422, JSON, r#"{"error":"Input validation error","error_type":"validation"}"#),
            "client_error - - validation -+- -+- - 0",
        ),
        (
            ASKED.plain(429, JSON, r#"{"error":"Model is overloaded","error_type":"overloaded"}"#),
            "rejected - - overloaded -+- -+- - 0",
        ),
        (ASKED.streamed(SSE, &events(&[HI, ERROR])), "stream_error - - generation -+- 1+- ids 1"),
        (ASKED.streamed(SSE, &events(&[HI])), "unterminated - - - -+- 1+- ids 1"),
        (ASKED.aborted(SSE, &events(&[HI, HI])), "aborted_by_client - - - -+- 2+- ids 2"),
    ]);
}

#[test]
fn generate() {
    let asked = Asked { path: "/generate", ..ASKED };
    let timed = format!(
        "{JSON}x-compute-type: gpu\r\nx-prompt-tokens: 9\r\nx-generated-tokens: 3\r\nx-queue-time: 12\r\nx-inference-time: 80\r\n"
    );
    let plain = asked.plain(200, &timed, r#"{"generated_text":"HiHi"}"#);
    assert_eq!((plain.queue.engine, plain.provider.as_deref()), (Some(0.012), Some("tgi")));
    check(&[
        (plain, "ok - - - 9+- 3+- engine 0"),
        (asked.plain(200, JSON, r#"{"generated_text":"HiHi","details":{"finish_reason":"length","generated_tokens":3,"input_length":9,"tokens":[{"id":1,"text":"Hi"}]}}"#), "ok - length - 9+- 3+- engine 0"),
        (asked.plain(500, JSON, ERROR), "server_error - - generation -+- -+- - 0"),
        (asked.plain(200, JSON, r#"{"generated_text":""}"#), "ok - - - -+- -+- - 0 empty"),
    ]);
}
