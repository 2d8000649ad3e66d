//! The verdict: the one layer that explains most of what was unusual, or none.

use std::collections::BTreeMap;

use super::happening::{LATE, WARMING, end as end_of};
use super::parts::{Part, Span, window};
use super::peers::{Compared, ENOUGH, MANY, generated, prompt};
use super::words::{part as say, time};
use super::{Case, Confidence, Happening, Layer, Verdict, What};
use crate::exchange::{Outcome, RequestRecord};

/// What a layer must explain of all that was unusual.
const MOST: f64 = 0.6;

/// Less than this was not felt, in seconds.
const FELT: f64 = 0.05;

/// What is unusual must be this much of the rest.
const NOTABLE: f64 = 0.5;

/// One reason, and how much of what was unusual it explains.
struct Reason {
    layer: Layer,
    seconds: f64,
    confidence: Confidence,
    summary: String,
    evidence: Vec<String>,
}

impl Reason {
    fn new(layer: Layer, seconds: f64, confidence: Confidence, summary: String) -> Self {
        Self { layer, seconds, confidence, summary, evidence: Vec::new() }
    }

    fn with(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }
}

/// Decides.
pub(super) fn verdict(case: &Case<'_>, parts: &[Part], compared: &Compared<'_>) -> Verdict {
    if let Some(verdict) = failure(case) {
        return verdict;
    }
    let record = case.record;
    if !record.is_complete() {
        let lost = record.partial.join(", ");
        return unknown(
            "not all of it was seen, so its times are not trusted",
            vec![format!("partial: {lost}")],
        );
    }
    let total: f64 = parts.iter().map(|part| part.seconds).sum();
    // Who waited for the first token felt it, however long the answer then took.
    let early: Vec<Part> = parts.iter().filter(|part| part.span.is_early()).copied().collect();
    let parts = match (is_noticed(parts), is_noticed(&early)) {
        (true, _) => parts,
        (false, true) => &early,
        (false, false) => return unnoticed(record, parts, compared, total),
    };
    let unusual: f64 = parts.iter().map(|part| part.unusual).sum();
    let left = (record.outcome == Some(Outcome::AbortedByClient))
        .then(|| format!("the client left after {}", time(record.client_left.unwrap_or(total))));
    let mut layers: BTreeMap<Layer, Vec<Reason>> = BTreeMap::new();
    for part in parts.iter().filter(|part| part.unusual > 0.0) {
        let reason = reason(case, part, compared);
        layers.entry(reason.layer).or_default().push(reason);
    }
    let weight = |reasons: &[Reason]| reasons.iter().map(|reason| reason.seconds).sum::<f64>();
    let mut layers: Vec<(Layer, Vec<Reason>)> = layers.into_iter().collect();
    layers.sort_by(|a, b| weight(&b.1).total_cmp(&weight(&a.1)));
    let mut evidence: Vec<String> = Vec::new();
    let shown = parts.iter().filter(|part| part.unusual >= FELT.min(0.1 * unusual));
    let Some((layer, mut reasons)) = layers.into_iter().next() else {
        return unknown("nothing that was seen explains it", evidence);
    };
    if layer == Layer::Unknown || weight(&reasons) < MOST * unusual {
        evidence.extend(shown.map(say));
        evidence.extend(
            reasons.into_iter().filter(|_| layer == Layer::Unknown).flat_map(|reason| reason.evidence),
        );
        let why = if layer == Layer::Unknown {
            "where the time went is known, and nothing that was seen tells why"
        } else {
            "several parts were slow, and none explains most of it"
        };
        evidence.extend(left);
        return unknown(why, evidence);
    }
    reasons.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let confidence = reasons.first().map(|reason| reason.confidence);
    let summary = reasons.first().map_or_else(String::new, |reason| reason.summary.clone());
    evidence.extend(reasons.into_iter().flat_map(|reason| reason.evidence));
    evidence.extend(left);
    Verdict { layer, confidence, summary, evidence }
}

