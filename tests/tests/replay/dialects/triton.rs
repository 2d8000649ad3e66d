use super::{Asked, JSON, SSE, check, events};

const STREAM: Asked<'static> =
    Asked { path: "/v2/models/m/generate_stream", body: r#"{"text_input":"a","max_tokens":9}"# };
const HI: &str = r#"{"model_name":"m","model_version":"1","sequence_end":false,"text_output":"Hi"}"#;
const NOTHING: &str = r#"{"model_name":"m","model_version":"1","sequence_end":true,"text_output":""}"#;

/// There is no terminator: a stream is over with its framing.
#[test]
fn generate_stream() {
    let utf8 = "Content-Type: text/event-stream; charset=utf-8\r\n";
    let stream = STREAM.streamed(utf8, &events(&[HI, HI, NOTHING]));
    assert!(stream.stream && stream.tpot.is_some());
    check(&[
        (stream, "ok m - - -+- 2+- estimated 2"),
        (STREAM.plain(400, JSON, r#"{"error":"x"}"#), "client_error m - error -+- -+- - 0"),
        (
            STREAM.streamed(utf8, &events(&[HI, r#"{"error":"x"}"#])),
            "stream_error m - error -+- 1+- estimated 1",
        ),
        (STREAM.streamed(utf8, &events(&[r#"{"error":"x"}"#])), "stream_error m - error -+- -+- - 0"),
        (STREAM.aborted(utf8, &events(&[HI])), "aborted_by_client m - - -+- 1+- estimated 1"),
        (STREAM.streamed(utf8, &events(&[NOTHING])), "ok m - - -+- -+- - 0 empty"),
        // Framing that ends within an event ends nothing in order.
        (
            STREAM.streamed(utf8, &[events(&[HI]).concat(), "data: {\"model".into()]),
            "unterminated m - - -+- 1+- estimated 1",
        ),
    ]);
}

#[test]
fn generate_and_infer() {
    let generate = Asked { path: "/v2/models/m/versions/2/generate", ..STREAM };
    let infer = Asked {
        path: "/v2/models/m/infer",
        body: r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}"#,
    };
    check(&[
        (generate.plain(200, JSON, HI), "ok m - - -+- -+- - 0"),
        (
            generate.plain(
                200,
                JSON,
                r#"{"text_output":"Hi","model_name":"m","details":{"finish_reason":"stop"}}"#,
            ),
            "ok m stop - -+- -+- - 0",
        ),
        (generate.plain(503, JSON, r#"{"error":"x"}"#), "rejected m - error -+- -+- - 0"),
        (
            infer.plain(
                200,
                JSON,
                r#"{"model_name":"m","outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[1]}]}"#,
            ),
            "ok m - - -+- -+- - 0",
        ),
        (infer.plain(404, JSON, r#"{"error":"x"}"#), "client_error m - error -+- -+- - 0"),
    ]);
}

#[test]
fn open_inference_generate_stream() {
    let hi = r#"{"text_output":"Hi","model_name":"m","details":{"token":{"id":17,"special":false}}}"#;
    let end =
        r#"{"text_output":"!","model_name":"m","details":{"finish_reason":"length","token":{"id":18}}}"#;
    check(&[(STREAM.streamed(SSE, &events(&[hi, end])), "ok m length - -+- 2+- ids 2")]);
}
