//! Which events are new, and how often each kind came.
//!
//! An event is an object that lives for an hour or so and is updated each time it occurs again. What is counted is
//! the difference of its count to what was known of it, by its uid, so that a list that tells it again counts
//! nothing. The uids are those of events that the API server has now, and stay over terms of leadership.
//!
//! When a replica begins to lead, nothing may be known of what is listed, or others may have counted meanwhile. So for the
//! first list of a term its mark decides, up to which others counted (see `kube/lease.rs`): what occurred last before it
//! is not counted. Of what did after, and nothing is known of, all is counted if it occurred first after the mark, too,
//! and one otherwise, since how often it did after is not told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Category, Event, known_kind, known_reason, known_type};

/// Events that are remembered: what an API server has of an hour. Beyond, none is counted, because it could not be
/// told from one that was.
const MOST: usize = 100_000;

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tally {
    /// Namespace of what the event is about.
    pub namespace: String,
    /// Kind of that, if it is known.
    pub kind: &'static str,
    /// What it is a matter of.
    pub category: Category,
    /// Its reason, if it is known.
    pub reason: &'static str,
    /// `Normal` or `Warning`.
    pub severity: &'static str,
}

#[derive(Debug)]
struct Known {
    count: u64,
    telling: u64,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<String, Known>,
    telling: u64,
    /// The list of a term that is not complete yet.
    first_list: bool,
    mark: u64,
    /// How often, and when last by the number of changes.
    counts: BTreeMap<Tally, (u64, u64)>,
    changes: u64,
    refused: u64,
}

/// The ledger, shared by who keeps it and who reads it.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    /// How many tallies there may be.
    tallies: usize,
}