/// Whether what was unusual of these parts was felt.
fn is_noticed(parts: &[Part]) -> bool {
    let total: f64 = parts.iter().map(|part| part.seconds).sum();
    let unusual: f64 = parts.iter().map(|part| part.unusual).sum();
    unusual >= FELT.max(NOTABLE * (total - unusual))
}

fn unknown(summary: &str, evidence: Vec<String>) -> Verdict {
    Verdict { layer: Layer::Unknown, confidence: None, summary: summary.to_owned(), evidence }
}

/// Of a request that took no longer than usual, as far as that can be said.
fn unnoticed(record: &RequestRecord, parts: &[Part], compared: &Compared<'_>, total: f64) -> Verdict {
    if compared.records.len() < ENOUGH {
        let few =
            format!("{} others of its kind are remembered, {ENOUGH} are needed", compared.records.len());
        return unknown("there is too little to compare it with", vec![few]);
    }
    if record.outcome == Some(Outcome::AbortedByClient) {
        let summary = "the client left before the end, and nothing was slow until then".to_owned();
        let evidence = vec![format!("it left after {}", time(record.client_left.unwrap_or(total)))];
        return Verdict { layer: Layer::Client, confidence: Some(by_number(compared)), summary, evidence };
    }
    let evidence = parts.iter().filter(|part| part.seconds >= 0.2 * total).map(say).collect();
    let confidence = Some(by_number(compared));
    Verdict { layer: Layer::Usual, confidence, summary: "nothing of it was unusual".to_owned(), evidence }
}

fn by_number(compared: &Compared<'_>) -> Confidence {
    if compared.records.len() >= MANY { Confidence::Medium } else { Confidence::Low }
}

/// Of a request that was not answered well, if that explains itself.
fn failure(case: &Case<'_>) -> Option<Verdict> {
    let record = case.record;
    let outcome = record.outcome?;
    let status = record.status.map(|status| format!("HTTP status {status}"));
    let error = record.error_type.as_ref().map(|kind| format!("error type {kind}"));
    let told: Vec<String> = status.into_iter().chain(error).collect();
    let sure = |layer, summary: &str, evidence| {
        let (confidence, summary) = (Some(Confidence::High), summary.to_owned());
        Some(Verdict { layer, confidence, summary, evidence })
    };
    match outcome {
        Outcome::Ok | Outcome::AbortedByClient => None,
        Outcome::ClientError => sure(Layer::Client, "the server refused what the client asked for", told),
        Outcome::Rejected if is_for_want_of_room(record) => {
            sure(Layer::Replica, "it was refused: no replica had room for it", told)
        }
        Outcome::Rejected => Some(unknown(
            "it was refused: for want of room, or because its client has asked for too much; both look the same",
            told,
        )),
        _ => {
            let end = end_of(record);
            // An answer that was complete was not cut by what came after it.
            let is_cut = matches!(outcome, Outcome::AbortedByServer | Outcome::Unterminated);
            let until = if is_cut { end + LATE } else { end };
            let around = |kinds: &[What]| {
                let in_time =
                    |one: &&Happening| (-LATE..=until).contains(&one.at) && kinds.contains(&one.what);
                let found = case.happenings.iter().filter(in_time);
                found.map(|one| format!("{} ({:+.2} s)", one.text, one.at)).collect::<Vec<_>>()
            };
            let errors = around(&[What::GpuError]);
            if !errors.is_empty() {
                return sure(Layer::Gpu, "a GPU failed while it was served", [errors, told].concat());
            }
            let ends = around(&[What::OutOfMemory, What::ProcessEnd]);
            if !ends.is_empty() {
                return sure(Layer::Restart, "the process that served it ended", [ends, told].concat());
            }
            Some(unknown("the server failed it, and nothing that was seen tells why", told))
        }
    }
}

