//! Sequences that were taken wrongly once, on the way here or before, each with what must be made of it.

use observer::exchange::{Outcome, RequestRecord, Tokens};
use observer_ebpf::{Exit, Kind, Record, State, exit_flags};
use observer_tests::script::Seen;

use crate::wire::Wire;

const CHAT: &str = "POST /v1/chat/completions HTTP/1.1\r\n";
const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const DONE: &str = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

/// Words for whole messages.
trait Exchanges {
    fn ask(&mut self, name: &str) -> &mut Self;
    fn answer(&mut self, model: &str) -> &mut Self;
}

impl Exchanges for Wire {
    fn ask(&mut self, name: &str) -> &mut Self {
        self.read(request(name))
    }

    fn answer(&mut self, model: &str) -> &mut Self {
        self.write(answer(model))
    }
}

fn request(name: &str) -> String {
    format!("{CHAT}X-Request-Id: {name}\r\nContent-Length: 2\r\n\r\n{{}}")
}

fn answer(model: &str) -> String {
    let text = format!(r#"{{"model":"{model}","choices":[]}}"#);
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
}

fn named<'a>(seen: &'a Seen, name: &str) -> &'a RequestRecord {
    let mut found = seen.records.iter().filter(|record| record.request_id.as_deref() == Some(name));
    found.next().unwrap_or_else(|| panic!("{name} is not among {:#?}", seen.records))
}

#[test]
fn a_request_whose_first_byte_is_read_alone_is_seen() {
    let mut wire = Wire::new();
    let request = request("a");
    wire.read(&request[..1]).read(&request[1..]).answer("a").close();
    assert_eq!(named(&wire.seen(), "a").outcome, Some(Outcome::Ok));
}

#[test]
fn a_connection_whose_first_record_is_lost_is_joined_later() {
    let mut wire = Wire::new();
    wire.ask("a").lose().read("{\"model\"").answer("a").ask("b").answer("b").ask("c").answer("c").close();
    let seen = wire.seen();
    assert!(!named(&seen, "b").is_complete());
    assert!(named(&seen, "c").is_complete());
}

