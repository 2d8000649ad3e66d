//! What is known of pods while they are there, and for a while after: events about them come late.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug)]
struct One<V> {
    value: V,
    telling: u64,
    /// When it was not there any more.
    left: Option<u64>,
}

#[derive(Debug)]
struct State<V> {
    all: HashMap<String, One<V>>,
    /// Those that are not there any more, and since when.
    left: VecDeque<(u64, String)>,
    there: usize,
    telling: u64,
}

/// Values by uid. Shared by who watches and who looks up.
#[derive(Debug)]
pub(super) struct Lingering<V> {
    state: Arc<Mutex<State<V>>>,
    wall: fn() -> u64,
    /// How long they are known after they have left, in nanoseconds.
    after: u64,
    /// How many are known at most.
    most: usize,
}

impl<V> Clone for Lingering<V> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), ..*self }
    }
}

impl<V> Default for State<V> {
    fn default() -> Self {
        Self { all: HashMap::new(), left: VecDeque::new(), there: 0, telling: 0 }
    }
}

impl<V: Copy> Lingering<V> {
    pub(super) fn new(most: usize, after: u64, wall: fn() -> u64) -> Self {
        Self { state: Arc::default(), wall, after, most }
    }

    fn state(&self) -> MutexGuard<'_, State<V>> {
        let now = (self.wall)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget(now, self.after);
        state
    }

    /// What is known of one.
    pub(super) fn of(&self, uid: &str) -> Option<V> {
        self.state().all.get(uid).map(|one| one.value)
    }

    /// Everything is told anew.
    pub(super) fn begin(&self) {
        self.state().telling += 1;
    }

    /// One is there.
    pub(super) fn there(&self, uid: &str, value: V) {
        let mut state = self.state();
        let (telling, room) = (state.telling, state.all.len() < self.most);
        if let Some(one) = state.all.get_mut(uid) {
            (one.value, one.telling) = (value, telling);
            let came_back = one.left.take().is_some();
            state.there += usize::from(came_back);
        } else if room {
            state.all.insert(uid.to_owned(), One { value, telling, left: None });
            state.there += 1;
        }
    }

    /// One is not there any more.
    pub(super) fn gone(&self, uid: &str) {
        let now = (self.wall)();
        self.state().leave(uid, now);
    }

    /// Everything was told.
    pub(super) fn told(&self) {
        let now = (self.wall)();
        let mut state = self.state();
        let telling = state.telling;
        let gone = state.all.iter().filter(|(_, one)| one.telling != telling);
        let gone: Vec<_> = gone.map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            state.leave(&uid, now);
        }
    }

    /// How many are there.
    pub(super) fn len(&self) -> usize {
        self.state().there
    }

    /// Forgets them all.
    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }
}

impl<V> State<V> {
    fn leave(&mut self, uid: &str, now: u64) {
        if let Some(one) = self.all.get_mut(uid).filter(|one| one.left.is_none()) {
            one.left = Some(now);
            self.left.push_back((now, uid.to_owned()));
            self.there -= 1;
        }
    }

    fn forget(&mut self, now: u64, after: u64) {
        while let Some((left, _)) = self.left.front()
            && now.saturating_sub(*left) >= after
        {
            // It may have come back since, and left again.
            if let Some((left, uid)) = self.left.pop_front()
                && self.all.get(&uid).is_some_and(|one| one.left == Some(left))
            {
                self.all.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(1000) });

    #[test]
    fn known_until_shortly_after() {
        let pods = Lingering::new(100, 60, || NOW.get());
        pods.begin();
        pods.there("a", 7);
        pods.there("b", 8);
        pods.told();
        pods.gone("a");
        pods.gone("a");
        pods.gone("never seen");
        assert_eq!((pods.of("a"), pods.of("b"), pods.len()), (Some(7), Some(8), 1));
        NOW.set(1060);
        assert_eq!((pods.of("a"), pods.of("b")), (None, Some(8)));
        // One that a list names no more has left, too.
        pods.begin();
        pods.there("c", 9);
        pods.told();
        assert_eq!((pods.of("b"), pods.len()), (Some(8), 1));
        NOW.set(1120);
        assert_eq!((pods.of("b"), pods.of("c")), (None, Some(9)));
    }

    #[test]
    fn one_that_comes_back_is_there() {
        let pods = Lingering::new(100, 60, || NOW.get());
        NOW.set(0);
        pods.there("a", 1);
        pods.gone("a");
        NOW.set(30);
        pods.there("a", 2);
        NOW.set(70);
        assert_eq!((pods.of("a"), pods.len()), (Some(2), 1));
        pods.gone("a");
        NOW.set(129);
        assert_eq!((pods.of("a"), pods.len()), (Some(2), 0));
        NOW.set(130);
        assert_eq!(pods.of("a"), None);
    }

    #[test]
    fn a_crowd_has_a_bound() {
        let pods = Lingering::new(10, 60, || NOW.get());
        for number in 0..=10 {
            pods.there(&number.to_string(), 1);
        }
        assert_eq!(pods.len(), 10);
    }
}
