//! Fixtures from engines as tables; `serde_json`, cuts and holes as properties.

use proptest::prelude::*;

use super::*;

type Seen = (String, u32, String);

fn show(value: Value<'_>) -> String {
    match value {
        Value::String { text, .. } => format!("s{text}"),
        Value::Number(text) => text.to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        Value::EmptyArray => "[]".to_owned(),
        Value::EmptyObject => "{}".to_owned(),
    }
}

/// Scans pieces; `None` is a hole.
fn scan(inputs: &[Option<&[u8]>]) -> (Vec<Seen>, Completeness) {
    let mut seen = Vec::new();
    let mut note = |field: Field<'_>| seen.push((field.path.to_owned(), field.index, show(field.value)));
    let mut scanner = Scanner::new();
    for input in inputs {
        match input {
            Some(bytes) => scanner.push(bytes, &mut note),
            None => scanner.gap(1),
        }
    }
    let completeness = scanner.finish(&mut note);
    (seen, completeness)
}

fn whole(text: &str) -> (Vec<Seen>, Completeness) {
    let result = scan(&[Some(text.as_bytes())]);
    let single: Vec<Option<&[u8]>> = text.as_bytes().chunks(1).map(Some).collect();
    assert_eq!(scan(&single), result, "byte by byte");
    result
}

fn fields(text: &str) -> Vec<String> {
    let (seen, completeness) = whole(text);
    assert_eq!(completeness, Completeness::Complete, "{text}");
    seen.into_iter().map(|(path, index, value)| format!("{path}#{index}={value}")).collect()
}

#[test]
fn fixtures() {
    assert_eq!(
        fields(
            r#"{"id":"chatcmpl-1","created":1,"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null},{"delta":{}}],"usage":{"prompt_tokens":9}}"#
        ),
        [
            "id#0=schatcmpl-1",
            "created#0=1",
            "choices[].index#0=0",
            "choices[].delta.content#0=sHi",
            "choices[].finish_reason#0=null",
            "choices[].delta#1={}",
            "usage.prompt_tokens#0=9"
        ]
    );
    assert_eq!(
        fields(
            r#"{"choices":[],"tokens":[1,[2,-3.5e+2]],"stop":true,"timings":{"prompt_ms":20.1},"usage":{"prompt_tokens_details":{"cached_tokens":4}}}"#
        ),
        [
            "choices#0=[]",
            "tokens[]#0=1",
            "tokens[][]#1=2",
            "tokens[][]#1=-3.5e+2",
            "stop#0=true",
            "timings.prompt_ms#0=20.1",
            "usage.prompt_tokens_details.cached_tokens#0=4"
        ]
    );
    assert_eq!(fields(" [ 1 , {\"a\" : false } ] "), ["[]#0=1", "[].a#1=false"]);
    assert_eq!(fields("12"), ["#0=12"]);
}

#[test]
fn strings_and_keys() {
    assert_eq!(
        fields(r#"{"a":"\"\\\/\n\u0041\ud83d\ude00\ud83dx\ude00é","b.[c]":1,"":{"a":2},"q\"":3}"#),
        ["a#0=s\"\\/\nA😀\u{fffd}x\u{fffd}é", "b??c?#0=1", "?.a#0=2", "q\"#0=3"]
    );
    let long = "k".repeat(65);
    assert_eq!(
        fields(&format!("{{\"{long}\":1,\"{}\":2}}", &long[1..])),
        ["?#0=1".to_owned(), format!("{}#0=2", &long[1..])]
    );
}

#[test]
fn long_values() {
    let prompt = "é".repeat(200);
    let mut lengths = Vec::new();
    let text = format!("{{\"a\":\"x{prompt}\",\"b\":{}}}", "1".repeat(65));
    for piece in [1, 7, text.len()] {
        let mut scanner = Scanner::new();
        let mut note = |field: Field<'_>| match field.value {
            Value::String { text, length } => lengths.push((text.len(), length)),
            other => panic!("{other:?}"),
        };
        text.as_bytes().chunks(piece).for_each(|bytes| scanner.push(bytes, &mut note));
        assert_eq!(scanner.finish(&mut note), Completeness::Complete);
    }
    // 256 would cut a character in two.
    assert_eq!(lengths, [(255, 401); 3]);
}

#[test]
fn depth_is_followed_to_the_limit_and_tracked_beyond() {
    let text = format!("[{}1{},\"end\"]", "[{\"a\":".repeat(20), "}]".repeat(20));
    assert_eq!(fields(&text), ["[]#1=send"]);
    let text = format!("{}1{}", "[".repeat(32), "]".repeat(32));
    assert_eq!(fields(&text), [format!("{}#0=1", "[]".repeat(32))]);
}