#[test]
fn an_interim_response_tells_nothing_about_the_request() {
    let head = format!("{CHAT}X-Request-Id: a\r\nExpect: 100-continue\r\nContent-Length: 27\r\n\r\n");
    let mut wire = Wire::new();
    wire.read(&head).write("HTTP/1.1 100 Con").write("tinue\r\n\r\n");
    let cut = wire.seen();
    assert_eq!(named(&cut, "a").clocks.response_end, None);
    wire.read(r#"{"model":"m","stream":true}"#).write(STREAM).write(DONE).close();
    let seen = wire.seen();
    assert_eq!(seen.requested[&named(&seen, "a").id], (true, Some("m".into())));
}

#[test]
fn a_lost_response_does_not_shift_those_after_it() {
    let mut wire = Wire::new();
    wire.ask("a").answer("a").lose().ask("b").answer("b").ask("c").answer("c").ask("d").answer("d").close();
    let seen = wire.seen();
    assert!(!named(&seen, "a").is_complete());
    for name in ["b", "c", "d"] {
        assert_eq!(named(&seen, name).model.as_deref(), Some(name));
    }
    assert!(named(&seen, "c").is_complete() && named(&seen, "d").is_complete());
}

#[test]
fn a_lost_request_marks_those_that_may_be_paired_with_its_response() {
    let mut wire = Wire::new();
    wire.ask("a").lose().ask("b").answer("a").answer("b").close();
    assert!(!named(&wire.seen(), "b").is_complete());
}

#[test]
fn a_request_without_an_end_may_hide_others() {
    let head = format!("{CHAT}X-Request-Id: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut wire = Wire::new();
    wire.read(&head).read("2\r\n{}\r\n").lose().read("0\r\nX: 1\r\n\r\n").answer("a");
    wire.ask("b").lose().ask("c").answer("b").answer("c").close();
    assert!(!named(&wire.seen(), "c").is_complete());
}

#[test]
fn a_response_settles_nothing_while_requests_are_not_understood() {
    let head = format!("{CHAT}X-Request-Id: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut wire = Wire::new();
    wire.read(&head).read("0\r\n\r\n").hole(0).answer("a").read(&head).hole(0).read("2\r\n{}\r\n");
    wire.read("0\r\n\r\n").ask("c").answer("b").answer("c").close();
    assert!(!named(&wire.seen(), "c").is_complete());
}

#[test]
fn the_rest_of_an_unknown_response_belongs_to_nobody() {
    let mut wire = Wire::new();
    wire.ask("a").lose().write(STREAM).ask("b").write(DONE).answer("b").close();
    let seen = wire.seen();
    let record = named(&seen, "b");
    assert_eq!((record.model.as_deref(), record.response_bytes), (Some("b"), answer("b").len() as u64));
}

#[test]
fn a_joined_connection_pairs_in_order() {
    let mut wire = Wire::new();
    wire.lose().read(format!("{}HEAD /health HTTP/1.1\r\n\r\n", request("a")));
    wire.answer("a").write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").ask("b").answer("b").close();
    let seen = wire.seen();
    assert_eq!(named(&seen, "a").model.as_deref(), Some("a"));
    assert_eq!(named(&seen, "b").model.as_deref(), Some("b"));
}

#[test]
fn a_joined_connection_forgets_requests_whose_responses_it_cannot_join() {
    let mut wire = Wire::new();
    wire.lose().read(format!("{}HEAD /health HTTP/1.1\r\n\r\n", request("a")));
    wire.write("H").write(&answer("a")[1..]).write("TTP/1.1 200 OK\r\n\r\n");
    wire.ask("b").answer("b").ask("c").answer("c").ask("d").answer("d").close();
    let seen = wire.seen();
    for name in ["c", "d"] {
        assert_eq!(named(&seen, name).model.as_deref(), Some(name));
    }
}

#[test]
fn a_response_that_no_record_tells_of_is_not_an_abort() {
    let mut wire = Wire::new();
    wire.lose().ask("a").answer("a").lose().close();
    let seen = wire.seen();
    assert_eq!(named(&seen, "a").outcome, Some(Outcome::Unknown));
    assert!(!named(&seen, "a").is_complete());
}

#[test]
fn the_last_state_tells_what_was_lost_before_it() {
    let mut wire = Wire::new();
    wire.ask("a").write(STREAM).write(DONE).lose().close().lose().state(9, State::CLOSE);
    assert!(!named(&wire.seen(), "a").is_complete());
}

#[test]
fn a_state_may_overtake_the_record_of_a_call() {
    let mut wire = Wire::new();
    wire.ask("a").write(STREAM).write(DONE).state(State::ESTABLISHED, State::CLOSE_WAIT).close();
    let at = wire.records.len() - 2;
    wire.records.swap(at, at - 1);
    let seen = wire.seen();
    assert_eq!(named(&seen, "a").outcome, Some(Outcome::Ok));
    assert_eq!((named(&seen, "a").is_complete(), seen.stats.lost_bytes), (true, 0));
}

#[test]
fn an_exit_does_not_tell_how_far_a_response_came() {
    let mut wire = Wire::new();
    wire.ask("a").write(STREAM);
    let header = wire.header(Kind::Exit);
    wire.other(Record::Exit(Exit { header, flags: exit_flags::GROUP_DEAD, status: 0 }));
    let seen = wire.seen();
    assert_eq!(named(&seen, "a").outcome, Some(Outcome::AbortedByServer));
    assert_eq!(named(&seen, "a").partial, ["end_not_seen"]);
}

#[test]
fn counts_with_a_hole_in_them_are_no_counts() {
    let usage = r#"{"usage":{"prompt_tokens":90,"prompt_tokens_details":{"cached_tokens":80}}}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        usage.len()
    );
    let mut wire = Wire::new();
    wire.ask("a").write(format!("{head}{usage}")).hole(head.len() + 30).close();
    assert_eq!(named(&wire.seen(), "a").tokens, Tokens::default());
}

#[test]
fn an_ignored_connection_is_looked_at_again() {
    let mut wire = Wire::new();
    // The answer to the first request is on its way before the verdict is known to the kernel side.
    wire.read("GET /icon HTTP/1.1\r\n\r\n").write("HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n");
    wire.read("GET /icon HTTP/1.1\r\n\r\n").lose().write("HTTP/1.1 404 X\r\n\r\n").lose();
    wire.ask("a").answer("a").close();
    let seen = wire.seen();
    assert!(named(&seen, "a").is_complete(), "{:?}", named(&seen, "a"));
    assert_eq!(seen.stats.lost_bytes, 0);
}

#[test]
fn a_close_within_a_document_is_an_abort() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    let mut wire = Wire::new();
    wire.ask("a").write(head).write("{\"model\":").close();
    assert_eq!(named(&wire.seen(), "a").outcome, Some(Outcome::AbortedByServer));
    let mut wire = Wire::new();
    wire.ask("a").write(head).write("{\"model\":\"m\"}").state(State::ESTABLISHED, State::CLOSE_WAIT).close();
    assert_eq!(named(&wire.seen(), "a").outcome, Some(Outcome::Ok));
}

#[test]
fn an_error_without_a_type_is_named_by_its_code() {
    let text = r#"{"error":{"message":"m","type":null,"code":"context_length_exceeded"}}"#;
    let head =
        format!("HTTP/1.1 400 X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
    let mut wire = Wire::new();
    wire.ask("a").write(format!("{head}{text}")).close();
    assert_eq!(named(&wire.seen(), "a").error_type.as_deref(), Some("context_length_exceeded"));
}

#[test]
fn whatever_started_finishes_when_a_connection_is_given_up() {
    let mut wire = Wire::new();
    for number in 0..300 {
        wire.ask(&number.to_string());
    }
    wire.close();
    let seen = wire.seen();
    assert_eq!((seen.unfinished, seen.records.len()), (0, 256));
    assert!(seen.records.iter().all(|record| !record.is_complete()));
}

#[test]
fn positions_at_the_end_of_numbers_are_taken_in() {
    let mut wire = Wire::new();
    wire.positions = [u64::MAX - 3; 2];
    wire.ask("a").answer("a").read("abc").write("abc").close();
    assert_eq!(wire.seen().stats.received, 6);
}
