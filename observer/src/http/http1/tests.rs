//! Tables for what RFC 9112 and engines do, properties for how it is cut.

use proptest::prelude::*;

use super::*;

/// A part as text, with adjacent content merged: what must not depend on how input is cut.
fn note(parts: &mut Vec<String>, part: &Part<'_>) {
    let text = match part {
        Part::Start => "start".to_owned(),
        Part::Request(head) => format!("{} {}", head.method, head.path),
        Part::Response(head) => head.status.to_string(),
        Part::Body(bytes) => {
            assert!(!bytes.is_empty());
            let text = String::from_utf8_lossy(bytes);
            match parts.last_mut().filter(|last| last.starts_with("body ")) {
                Some(last) => last.push_str(&text),
                None => parts.push(format!("body {text}")),
            }
            return;
        }
        Part::BodyGap(hole) => format!("gap {hole}"),
        Part::End => "end".to_owned(),
        Part::Upgraded => "upgraded".to_owned(),
        Part::Defect(defect) => defect.as_str().to_owned(),
    };
    parts.push(text);
}

fn requests(inputs: &[Input<'_>]) -> Vec<String> {
    let mut parts = Vec::new();
    let mut decoder = RequestDecoder::new();
    for input in inputs {
        decoder.push(*input, &mut |part| note(&mut parts, &part));
    }
    decoder.finish(&mut |part| note(&mut parts, &part));
    parts
}

fn responses_to(expected: &[ExpectedRequest], inputs: &[Input<'_>]) -> Vec<String> {
    let mut parts = Vec::new();
    let mut decoder = ResponseDecoder::new();
    for request in expected {
        decoder.expect(*request);
    }
    for input in inputs {
        decoder.push(*input, &mut |part| note(&mut parts, &part));
    }
    decoder.finish(&mut |part| note(&mut parts, &part));
    parts
}

fn responses(inputs: &[Input<'_>]) -> Vec<String> {
    responses_to(&[], inputs)
}

fn bytes(text: &str) -> Input<'_> {
    Input::Bytes(text.as_bytes())
}

const OK_CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn requests_by_length_pipelined_and_with_blank_lines_between() {
    let stream = "POST /v1/chat/completions?key=1 HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}\r\n\r\n\
                  GET /health HTTP/1.1\nHost: x\n\nPOST /x HTTP/1.0\r\ncontent-length: 0\r\n\r\n";
    let expected = [
        "start",
        "POST /v1/chat/completions",
        "body {}",
        "end",
        "start",
        "GET /health",
        "end",
        "start",
        "POST /x",
        "end",
    ];
    assert_eq!(requests(&[bytes(stream)]), expected);
}

#[test]
fn chunks_with_extensions_trailers_both_cases_and_bare_lf() {
    let stream =
        format!("{OK_CHUNKED}a;x=\"y\"\r\n0123456789\r\n0A \r\nabcdefghij\r\n1\nz\n0\r\nT: 1\r\n\r\n");
    assert_eq!(responses(&[bytes(&stream)]), ["start", "200", "body 0123456789abcdefghijz", "end"]);
}

#[test]
fn responses_without_content() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let stream = format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{head}\
         HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n{head}hello"
    );
    let expected = [
        "start",
        "100",
        "end",
        "start",
        "103",
        "end",
        "start",
        "200",
        "end",
        "start",
        "204",
        "end",
        "start",
        "304",
        "end",
        "start",
        "200",
        "body hello",
        "end",
    ];
    assert_eq!(responses_to(&[ExpectedRequest::Head], &[bytes(&stream)]), expected);
}

#[test]
fn upgrades_end_http() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02";
    assert_eq!(responses(&[bytes(switching)]), ["start", "101", "upgraded"]);
    let tunnel = "HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01";
    assert_eq!(responses_to(&[ExpectedRequest::Connect], &[bytes(tunnel)]), ["start", "200", "upgraded"]);
    let refused = "HTTP/1.1 403 No\r\ncontent-length: 1\r\n\r\nx";
    assert_eq!(
        responses_to(&[ExpectedRequest::Connect], &[bytes(refused)]),
        ["start", "403", "body x", "end"]
    );
    let mut decoder = RequestDecoder::new();
    decoder.upgrade();
    decoder.push(bytes("GET / HTTP/1.1\r\n\r\n"), &mut |part| panic!("{part:?}"));
    assert_eq!(decoder.skipped(), 18);
}