#[test]
fn what_is_not_json_is_said_to_be_so() {
    for text in
        ["[DONE]", "", " ", "{]", "{\"a\" 1}", "[1,]", "{\"a\":1,}", "nul!", "{} x", "<html>", "{1:2}"]
    {
        assert_eq!(whole(text).1, Completeness::NotJson, "{text:?}");
    }
    for text in ["{", "[1", "{\"a", "{\"a\":", "\"x", "[tru", "{\"a\":1"] {
        let (seen, completeness) = whole(text);
        assert_eq!(completeness, Completeness::Truncated, "{text:?}");
        assert!(seen.len() <= usize::from(text == "[1"), "{seen:?}");
    }
}

#[test]
fn a_model_inside_a_schema_is_never_believed() {
    let before = r#"{"model":"real","messages":[{"role":"user","content":"long "#;
    let after = r#"text \" \"model\":\"evil1\",", "x":1}],"tools":[{"function":{"parameters":{"properties":{"model":"evil2","a":{"model":"evil3"}},"d":"\"model\":\"evil4\"}"}}}],"stream":true,"stream_options":{"include_usage":true}}"#;
    let (seen, completeness) = scan(&[Some(before.as_bytes()), None, Some(after.as_bytes())]);
    assert_eq!(completeness, Completeness::Holed);
    let seen: Vec<String> = seen.into_iter().map(|(path, _, value)| format!("{path}={value}")).collect();
    assert!(!seen.iter().any(|field| field.contains("=sevil") && field.starts_with("model")), "{seen:?}");
    assert_eq!(seen[..2], ["model=sreal", "messages[].role=suser"]);
    assert_eq!(seen[seen.len() - 2..], ["stream=true", "stream_options.include_usage=true"]);
    // The schema is a member that lies wholly in the tail, so it is reported, where it stands.
    assert!(seen.contains(&"tools[].function.parameters.properties.model=sevil2".to_owned()));
}

#[test]
fn a_tail_needs_the_end_of_the_document() {
    let tail = |after: &str| scan(&[Some(b"{\"a\":\""), None, Some(after.as_bytes())]).0;
    assert_eq!(tail("\",\"usage\":{\"n\":1}}\r\n"), [("usage.n".to_owned(), 0, "1".to_owned())]);
    // It breaks off within an object that opens in the tail.
    assert_eq!(tail("\",\"usage\":{\"m\":2,\"n\":1}"), []);
    assert_eq!(scan(&[None, Some(b"\"usage\":{\"n\":1}")]).0, []);
    assert_eq!(scan(&[None, Some(b" {\"n\":1}")]).0, [("n".to_owned(), 0, "1".to_owned())]);
    assert_eq!(tail("\",\"usage\":{\"n\":1}]"), []);
    assert_eq!(tail("\",\"usage\":{\"n\":1\r\n5\r\n2}}"), []);
    // The stream broke off: the caller knows that and says so.
    assert_eq!(scan(&[Some(b"{\"a\":\""), None, Some(b"x,{\"b\":1}"), None]).0, []);
    // A quote whose backslashes reach into the hole tells nothing.
    assert_eq!(tail("\\\",\"b\":1}").len(), 1);
    assert_eq!(tail("\\\"}"), []);
}

