//! The exporter against a fake receiver.

use std::{thread::JoinHandle, time::Duration};

use observer::{
    config::{OtlpConfig, OtlpProtocol},
    exchange::{Clocks, Outcome, RequestRecord, Tokens},
    export::otlp::{Cause, Otlp, Told},
};
use observer_tests::{
    agent::wait_for,
    receiver::{Answer, Authority, Receiver},
};

/// The wall clock of these tests.
fn wall() -> i64 {
    1_772_366_400_000_000_000
}

/// An exporter on a thread of its own.
struct Exporter {
    otlp: Otlp,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    fn start(config: &OtlpConfig) -> Self {
        let otlp = Otlp::new(config, wall).expect("settings").expect("a receiver");
        let sending = otlp.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(sending.run());
        });
        Self { otlp, thread: Some(thread) }
    }

    fn traces(&self) -> Told {
        let told = self.otlp.told().into_iter().find(|told| told.signal == "traces").expect("traces");
        let known = told.sent + told.dropped.values().sum::<u64>() + told.waiting + told.under_way;
        assert_eq!(told.taken, known, "{told:?}");
        told
    }

    fn dropped(&self, cause: Cause) -> u64 {
        self.traces().dropped.get(&cause).copied().unwrap_or(0)
    }

    fn put(&self, number: u32) {
        self.otlp.request(&record(number), None);
    }

    fn wait_sent(&self, count: u64) {
        wait_for("what is sent", || (self.traces().sent >= count).then_some(()));
    }

    fn end(mut self) {
        self.otlp.close();
        self.thread.take().expect("ended once").join().expect("it does not panic");
    }
}

fn record(number: u32) -> RequestRecord {
    RequestRecord {
        id: format!("{number:x}-0"),
        node: "n".to_owned(),
        container: "llama".to_owned(),
        pid: 7,
        process: "llama-server".to_owned(),
        started_at: Some("2026-03-01T11:59:00.000000001Z".to_owned()),
        ended_at: Some("2026-03-01T11:59:09Z".to_owned()),
        model: Some("m".to_owned()),
        outcome: Some(Outcome::Ok),
        clocks: Clocks { first_token: Some(0.25), response_end: Some(1.5), ..Clocks::default() },
        tokens: Tokens { input: Some(12), output: Some(41), ..Tokens::default() },
        ..RequestRecord::default()
    }
}

fn to(receiver: &Receiver, protocol: OtlpProtocol) -> OtlpConfig {
    OtlpConfig { endpoint: Some(receiver.url().parse().expect("a URL")), protocol, ..OtlpConfig::default() }
}

const BOTH: [OtlpProtocol; 2] = [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf];

#[test]
fn spans_arrive_over_both_protocols_compressed_or_not() {
    for protocol in BOTH {
        for gzip in [true, false] {
            let receiver = Receiver::start();
            let exporter = Exporter::start(&OtlpConfig { gzip, ..to(&receiver, protocol) });
            exporter.put(1);
            exporter.put(2);
            exporter.wait_sent(2);
            let spans = receiver.spans();
            assert_eq!(spans.len(), 2);
            let span = &spans[0];
            assert_eq!(span.resource["service.name"], "llama");
            assert_eq!(span.attributes["gen_ai.usage.output_tokens"], "41");
            assert_eq!(span.item.end_time_unix_nano - span.item.start_time_unix_nano, 1_500_000_000);
            let came = receiver.came();
            assert_eq!(came.len(), 1, "together");
            let encoding = match protocol {
                OtlpProtocol::Grpc => "grpc-encoding",
                OtlpProtocol::HttpProtobuf => "content-encoding",
            };
            assert_eq!(came[0].headers.get(encoding).is_some_and(|value| value == "gzip"), gzip);
            exporter.end();
        }
    }
}

