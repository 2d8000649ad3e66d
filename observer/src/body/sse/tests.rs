//! The standard's rules and engines' streams as tables; cuts and holes as properties.

use proptest::prelude::*;

use super::*;

/// Pieces of a stream; `None` is a hole.
fn decode(inputs: &[Option<&[u8]>]) -> Vec<String> {
    let mut items = Vec::new();
    let mut decoder = SseDecoder::new();
    let mut note = |item: SseItem<'_>| {
        let text = |data: Piece<'_>| {
            let (before, after) = data.halves();
            let mark = if data.is_damaged() { "~" } else { "" };
            format!("{}{mark}{}", String::from_utf8_lossy(before), String::from_utf8_lossy(after))
        };
        items.push(match item {
            SseItem::Event { event, data } if data.is_damaged() => format!("damaged {event}|{}", text(data)),
            SseItem::Event { event, data } => format!("{event}|{}", text(data)),
            SseItem::Comment => "comment".to_owned(),
            SseItem::Incomplete { event, data } => format!("incomplete {event}|{}", text(data)),
            SseItem::Defect(defect) => defect.as_str().to_owned(),
        });
    };
    for input in inputs {
        match input {
            Some(bytes) => decoder.push(bytes, &mut note),
            None => decoder.gap(1),
        }
    }
    decoder.finish(&mut note);
    items
}

fn whole(stream: &str) -> Vec<String> {
    let items = decode(&[Some(stream.as_bytes())]);
    let single: Vec<Option<&[u8]>> = stream.as_bytes().chunks(1).map(Some).collect();
    assert_eq!(decode(&single), items, "byte by byte");
    items
}

#[test]
fn streams_of_engines() {
    // vLLM with a keep-alive, llama.cpp's ping, TGI without a space, Anthropic with event names.
    assert_eq!(
        whole(": keep-alive\n\ndata: {\"id\":1}\n\n:\n\ndata:{\"index\":1}\n\ndata: [DONE]\n\n"),
        ["comment", "|{\"id\":1}", "comment", "|{\"index\":1}", "|[DONE]"]
    );
    assert_eq!(
        whole("event: message_delta\ndata: {}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\ndata: x\n\n"),
        ["message_delta|{}", "ping|{\"type\": \"ping\"}", "|x"]
    );
}

#[test]
fn rules_of_the_standard() {
    for (stream, expected) in [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", &["|YHOO\n+2\n10"][..]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
            &["comment", "|first event", "|second event", "incomplete | third event"],
        ),
        ("data\n\ndata\ndata\n\ndata:", &["|", "|\n", "incomplete |"]),
        ("data:test\n\ndata: test\n\n", &["|test", "|test"]),
        ("data: a\r\rdata: b\r\n\r\ndata: c\n\r\ndata: d\r\n\r", &["|a", "|b", "|c", "|d"]),
        ("\u{feff}data: a\n\n\u{feff}data: b\n\n", &["|a"]),
        ("event: x\n\ndata: a\n\n", &["|a"]),
        ("event: x\nevent\ndata: a\n\n", &["|a"]),
        ("event: x\nevent: y\ndata: a\nretry: 10\nid: 3\ndatum: 1\ndat: 2\n\n", &["y|a"]),
        ("\n\n\r\n", &[]),
        ("data: [DONE]\n", &["incomplete |[DONE]"]),
        ("da", &["incomplete |"]),
        (": x", &[]),
    ] {
        assert_eq!(whole(stream), expected, "{stream:?}");
    }
}

#[test]
fn a_hole_damages_the_event_around_it_only() {
    let decode = |before: &str, after: &str| decode(&[Some(before.as_bytes()), None, Some(after.as_bytes())]);
    // In a value.
    assert_eq!(
        decode("data: 1\n\nevent: e\ndata: {\"a\"", "\"z\"}\n\ndata: 3\n\n"),
        ["|1", "body_hole", "damaged e|{\"a\"~\"z\"}", "|3"]
    );
    // Between events, ending in the middle of one, at a line end and at a boundary.
    assert_eq!(decode("data: 1\n\n", "{z}\n\ndata: 3\n\n"), ["|1", "body_hole", "damaged |~{z}", "|3"]);
    assert_eq!(decode("data: 1\n\n", "\n\ndata: 3\n\n"), ["|1", "body_hole", "|3"]);
    assert_eq!(decode("data: 1\n\n", "\ndata: 3\n\ndata: 4\n\n"), ["|1", "body_hole", "damaged |~3", "|4"]);
    // In a field name, in an event name, after the data line, and at the end.
    assert_eq!(decode("dat", "ta: 1\n\ndata: 2\n\n"), ["body_hole", "damaged |~ta: 1", "|2"]);
    assert_eq!(decode("event: ab", "c\ndata: 1\n\n"), ["body_hole", "damaged |~c\n1"]);
    assert_eq!(decode("data: 1\n", "data: 2\n\n"), ["body_hole", "damaged |1~data: 2"]);
    assert_eq!(decode("data: 1", ""), ["body_hole", "incomplete |1~"]);
}

#[test]
fn an_event_beyond_the_limit_is_damaged() {
    let long = "x".repeat(ITEM);
    assert_eq!(whole(&format!("data: {}\n\n", &long[5..])), [format!("|{}", &long[5..])]);
    let items = whole(&format!("data: {long}\ndata: end\n\ndata: 2\n\n"));
    assert_eq!(items, ["body_item_too_large".to_owned(), format!("damaged |{long}~\nend"), "|2".to_owned()]);
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "data: ?[a-z{}:]{0,12}",
        Just("data".to_owned()),
        "event: ?[a-z]{0,5}",
        ":[a-z]{0,5}",
        "(id|retry|dat|datas|eventx): ?[a-z]{0,5}",
        Just(String::new()),
        Just(String::new()),
    ]
}

fn stream() -> impl Strategy<Value = String> {
    prop::collection::vec((line(), prop::sample::select(vec!["\n", "\r", "\r\n"])), 0..24)
        .prop_map(|lines| lines.iter().flat_map(|(line, end)| [line.as_str(), end]).collect())
}

proptest! {
    #[test]
    fn cutting_changes_nothing(stream in stream(), places in prop::collection::vec(any::<usize>(), 0..10)) {
        let items = whole(&stream);
        let bytes = stream.as_bytes();
        let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces: Vec<Option<&[u8]>> = places.windows(2).map(|pair| Some(&bytes[pair[0]..pair[1]])).collect();
        prop_assert_eq!(decode(&pieces), items);
    }

    #[test]
    fn intact_events_are_events_of_the_stream(stream in stream(), from in any::<usize>(), hole in 1_usize..30) {
        let bytes = stream.as_bytes();
        let from = from % (bytes.len() + 1);
        let to = (from + hole).min(bytes.len());
        let intact = whole(&stream);
        for item in decode(&[Some(&bytes[..from]), None, Some(&bytes[to..])]) {
            if !["damaged", "incomplete", "comment", "body_hole"].iter().any(|word| item.starts_with(word)) {
                prop_assert!(intact.contains(&item), "{item:?} is not in {intact:?}");
            }
        }
    }

    #[test]
    fn nothing_panics(inputs in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..20)) {
        let inputs: Vec<Option<&[u8]>> = inputs.iter().map(Option::as_deref).collect();
        decode(&inputs);
    }
}