#[test]
fn usage_survives_a_sampled_response_in_chunks_of_unknown_size() {
    use crate::http::{Input, Part, http1::ResponseDecoder};
    // A proxy wrote head, several chunks and the last chunk in one call, of which head and tail were kept.
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{\"model\":\"m\",\"text\":\"long";
    let tail = "er text\",\"usage\":{\"completion_tokens\":3}}\n\r\n0\r\n\r\n";
    let mut scanner = Scanner::new();
    let mut seen = Vec::new();
    let mut ended = None;
    let mut decoder = ResponseDecoder::new();
    for input in [Input::Bytes(head.as_bytes()), Input::Gap(20_000), Input::Bytes(tail.as_bytes())] {
        decoder.push(input, &mut |part| {
            let mut note = |field: Field<'_>| seen.push(format!("{}={}", field.path, show(field.value)));
            match part {
                Part::Body(bytes) => scanner.push(bytes, &mut note),
                Part::BodyGap(hole) => scanner.gap(hole),
                Part::End => ended = Some(scanner.finish(&mut note)),
                _ => {}
            }
        });
    }
    assert_eq!(ended, Some(Completeness::Holed));
    assert_eq!(seen, ["model=sm", "usage.completion_tokens=3"]);
}

#[test]
fn the_tail_is_bounded() {
    let after = format!("x\",\"old\":1,\"pad\":\"{}\",\"usage\":{{\"n\":7}}}}", "y".repeat(5000));
    for piece in [1, 100, after.len()] {
        let mut inputs: Vec<Option<&[u8]>> = vec![Some(b"{\"a\":\""), None];
        inputs.extend(after.as_bytes().chunks(piece).map(Some));
        assert_eq!(scan(&inputs).0, [("usage.n".to_owned(), 0, "7".to_owned())]);
    }
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    let text = prop_oneof![
        "[a-z ]{0,8}",
        // Text that looks like JSON, with everything that a reader could trip over.
        "[{}\\[\\]\",:\\\\ a1é\n]{0,16}",
        Just("\",\"model\":\"evil\"}".to_owned()),
        Just("\\".to_owned()),
    ];
    let key = prop_oneof!["[a-e]", "[{}\\[\\]\",:\\\\.é]{0,3}", Just("model".to_owned()), "k{60,70}"];
    let scalar = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        (-1e10..1e10_f64).prop_map(Into::into),
        text.prop_map(Into::into),
    ];
    scalar.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

/// What a scanner must report, from a document that `serde_json` holds.
fn walk(value: &serde_json::Value, path: &str, index: Option<u32>, seen: &mut Vec<Seen>) {
    let scalar = match value {
        serde_json::Value::Array(elements) if !elements.is_empty() => {
            for (at, element) in elements.iter().enumerate() {
                walk(element, &format!("{path}[]"), index.or(Some(at as u32)), seen);
            }
            return;
        }
        serde_json::Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                let key = if key.is_empty() || key.len() > KEY { "?" } else { key };
                let key = key.replace(['.', '[', ']'], "?");
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                walk(member, &path, index, seen);
            }
            return;
        }
        serde_json::Value::String(text) => format!("s{text}"),
        other => other.to_string(),
    };
    seen.push((path.to_owned(), index.unwrap_or_default(), scalar));
}

fn print(document: &serde_json::Value, pretty: bool) -> String {
    if pretty { serde_json::to_string_pretty(document) } else { serde_json::to_string(document) }.unwrap()
}

proptest! {
    #[test]
    fn agrees_with_serde_json_however_it_is_cut(
        document in document(), pretty: bool, places in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        let text = print(&document, pretty);
        let mut expected = Vec::new();
        walk(&document, "", None, &mut expected);
        let (seen, completeness) = whole(&text);
        prop_assert_eq!(completeness, Completeness::Complete);
        prop_assert_eq!(&seen, &expected);
        let bytes = text.as_bytes();
        let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces: Vec<Option<&[u8]>> = places.windows(2).map(|pair| Some(&bytes[pair[0]..pair[1]])).collect();
        prop_assert_eq!(scan(&pieces).0, expected);
    }

    #[test]
    fn a_hole_never_makes_a_wrong_field(
        members in prop::collection::vec(("[a-e]|model", document()), 1..6), pretty: bool,
        holes in prop::collection::vec((any::<usize>(), 1_usize..60), 1..3),
    ) {
        let document = serde_json::Value::Object(members.into_iter().collect());
        let text = print(&document, pretty);
        let mut intact = Vec::new();
        walk(&document, "", None, &mut intact);
        let mut holes: Vec<(usize, usize)> = holes.iter().map(|(from, hole)| (from % text.len(), *hole)).collect();
        holes.sort_unstable();
        let mut inputs: Vec<Option<&[u8]>> = Vec::new();
        let mut at = 0;
        for (from, hole) in holes {
            let from = from.max(at);
            inputs.push(Some(&text.as_bytes()[at..from]));
            inputs.push(None);
            at = (from + hole).min(text.len());
        }
        inputs.push(Some(&text.as_bytes()[at..]));
        let (seen, completeness) = scan(&inputs);
        prop_assert_eq!(completeness, Completeness::Holed);
        for field in seen {
            prop_assert!(intact.contains(&field), "{:?} is not in {}", field, text);
        }
    }

    #[test]
    fn nothing_panics(inputs in prop::collection::vec(
        prop::option::of(prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\u1e".to_vec())], 0..30)), 0..12,
    )) {
        let inputs: Vec<Option<&[u8]>> = inputs.iter().map(Option::as_deref).collect();
        scan(&inputs);
    }
}
