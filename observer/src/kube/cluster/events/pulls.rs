//! When the images of a new pod's containers were there.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Event, Lingering};

/// Containers that are told of.
const MOST: usize = 10_000;

/// A container that is told of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Container {
    namespace: String,
    pod: String,
    name: String,
}

#[derive(Debug)]
struct Pull {
    /// Uid of the event.
    event: String,
    /// Uid of the pod: names are used again.
    pod: String,
    nanos: u64,
}

#[derive(Debug, Default)]
struct State {
    pulls: BTreeMap<Container, Pull>,
    refused: u64,
}

/// From the creation of a pod to the moment at which the image of a container was there: the first time of each, for
/// as long as the API server has the event that tells it.
#[derive(Debug, Default)]
pub struct Pulls(Mutex<State>);

impl Pulls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event of reason `Pulled`.
    pub(super) fn note(&self, event: &Event, births: &Lingering<u64>) {
        let (Some(container), Some(pulled), Some(created)) =
            (&event.container, event.first, births.of(&event.about))
        else {
            return;
        };
        // Where clocks contradict each other nothing is told.
        let Some(nanos) = pulled.checked_sub(created) else { return };
        let key = Container {
            namespace: event.namespace.clone(),
            pod: event.name.clone(),
            name: container.clone(),
        };
        let mut state = self.state();
        match state.pulls.get(&key) {
            // A list tells them in any order.
            Some(pull) if pull.pod == event.about && pull.nanos <= nanos => {}
            None if state.pulls.len() >= MOST => state.refused += 1,
            _ => {
                let pull = Pull { event: event.uid.clone(), pod: event.about.clone(), nanos };
                state.pulls.insert(key, pull);
            }
        }
    }

    /// An event is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.retain(|event| event != uid);
    }

    /// Only these events are there.
    pub(super) fn retain(&self, there: impl Fn(&str) -> bool) {
        self.state().pulls.retain(|_, pull| there(&pull.event));
    }

    /// Forgets them all.
    pub(crate) fn clear(&self) {
        self.state().pulls.clear();
    }

    /// Namespace, pod, container, and how long it took in seconds; and how many were left out.
    pub fn all(&self) -> (Vec<([String; 3], f64)>, u64) {
        let state = self.state();
        let all = state.pulls.iter().map(|(container, pull)| {
            let Container { namespace, pod, name } = container.clone();
            ([namespace, pod, name], pull.nanos as f64 / 1e9)
        });
        (all.collect(), state.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled(event: &str, pod: &str, at: u64) -> Event {
        Event {
            uid: event.to_owned(),
            namespace: "ml".to_owned(),
            name: "llama-0".to_owned(),
            about: pod.to_owned(),
            container: Some("server".to_owned()),
            first: Some(at * 1_000_000_000),
            ..Event::default()
        }
    }

    #[test]
    fn the_first_pull_of_each_pod() {
        let (pulls, births) = (Pulls::default(), Lingering::new(10, 60, || 0));
        let seconds = || pulls.all().0.into_iter().map(|(_, seconds)| seconds).collect::<Vec<_>>();
        births.there("p1", 100_000_000_000);
        pulls.note(&pulled("e2", "p1", 150), &births);
        pulls.note(&pulled("e1", "p1", 142), &births);
        pulls.note(&pulled("e2", "p1", 150), &births);
        assert_eq!(seconds(), [42.0], "a restart pulls nothing that matters");
        births.there("p2", 200_000_000_000);
        pulls.note(&pulled("e3", "p2", 203), &births);
        assert_eq!(seconds(), [3.0], "the same name again, another pod");
        pulls.note(&pulled("e4", "nobody knows", 203), &births);
        pulls.note(&pulled("e5", "p2", 1), &births);
        assert_eq!(seconds(), [3.0]);
        pulls.forget("e1");
        assert_eq!(seconds(), [3.0]);
        pulls.forget("e3");
        assert!(seconds().is_empty());
        births.there("p3", 300_000_000_000);
        pulls.note(&pulled("e6", "p3", 299), &births);
        assert!(seconds().is_empty(), "pulled before it was created: clocks differ");
    }
}