/// Whether a refusal says that it is the server's: a status of 503, or an error that tells of load. 429 is also what a client
/// gets that has used up what it may ask for.
fn is_for_want_of_room(record: &RequestRecord) -> bool {
    let error = record.error_type.as_deref().unwrap_or_default().to_ascii_lowercase();
    record.status == Some(503)
        || ["overload", "capacity", "queue", "busy"].iter().any(|word| error.contains(word))
}

/// Why a part was unusual.
fn reason(case: &Case<'_>, part: &Part, compared: &Compared<'_>) -> Reason {
    let direct = |layer, summary: &str| {
        let summary = format!("{summary} for {}", time(part.seconds));
        Reason::new(layer, part.unusual, Confidence::High, summary).with([say(part)])
    };
    match part.span {
        Span::Accept => direct(Layer::Replica, "its connection waited in the listener's backlog"),
        Span::Socket => direct(Layer::Replica, "the server did not read it"),
        Span::Dispatch => direct(Layer::Replica, "the gateway held it"),
        Span::Upload => direct(Layer::Client, "the client sent it"),
        Span::EngineQueue => direct(Layer::EngineQueue, "it waited in the engine's queue"),
        Span::ClientReading => direct(Layer::ClientReading, "the client did not read"),
        Span::Prefill => computing(case, part, compared, Layer::Prefill),
        Span::BeforeFirstToken | Span::Answer => waiting(case, part, compared),
        Span::Decode => computing(case, part, compared, Layer::Decode),
        Span::Tail => Reason::new(Layer::Unknown, part.unusual, Confidence::Low, "it ended late".to_owned())
            .with([say(part)]),
    }
}

/// What is known to have been computed.
fn computing(case: &Case<'_>, part: &Part, compared: &Compared<'_>, layer: Layer) -> Reason {
    let record = case.record;
    if let Some(reason) = gpu(case, part, compared) {
        return reason;
    }
    let confidence = by_number(compared);
    let reason =
        |confidence, summary: String| Reason::new(layer, part.unusual, confidence, summary).with([say(part)]);
    if let Some((own, usual)) = length(record, compared, part)
        && explains(part, own, usual)
    {
        let what =
            if layer == Layer::Prefill { "prompt tokens that were not cached" } else { "tokens generated" };
        let summary = if layer == Layer::Prefill { "its prompt was long" } else { "its answer was long" };
        return reason(confidence, format!("{summary}: {own:.0} {what}, usually {usual:.0}"));
    }
    let longest = record.gaps.as_ref().map_or(0.0, |gaps| gaps.max);
    if layer == Layer::Decode && record.stalls.unwrap_or(0) > 0 && longest >= MOST * part.unusual {
        return reason(Confidence::High, format!("its stream fell silent for {}", time(longest)));
    }
    let verb =
        if layer == Layer::Prefill { "its prompt was processed slowly" } else { "its tokens came slowly" };
    if is_crowded(compared) {
        let crowd = format!("{} others were in flight, usually {}", compared.beside, compared.usually_beside);
        return reason(confidence, format!("{verb}, beside {} others", compared.beside)).with([crowd]);
    }
    reason(confidence, format!("{verb}, and nothing that was seen tells why"))
}