#[test]
fn over_tls_to_whom_the_named_certificate_vouches_for() {
    let (authority, other) = (Authority::new(), Authority::new());
    let file = tempfile::NamedTempFile::new().expect("a file");
    for protocol in BOTH {
        let receiver = Receiver::with_tls(&authority);
        let url = format!("https://{}", receiver.address).parse().expect("a URL");
        let config = OtlpConfig {
            endpoint: Some(url),
            ca_file: Some(file.path().to_owned()),
            ..to(&receiver, protocol)
        };
        authority.write(file.path());
        let exporter = Exporter::start(&config);
        exporter.put(1);
        exporter.wait_sent(1);
        assert_eq!(receiver.spans().len(), 1);
        exporter.end();

        other.write(file.path());
        let exporter = Exporter::start(&config);
        exporter.put(2);
        wait_for("a failure", || (exporter.traces().retries > 0).then_some(()));
        assert_eq!((exporter.traces().sent, receiver.spans().len()), (0, 1));
        exporter.end();
    }
}

#[test]
fn headers_come_from_settings_and_from_a_file_that_is_read_again() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    for protocol in BOTH {
        let receiver = Receiver::start();
        std::fs::write(file.path(), "# who\nauthorization=Bearer one\n").expect("the file");
        let exporter = Exporter::start(&OtlpConfig {
            headers: vec![("x-scope-orgid".to_owned(), "ml".to_owned())],
            headers_file: Some(file.path().to_owned()),
            ..to(&receiver, protocol)
        });
        exporter.put(1);
        exporter.wait_sent(1);
        std::fs::write(file.path(), "authorization: Bearer two\n").expect("the file");
        exporter.put(2);
        exporter.wait_sent(2);
        let came = receiver.came();
        assert_eq!(came[0].headers["authorization"], "Bearer one");
        assert_eq!(came[1].headers["authorization"], "Bearer two");
        assert!(came.iter().all(|came| came.headers["x-scope-orgid"] == "ml"));
        exporter.end();
    }
}

#[test]
fn a_token_is_presented_and_read_again() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "one\n").expect("the file");
    let receiver = Receiver::start();
    let exporter = Exporter::start(&OtlpConfig {
        token_file: Some(file.path().to_owned()),
        ..to(&receiver, OtlpProtocol::HttpProtobuf)
    });
    exporter.put(1);
    exporter.wait_sent(1);
    // Without a token nothing is sent: it would be refused, and given up.
    std::fs::write(file.path(), " \n").expect("the file");
    exporter.put(2);
    wait_for("a failure", || (exporter.traces().retries > 0).then_some(()));
    std::fs::write(file.path(), "two").expect("the file");
    exporter.wait_sent(2);
    let presented: Vec<_> =
        receiver.came().iter().map(|came| came.headers["authorization"].clone()).collect();
    assert_eq!(presented, ["Bearer one", "Bearer two"]);
    exporter.end();
}

#[test]
fn another_observer_is_asked_again_until_it_knows_who_this_is() {
    for (insists, sent, refused) in [(true, 1, None), (false, 0, Some(1))] {
        let receiver = Receiver::start();
        receiver.order([401, 403, 404].map(|status| Answer::Status(status, &[])));
        let exporter = Exporter::start(&OtlpConfig { insists, ..to(&receiver, OtlpProtocol::HttpProtobuf) });
        exporter.put(1);
        wait_for("the end of it", || {
            let told = exporter.traces();
            (told.waiting == 0 && told.under_way == 0).then_some(())
        });
        let told = exporter.traces();
        assert_eq!((told.sent, told.dropped.get(&Cause::Refused).copied()), (sent, refused));
        exporter.end();
    }
}

#[test]
fn what_may_arrive_later_is_sent_again_and_nothing_else() {
    let (again, refused): ([Answer; 4], [Answer; 2]) = (
        [
            Answer::Status(503, &[("retry-after", "1")]),
            Answer::Status(429, &[]),
            Answer::Code(14),
            Answer::Code(4),
        ],
        [Answer::Status(400, &[]), Answer::Code(3)],
    );
    for (at, answer) in again.into_iter().enumerate() {
        let protocol = BOTH[usize::from(at < 2)];
        let receiver = Receiver::start();
        receiver.order([answer.clone()]);
        let exporter = Exporter::start(&to(&receiver, protocol));
        exporter.put(1);
        exporter.wait_sent(1);
        assert_eq!((exporter.traces().retries, receiver.came().len()), (1, 2), "{answer:?}");
        exporter.end();
    }
    for (answer, protocol) in refused.into_iter().zip([OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc]) {
        let receiver = Receiver::start();
        receiver.order([answer.clone()]);
        let exporter = Exporter::start(&to(&receiver, protocol));
        exporter.put(1);
        wait_for("the end of it", || (exporter.dropped(Cause::Refused) == 1).then_some(()));
        exporter.put(2);
        exporter.wait_sent(1);
        assert_eq!((exporter.traces().retries, receiver.came().len()), (0, 2), "{answer:?}");
        exporter.end();
    }
}

