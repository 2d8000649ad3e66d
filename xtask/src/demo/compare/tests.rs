use serde_json::json;

use super::*;

fn streamed() -> (Value, Value) {
    let sent = json!({"request_id": "d-1", "api": "chat", "stream": true,
        "timings": {"prompt_n": 1, "cache_n": 36, "predicted_n": 16}});
    let record = json!({"request_id": "d-1", "outcome": "ok", "duration": 1.0, "ttft": 0.2, "tpot": 0.05,
        "token_events": 15, "tokens": {"input": 1, "input_cached": 36, "output": 16, "source": "engine"}});
    (sent, record)
}

fn wrong(sent: &Value, records: &[Value]) -> Vec<String> {
    Compared::of(std::slice::from_ref(sent), records).rows.remove(0).wrong
}

#[test]
fn equal_counts_pass() {
    let (sent, record) = streamed();
    let compared = Compared::of(&[sent], &[record]);
    assert_eq!(compared.summary(), "1 of 1 exchanges seen, token counts equal in 1");
    compared.verdict(1).unwrap();
    assert!(compared.verdict(2).is_err(), "a request that was never sent is one too few");
}

#[test]
fn a_missed_exchange_fails() {
    let (sent, mut record) = streamed();
    record["request_id"] = json!("other");
    assert_eq!(wrong(&sent, &[record]), ["missed"]);
}

#[test]
fn a_count_that_differs_fails() {
    let (sent, mut record) = streamed();
    record["tokens"]["output"] = json!(15);
    let compared = Compared::of(&[sent], &[record]);
    assert_eq!(compared.summary(), "1 of 1 exchanges seen, token counts equal in 0");
    assert!(compared.verdict(1).unwrap_err().to_string().contains("d-1: counts"));
}

#[test]
fn absent_and_invented_numbers_fail() {
    let (mut sent, mut record) = streamed();
    assert_eq!(wrong(&sent, &[record.clone(), record.clone()]), ["seen 2 times"]);
    sent["stream"] = json!(false);
    assert_eq!(
        wrong(&sent, &[record.clone()]),
        ["a plain response has no ttft", "a plain response has no tpot"]
    );
    sent["stream"] = json!(true);
    record["ttft"] = Value::Null;
    record["tokens"]["source"] = Value::Null;
    assert_eq!(wrong(&sent, &[record]), ["no ttft", "no source of the token counts"]);
}

#[test]
fn usage_comes_before_timings() {
    let (mut sent, _) = streamed();
    assert_eq!(engine_counts(&sent), Some((Counts { input: 37, output: 16 }, "timings")));
    sent["usage"] = json!({"prompt_tokens": 40, "completion_tokens": 17});
    assert_eq!(engine_counts(&sent), Some((Counts { input: 40, output: 17 }, "usage")));
    assert_eq!(engine_counts(&json!({})), None);
}
