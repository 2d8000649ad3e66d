use super::*;
use crate::exchange::{Gaps, GpuUse, Operation, Outcome, Role, Tokens, UsedBy};
use crate::llm::Timings;

mod happenings;

/// A streamed answer of 101 tokens to a prompt of 200: 0.1 s to the first token, 10 ms for each other one. Begins so many
/// seconds after midnight.
fn usual(number: usize, start: f64) -> RequestRecord {
    let mut record = RequestRecord {
        id: number.to_string(),
        node: "n1".to_owned(),
        namespace: "ml".to_owned(),
        pod: "llama-0".to_owned(),
        container: "server".to_owned(),
        pid: 7,
        operation: Some(Operation::Chat),
        model: Some("m".to_owned()),
        stream: true,
        status: Some(200),
        outcome: Some(Outcome::Ok),
        stalls: Some(0),
        client_stalls: Some(0),
        client_wait: Some(0.0),
        gaps: Some(Gaps { count: 100, p50: 0.01, p99: 0.011, max: 0.012 }),
        tokens: Tokens { input: Some(200), output: Some(101), ..Tokens::default() },
        ..RequestRecord::default()
    };
    record.queue.socket = Some(0.0001);
    let clocks = &mut record.clocks;
    (clocks.request_end, clocks.response_start) = (Some(0.001), Some(0.05));
    (clocks.first_token, clocks.last_token, clocks.response_end) = (Some(0.101), Some(1.101), Some(1.102));
    at(&mut record, start);
    record
}

fn at(record: &mut RequestRecord, start: f64) {
    let time = |seconds: f64| {
        jiff::Timestamp::from_nanosecond((seconds * 1e9) as i128 + 1_767_225_600_000_000_000)
            .unwrap()
            .to_string()
    };
    record.started_at = Some(time(start));
    record.ended_at = Some(time(start + record.clocks.response_end.unwrap_or(0.0)));
}

/// Moves all clocks after the one that `from` says.
fn delay(record: &mut RequestRecord, from: fn(&mut RequestRecord) -> Vec<&mut Option<f64>>, seconds: f64) {
    for clock in from(record) {
        *clock = clock.map(|time| time + seconds);
    }
}

fn after_upload(record: &mut RequestRecord) -> Vec<&mut Option<f64>> {
    let clocks = &mut record.clocks;
    vec![
        &mut clocks.response_start,
        &mut clocks.first_token,
        &mut clocks.last_token,
        &mut clocks.response_end,
    ]
}

fn from_upload(record: &mut RequestRecord) -> Vec<&mut Option<f64>> {
    let clocks = &mut record.clocks;
    vec![
        &mut clocks.request_end,
        &mut clocks.response_start,
        &mut clocks.first_token,
        &mut clocks.last_token,
        &mut clocks.response_end,
    ]
}

fn after_first(record: &mut RequestRecord) -> Vec<&mut Option<f64>> {
    vec![&mut record.clocks.last_token, &mut record.clocks.response_end]
}

/// Thirty usual ones, one every two seconds, and then this one; with its explanation.
fn explained(one: &RequestRecord, others: &[RequestRecord], happenings: &[Happening]) -> Explanation {
    let mut all: Vec<RequestRecord> = (0..30).map(|number| usual(number, 2.0 * number as f64)).collect();
    all.extend(others.iter().cloned());
    all.push(one.clone());
    let peers = Peers::new(all.iter().rev());
    explain(&Case { record: one, peers: &peers, happenings })
}

fn one() -> RequestRecord {
    usual(100, 100.0)
}

fn happening(at: f64, what: What, text: &str) -> Happening {
    Happening { at, until: None, what, text: text.to_owned() }
}

/// Others that are in flight from a second before it until long after.
fn crowd(number: usize) -> Vec<RequestRecord> {
    let other = |at_number| {
        let mut record = usual(200 + at_number, 99.0);
        delay(&mut record, after_first, 10.0);
        at(&mut record, 99.0);
        record
    };
    (0..number).map(other).collect()
}

