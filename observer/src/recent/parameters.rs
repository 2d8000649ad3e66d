//! Parameters of a URL become a [`Query`], or the reason why they do not.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::pattern::Pattern;
use super::query::{Asked, MOST, Moment, Order, Query};
use crate::exchange::{Operation, Outcome};
use crate::timeline::{Expression, Kind, Level, Stream, nanos, words};

/// A parameter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParameter {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |text: &str| text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let (name, value): (String, String) = (shown(&self.name), shown(&self.value));
        write!(f, "`{name}` = {value:?} cannot be used; {}", self.remedy)
    }
}

/// Requests that are explained unless another number is asked for.
const EXPLAINED: usize = 10;

struct Parameter {
    name: &'static str,
    /// Of which questions.
    of: &'static [Asked],
    remedy: &'static str,
    /// Whether the value can be used.
    set: fn(&mut Query, &str) -> Option<()>,
}

const ALL: &[Asked] = &[Asked::Requests, Asked::Top, Asked::Logs, Asked::Events, Asked::Explain];
/// All whose answers are cut at the same number.
const MANY: &[Asked] = &[Asked::Requests, Asked::Top, Asked::Logs, Asked::Events];
/// Requests, and who is served.
const SERVED: &[Asked] = &[Asked::Requests, Asked::Top, Asked::Explain];
const REQUESTS: &[Asked] = &[Asked::Requests, Asked::Explain];
const EXPLAIN: &[Asked] = &[Asked::Explain];
/// Whatever has a time.
const TIMED: &[Asked] = &[Asked::Requests, Asked::Logs, Asked::Events, Asked::Explain];
const FOLLOWED: &[Asked] = &[Asked::Requests, Asked::Logs, Asked::Events];
const ROWS: &[Asked] = &[Asked::Logs, Asked::Events];
const EVENTS: &[Asked] = &[Asked::Events];
const LOGS: &[Asked] = &[Asked::Logs];

const TIME: &str = "write a time ago, such as 15m or 2h30m, or a moment, such as 2026-03-01T12:00:00Z";
const NAME: &str = "write a name, or a pattern of names with * and ?";
const MODEL: &str = "write a part of the name, or a pattern of the whole name with * and ?";
const OUTCOME: &str = "write one or more, with commas between, of ok, client_error, rejected, server_error, stream_error, \
                       aborted_by_client, aborted_by_server, unterminated, unknown";
const OPERATION: &str = "write one or more, with commas between, of chat, text_completion, generate_content, embeddings, \
                         rerank, score, classify, pooling, infer, unknown";
const STATUS: &str = "write one or more, with commas between, such as 429 or 5xx";
const TEXT: &str = "write the whole of it, as the record has it";
const SECONDS: &str = "write a time, such as 500ms, 2s or 1m30s";
const SWITCH: &str = "write true or false";
const LIMIT: &str = "write a whole number from 1 to 5000";
const FEW: &str = "write a whole number from 1 to 100";
const ORDER: &str = "write newest or oldest";
const KIND: &str =
    "write one or more, with commas between, of process, kubernetes, gpu, stall, observer, log, request";
const LEVEL: &str = "write one or more, with commas between, of trace, debug, info, warn, error, fatal";
const STREAM: &str = "write stdout or stderr";
const WORDS: &str = "write one word or more, of letters and digits";
const REGEX: &str = "write a regular expression such as (?i)out of memory, without look-around";
const CONTEXT: &str = "write a whole number from 0 to 20";
const BUCKET: &str = "write a time from 1s, such as 1m or 1h";
const CURSOR: &str = "write what an answer gave as `next`";

