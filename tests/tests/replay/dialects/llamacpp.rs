use super::{Asked, JSON, SSE, check, events};

const ASKED: Asked<'static> =
    Asked { path: "/completion", body: r#"{"prompt":"a","n_predict":9,"stream":true}"# };
const PROGRESS: &str = r#"{"index":0,"content":"","tokens":[],"stop":false,"id_slot":0,"tokens_predicted":0,"tokens_evaluated":9,"prompt_progress":{"total":9,"cache":0,"processed":4,"time_ms":1}}"#;
const ERROR: &str = r#"{"error":{"code":500,"message":"x","type":"server_error"}}"#;

fn token(index: u32, predicted: u32) -> String {
    format!(
        r#"{{"index":{index},"content":"Hi","tokens":[],"stop":false,"id_slot":0,"tokens_predicted":{predicted},"tokens_evaluated":9}}"#
    )
}

fn last(index: u32, predicted: u32) -> String {
    format!(
        r#"{{"index":{index},"content":"","tokens":[],"id_slot":0,"stop":true,"model":"m","tokens_predicted":{predicted},"tokens_evaluated":9,"stop_type":"eos","stopping_word":"","tokens_cached":11,"timings":{{"cache_n":4,"prompt_n":5,"prompt_ms":20.1,"predicted_n":{predicted},"predicted_ms":30.2}}}}"#
    )
}

#[test]
fn completion() {
    let (first, second, end) = (token(0, 2), token(0, 3), last(0, 3));
    let stream = ASKED.streamed(SSE, &events(&[PROGRESS, &first, &second, &end]));
    // The first event carried two of three tokens.
    assert_eq!(stream.tpot, Some(stream.clocks.last_token.unwrap() - stream.clocks.first_token.unwrap()));
    assert_eq!((stream.timings.prefill, stream.timings.decode), (Some(0.0201), Some(0.0302)));
    check(&[
        (stream, "ok m eos - 5+4 3+- engine 2"),
        (
            Asked { body: r#"{"prompt":"a"}"#, ..ASKED }.plain(
                200,
                JSON,
                &end.replace(r#""content":"""#, r#""content":"Hi""#),
            ),
            "ok m eos - 5+4 3+- engine 0",
        ),
        (ASKED.plain(503, JSON, ERROR), "rejected - - server_error -+- -+- - 0"),
        (ASKED.streamed(SSE, &events(&[&first, ERROR])), "stream_error - - server_error 9+- 2+- engine 1"),
        (ASKED.streamed(SSE, &events(&[&first])), "unterminated - - - 9+- 2+- engine 1"),
        (ASKED.aborted(SSE, &events(&[&first, &second])), "aborted_by_client - - - 9+- 3+- engine 2"),
        (ASKED.streamed(SSE, &events(&[&last(0, 1)])), "ok m eos - 5+4 1+- engine 0 empty"),
    ]);
}

#[test]
fn infill_and_the_older_name() {
    let end = last(0, 1);
    for path in ["/infill", "/completions"] {
        let asked = Asked { path, ..ASKED };
        check(&[(asked.streamed(SSE, &events(&[&token(0, 1), &end])), "ok m eos - 5+4 1+- engine 1")]);
    }
    // A gateway may serve OpenAI's completions by that name.
    let asked = Asked { path: "/completions", body: r#"{"model":"m","prompt":"a","stream":true}"# };
    let hi = r#"{"model":"m","choices":[{"index":0,"text":"Hi","finish_reason":"stop"}]}"#;
    check(&[(asked.streamed(SSE, &events(&[hi, "[DONE]"])), "ok m stop - -+- 1+- estimated 1")]);
}

/// A stream of several choices is over when all of them are.
#[test]
fn choices() {
    let asked = Asked { body: r#"{"prompt":"a","n_cmpl":2,"stream":true}"#, ..ASKED };
    let documents = [token(0, 1), token(1, 1), token(1, 2), last(1, 2), token(0, 2), last(0, 2)];
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let whole = asked.streamed(SSE, &events(&documents));
    assert!(whole.ttft.is_some() && whole.tpot.is_none());
    check(&[
        (whole, "ok m eos - -+- 4+- engine 4"),
        (asked.aborted(SSE, &events(&documents[..5])), "aborted_by_client m eos - -+- 4+- engine 4"),
    ]);
}
