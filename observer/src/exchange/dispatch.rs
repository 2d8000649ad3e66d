//! How long a gateway held a request before it sent one upstream because of it: the wait for an available replica.
//!
//! A process that answers LLM requests and sends some itself is a gateway. Which of its open requests caused one that
//! it sends is told by their keys, or, without any, because only one can be meant. In doubt nothing is told.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{keys::Keys, observation::ExchangeId, upstream::Dispatched};

/// What became of the requests that gateways sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DispatchStats {
    /// The request that caused it is known.
    pub matched: u64,
    /// Several could have caused it.
    pub ambiguous: u64,
    /// None that is open can have caused it.
    pub alone: u64,
}

/// An exchange that may cause requests.
struct Open {
    /// When its request was complete.
    since: u64,
    keys: Keys,
    /// It caused one.
    dispatched: bool,
    /// Its response has begun: it is not tried again.
    answered: bool,
}

/// All exchanges of processes that may be gateways.
#[derive(Default)]
pub(crate) struct Dispatch {
    open: HashMap<u32, BTreeMap<ExchangeId, Open>>,
    gateways: HashSet<u32>,
    pub(crate) stats: DispatchStats,
}

impl Dispatch {
    /// A process received a request.
    pub(crate) fn received(&mut self, tgid: u32, id: ExchangeId, since: u64, keys: Keys) {
        let open = Open { since, keys, dispatched: false, answered: false };
        self.open.entry(tgid).or_default().insert(id, open);
    }

    /// Its response has begun.
    pub(crate) fn answered(&mut self, tgid: u32, id: ExchangeId) {
        if let Some(open) = self.open.get_mut(&tgid).and_then(|open| open.get_mut(&id)) {
            open.answered = true;
        }
    }

    /// It is over. The process that serves a connection may be another one by then.
    pub(crate) fn finished(&mut self, tgid: u32, id: ExchangeId) {
        let here = self.open.get_mut(&tgid).and_then(|open| open.remove(&id));
        if here.is_none() {
            self.open.values_mut().any(|open| open.remove(&id).is_some());
        }
    }

    /// A process is gone.
    pub(crate) fn process_gone(&mut self, tgid: u32) {
        self.open.remove(&tgid);
        self.gateways.remove(&tgid);
    }

    /// Whether a process both answers requests and sends some.
    pub(crate) fn is_gateway(&self, tgid: u32) -> bool {
        self.gateways.contains(&tgid)
    }

    /// A process sent a request: which exchange caused it, and how long that had waited, in nanoseconds.
    pub(crate) fn sent(&mut self, tgid: u32, request: &Dispatched) -> Option<(ExchangeId, u64)> {
        let open = self.open.get_mut(&tgid).filter(|open| !open.is_empty());
        let Some(open) = open else {
            self.stats.alone += 1;
            return None;
        };
        self.gateways.insert(tgid);
        match cause(open, request) {
            Cause::One(id) => {
                let cause = open.get_mut(&id)?;
                cause.dispatched = true;
                self.stats.matched += 1;
                Some((id, request.time.saturating_sub(cause.since)))
            }
            Cause::Several => {
                self.stats.ambiguous += 1;
                None
            }
            // A second try of a request that was matched before.
            Cause::Again => None,
            Cause::None => {
                self.stats.alone += 1;
                None
            }
        }
    }
}

enum Cause {
    One(ExchangeId),
    Several,
    Again,
    None,
}

fn cause(open: &BTreeMap<ExchangeId, Open>, request: &Dispatched) -> Cause {
    let same = |ours: Option<&String>, theirs: Option<&String>| ours.is_some() && ours == theirs;
    let keys = &request.keys;
    // Whoever passes a trace on does not begin another one for the same request.
    let contradicts = |ours: &Keys| ours.trace.is_some() && keys.trace.is_some() && ours.trace != keys.trace;
    let all: Vec<_> = open.iter().filter(|(_, open)| !contradicts(&open.keys)).collect();
    let (left, by_trace) = narrowed(all, &|ours| same(ours.trace.as_ref(), keys.trace.as_ref()));
    let (left, by_id) = narrowed(left, &|ours| same(ours.id.as_ref(), keys.id.as_ref()));
    let (left, by_content) = narrowed(left, &|ours| ours.content.is_some() && ours.content == keys.content);
    let by_key = by_trace || by_id || by_content;
    let waiting: Vec<_> = left.iter().filter(|(_, open)| !open.dispatched).collect();
    let tried = left.iter().any(|(_, open)| open.dispatched && !open.answered);
    match (&*waiting, tried) {
        // By order alone: whoever was tried before may be tried again.
        ([(id, _)], false) => Cause::One(**id),
        ([], true) if by_key => Cause::Again,
        ([], false) => Cause::None,
        _ => Cause::Several,
    }
}