#[test]
fn each_cause_has_its_layer() {
    let spans = |explanation: &Explanation, span| {
        explanation.parts.iter().find(|part| part.span == span).map(|part| part.seconds)
    };
    let verdict =
        |change: &dyn Fn(&mut RequestRecord), others: &[RequestRecord], happenings: &[Happening]| {
            let mut record = one();
            change(&mut record);
            at(&mut record, 100.0);
            explained(&record, others, happenings)
        };
    let nothing = verdict(&|_| {}, &[], &[]);
    assert_eq!(nothing.verdict.layer, Layer::Usual, "{nothing:?}");
    assert_eq!((nothing.compared, nothing.beside), (30, 0));
    assert_eq!(spans(&nothing, Span::Decode), Some(1.0));

    let upload = verdict(&|record| delay(record, from_upload, 3.0), &[], &[]);
    let socket = verdict(&|record| record.queue.socket = Some(2.0), &[], &[]);
    let accept = verdict(&|record| record.queue.accept = Some(2.0), &[], &[]);
    // What lay in the socket of a connection that nobody had accepted waited in the backlog, and once.
    let backlog = verdict(
        &|record| {
            (record.queue.accept, record.queue.socket) = (Some(2.0), Some(2.0001));
            record.clocks.accepted = Some(-0.0002);
        },
        &[],
        &[],
    );
    assert_eq!(spans(&backlog, Span::Socket), Some(0.0002));
    assert!(backlog.verdict.summary.contains("backlog"), "{:?}", backlog.verdict);
    let dispatch = verdict(
        &|record| {
            (record.role, record.queue.dispatch) = (Role::Gateway, Some(2.0));
            delay(record, after_upload, 2.0);
        },
        &[],
        &[],
    );
    let queue = verdict(
        &|record| {
            record.queue.engine = Some(2.0);
            delay(record, after_upload, 2.0);
        },
        &[],
        &[],
    );
    let prompt = verdict(
        &|record| {
            record.tokens.input = Some(8_200);
            delay(record, after_upload, 4.0);
        },
        &[],
        &[],
    );
    let answer = verdict(
        &|record| {
            record.tokens.output = Some(1_001);
            delay(record, after_first, 9.0);
        },
        &[],
        &[],
    );
    let slow = verdict(&|record| delay(record, after_first, 4.0), &[], &[]);
    let stall = verdict(
        &|record| {
            record.stalls = Some(1);
            record.gaps.as_mut().unwrap().max = 6.0;
            delay(record, after_first, 6.0);
        },
        &[],
        &[],
    );
    let reading = verdict(
        &|record| {
            record.client_wait = Some(5.0);
            delay(record, after_first, 5.0);
        },
        &[],
        &[],
    );
    let throttle = [happening(0.5, What::GpuThrottle, "GPU 0 was throttled: power cap")];
    let throttled = verdict(&|record| delay(record, after_first, 4.0), &[], &throttle);
    let begun = [happening(-20.0, What::ProcessStart, "llama-server (pid 9) began")];
    let cold = verdict(
        &|record| {
            record.pid = 9;
            delay(record, after_upload, 4.0);
        },
        &[],
        &begun,
    );
    let crowded = verdict(&|record| delay(record, after_first, 4.0), &crowd(6), &[]);
    let waited = verdict(&|record| delay(record, after_upload, 4.0), &crowd(6), &[]);
    for (layer, explanation) in [
        (Layer::Client, &upload),
        (Layer::Replica, &socket),
        (Layer::Replica, &accept),
        (Layer::Replica, &dispatch),
        (Layer::EngineQueue, &queue),
        (Layer::Prefill, &prompt),
        (Layer::Decode, &answer),
        (Layer::Decode, &slow),
        (Layer::Decode, &stall),
        (Layer::ClientReading, &reading),
        (Layer::Gpu, &throttled),
        (Layer::Restart, &cold),
        (Layer::Decode, &crowded),
        (Layer::EngineQueue, &waited),
    ] {
        assert_eq!(explanation.verdict.layer, layer, "{explanation:?}");
        assert!(explanation.verdict.confidence.is_some() && !explanation.verdict.evidence.is_empty());
    }
    for (explanation, words) in [
        (&prompt, "its prompt was long: 8200 tokens that were not cached, usually 200"),
        (&answer, "its answer was long: 1000 tokens generated, usually 100"),
        (&stall, "fell silent for 6.00 s"),
        (&crowded, "beside 6 others"),
        (&throttled, "power cap"),
        (&cold, "had just begun"),
        (&slow, "nothing that was seen tells why"),
    ] {
        assert!(explanation.verdict.summary.contains(words), "{:?}", explanation.verdict);
    }
}