#[test]
fn lengths_that_contradict() {
    let both =
        "POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    assert_eq!(requests(&[bytes(both)]), ["start", "POST /", "length_and_chunked", "body x", "end"]);
    let differ = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nrest";
    assert_eq!(responses(&[bytes(differ)]), ["start", "200", "length_invalid", "body rest", "end"]);
    let coding = "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nxxx";
    assert_eq!(requests(&[bytes(coding)]), ["start", "POST /", "transfer_coding_unknown"]);
}

#[test]
fn close_ends_a_response_without_length_and_truncates_one_with() {
    assert_eq!(
        responses(&[bytes("HTTP/1.0 200 OK\r\n\r\nab"), Input::Gap(3), bytes("c")]),
        ["start", "200", "body ab", "gap 3", "body c", "end"]
    );
    assert_eq!(
        responses(&[bytes("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab")]),
        ["start", "200", "body ab", "truncated"]
    );
    assert_eq!(responses(&[bytes("HTTP/1.1 20")]), ["start", "truncated"]);
}

#[test]
fn gaps_that_lengths_cover() {
    assert_eq!(
        requests(&[
            bytes("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"),
            Input::Gap(7),
            bytes("GET / HTTP/1.1\r\n\r\n")
        ]),
        ["start", "POST /", "body ab", "gap 7", "end", "start", "GET /", "end"]
    );
    let head = format!("{OK_CHUNKED}10\r\nab");
    assert_eq!(
        responses(&[bytes(&head), Input::Gap(10), bytes("klmn\r\n0\r\n\r\n")]),
        ["start", "200", "body ab", "gap 10", "body klmn", "end"]
    );
    // The gap reaches beyond the message: its end is known, what comes next is not.
    assert_eq!(
        requests(&[
            bytes("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"),
            Input::Gap(8),
            bytes("ET / HTTP/1.1\r\n\r\n"),
            bytes("GET /b HTTP/1.1\r\n\r\n")
        ]),
        ["start", "POST /", "body ab", "gap 7", "end", "framing_lost", "start", "GET /b", "end"]
    );
}

#[test]
fn framing_is_found_again_in_a_later_push() {
    let head = format!("{OK_CHUNKED}4\r\nab");
    // One call of several chunks, of which head and tail were kept; the tail ends the message.
    assert_eq!(
        responses(&[
            bytes(&head),
            Input::Gap(100),
            bytes("tail}\r\n0\r\n\r\n"),
            bytes("HTTP/1.1 204 x\r\n\r\n")
        ]),
        [
            "start",
            "200",
            "body ab",
            "gap 2",
            "framing_lost",
            "gap 98",
            "body tail}",
            "framing_found",
            "end",
            "start",
            "204",
            "end"
        ]
    );
    // The tail of a call whose last chunk ends with it, then calls that start with size lines.
    assert_eq!(
        responses(&[
            bytes(&head),
            Input::Gap(100),
            bytes("one\r\n"),
            bytes("3\r\ntwo\r\n"),
            bytes("0\r\n"),
            bytes("\r\n")
        ]),
        [
            "start",
            "200",
            "body ab",
            "gap 2",
            "framing_lost",
            "gap 98",
            "body one",
            "framing_found",
            "body two",
            "end"
        ]
    );
    // A tail with a whole chunk in it.
    assert_eq!(
        responses(&[
            bytes(&head),
            Input::Gap(100),
            bytes("x\r\n5\r\nwhole\r\n"),
            bytes("1\r\ny\r\n0\r\n\r\n")
        ]),
        [
            "start",
            "200",
            "body ab",
            "gap 2",
            "framing_lost",
            "gap 98",
            "body x",
            "framing_found",
            "body wholey",
            "end"
        ]
    );
    // What looks like a size line but leads nowhere is content.
    assert_eq!(
        responses(&[bytes(&head), Input::Gap(100), bytes("x\r\n5\r\nnot five bytes\r\n")]),
        [
            "start",
            "200",
            "body ab",
            "gap 2",
            "framing_lost",
            "gap 98",
            "body x\r\n5\r\nnot five bytes",
            "truncated"
        ]
    );
    // The end was lost; the next message starts a push.
    assert_eq!(
        responses(&[bytes(&head), Input::Gap(100), bytes("HTTP/1.1 204 x\r\n\r\n")]),
        ["start", "200", "body ab", "gap 2", "framing_lost", "gap 98", "start", "204", "end"]
    );
}