/// What lies between a request and its first token, of which no report tells what it was.
fn waiting(case: &Case<'_>, part: &Part, compared: &Compared<'_>) -> Reason {
    let record = case.record;
    let began = case
        .happenings
        .iter()
        .find(|one| one.what == What::ProcessStart && (-WARMING..=part.seconds + LATE).contains(&one.at));
    if let Some(began) = began.filter(|_| !compared.found_warm) {
        let summary = "its process had just begun".to_owned();
        let text = format!("{} ({:+.2} s), and nothing else was served by it before", began.text, began.at);
        return Reason::new(Layer::Restart, part.unusual, Confidence::Medium, summary)
            .with([text, say(part)]);
    }
    if let Some(reason) = gpu(case, part, compared) {
        return reason;
    }
    let confidence = by_number(compared);
    if let Some((own, usual)) = length(record, compared, part)
        && explains(part, own, usual)
    {
        let (layer, summary) = if part.span == Span::Answer {
            (Layer::Decode, format!("its answer was long: {own:.0} tokens generated, usually {usual:.0}"))
        } else {
            (
                Layer::Prefill,
                format!("its prompt was long: {own:.0} tokens that were not cached, usually {usual:.0}"),
            )
        };
        return Reason::new(layer, part.unusual, confidence, summary).with([say(part)]);
    }
    let told = record.timings.prefill.is_some();
    let is_fuller = told && compared.beside > compared.usually_beside;
    if compared.found_busy && (is_fuller || is_crowded(compared)) {
        let crowd = format!("{} others were in flight, usually {}", compared.beside, compared.usually_beside);
        let report = record.timings.prefill.map(|prefill| {
            format!("the engine reports {} for its prompt, which is not part of that", time(prefill))
        });
        let confidence = if told { Confidence::Medium } else { Confidence::Low };
        let summary = "it waited while its engine served others".to_owned();
        let reason = Reason::new(Layer::EngineQueue, part.unusual, confidence, summary);
        return reason.with([say(part), crowd]).with(report);
    }
    Reason::new(Layer::Unknown, part.unusual, Confidence::Low, String::new())
}

/// Whether more were in flight than usually, so that it was felt.
fn is_crowded(compared: &Compared<'_>) -> bool {
    is_more(compared, compared.beside, compared.usually_beside)
}

/// Whether so many are more than usually, so that it is felt.
fn is_more(compared: &Compared<'_>, now: usize, usually: usize) -> bool {
    compared.records.len() >= ENOUGH && now >= 2 * usually + 2
}

/// Tokens that decide how long a part takes: its own and the usual number.
fn length(record: &RequestRecord, compared: &Compared<'_>, part: &Part) -> Option<(f64, f64)> {
    let of = match part.span {
        Span::Decode | Span::Answer => generated,
        _ => prompt,
    };
    let usual = compared.median(of)?;
    Some((of(record)?, usual)).filter(|_| usual > 0.0)
}

/// Whether a part is as long as so many more tokens make it, at the usual speed.
fn explains(part: &Part, own: f64, usual: f64) -> bool {
    let Some(usually) = part.usual else { return false };
    let more = (own / usual - 1.0).max(0.0) * usually;
    own >= 1.5 * usual && more >= MOST * part.unusual
}

/// A GPU that was at fault in this part: it failed, was throttled for most of what was unusual, or served others.
fn gpu(case: &Case<'_>, part: &Part, compared: &Compared<'_>) -> Option<Reason> {
    let (from, to) = window(case.record, part.span)?;
    let at_fault = |one: &&Happening| match one.what {
        What::GpuError => (from..=to).contains(&one.at),
        What::GpuThrottle => {
            let lasted = one.until.unwrap_or(f64::INFINITY).min(to) - one.at.max(from);
            lasted >= MOST * part.unusual
        }
        _ => false,
    };
    let found: Vec<String> = case.happenings.iter().filter(at_fault).map(|one| one.text.clone()).collect();
    if let Some(first) = found.first() {
        let summary = format!("its GPU was at fault: {first}");
        return Some(
            Reason::new(Layer::Gpu, part.unusual, Confidence::Medium, summary).with([say(part)]).with(found),
        );
    }
    let (now, usually) = (compared.neighbours, compared.usual_neighbours);
    if is_more(compared, now, usually) {
        let summary = format!("its GPU served {now} requests of other containers, usually {usually}");
        return Some(Reason::new(Layer::Gpu, part.unusual, Confidence::Low, summary).with([say(part)]));
    }
    None
}
