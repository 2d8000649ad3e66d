//! When pods were created that do not run yet, or did not until just now.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Pods that are remembered.
const MOST: usize = 20_000;

/// How long a pod is remembered that is not pending any more: events may come late. Not for longer, because later its
/// containers start again.
const AFTER: u64 = 60_000_000_000;

#[derive(Debug)]
struct Birth {
    created: u64,
    telling: u64,
    /// When it was not pending any more.
    left: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    births: HashMap<String, Birth>,
    /// Those that are not pending any more, and since when.
    left: VecDeque<(u64, String)>,
    pending: usize,
    telling: u64,
}

/// Those moments by uid, in nanoseconds of the wall clock. Shared by who watches pods and who watches events.
#[derive(Clone, Debug)]
pub(super) struct Births {
    state: Arc<Mutex<State>>,
    wall: fn() -> u64,
}

impl Births {
    pub(super) fn new(wall: fn() -> u64) -> Self {
        Self { state: Arc::default(), wall }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let now = (self.wall)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget(now);
        state
    }

    /// When a pod was created, if its containers start for the first time.
    pub(super) fn of(&self, uid: &str) -> Option<u64> {
        self.state().births.get(uid).map(|birth| birth.created)
    }

    /// Everything is told anew.
    pub(super) fn begin(&self) {
        self.state().telling += 1;
    }

    /// A pod is pending that was created then.
    pub(super) fn pending(&self, uid: &str, created: u64) {
        let mut state = self.state();
        let telling = state.telling;
        let room = state.births.len() < MOST;
        if let Some(birth) = state.births.get_mut(uid) {
            birth.telling = telling;
        } else if room {
            state.births.insert(uid.to_owned(), Birth { created, telling, left: None });
            state.pending += 1;
        }
    }

    /// A pod is not pending any more.
    pub(super) fn no_longer_pending(&self, uid: &str) {
        let now = (self.wall)();
        self.state().leave(uid, now);
    }

    /// Everything was told.
    pub(super) fn told(&self) {
        let now = (self.wall)();
        let mut state = self.state();
        let telling = state.telling;
        let gone = state.births.iter().filter(|(_, birth)| birth.telling != telling);
        let gone: Vec<_> = gone.map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            state.leave(&uid, now);
        }
    }

    /// How many pods are pending.
    pub(super) fn pending_now(&self) -> usize {
        self.state().pending
    }

    /// Forgets them all.
    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }
}

impl State {
    fn leave(&mut self, uid: &str, now: u64) {
        if let Some(birth) = self.births.get_mut(uid).filter(|birth| birth.left.is_none()) {
            birth.left = Some(now);
            self.left.push_back((now, uid.to_owned()));
            self.pending -= 1;
        }
    }

    fn forget(&mut self, now: u64) {
        while let Some((left, _)) = self.left.front()
            && now.saturating_sub(*left) >= AFTER
        {
            if let Some((_, uid)) = self.left.pop_front() {
                self.births.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(1000 * SECOND) });

    #[test]
    fn a_pod_is_remembered_until_shortly_after_it_runs() {
        let births = Births::new(|| NOW.get());
        births.begin();
        births.pending("a", 7);
        births.pending("b", 8);
        births.told();
        births.no_longer_pending("a");
        births.no_longer_pending("a");
        births.no_longer_pending("never seen");
        assert_eq!((births.of("a"), births.of("b"), births.pending_now()), (Some(7), Some(8), 1));
        NOW.set(1060 * SECOND);
        assert_eq!((births.of("a"), births.of("b")), (None, Some(8)));
        // One that a list names no more has left, too.
        births.begin();
        births.pending("c", 9);
        births.told();
        assert_eq!((births.of("b"), births.pending_now()), (Some(8), 1));
        NOW.set(1120 * SECOND);
        assert_eq!((births.of("b"), births.of("c")), (None, Some(9)));
    }

    #[test]
    fn a_crowd_has_a_bound() {
        let births = Births::new(|| NOW.get());
        for number in 0..=MOST {
            births.pending(&number.to_string(), 1);
        }
        assert_eq!(births.pending_now(), MOST);
    }
}