const PARAMETERS: &[Parameter] = &[
    of(ALL, "since", TIME, |q, v| put(&mut q.since, moment(v))),
    of(TIMED, "until", TIME, |q, v| put(&mut q.until, moment(v))),
    of(ALL, "node", NAME, |q, v| put(&mut q.node, some(v).map(Pattern::name))),
    of(ALL, "namespace", NAME, |q, v| put(&mut q.namespace, Some(Pattern::name(v)))),
    of(ALL, "pod", NAME, |q, v| put(&mut q.pod, Some(Pattern::name(v)))),
    of(ALL, "container", NAME, |q, v| put(&mut q.container, some(v).map(Pattern::name))),
    of(SERVED, "model", MODEL, |q, v| put(&mut q.model, some(v).map(Pattern::model))),
    of(REQUESTS, "outcome", OUTCOME, |q, v| set(&mut q.outcomes, list(v, outcome))),
    of(REQUESTS, "operation", OPERATION, |q, v| set(&mut q.operations, list(v, operation))),
    of(REQUESTS, "status", STATUS, |q, v| set(&mut q.statuses, list(v, status))),
    of(TIMED, "id", TEXT, |q, v| put(&mut q.id, some(v).map(str::to_owned))),
    of(REQUESTS, "request", TEXT, |q, v| put(&mut q.request, some(v).map(str::to_owned))),
    of(TIMED, "request_id", TEXT, |q, v| put(&mut q.request_id, some(v).map(str::to_owned))),
    of(TIMED, "trace_id", TEXT, |q, v| put(&mut q.trace_id, some(v).map(str::to_ascii_lowercase))),
    of(REQUESTS, "min_ttft", SECONDS, |q, v| put(&mut q.min_ttft, seconds(v))),
    of(REQUESTS, "min_duration", SECONDS, |q, v| put(&mut q.min_duration, seconds(v))),
    of(REQUESTS, "slow", SWITCH, |q, v| set(&mut q.slow, v.parse().ok())),
    of(EVENTS, "kind", KIND, |q, v| set(&mut q.kinds, list(v, Kind::of))),
    of(ROWS, "workload", NAME, |q, v| put(&mut q.workload, some(v).map(Pattern::name))),
    of(ROWS, "level", LEVEL, |q, v| set(&mut q.levels, list(v, Level::of))),
    of(LOGS, "stream", STREAM, |q, v| put(&mut q.stream, Stream::of(v))),
    of(ROWS, "words", WORDS, |q, v| set(&mut q.wanted.words, some_words(v))),
    of(ROWS, "phrase", WORDS, |q, v| set(&mut q.wanted.phrase, some_words(v))),
    of(ROWS, "regex", REGEX, |q, v| put(&mut q.wanted.expression, some(v).and_then(Expression::of))),
    of(LOGS, "context", CONTEXT, |q, v| set(&mut q.context, v.parse().ok().filter(|rows| *rows <= 20))),
    of(ROWS, "bucket", BUCKET, |q, v| put(&mut q.bucket, duration(v).filter(|span| *span >= 1_000_000_000))),
    of(MANY, "limit", LIMIT, |q, v| put(&mut q.limit, limit(v))),
    of(EXPLAIN, "limit", FEW, |q, v| put(&mut q.limit, limit(v).filter(|limit| *limit <= 100))),
    of(TIMED, "order", ORDER, |q, v| set(&mut q.order, order(v))),
    of(TIMED, "cursor", CURSOR, |q, v| put(&mut q.cursor, v.parse().ok())),
    of(FOLLOWED, "follow", SWITCH, |q, v| set(&mut q.follow, v.parse().ok())),
];

const fn of(
    of: &'static [Asked],
    name: &'static str,
    remedy: &'static str,
    set: fn(&mut Query, &str) -> Option<()>,
) -> Parameter {
    Parameter { name, of, remedy, set }
}

impl Query {
    /// Reads a question. Nothing at all asks for requests to be followed from now on.
    ///
    /// # Errors
    /// For the first parameter that is not known, cannot be used, or is there twice.
    pub fn parse(asked: Asked, pairs: &[(String, String)]) -> Result<Self, BadParameter> {
        let follows = FOLLOWED.contains(&asked) && pairs.is_empty();
        let mut query = Self { follow: follows, ..Self::about(asked) };
        query.limit = (asked == Asked::Explain).then_some(EXPLAINED);
        for (at, (name, value)) in pairs.iter().enumerate() {
            let bad = |remedy: String| BadParameter { name: name.clone(), value: value.clone(), remedy };
            let known = PARAMETERS.iter().filter(|parameter| parameter.of.contains(&asked));
            let Some(parameter) = known.clone().find(|parameter| parameter.name == name) else {
                let names: Vec<&str> = known.map(|parameter| parameter.name).collect();
                return Err(bad(format!("there is no such parameter: use {}", names.join(", "))));
            };
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(bad("write it once".to_owned()));
            }
            (parameter.set)(&mut query, value.trim()).ok_or_else(|| bad(parameter.remedy.to_owned()))?;
        }
        let [since, until] = [query.since, query.until];
        if let (Some(Moment::At(since)), Some(Moment::At(until))) = (since, until)
            && since > until
        {
            return Err(BadParameter {
                name: "until".to_owned(),
                value: pairs
                    .iter()
                    .find(|(name, _)| name == "until")
                    .map_or_else(String::new, |pair| pair.1.clone()),
                remedy: "write a moment after `since`".to_owned(),
            });
        }
        let counts_or_shows_more = query.bucket.is_some() || query.context > 0;
        if query.follow
            && (counts_or_shows_more
                || query.cursor.is_some()
                || query.until.is_some()
                || query.limit.is_some())
        {
            return Err(BadParameter {
                name: "follow".to_owned(),
                value: "true".to_owned(),
                remedy: "leave `until`, `limit`, `cursor`, `context` and `bucket` out: what is followed has no end".to_owned(),
            });
        }
        Ok(query)
    }
}

