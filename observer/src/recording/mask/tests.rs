//! Masked records decode to the same structure, and nothing secret is left, however they are cut.

use proptest::prelude::*;

use super::*;
use crate::{
    body::{
        json::{Scanner, Value},
        ndjson::{NdjsonDecoder, NdjsonItem},
        sse::{SseDecoder, SseItem},
    },
    http::{
        Fields, Input, Part,
        http1::{RequestDecoder, ResponseDecoder},
    },
    recording::fixture,
};

/// Every text that must go is made of these letters, every number of these digits.
const SECRET: &str = "QZQZ";
const TOKEN: &str = "9898989";

const REQUEST: &str = r#"{"model":"m-1","stream":true,"max_tokens":5,"stop":["QZ"],"messages":[{"role":"user","content":"QZ \"Q\\Z\" é\nQ"},{"role":"assistant","content":null,"tool_calls":[{"id":"c-1","type":"function","function":{"name":"QZ","arguments":"{\"QZ\":1}"}}]}],"prompt":[9898989,9898989],"user":"QZ"}"#;

fn request(body: &str, content_type: &str) -> String {
    format!(
        "POST /v1/chat/completions?key=QZQZ HTTP/1.1\r\nHost: QZ\r\nAuthorization: Bearer QZQZ\r\nCookie: Q=Z\r\n\
         X-Api-Key: QZ\r\nX-Request-ID: r-1\r\n{content_type}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chunked(content_type: &str, pieces: &[&str]) -> String {
    let mut wire = format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: QZ\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for piece in pieces {
        wire.extend([format!("{:x};e=QZ\r\n", piece.len()).as_str(), piece, "\r\n"]);
    }
    wire + "0\r\nT: QZ\r\n\r\n"
}

/// Requests and responses in the shapes that engines use.
fn exchanges() -> Vec<(String, String)> {
    let json = "Content-Type: application/json\r\n";
    let vllm = chunked(
        "text/event-stream; charset=utf-8",
        &[
            ": QZQZ\n\n",
            "data: {\"id\":\"chatcmpl-1\",\"created\":1,\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"QZ\\u00e9 Q\"},\"logprobs\":{\"token\":\"QZ\",\"logprob\":-9898989}}]}\n\ndata: {\"choi",
            "ces\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3}}\n\n",
            "data: [DONE]\n\n",
        ],
    );
    let anthropic = chunked(
        "text/event-stream",
        &[
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\ndata: \"delta\":{\"type\":\"text_delta\",\"text\":\"QZ\"}}\nid: QZ\nQZ: QZ\n\n",
            "event: message_delta\r\ndata:{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\r\n\r\n",
        ],
    );
    let ollama = chunked(
        "application/x-ndjson",
        &[
            "{\"model\":\"m-1\",\"response\":\"QZ\",\"done\":false}\n{\"model\":\"m-1\",\"response\":\"Q",
            "Z\",\"done\":true,\"done_reason\":\"stop\",\"context\":[9898989,9898989],\"eval_count\":3,\"total_duration\":12}\n",
        ],
    );
    let plain = "{\"id\":\"c-1\",\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"QZ\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12}}";
    let plain = format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 QZ\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{plain}",
        plain.len()
    );
    let html =
        "HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\nContent-Length: 10\r\n\r\n<b>QZ</b>\n".to_owned();
    let gzip = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\n{\"QZ\":1}";
    let broken = "{\"model\":\"m-1\",QZ \"model\":\"QZ\"}";
    vec![
        (request(REQUEST, json), vllm),
        (request(REQUEST, json), anthropic),
        (request(REQUEST, ""), ollama),
        (request(REQUEST, "Content-Type: application/x-www-form-urlencoded\r\n"), plain),
        (request(broken, json), html),
        (request("QZ=QZ", "Content-Type: multipart/form-data; boundary=b\r\n"), gzip.to_owned()),
    ]
}

/// One payload with the direction, and the hole that follows it.
type Push = (u8, Vec<u8>, u64);