#[test]
fn failures_explain_themselves_or_are_unknown() {
    let verdict = |outcome, happenings: &[Happening]| {
        let mut record = one();
        record.outcome = Some(outcome);
        record.status = Some(if outcome == Outcome::Rejected { 503 } else { 500 });
        explained(&record, &[], happenings).verdict
    };
    let ended = [happening(1.2, What::ProcessEnd, "llama-server (pid 7) was killed by SIGKILL")];
    let memory = [happening(
        1.0,
        What::OutOfMemory,
        "llama-server (pid 7) was killed: the container had no memory left",
    )];
    let xid = [happening(0.9, What::GpuError, "GPU 0: XID 79"), ended[0].clone()];
    // An answer that was complete is not explained by what came after it.
    let after = [happening(3.0, What::ProcessEnd, "llama-server (pid 7) ended")];
    let late = [happening(60.0, What::ProcessEnd, "llama-server (pid 7) ended")];
    for (outcome, happenings, layer) in [
        (Outcome::ClientError, &[][..], Layer::Client),
        (Outcome::Rejected, &[], Layer::Replica),
        (Outcome::ServerError, &[], Layer::Unknown),
        (Outcome::AbortedByServer, &ended, Layer::Restart),
        (Outcome::Unterminated, &memory, Layer::Restart),
        (Outcome::AbortedByServer, &xid, Layer::Gpu),
        (Outcome::AbortedByServer, &late, Layer::Unknown),
        (Outcome::AbortedByServer, &after, Layer::Restart),
        (Outcome::ServerError, &after, Layer::Unknown),
        (Outcome::AbortedByClient, &[], Layer::Client),
    ] {
        let verdict = verdict(outcome, happenings);
        assert_eq!(verdict.layer, layer, "{outcome:?}: {verdict:?}");
        assert_eq!(verdict.confidence.is_none(), layer == Layer::Unknown);
    }
}

#[test]
fn what_cannot_be_known_is_unknown() {
    // Two layers share it.
    let mut both = one();
    both.client_wait = Some(3.0);
    delay(&mut both, after_first, 3.0);
    delay(&mut both, from_upload, 3.0);
    at(&mut both, 100.0);
    let told = explained(&both, &[], &[]).verdict;
    assert_eq!(told.layer, Layer::Unknown, "{told:?}");
    assert_eq!(told.evidence.len(), 2, "{told:?}");
    // Nothing else ran, its prompt was as long as any, and the first token came late.
    let mut late = one();
    delay(&mut late, after_upload, 5.0);
    at(&mut late, 100.0);
    let told = explained(&late, &[], &[]).verdict;
    assert_eq!((told.layer, told.confidence), (Layer::Unknown, None), "{told:?}");
    assert!(told.evidence[0].contains("first token took 5.10 s, usually 100 ms"), "{told:?}");
    // Something was not seen of it.
    let mut partial = one();
    partial.partial = vec!["gap".to_owned()];
    assert_eq!(explained(&partial, &[], &[]).verdict.layer, Layer::Unknown);
    // Nothing to compare with.
    let alone = one();
    let peers = Peers::new(std::iter::once(&alone));
    let told = explain(&Case { record: &alone, peers: &peers, happenings: &[] });
    assert_eq!((told.verdict.layer, told.compared), (Layer::Unknown, 0), "{told:?}");
    // But what waited by the clock needs no comparison.
    let mut waited = one();
    waited.queue.socket = Some(4.0);
    let peers = Peers::new(std::iter::once(&waited));
    let told = explain(&Case { record: &waited, peers: &peers, happenings: &[] }).verdict;
    assert_eq!((told.layer, told.confidence), (Layer::Replica, Some(Confidence::High)), "{told:?}");
}

#[test]
fn a_client_that_left_had_waited() {
    // For the first token, which never came.
    let mut waited = one();
    waited.outcome = Some(Outcome::AbortedByClient);
    let clocks = &mut waited.clocks;
    (clocks.first_token, clocks.last_token, clocks.response_end) = (None, None, None);
    waited.client_left = Some(30.0);
    at(&mut waited, 100.0);
    let told = explained(&waited, &[], &[]).verdict;
    assert_eq!(told.layer, Layer::Unknown, "{told:?}");
    assert!(told.evidence[0].contains("first token took 30.00 s, usually 100 ms"), "{told:?}");
    assert!(told.evidence[1].contains("the client left after 30.00 s"), "{told:?}");
    let told = explained(&waited, &crowd(6), &[]).verdict;
    assert_eq!(told.layer, Layer::EngineQueue, "{told:?}");
    // With nothing to compare with, nobody knows whether that was long.
    let told = explain(&Case { record: &waited, peers: &Peers::new([&waited].into_iter()), happenings: &[] });
    assert_eq!(told.verdict.layer, Layer::Unknown, "{told:?}");
    // In the middle of tokens that came as they do.
    let mut bored = one();
    bored.outcome = Some(Outcome::AbortedByClient);
    (bored.clocks.last_token, bored.clocks.response_end, bored.client_left) =
        (Some(0.3), Some(0.31), Some(0.31));
    bored.tokens.output = Some(20);
    at(&mut bored, 100.0);
    let told = explained(&bored, &[], &[]).verdict;
    assert_eq!(told.layer, Layer::Client, "{told:?}");
}