#[test]
fn what_the_receiver_rejects_of_a_request_is_counted() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        receiver.order([Answer::Partial(2)]);
        let exporter = Exporter::start(&to(&receiver, protocol));
        for number in 0..3 {
            exporter.put(number);
        }
        exporter.wait_sent(1);
        assert_eq!((exporter.traces().sent, exporter.dropped(Cause::Rejected)), (1, 2));
        assert_eq!(receiver.came().len(), 1, "it is not sent again");
        exporter.end();
    }
}

#[test]
fn a_request_that_is_too_large_is_halved_until_it_fits() {
    let receiver = Receiver::start();
    receiver.order([Answer::Status(413, &[]), Answer::Status(413, &[])]);
    let exporter = Exporter::start(&to(&receiver, OtlpProtocol::HttpProtobuf));
    for number in 0..8 {
        exporter.put(number);
    }
    exporter.wait_sent(8);
    assert_eq!(receiver.spans().len(), 8);
    receiver.always(Some(Answer::Status(413, &[])));
    exporter.put(9);
    wait_for("the end of it", || (exporter.dropped(Cause::TooLarge) == 1).then_some(()));
    exporter.end();
}

#[test]
fn a_receiver_that_is_away_costs_what_does_not_fit_and_no_more() {
    let receiver = Receiver::start();
    let (url, config) = (receiver.url(), to(&receiver, OtlpProtocol::HttpProtobuf));
    let address = receiver.stop();
    let exporter = Exporter::start(&OtlpConfig { queue: 1 << 20, ..config });
    let all = 5000_u32;
    for number in 0..all {
        exporter.put(number);
        if number % 500 == 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let told = exporter.traces();
    assert!(told.bytes <= 1 << 20 && told.waiting > 100, "{told:?}");
    assert!(exporter.dropped(Cause::QueueFull) > 1000, "{told:?}");
    let receiver = Receiver::at(address, None);
    assert_eq!(receiver.url(), url);
    wait_for("the rest", || (exporter.traces().waiting + exporter.traces().under_way == 0).then_some(()));
    let told = exporter.traces();
    assert_eq!(told.sent + exporter.dropped(Cause::QueueFull), u64::from(all), "{told:?}");
    let spans = receiver.spans();
    assert_eq!(spans.len() as u64, told.sent);
    let ids: std::collections::BTreeSet<_> =
        spans.iter().map(|span| span.attributes["llm.record.id"].clone()).collect();
    assert_eq!(ids.len(), spans.len(), "each once");
    assert!(ids.contains(&format!("{:x}-0", all - 1)), "the oldest went, the newest are there");
    exporter.end();
}

#[test]
fn a_receiver_that_is_not_there_yet_is_waited_for() {
    for protocol in BOTH {
        let receiver = Receiver::start();
        let config = to(&receiver, protocol);
        let address = receiver.stop();
        let exporter = Exporter::start(&config);
        exporter.put(1);
        wait_for("a failure", || (exporter.traces().retries > 0).then_some(()));
        let receiver = Receiver::at(address, None);
        exporter.wait_sent(1);
        assert_eq!(receiver.spans().len(), 1);
        exporter.end();
    }
}

#[test]
fn a_receiver_that_hangs_stops_nobody_and_the_end_does_not_wait_for_it() {
    let receiver = Receiver::start();
    receiver.always(Some(Answer::Hang));
    let exporter = Exporter::start(&to(&receiver, OtlpProtocol::Grpc));
    exporter.put(1);
    wait_for("the request", || (!receiver.came().is_empty()).then_some(()));
    let begun = observer::capture::monotonic();
    for number in 0..10_000 {
        exporter.put(number);
    }
    let took = Duration::from_nanos(observer::capture::monotonic() - begun);
    assert!(took < Duration::from_secs(2), "10,000 were handed in within {took:?}");
    assert_eq!(exporter.traces().taken, 10_001);
}