fn set<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn put<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
    *place = Some(value?);
    Some(())
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn some_words(text: &str) -> Option<Vec<String>> {
    let words: Vec<String> = words(text).collect();
    (1..=32).contains(&words.len()).then_some(words)
}

/// Nanoseconds of a time such as `1m30s`.
fn duration(text: &str) -> Option<i64> {
    let time: SignedDuration = text.parse().ok()?;
    i64::try_from(time.as_nanos()).ok().filter(|nanos| *nanos >= 0)
}

fn moment(text: &str) -> Option<Moment> {
    match duration(text) {
        Some(ago) => Some(Moment::Ago(ago)),
        None => text.parse::<Timestamp>().ok().map(|time| Moment::At(nanos(time))),
    }
}

fn seconds(text: &str) -> Option<f64> {
    duration(text).map(|nanos| nanos as f64 / 1e9)
}

fn list<T>(text: &str, one: fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(|word| one(word.trim())).collect()
}

fn outcome(word: &str) -> Option<Outcome> {
    Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == word)
}

fn operation(word: &str) -> Option<Operation> {
    Operation::ALL.into_iter().find(|operation| operation.as_str() == word)
}

/// A status, or a class of them.
fn status(word: &str) -> Option<(u16, u16)> {
    if let Some(class) = word.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    word.parse().ok().filter(|status| (100..=999).contains(status)).map(|status| (status, status))
}

fn limit(text: &str) -> Option<usize> {
    text.parse().ok().filter(|limit| (1..=MOST).contains(limit))
}