#[test]
fn engines_that_report_tell_queue_from_prefill() {
    let report = |record: &mut RequestRecord, prefill: f64| {
        record.timings = Timings { prefill: Some(prefill), ..Timings::default() };
    };
    let mut all: Vec<RequestRecord> = (0..30).map(|number| usual(number, 2.0 * number as f64)).collect();
    for record in &mut all {
        report(record, 0.09);
    }
    let mut record = one();
    report(&mut record, 0.09);
    delay(&mut record, after_upload, 4.0);
    at(&mut record, 100.0);
    all.push(record.clone());
    // It waited, but for nobody that was seen.
    let told = explain(&Case { record: &record, peers: &Peers::new(all.iter().rev()), happenings: &[] });
    assert_eq!(told.verdict.layer, Layer::Unknown, "{told:?}");
    all.extend(crowd(1));
    let told = explain(&Case { record: &record, peers: &Peers::new(all.iter().rev()), happenings: &[] });
    assert_eq!(told.verdict.layer, Layer::EngineQueue, "{told:?}");
    assert_eq!(told.verdict.confidence, Some(Confidence::Medium));
    report(&mut record, 4.09);
    let told = explain(&Case { record: &record, peers: &Peers::new(all.iter().rev()), happenings: &[] });
    assert_eq!(told.verdict.layer, Layer::Prefill, "{told:?}");
}

#[test]
fn plain_answers() {
    let plain = |number, start| {
        let mut record = usual(number, start);
        record.stream = false;
        (record.clocks.first_token, record.clocks.last_token, record.gaps) = (None, None, None);
        (record.clocks.response_start, record.clocks.response_end) = (Some(1.1), Some(1.101));
        at(&mut record, start);
        record
    };
    let mut all: Vec<RequestRecord> = (0..30).map(|number| plain(number, 2.0 * number as f64)).collect();
    let mut record = plain(100, 100.0);
    record.tokens.output = Some(1_001);
    delay(&mut record, after_upload, 9.0);
    at(&mut record, 100.0);
    all.push(record.clone());
    let told = explain(&Case { record: &record, peers: &Peers::new(all.iter().rev()), happenings: &[] });
    assert_eq!(told.verdict.layer, Layer::Decode, "{told:?}");
    record.tokens.output = Some(101);
    let told = explain(&Case { record: &record, peers: &Peers::new(all.iter().rev()), happenings: &[] });
    assert_eq!(told.verdict.layer, Layer::Unknown, "{told:?}");
}

fn with_gpu(mut record: RequestRecord, uuid: &str) -> RequestRecord {
    record.gpu.push(GpuUse {
        uuid: uuid.into(),
        instance: None,
        by: UsedBy::Container,
        queue: None,
        prefill: None,
        decode: None,
        whole: None,
        apportioned_joules: None,
        apportioned_seconds: None,
    });
    record
}