impl Ledger {
    /// One that counts at most so many things apart.
    pub fn new(tallies: usize) -> Self {
        Self { state: Mutex::default(), tallies: tallies.max(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A term begins; up to this mark, in nanoseconds of the wall clock, others have counted.
    pub fn begin_term(&self, mark: u64) {
        let mut state = self.state();
        (state.mark, state.first_list) = (mark, true);
    }

    /// Everything is told anew.
    pub fn begin(&self) {
        self.state().telling += 1;
    }

    /// Everything was told: what was not is gone.
    pub fn told(&self) {
        let mut state = self.state();
        state.first_list = false;
        let telling = state.telling;
        state.known.retain(|_, known| known.telling == telling);
    }

    /// Whether the first list of the term is not complete yet.
    pub fn is_first_list(&self) -> bool {
        self.state().first_list
    }

    /// Notes an event as soon as it is told; how often it occurred since it last was. Whether that is to be counted may
    /// be decided later, and never changes what is known.
    pub fn note(&self, event: &Event) -> u64 {
        let mut state = self.state();
        let (telling, mark, first_list) = (state.telling, state.mark, state.first_list);
        let before = state.known.get(&event.uid).map(|known| known.count);
        if before.is_none() && state.known.len() >= MOST {
            state.refused += 1;
            return 0;
        }
        let count = event.count.max(before.unwrap_or(0));
        state.known.insert(event.uid.clone(), Known { count, telling });
        let after = |time: Option<u64>| time.is_some_and(|time| time > mark);
        match before {
            // Later whatever changed is new, whatever the clock of who tells it says.
            _ if first_list && !after(event.last) => 0,
            Some(before) => event.count.saturating_sub(before),
            None if !first_list || after(event.first) => event.count,
            None => 1,
        }
    }

    /// Counts an event that occurred so often.
    pub fn count(&self, event: &Event, new: u64) {
        if new > 0 {
            self.state().count(event, new, self.tallies);
        }
    }

    /// An event is gone from the API server.
    pub fn forget(&self, uid: &str) {
        self.state().known.remove(uid);
    }

    /// Whether an event is remembered.
    pub fn knows(&self, uid: &str) -> bool {
        self.state().known.contains_key(uid)
    }

    /// How many events are remembered.
    pub fn len(&self) -> usize {
        self.state().known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often each came, and how many were not counted.
    pub fn counts(&self) -> (Vec<(Tally, u64)>, u64) {
        let state = self.state();
        let counts = state.counts.iter().map(|(tally, (count, _))| (tally.clone(), *count));
        (counts.collect(), state.refused)
    }
}

impl State {
    fn count(&mut self, event: &Event, new: u64, most: usize) {
        let tally = Tally {
            namespace: event.namespace.clone(),
            kind: known_kind(&event.kind),
            category: Category::of(event),
            reason: known_reason(&event.reason),
            severity: known_type(&event.severity),
        };
        self.changes += 1;
        let now = self.changes;
        if self.counts.len() >= most && !self.counts.contains_key(&tally) {
            // Namespaces come and go; what has not changed for longest makes room.
            let oldest = self.counts.iter().min_by_key(|(_, (_, changed))| *changed);
            if let Some(oldest) = oldest.map(|(tally, _)| tally.clone()) {
                self.counts.remove(&oldest);
            }
        }
        let (count, changed) = self.counts.entry(tally).or_default();
        *count += new;
        *changed = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(uid: &str, count: u64, first: u64, last: u64) -> Event {
        Event {
            uid: uid.to_owned(),
            namespace: "ml".to_owned(),
            kind: "Pod".to_owned(),
            reason: "BackOff".to_owned(),
            severity: "Warning".to_owned(),
            count,
            first: Some(first),
            last: Some(last),
            ..Event::default()
        }
    }

    fn note(ledger: &Ledger, event: &Event) -> u64 {
        let new = ledger.note(event);
        ledger.count(event, new);
        new
    }

    fn list(ledger: &Ledger, events: &[Event]) -> u64 {
        ledger.begin();
        let new = events.iter().map(|event| note(ledger, event)).sum();
        ledger.told();
        new
    }

    fn total(ledger: &Ledger) -> u64 {
        ledger.counts().0.iter().map(|(_, count)| count).sum()
    }

    #[test]
    fn the_mark_decides_on_what_nothing_is_known_of() {
        let ledger = Ledger::new(10);
        ledger.begin_term(100);
        ledger.begin();
        assert_eq!(note(&ledger, &event("before", 5, 50, 100)), 0);
        assert_eq!(note(&ledger, &event("after", 5, 101, 150)), 5);
        assert_eq!(note(&ledger, &event("both", 5, 50, 150)), 1);
        assert_eq!(note(&ledger, &Event { first: None, last: None, ..event("never", 5, 0, 0) }), 0);
        // The list broke off, and begins again.
        ledger.begin();
        assert_eq!(note(&ledger, &event("after", 6, 101, 151)), 1);
        assert_eq!(note(&ledger, &event("before", 5, 50, 100)), 0);
        ledger.told();
        assert_eq!(total(&ledger), 7);
    }

    #[test]
    fn a_list_that_tells_it_again_counts_nothing() {
        let ledger = Ledger::new(10);
        ledger.begin_term(100);
        let mut all = vec![event("a", 2, 110, 120), event("b", 1, 50, 60)];
        assert_eq!(list(&ledger, &all), 2);
        assert_eq!(list(&ledger, &all), 0);
        // Updates by watch, whatever the clock says; one comes twice, one comes late.
        assert_eq!(note(&ledger, &event("a", 5, 110, 130)), 3);
        assert_eq!(note(&ledger, &event("a", 5, 110, 130)), 0);
        assert_eq!(note(&ledger, &event("a", 4, 110, 125)), 0);
        assert_eq!(note(&ledger, &event("b", 2, 50, 61)), 1);
        assert_eq!(note(&ledger, &event("c", 1, 10, 10)), 1);
        // What changed while the watch was away.
        all[0] = event("a", 9, 110, 140);
        all.push(event("d", 3, 135, 140));
        // Its clock is far behind.
        all.push(event("e", 1, 2, 2));
        assert_eq!(list(&ledger, &all), 4 + 3 + 1);
        assert_eq!(total(&ledger), 2 + 3 + 1 + 1 + 8);
        assert_eq!(ledger.len(), 4, "c was not told, so it is gone");
    }

    #[test]
    fn what_waits_to_be_counted_is_known() {
        let ledger = Ledger::new(10);
        ledger.begin_term(100);
        list(&ledger, &[event("a", 5, 110, 120)]);
        // It grows, waits, and is listed before it is counted.
        let grown = event("a", 7, 110, 130);
        let waits = ledger.note(&grown);
        ledger.begin();
        assert_eq!(ledger.note(&grown), 0);
        ledger.told();
        ledger.count(&grown, waits);
        assert_eq!(total(&ledger), 7);
        // What is never counted, because nobody may know of it, is not counted later, either.
        assert_eq!(ledger.note(&event("a", 9, 110, 140)), 2);
        assert_eq!(note(&ledger, &event("a", 10, 110, 150)), 1);
        assert_eq!(total(&ledger), 8);
    }

    #[test]
    fn after_the_first_list_all_is_new_however_coarse_its_clock() {
        let ledger = Ledger::new(10);
        ledger.begin_term(100);
        list(&ledger, &[]);
        // Times of events are whole seconds, rounded down: in the first one they are before the mark.
        assert_eq!(note(&ledger, &event("watched", 3, 99, 99)), 3);
        assert_eq!(list(&ledger, &[event("watched", 3, 99, 99), event("listed", 2, 99, 99)]), 2);
    }

    #[test]
    fn over_terms_nothing_is_counted_twice() {
        let ledger = Ledger::new(10);
        ledger.begin_term(100);
        list(&ledger, &[event("a", 2, 110, 120)]);
        // Another replica led until 200 and counted two more; then it occurred once more.
        ledger.begin_term(200);
        assert_eq!(list(&ledger, &[event("a", 4, 110, 190), event("b", 6, 150, 160)]), 0);
        assert_eq!(note(&ledger, &event("a", 5, 110, 210)), 1);
        // The API server was away; nobody else led.
        ledger.begin_term(205);
        assert_eq!(list(&ledger, &[event("a", 7, 110, 230), event("b", 6, 150, 160)]), 2);
        assert_eq!(total(&ledger), 2 + 1 + 2);
    }

    #[test]
    fn an_event_that_is_gone_makes_room() {
        let ledger = Ledger::new(10);
        for number in 0..MOST {
            note(&ledger, &event(&number.to_string(), 1, 1, 1));
        }
        assert_eq!(note(&ledger, &event("one more", 1, 1, 1)), 0);
        assert_eq!((total(&ledger), ledger.counts().1), (MOST as u64, 1));
        ledger.forget("0");
        assert_eq!(note(&ledger, &event("one more", 1, 1, 1)), 1);
    }

    #[test]
    fn of_too_many_things_the_one_that_rests_is_forgotten() {
        let ledger = Ledger::new(2);
        for (uid, namespace) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "c")] {
            note(&ledger, &Event { namespace: namespace.to_owned(), ..event(uid, 1, 1, 1) });
        }
        let counts: Vec<_> = ledger.counts().0.into_iter().map(|(t, count)| (t.namespace, count)).collect();
        assert_eq!(counts, [("a".to_owned(), 2), ("c".to_owned(), 1)]);
    }
}