#[test]
fn a_head_with_a_hole_is_skipped() {
    assert_eq!(
        requests(&[bytes("POST /v1"), Input::Gap(9), bytes("\r\n\r\n{}"), bytes("GET / HTTP/1.1\r\n\r\n")]),
        ["start", "head_hole", "start", "GET /", "end"]
    );
}

#[test]
fn joins_at_the_next_head() {
    let mut parts = Vec::new();
    let mut decoder = ResponseDecoder::adopt();
    for input in [bytes("5\r\nHTTP/\r\n"), Input::Gap(7), bytes("\r\nHTTP/1.1 204 x\r\n\r\n")] {
        decoder.push(input, &mut |part| note(&mut parts, &part));
    }
    assert_eq!(parts, ["start", "204", "end"]);
    assert_eq!(decoder.skipped(), 10 + 7 + 2);
}

#[test]
fn garbage_is_refused_early_and_large_heads_at_the_limit() {
    assert_eq!(responses(&[bytes("\x16\x03\x01 TLS")]), ["head_malformed"]);
    assert_eq!(responses(&[bytes("HTTP/2 200\r\n\r\n")]), ["start", "head_malformed"]);
    assert_eq!(requests(&[bytes("GET\r\n\r\n")]), ["start", "head_malformed"]);
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n", "y".repeat(70_000));
    let ok = bytes("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(requests(&[bytes(&large), ok]), ["start", "head_too_large", "start", "GET /", "end"]);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(129));
    assert_eq!(requests(&[bytes(&many), ok]), ["start", "too_many_fields", "start", "GET /", "end"]);
    assert_eq!(
        responses(&[bytes(&format!("{OK_CHUNKED}zz\r\n")), bytes("1\r\nx\r\n0\r\n\r\n")]),
        ["start", "200", "chunk_malformed", "gap 4", "framing_found", "body x", "end"]
    );
}

#[test]
fn pending_requests_are_bounded_and_the_overflow_is_told() {
    let mut decoder = ResponseDecoder::new();
    for _ in 0..1025 {
        decoder.expect(ExpectedRequest::Other);
    }
    let mut parts = Vec::new();
    decoder.push(bytes("HTTP/1.1 204 x\r\n\r\n"), &mut |part| note(&mut parts, &part));
    assert_eq!(parts, ["too_many_pending", "start", "204", "end"]);
}

#[test]
fn places_parts_in_the_push() {
    let mut places = Vec::new();
    let text = "\r\nPOST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET";
    RequestDecoder::new().push_located(bytes(text), &mut |at, part| {
        if let Part::Body(body) = &part {
            assert_eq!(text.as_bytes()[at..].as_ptr(), body.as_ptr());
        }
        places.push(at);
    });
    // Start, head, body, end, start of the next.
    assert_eq!(places, [2, 40, 40, 42, 42]);
}

/// One response on the wire and its parts.
fn response() -> impl Strategy<Value = (String, Vec<String>)> {
    let body = "[a-z\\r\\n0-9]{1,40}";
    let length = body.prop_map(|body| {
        let parts = vec!["start".into(), "200".into(), format!("body {body}"), "end".into()];
        (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()), parts)
    });
    let chunked = (prop::collection::vec((body, "(;[a-z=]{1,5})?", any::<bool>()), 1..5), "(T: x\r\n)?")
        .prop_map(|(chunks, trailer)| {
            let mut wire = OK_CHUNKED.to_owned();
            let mut content = "body ".to_owned();
            for (data, extension, upper) in &chunks {
                let size = if *upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
                wire.extend([&size, extension.as_str(), "\r\n", data, "\r\n"]);
                content += data;
            }
            wire.extend(["0\r\n", &trailer, "\r\n"]);
            (wire, vec!["start".into(), "200".into(), content, "end".into()])
        });
    let empty = Just((
        "\r\nHTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        vec!["start".to_owned(), "204".to_owned(), "end".to_owned()],
    ));
    prop_oneof![length, chunked, empty]
}