/// Masks pushes as records of one connection.
fn mask(pushes: &[Push]) -> Vec<Push> {
    let mut masker = Masker::new();
    let mut positions = [0, 0];
    let mut masked = Vec::new();
    for (direction, payload, hole) in pushes {
        let length = payload.len() as u64 + hole;
        let position = &mut positions[usize::from(*direction)];
        let mut record = fixture::data(1, *direction, *position, length as u32, payload);
        *position += length;
        let before = record.clone();
        masker.mask(&mut record).unwrap();
        let start = record.len() - payload.len();
        assert_eq!(record[..start], before[..start], "only the payload changes");
        masked.push((*direction, record[start..].to_vec(), *hole));
    }
    masked
}

fn decode(pushes: &[Push], sink: &mut dyn FnMut(u8, Part<'_>)) {
    let mut requests = RequestDecoder::new();
    let mut responses = ResponseDecoder::new();
    for (direction, payload, hole) in pushes {
        for input in [Input::Bytes(payload), Input::Gap(*hole)] {
            if *direction == 0 {
                requests.push(input, &mut |part| sink(0, part));
            } else {
                responses.push(input, &mut |part| sink(1, part));
            }
        }
    }
}

/// Parts of both directions, content by length.
fn parts(pushes: &[Push]) -> Vec<String> {
    let mut parts = Vec::new();
    decode(pushes, &mut |direction, part| {
        let text = match part {
            Part::Body(bytes) => format!("body {}", bytes.len()),
            Part::Request(head) => {
                let known: Vec<_> =
                    head.fields.iter().filter(|(name, _)| allow::header(name.as_bytes())).collect();
                format!("{} {} {} {known:?}", head.method, head.path, head.fields.len())
            }
            Part::Response(head) => {
                let known: Vec<_> =
                    head.fields.iter().filter(|(name, _)| allow::header(name.as_bytes())).collect();
                format!("{} {} {known:?}", head.status, head.fields.len())
            }
            other => format!("{other:?}"),
        };
        parts.push(format!("{direction} {text}"));
    });
    parts
}

/// Fields of a document: path, and the value if it may be kept, else its length.
fn document(bytes: &[u8], notes: &mut Vec<String>) {
    let mut scanner = Scanner::new();
    let mut note = |field: crate::body::json::Field<'_>| {
        let key = field.path.rsplit('.').next().unwrap_or_default().as_bytes();
        let value = match field.value {
            Value::String { text, .. } if allow::string(allow::Inside::Document, key) => text.to_owned(),
            Value::String { length, .. } => format!("{length} bytes"),
            Value::Number(text) if allow::number(allow::Inside::Document, key) => text.to_owned(),
            Value::Number(text) => format!("{} digits", text.len()),
            other => format!("{other:?}"),
        };
        notes.push(format!("{} {} {value}", field.path, field.index));
    };
    scanner.push(bytes, &mut note);
    let completeness = scanner.finish(&mut note);
    notes.push(format!("{completeness:?}"));
}

/// The media type; one that is not looked into if the content is compressed.
fn media_type(fields: &Fields) -> String {
    let plain = fields.get("content-encoding").is_none();
    if plain { fields.content_type().unwrap_or_default().to_owned() } else { "text/html".to_owned() }
}

/// Content of both directions down to the fields of documents.
fn documents(pushes: &[Push]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut bodies = [Vec::new(), Vec::new()];
    let mut types = [String::new(), String::new()];
    decode(pushes, &mut |direction, part| {
        let at = usize::from(direction);
        match part {
            Part::Request(head) => types[at] = media_type(&head.fields),
            Part::Response(head) => types[at] = media_type(&head.fields),
            Part::Body(bytes) => bodies[at].extend_from_slice(bytes),
            Part::End => {
                let body = std::mem::take(&mut bodies[at]);
                match types[at].as_str() {
                    "text/event-stream" => SseDecoder::new().push(&body, &mut |item| match item {
                        SseItem::Event { event, data } => {
                            notes.push(format!("event {event}"));
                            document(data.bytes, &mut notes);
                        }
                        other => notes.push(format!("{other:?}")),
                    }),
                    "application/x-ndjson" => NdjsonDecoder::new().push(&body, &mut |item| match item {
                        NdjsonItem::Line(line) => document(line.bytes, &mut notes),
                        other => notes.push(format!("{other:?}")),
                    }),
                    "text/html" => notes.push(body.len().to_string()),
                    _ => document(&body, &mut notes),
                }
            }
            _ => {}
        }
    });
    notes
}

