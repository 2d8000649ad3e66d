use super::{Asked, JSON, SSE, check, events};

const EVENTS: Asked<'static> = Asked {
    path: "/v1beta/models/g:streamGenerateContent?alt=sse",
    body: r#"{"contents":[{"parts":[{"text":"a"}]}],"generationConfig":{"maxOutputTokens":9}}"#,
};
const HM: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Hm","thought":true}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":9,"thoughtsTokenCount":2},"modelVersion":"g-1","responseId":"r"}"#;
const HI: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":1,"thoughtsTokenCount":2},"modelVersion":"g-1"}"#;
const LAST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"!"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":9,"cachedContentTokenCount":4,"candidatesTokenCount":3,"thoughtsTokenCount":2,"totalTokenCount":14},"modelVersion":"g-1"}"#;
const ERROR: &str = r#"{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}"#;

#[test]
fn stream_of_events() {
    let stream = EVENTS.streamed(SSE, &events(&[HM, HI, LAST]));
    assert!(stream.clocks.first_answer > stream.clocks.first_token);
    assert_eq!((stream.max_tokens, stream.response_id.as_deref()), (Some(9), Some("r")));
    check(&[
        (stream, "ok g STOP - 5+4 3+2 usage 3"),
        (EVENTS.plain(503, JSON, ERROR), "rejected g - UNAVAILABLE -+- -+- - 0"),
        (EVENTS.streamed(SSE, &events(&[HI, ERROR])), "stream_error g - UNAVAILABLE 9+- 1+2 usage_partial 1"),
        (EVENTS.aborted(SSE, &events(&[HM, HI])), "aborted_by_client g - - 9+- 1+2 usage_partial 2"),
        (
            EVENTS.streamed(
                SSE,
                &events(&[
                    r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":9}}"#,
                ]),
            ),
            "ok g SAFETY - 9+- -+- usage 0 empty",
        ),
    ]);
}

#[test]
fn stream_of_an_array() {
    let asked = Asked { path: "/v1beta/models/g:streamGenerateContent", ..EVENTS };
    let chunks = |documents: &[&str]| -> Vec<String> {
        let mut chunks: Vec<String> = documents
            .iter()
            .enumerate()
            .map(|(at, document)| format!("{}{document}", if at == 0 { "[" } else { "\n,\r\n" }))
            .collect();
        chunks.push("\n]\n".into());
        chunks
    };
    let stream = asked.streamed(JSON, &chunks(&[HM, HI, LAST]));
    assert!(
        stream.stream && stream.ttft.is_some() && stream.gaps.as_ref().is_some_and(|gaps| gaps.count == 2)
    );
    check(&[
        (stream, "ok g STOP - 5+4 3+2 usage 3"),
        (
            asked.plain(400, JSON, r#"[{"error":{"code":400,"message":"x","status":"INVALID_ARGUMENT"}}]"#),
            "client_error g - INVALID_ARGUMENT -+- -+- - 0",
        ),
        (asked.streamed(JSON, &chunks(&[HI, ERROR])), "stream_error g - UNAVAILABLE 9+- 1+2 usage_partial 1"),
        (asked.aborted(JSON, &chunks(&[HI, HI])[..2]), "aborted_by_client g - - 9+- 1+2 usage_partial 2"),
    ]);
}

#[test]
fn plain() {
    let asked =
        Asked { path: "/v1/projects/p/locations/l/publishers/google/models/g:generateContent", ..EVENTS };
    let call = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":3}}"#;
    check(&[
        (asked.plain(200, JSON, LAST), "ok g STOP - 5+4 3+2 usage 0"),
        (asked.plain(200, JSON, call), "ok g STOP - 9+- 3+- usage 0"),
        (asked.plain(429, JSON, ERROR), "rejected g - UNAVAILABLE -+- -+- - 0"),
    ]);
    let embed =
        Asked { path: "/v1beta/models/e:embedContent", body: r#"{"content":{"parts":[{"text":"a"}]}}"# };
    check(&[(embed.plain(200, JSON, r#"{"embedding":{"values":[0.5]}}"#), "ok e - - -+- -+- - 0")]);
}
