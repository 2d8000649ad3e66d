use super::{Asked, JSON, SSE, check, named};

const ASKED: Asked<'static> =
    Asked { path: "/v1/messages", body: r#"{"model":"m","max_tokens":9,"messages":[],"stream":true}"# };
const START: &str = r#"{"type":"message_start","message":{"id":"msg","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":5,"cache_read_input_tokens":100,"cache_creation_input_tokens":20,"output_tokens":1}}}"#;
const BLOCK: &str = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
const PING: &str = r#"{"type":"ping"}"#;
const HM: &str =
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}}"#;
const SIGNATURE: &str =
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"abc"}}"#;
const HI: &str = r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hi"}}"#;
const CALL: &str =
    r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#;
const DELTA: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":7}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;
const ERROR: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#;

#[test]
fn messages() {
    let plain = r#"{"id":"msg","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hi"}],"stop_reason":"max_tokens","usage":{"input_tokens":5,"cache_read_input_tokens":100,"output_tokens":7}}"#;
    let stream = ASKED.streamed(SSE, &named(&[START, BLOCK, PING, HM, SIGNATURE, HI, CALL, DELTA, STOP]));
    assert!(stream.clocks.first_answer > stream.clocks.first_token);
    let not_streamed = Asked { body: r#"{"model":"m","max_tokens":9,"messages":[]}"#, ..ASKED };
    check(&[
        // Input is what was read and what was written to a cache; the rest came from it.
        (stream, "ok m end_turn - 25+100 7+- usage 3"),
        (not_streamed.plain(200, JSON, plain), "ok m max_tokens - 5+100 7+- usage 0"),
        (ASKED.plain(529, JSON, ERROR), "server_error m - overloaded_error -+- -+- - 0"),
        // vLLM stops at an error, SGLang ends in order.
        (
            ASKED.streamed(SSE, &named(&[START, HI, ERROR])),
            "stream_error m - overloaded_error 25+100 1+- estimated 1",
        ),
        (
            ASKED.streamed(SSE, &named(&[START, HI, ERROR, STOP])),
            "stream_error m - overloaded_error 25+100 1+- estimated 1",
        ),
        (ASKED.streamed(SSE, &named(&[START, HI, DELTA])), "unterminated m end_turn - 25+100 7+- usage 1"),
        // What was generated before an abort was told by no count.
        (
            ASKED.aborted(SSE, &named(&[START, BLOCK, HI, HI])),
            "aborted_by_client m - - 25+100 2+- estimated 2",
        ),
        (ASKED.streamed(SSE, &named(&[START, DELTA, STOP])), "ok m end_turn - 25+100 7+- usage 0 empty"),
    ]);
}