fn assert_clean(pushes: &[Push]) {
    for direction in [0, 1] {
        let bytes: Vec<u8> = pushes
            .iter()
            .filter(|push| push.0 == direction)
            .flat_map(|push| push.1.iter().copied())
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(['Q', 'Z', 'é']) && !text.contains("989"), "{text}");
    }
}

/// Cuts a stream at places modulo its length, and drops a part of it after each place.
fn cut(direction: u8, stream: &[u8], places: &[(usize, u64)]) -> Vec<Push> {
    let mut places: Vec<(usize, u64)> =
        places.iter().map(|(place, hole)| (place % (stream.len() + 1), *hole)).collect();
    places.push((stream.len(), 0));
    places.sort_unstable();
    let mut pushes = Vec::new();
    let mut at = 0;
    for (place, hole) in places {
        let place = place.max(at);
        let end = (place + hole as usize).min(stream.len());
        pushes.push((direction, stream[at..place].to_vec(), (end - place) as u64));
        at = end;
    }
    pushes
}

#[test]
fn whole_exchanges() {
    let mut pushes = Vec::new();
    for (request, response) in exchanges() {
        assert!(request.contains("QZ") && response.contains("QZ"));
        pushes.extend([(0, request.into_bytes(), 0), (1, response.into_bytes(), 0)]);
    }
    let masked = mask(&pushes);
    assert_clean(&masked);
    assert_eq!(parts(&masked), parts(&pushes));
    let text: Vec<String> = masked.iter().map(|push| String::from_utf8(push.1.clone()).unwrap()).collect();
    assert!(text[0].starts_with(
        "POST /v1/chat/completions?xxx=xxxx HTTP/1.1\r\nHost: xx\r\nAuthorization: xxxxxx xxxx\r\nCookie: xxx\r\n"
    ));
    assert!(text[0].contains("X-Request-ID: r-1\r\n"));
    assert!(text[0].contains(r#"{"model":"m-1","stream":true,"max_tokens":5,"stop":["xx"],"messages":[{"role":"user","content":"xxxxxxxxxxxxxxxxx"}"#), "{}", text[0]);
    assert!(
        text[1].contains("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"xxxxxxxxxx\"}"),
        "{}",
        text[1]
    );
    assert!(text[1].contains("data: [DONE]\n\n") && text[1].contains("\"prompt_tokens\":12"));
    assert!(text[9].ends_with("<x>xx</x>\n"));
}

#[test]
fn other_protocols_are_hidden() {
    for (first, expected) in [
        (&b"\x16\x03\x01QZ\xff"[..], &b"\x16\x03\x01xxx"[..]),
        (b"*1 QZ", b"*x xx"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nQZ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxx"),
        (b"GET QZ\r\nQZ: QZ\r\n\r\n", b"GET xx\r\nxx: xx\r\n\r\n"),
    ] {
        assert_eq!(mask(&[(0, first.to_vec(), 0)])[0].1, expected);
        let masked = mask(&[(0, first.to_vec(), 0), (0, b"QZ".to_vec(), 0), (1, b"HTTQZ".to_vec(), 0)]);
        assert_eq!(masked[1].1, b"xx");
        assert!([&b"HTTxx"[..], b"xxxxx"].contains(&masked[2].1.as_slice()));
    }
}

#[test]
fn a_connection_that_is_joined_midway_is_hidden_up_to_the_next_head() {
    let (request, response) = exchanges().swap_remove(0);
    let pushes = [
        (0, b"\"QZ\"}]}".to_vec(), 0),
        (1, b"data: {\"model\":\"QZ\"}\n\n".to_vec(), 0),
        (0, request.into_bytes(), 0),
        (1, response.into_bytes(), 0),
    ];
    let masked = mask(&pushes);
    assert_clean(&masked);
    assert_eq!(masked[0].1, b"\"xx\"}]}");
    assert_eq!(parts(&masked[2..]), parts(&pushes[2..]));
    assert_eq!(documents(&masked[2..]), documents(&pushes[2..]));
}

#[test]
fn bytes_that_were_there_before_and_after_a_close_are_hidden() {
    let head = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n";
    let mut masker = Masker::new();
    let mut masked = |mut record: Vec<u8>, payload: usize| {
        masker.mask(&mut record).unwrap();
        record.split_off(record.len() - payload)
    };
    masked(fixture::data(1, 0, 0, head.len() as u32, head), head.len());
    let at = head.len() as u64;
    assert_eq!(masked(fixture::data(1, 0, at, 10, b"{\"model\":\""), 10), b"{\"model\":\"");
    assert_eq!(masked(fixture::data(1, 0, at + 8, 4, b"\"QZ\""), 4), b"\"xx\"");
    assert_eq!(masked(fixture::data(1, 0, at + 12, 4, b"QZ\","), 4), b"xx\",");
    masked(fixture::close(1), 0);
    assert_eq!(masked(fixture::data(1, 0, at + 16, 4, b"QZ\","), 4), b"xx\",");
}

proptest! {
    #[test]
    fn cuts_leave_structure_and_no_secret(
        which in prop::collection::vec(0_usize..6, 1..4),
        cuts in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let exchanges = exchanges();
        let cuts: Vec<(usize, u64)> = cuts.into_iter().map(|place| (place, 0)).collect();
        let mut pushes = Vec::new();
        for at in which {
            let (request, response) = &exchanges[at];
            pushes.extend(cut(0, request.as_bytes(), &cuts));
            pushes.extend(cut(1, response.as_bytes(), &cuts));
        }
        let masked = mask(&pushes);
        assert_clean(&masked);
        prop_assert_eq!(parts(&masked), parts(&pushes));
        // What is broken or compressed is hidden altogether, keys included.
        let understood = |notes: Vec<String>| -> Vec<String> {
            notes.into_iter().filter(|note| !note.contains("QZ") && !note.contains("xx")).collect()
        };
        prop_assert_eq!(understood(documents(&masked)), understood(documents(&pushes)));
    }

    #[test]
    fn holes_leave_no_secret_and_the_same_parts(
        which in prop::collection::vec(0_usize..6, 1..4),
        cuts in prop::collection::vec((any::<usize>(), prop_oneof![Just(0), 1..200_u64]), 0..20),
    ) {
        let exchanges = exchanges();
        let (request, response) = &exchanges[0];
        let mut pushes = vec![(0, request.clone().into_bytes(), 0), (1, response.clone().into_bytes(), 0)];
        for at in which {
            let (request, response) = &exchanges[at];
            pushes.extend(cut(0, request.as_bytes(), &cuts));
            pushes.extend(cut(1, response.as_bytes(), &cuts));
        }
        let masked = mask(&pushes);
        assert_clean(&masked);
        // If the start is missing, it may take the mask longer to see what is spoken, and it hides more.
        assert_clean(&mask(&pushes[2..]));
        prop_assert_eq!(parts(&masked), parts(&pushes));
        let lengths = |pushes: &[Push]| -> Vec<usize> { pushes.iter().map(|push| push.1.len()).collect() };
        prop_assert_eq!(lengths(&masked), lengths(&pushes));
    }

    #[test]
    fn noise_never_panics_and_letters_never_stay(
        pushes in prop::collection::vec((0_u8..2, prop::collection::vec(any::<u8>(), 0..60), 0_u64..9), 0..12),
    ) {
        for (push, before) in mask(&pushes).iter().zip(&pushes) {
            prop_assert_eq!(push.1.len(), before.1.len());
            // Only what starts a known word may stay.
            let kept = push.1.iter().filter(|byte| byte.is_ascii_alphanumeric() && **byte != b'x').count();
            prop_assert!(kept <= 5, "{:?}", push);
        }
    }
}

#[test]
fn secrets_are_in_what_is_masked() {
    // The check itself must be able to fail.
    let caught = std::panic::catch_unwind(|| assert_clean(&[(0, SECRET.as_bytes().to_vec(), 0)]));
    assert!(caught.is_err());
    assert!(REQUEST.contains(TOKEN));
}