/// A key narrows the choice if it fits somebody; whether it did.
fn narrowed<'a>(
    candidates: Vec<(&'a ExchangeId, &'a Open)>,
    fits: &dyn Fn(&Keys) -> bool,
) -> (Vec<(&'a ExchangeId, &'a Open)>, bool) {
    let fitting: Vec<_> = candidates.iter().copied().filter(|(_, open)| fits(&open.keys)).collect();
    if fitting.is_empty() { (candidates, false) } else { (fitting, true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sequence: u32) -> ExchangeId {
        ExchangeId { connection: 1, sequence }
    }

    fn keys(trace: &str, content: u64) -> Keys {
        Keys {
            trace: (!trace.is_empty()).then(|| trace.to_owned()),
            id: None,
            content: (content > 0).then_some(content),
        }
    }

    fn sent(dispatch: &mut Dispatch, time: u64, keys: Keys) -> Option<(ExchangeId, u64)> {
        dispatch.sent(7, &Dispatched { time, keys })
    }

    #[test]
    fn keys_tell_who_caused_a_request() {
        let mut dispatch = Dispatch::default();
        dispatch.received(7, id(0), 100, keys("a", 1));
        dispatch.received(7, id(1), 200, keys("a", 2));
        dispatch.received(7, id(2), 300, keys("b", 1));
        assert!(!dispatch.is_gateway(7));
        assert_eq!(sent(&mut dispatch, 1000, keys("a", 2)), Some((id(1), 800)));
        assert!(dispatch.is_gateway(7));
        assert_eq!(sent(&mut dispatch, 1000, keys("c", 2)), None, "of another trace");
        assert_eq!(sent(&mut dispatch, 1000, keys("b", 9)), Some((id(2), 700)));
        assert_eq!(sent(&mut dispatch, 1000, keys("", 1)), None, "0, or 2 once more");
        dispatch.answered(7, id(2));
        assert_eq!(sent(&mut dispatch, 1000, keys("", 1)), Some((id(0), 900)));
        assert_eq!(dispatch.stats, DispatchStats { matched: 3, ambiguous: 1, alone: 1 });
    }

    #[test]
    fn order_tells_only_where_one_can_be_meant() {
        let mut dispatch = Dispatch::default();
        assert_eq!(sent(&mut dispatch, 5, keys("", 0)), None);
        dispatch.received(7, id(0), 10, keys("", 0));
        assert_eq!(sent(&mut dispatch, 50, keys("", 0)), Some((id(0), 40)));
        dispatch.received(7, id(1), 60, keys("", 0));
        // Perhaps the first one is tried again.
        assert_eq!(sent(&mut dispatch, 70, keys("", 0)), None);
        dispatch.finished(7, id(0));
        assert_eq!(sent(&mut dispatch, 80, keys("", 0)), Some((id(1), 20)));
        dispatch.received(7, id(2), 90, keys("", 0));
        dispatch.received(7, id(3), 90, keys("", 0));
        dispatch.finished(7, id(1));
        assert_eq!(sent(&mut dispatch, 99, keys("", 0)), None, "two wait");
        assert_eq!(dispatch.stats, DispatchStats { matched: 2, ambiguous: 2, alone: 1 });
    }

    #[test]
    fn what_is_over_causes_nothing_whoever_served_it_last() {
        let mut dispatch = Dispatch::default();
        dispatch.received(7, id(0), 10, keys("", 0));
        dispatch.received(7, id(1), 20, keys("", 0));
        dispatch.finished(8, id(0));
        assert_eq!(sent(&mut dispatch, 50, keys("", 0)), Some((id(1), 30)));
    }

    #[test]
    fn a_second_try_is_not_a_second_wait() {
        let mut dispatch = Dispatch::default();
        dispatch.received(7, id(0), 10, keys("a", 0));
        assert_eq!(sent(&mut dispatch, 20, keys("a", 0)), Some((id(0), 10)));
        assert_eq!(sent(&mut dispatch, 90, keys("a", 0)), None);
        assert_eq!(dispatch.stats.ambiguous, 0);
    }
}