/// Cuts `stream` at the given places, modulo its length.
fn cut(stream: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #[test]
    fn cutting_changes_nothing(
        messages in prop::collection::vec(response(), 1..5),
        places in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let wire: String = messages.iter().map(|(wire, _)| wire.as_str()).collect();
        let expected: Vec<String> = messages.into_iter().flat_map(|(_, parts)| parts).collect();
        prop_assert_eq!(&responses(&[bytes(&wire)]), &expected);
        let pieces = cut(wire.as_bytes(), &places);
        let inputs: Vec<Input<'_>> = pieces.iter().map(|piece| Input::Bytes(piece)).collect();
        prop_assert_eq!(&responses(&inputs), &expected);
        let single: Vec<Input<'_>> = wire.as_bytes().chunks(1).map(Input::Bytes).collect();
        prop_assert_eq!(&responses(&single), &expected);
    }

    #[test]
    fn nothing_panics_and_every_byte_has_a_place(
        messages in prop::collection::vec(response(), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..40),
        holes in prop::collection::vec((any::<usize>(), 0_u64..60), 0..6),
    ) {
        let mut wire: Vec<u8> = messages.iter().flat_map(|(wire, _)| wire.bytes()).collect();
        wire.extend_from_slice(&noise);
        let places: Vec<usize> = holes.iter().map(|(place, _)| *place).collect();
        let pieces = cut(&wire, &places);
        let mut request = RequestDecoder::new();
        let mut response = ResponseDecoder::new();
        let mut last = Vec::new();
        for (piece, hole) in pieces.iter().zip(holes.iter().map(|(_, hole)| *hole).chain([0])) {
            for input in [Input::Bytes(piece), Input::Gap(hole)] {
                let mut reached = 0;
                let mut sink = |at: usize, part: Part<'_>| {
                    assert!(at >= reached && at <= piece.len(), "{at} after {reached}: {part:?}");
                    reached = at;
                    if let Part::Body(body) = &part {
                        assert_eq!(piece[at..].as_ptr(), body.as_ptr());
                        reached += body.len();
                    }
                    note(&mut last, &part);
                };
                response.push_located(input, &mut sink);
                request.push(input, &mut |_| {});
            }
        }
        let mut ends = 0;
        response.finish(&mut |_| ends += 1);
        prop_assert!(ends <= 1);
    }

    #[test]
    fn a_hole_never_forges_content(
        messages in prop::collection::vec(response(), 1..5),
        from in any::<usize>(),
        hole in 1_usize..80,
    ) {
        // Whatever is reported as content or status before the first defect was so in the intact stream.
        let wire: Vec<u8> = messages.iter().flat_map(|(wire, _)| wire.bytes()).collect();
        let from = from % wire.len();
        let to = (from + hole).min(wire.len());
        let parts = responses(&[
            Input::Bytes(&wire[..from]), Input::Gap((to - from) as u64), Input::Bytes(&wire[to..]),
        ]);
        let intact: Vec<String> = messages.into_iter().flat_map(|(_, parts)| parts).collect();
        let framed = parts.iter().take_while(|part| !part.contains('_') && *part != "truncated");
        for (part, known) in framed.filter(|part| !part.starts_with("gap") && !part.starts_with("body"))
            .zip(intact.iter().filter(|part| !part.starts_with("body"))) {
            prop_assert_eq!(part, known);
        }
    }
}