#[test]
fn a_gpu_is_at_fault_only_as_long_as_it_was() {
    let throttled = |from: f64, until: Option<f64>| {
        let mut record = one();
        delay(&mut record, after_first, 4.0);
        at(&mut record, 100.0);
        let what = What::GpuThrottle;
        let one = Happening { at: from, until, what, text: "GPU 0 is throttled".into() };
        explained(&record, &[], &[one]).verdict
    };
    assert_eq!(throttled(-600.0, None).layer, Layer::Gpu);
    assert_eq!(throttled(-600.0, Some(4.0)).layer, Layer::Gpu);
    let short = throttled(-600.0, Some(1.0));
    assert_eq!(short.layer, Layer::Decode, "a second does not make four: {short:?}");
    // Others on the same GPU, in another container.
    let mut record = with_gpu(one(), "GPU-1");
    delay(&mut record, after_first, 4.0);
    at(&mut record, 100.0);
    let neighbours = |uuid: &str| -> Vec<RequestRecord> {
        let neighbour = |other| with_gpu(RequestRecord { pod: "other-0".into(), ..other }, uuid);
        crowd(4).into_iter().map(neighbour).collect()
    };
    let told = explained(&record, &neighbours("GPU-1"), &[]);
    assert_eq!((told.verdict.layer, told.beside, told.beside_on_gpu), (Layer::Gpu, 0, 4), "{told:?}");
    // Those of its own container are none of others.
    let own: Vec<RequestRecord> = crowd(4).into_iter().map(|other| with_gpu(other, "GPU-1")).collect();
    let told = explained(&record, &own, &[]);
    assert_eq!((told.verdict.layer, told.beside, told.beside_on_gpu), (Layer::Decode, 4, 0), "{told:?}");
    let told = explained(&record, &neighbours("GPU-2"), &[]);
    assert_eq!((told.verdict.layer, told.beside_on_gpu), (Layer::Decode, 0), "{told:?}");
}

#[test]
fn a_refusal_for_too_many_requests_may_be_the_clients_own() {
    let refused = |status, error: Option<&str>| {
        let mut record = one();
        (record.outcome, record.status) = (Some(Outcome::Rejected), Some(status));
        record.error_type = error.map(str::to_owned);
        explained(&record, &[], &[]).verdict.layer
    };
    assert_eq!(refused(503, None), Layer::Replica);
    assert_eq!(refused(429, None), Layer::Unknown);
    assert_eq!(refused(429, Some("rate_limit_exceeded")), Layer::Unknown);
    assert_eq!(refused(429, Some("overloaded_error")), Layer::Replica);
}

#[test]
fn a_long_answer_hides_no_long_wait() {
    let mut record = one();
    record.queue.engine = Some(0.5);
    delay(&mut record, after_upload, 0.5);
    record.tokens.output = Some(1_001);
    delay(&mut record, after_first, 9.0);
    at(&mut record, 100.0);
    let others: Vec<RequestRecord> = (0..60)
        .map(|number| {
            let mut other = usual(300 + number, 3.0 * number as f64 - 200.0);
            other.tokens.output = Some(1_001);
            delay(&mut other, after_first, 9.0);
            at(&mut other, 3.0 * number as f64 - 200.0);
            other
        })
        .collect();
    let told = explained(&record, &others, &[]).verdict;
    assert_eq!(told.layer, Layer::EngineQueue, "half a second of ten: {told:?}");
}

#[test]
fn whoever_came_later_does_not_make_a_process_warm() {
    let begun = [happening(-3.0, What::ProcessStart, "server (pid 9) is observed, 2.0 s after it began")];
    let mut cold = one();
    cold.pid = 9;
    delay(&mut cold, after_upload, 4.0);
    at(&mut cold, 100.0);
    let of_pid = |number, start| RequestRecord { pid: 9, ..usual(number, start) };
    let told = explained(&cold, &[of_pid(300, 120.0), of_pid(301, 130.0)], &begun).verdict;
    assert_eq!(told.layer, Layer::Restart, "{told:?}");
    // One that was served before it, of whatever kind.
    let earlier = RequestRecord { stream: false, ..of_pid(302, 90.0) };
    let told = explained(&cold, &[earlier], &begun).verdict;
    assert_eq!(told.layer, Layer::Unknown, "{told:?}");
}

#[test]
fn an_engine_with_fewer_others_than_usual_is_not_called_full() {
    let report = |record: &mut RequestRecord| {
        record.timings = Timings { prefill: Some(0.09), ..Timings::default() };
    };
    // Pairs that are in flight together.
    let mut all: Vec<RequestRecord> = (0..30)
        .flat_map(|number| {
            let start = 2.0 * number as f64;
            [
                usual(3 * number, start),
                usual(3 * number + 1, start + 0.01),
                usual(3 * number + 2, start + 0.02),
            ]
        })
        .collect();
    let mut late = usual(1_000, 100.0);
    delay(&mut late, after_upload, 4.0);
    at(&mut late, 100.0);
    all.push(late.clone());
    all.extend(crowd(1));
    all.iter_mut().for_each(report);
    report(&mut late);
    let told = explain(&Case { record: &late, peers: &Peers::new(all.iter().rev()), happenings: &[] });
    assert_eq!((told.verdict.layer, told.beside), (Layer::Unknown, 1), "{told:?}");
}