fn order(word: &str) -> Option<Order> {
    match word {
        "newest" => Some(Order::Newest),
        "oldest" => Some(Order::Oldest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::RequestRecord;

    fn parse(asked: Asked, text: &str) -> Result<Query, BadParameter> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        let pairs: Vec<_> = text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        Query::parse(asked, &pairs)
    }

    #[test]
    fn every_condition_on_rows_decides() {
        use crate::timeline::Row;
        let row = Row {
            node: "a".into(),
            id: "f-1".into(),
            namespace: "ml".into(),
            pod: "llama-0".into(),
            container: "server".into(),
            workload: "llama".into(),
            stream: Some(Stream::Stderr),
            level: Some(Level::Error),
            message: "CUDA out of memory".into(),
            request_id: Some("r".into()),
            ..Row::default()
        };
        for (text, matches) in [
            ("since=1m", true),
            ("namespace=ml&pod=llama-*&container=server&node=a", true),
            ("pod=llama", false),
            ("workload=llama", true),
            ("workload=x", false),
            ("stream=stderr", true),
            ("stream=stdout", false),
            ("level=warn,error", true),
            ("level=info", false),
            ("words=memory cuda", true),
            ("words=gpu", false),
            ("phrase=out of memory", true),
            ("phrase=memory of", false),
            ("regex=^CUDA", true),
            ("regex=^cuda", false),
            ("request_id=r", true),
            ("request_id=s", false),
            ("id=f-1", true),
        ] {
            let query = parse(Asked::Logs, text).unwrap_or_else(|bad| panic!("{text}: {bad}"));
            assert_eq!(query.matches_row(&row), matches, "{text}");
        }
        let event = Row { kind: Kind::Stall, level: None, ..row.clone() };
        for (text, matches) in [
            ("since=1m", true),
            ("kind=stall", true),
            ("kind=gpu,process", false),
            ("kind=log,stall", true),
            ("level=error", false),
        ] {
            assert_eq!(parse(Asked::Events, text).unwrap().matches_row(&event), matches, "{text}");
        }
        assert!(!parse(Asked::Events, "since=1m").unwrap().matches_row(&row), "a line is no event");
        assert!(parse(Asked::Events, "kind=log").unwrap().matches_row(&row), "unless it is asked for");
        for bad in [
            "regex=(",
            "words=...",
            "level=bad",
            "stream=x",
            "context=21",
            "bucket=1ms",
            "kind=log",
            "follow=true&bucket=1m",
        ] {
            assert!(parse(Asked::Logs, bad).is_err(), "{bad}");
        }
    }

    fn requests(text: &str) -> Query {
        parse(Asked::Requests, text).unwrap_or_else(|bad| panic!("{text}: {bad}"))
    }

    #[test]
    fn every_condition_decides() {
        let record = RequestRecord {
            id: "1f-0".to_owned(),
            request_id: Some("r".to_owned()),
            trace_id: Some("0af7".to_owned()),
            node: "a".to_owned(),
            namespace: "ml".to_owned(),
            pod: "llama-0".to_owned(),
            container: "server".to_owned(),
            operation: Some(Operation::Chat),
            model: Some("meta-llama/Llama-3".to_owned()),
            status: Some(503),
            outcome: Some(Outcome::Rejected),
            ttft: Some(0.5),
            duration: Some(2.0),
            ..RequestRecord::default()
        };
        for (text, matches) in [
            ("since=1m", true),
            ("node=a", true),
            ("node=b", false),
            ("namespace=ml", true),
            ("namespace=m*", true),
            ("namespace=", false),
            ("pod=llama-?", true),
            ("pod=llama", false),
            ("container=server", true),
            ("container=proxy", false),
            ("model=llama", true),
            ("model=llama*", false),
            ("outcome=ok,rejected", true),
            ("outcome=ok", false),
            ("status=5xx", true),
            ("status=429,503", true),
            ("status=4xx", false),
            ("operation=embeddings, chat", true),
            ("operation=embeddings", false),
            ("id=1f-0", true),
            ("id=1f", false),
            ("request_id=r", true),
            ("request_id=x", false),
            ("trace_id=0AF7", true),
            ("trace_id=0af8", false),
            ("min_ttft=500ms", true),
            ("min_ttft=501ms", false),
            ("min_duration=2s", true),
            ("min_duration=1h", false),
            ("namespace=ml&model=gpt", false),
        ] {
            assert_eq!(requests(text).matches(&record), matches, "{text}");
        }
        let unknown = RequestRecord::default();
        for text in
            ["outcome=ok", "operation=chat", "status=200", "request_id=r", "min_ttft=0s", "min_duration=0s"]
        {
            assert!(!requests(text).matches(&unknown), "what is not known meets nothing: {text}");
        }
    }

    #[test]
    fn times_are_ago_or_moments() {
        let minute = 60_000_000_000;
        assert_eq!(requests("since=15m").since, Some(Moment::Ago(15 * minute)));
        assert_eq!(requests("since=2h30m").since, Some(Moment::Ago(150 * minute)));
        assert_eq!(requests("since=1970-01-01T00:01:00Z").since, Some(Moment::At(minute)));
        assert_eq!(requests("until=1970-01-01T01:01:00+01:00").until, Some(Moment::At(minute)));
        assert_eq!(Moment::Ago(minute).seen_from(3 * minute), 2 * minute);
        assert_eq!(Moment::At(7).seen_from(minute), 7);
    }

    #[test]
    fn nothing_is_followed_and_anything_is_answered() {
        assert!(requests("").follow);
        assert!(!requests("limit=5").follow && !requests("slow=true").follow);
        assert!(requests("follow=true&since=5m&namespace=ml").follow);
        assert_eq!((requests("limit=5").limit(), requests("slow=true").limit()), (5, 100));
        assert_eq!(requests("order=oldest").order, Order::Oldest);
        let cursor = requests("cursor=5,a,1f-0").cursor.unwrap();
        assert_eq!((cursor.time, cursor.node.as_str(), cursor.id.as_str()), (5, "a", "1f-0"));
        assert!(!parse(Asked::Top, "").unwrap().follow);
        assert!(parse(Asked::Top, "since=1m&model=x&limit=3").is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_remedy() {
        for (text, words) in [
            ("since=yesterday", ["`since` = \"yesterday\"", "15m"]),
            ("since=-5m", ["since", "a time ago"]),
            ("outcome=good", ["outcome", "aborted_by_client"]),
            ("outcome=", ["outcome", "with commas"]),
            ("operation=talk", ["operation", "embeddings"]),
            ("status=ok", ["status", "5xx"]),
            ("status=9xx", ["status", "5xx"]),
            ("slow=yes", ["`slow` = \"yes\"", "true or false"]),
            ("limit=0", ["limit", "from 1 to 5000"]),
            ("limit=5001", ["limit", "from 1 to 5000"]),
            ("order=up", ["order", "newest or oldest"]),
            ("cursor=x", ["cursor", "`next`"]),
            ("min_ttft=fast", ["min_ttft", "500ms"]),
            ("node=", ["node", "pattern"]),
            ("names=x", ["`names` = \"x\"", "since, until, node"]),
            ("pod=a&pod=b", ["`pod` = \"b\"", "write it once"]),
            ("since=2026-03-02T00:00:00Z&until=2026-03-01T00:00:00Z", ["until", "after `since`"]),
            ("follow=true&limit=5", ["follow", "has no end"]),
        ] {
            let said = parse(Asked::Requests, text).unwrap_err().to_string();
            for word in words {
                assert!(said.contains(word), "{text}: {said}");
            }
        }
        assert!(parse(Asked::Top, "slow=true").unwrap_err().to_string().contains("use since, node"));
        let long = format!("pods={}", "x\n".repeat(500));
        let said = parse(Asked::Requests, &long).unwrap_err().to_string();
        assert!(said.len() < 600 && !said.contains('\n'), "{said}");
        assert_eq!(MOST, 5000, "as it is written above");
    }
}
