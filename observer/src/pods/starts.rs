//! How a container came to serve: what happened when, from its pod's creation to its first token.
//!
//! In: what the API server says of the pod, and what was seen of the container's processes and requests. Out: seconds
//! from the creation of the pod, or for a container that was started again from the end of its life before. What
//! happened before anyone looked is absent.

use std::collections::HashMap;

use super::{Container, Pod};

/// Containers that are followed at a time.
const MOST: usize = 4096;

/// What was seen of a container on this node, in nanoseconds of the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    exec: Option<u64>,
    listen: Option<u64>,
    success: Option<u64>,
    token: Option<u64>,
}

/// What was seen of containers' starts, by container id.
#[derive(Clone, Debug, Default)]
pub struct Starts {
    seen: HashMap<String, Seen>,
}

fn earliest(known: &mut Option<u64>, time: u64) {
    *known = Some(known.map_or(time, |known| known.min(time)));
}

impl Starts {
    fn of(&mut self, container: &str) -> Option<&mut Seen> {
        if self.seen.len() >= MOST && !self.seen.contains_key(container) {
            return None;
        }
        Some(self.seen.entry(container.to_owned()).or_default())
    }

    /// A process of this container began.
    pub fn exec(&mut self, container: &str, time: u64) {
        if let Some(seen) = self.of(container) {
            earliest(&mut seen.exec, time);
        }
    }

    /// A process of this container began to listen.
    pub fn listen(&mut self, container: &str, time: u64) {
        if let Some(seen) = self.of(container) {
            earliest(&mut seen.listen, time);
        }
    }

    /// A request was answered with a status of 2xx. Its first token, if it had one, came at that time.
    ///
    /// Only of a container that was seen to begin to listen this is known to be the first.
    pub fn served(&mut self, container: &str, time: u64, first_token: Option<u64>) {
        if let Some(seen) = self.seen.get_mut(container)
            && seen.listen.is_some()
        {
            earliest(&mut seen.success, time);
            if let Some(time) = first_token {
                earliest(&mut seen.token, time);
            }
        }
    }

    /// When a container generated its first token, if it was seen to begin to listen.
    pub fn first_token(&self, container: &str) -> Option<u64> {
        self.seen.get(container)?.token
    }

    /// Forgets containers that are not there any more.
    pub fn retain(&mut self, there: impl Fn(&str) -> bool) {
        self.seen.retain(|container, _| there(container));
    }

    /// The phases of a container's start that are known, with seconds from its beginning, in their usual order.
    pub fn phases(&self, pod: &Pod, container: &Container) -> Vec<(&'static str, f64)> {
        let again = container.last.as_ref().and_then(|last| last.finished);
        let Some(from) = again.or(pod.created) else { return Vec::new() };
        let seen = container.id.as_ref().and_then(|id| self.seen.get(id)).copied().unwrap_or_default();
        // What concerns the whole pod is no part of a later life.
        let first = |time: Option<u64>| time.filter(|_| again.is_none());
        let phases = [
            ("scheduled", first(pod.scheduled)),
            ("initialized", first(pod.initialized)),
            ("started", container.started()),
            ("exec", seen.exec),
            ("listening", seen.listen),
            ("first_success", seen.success),
            ("first_token", seen.token),
            ("ready", first(pod.became_ready)),
        ];
        let known = phases.into_iter().filter_map(|(phase, time)| {
            // The API server tells whole seconds, rounded down.
            Some((phase, time?.saturating_sub(from) as f64 / 1e9))
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::{State, Termination};

    const S: u64 = 1_000_000_000;

    fn pod() -> Pod {
        Pod {
            created: Some(100 * S),
            scheduled: Some(101 * S),
            initialized: Some(103 * S),
            became_ready: Some(160 * S),
            ..Pod::default()
        }
    }

    fn container() -> Container {
        Container {
            id: Some("c".into()),
            state: State::Running { since: Some(110 * S) },
            ..Container::default()
        }
    }

    #[test]
    fn from_creation_to_the_first_token() {
        let mut starts = Starts::default();
        starts.exec("c", 111 * S);
        starts.exec("c", 112 * S);
        starts.listen("c", 140 * S);
        starts.served("c", 170 * S, Some(171 * S));
        starts.served("c", 180 * S, Some(181 * S));
        assert_eq!(
            starts.phases(&pod(), &container()),
            [
                ("scheduled", 1.0),
                ("initialized", 3.0),
                ("started", 10.0),
                ("exec", 11.0),
                ("listening", 40.0),
                ("first_success", 70.0),
                ("first_token", 71.0),
                ("ready", 60.0),
            ]
        );
    }

    #[test]
    fn a_container_that_was_not_seen_to_begin_has_no_first_request() {
        let mut starts = Starts::default();
        starts.exec("c", 111 * S);
        starts.served("c", 170 * S, Some(171 * S));
        let phases: Vec<_> =
            starts.phases(&pod(), &container()).into_iter().map(|(phase, _)| phase).collect();
        assert_eq!(phases, ["scheduled", "initialized", "started", "exec", "ready"]);
    }

    #[test]
    fn a_later_life_counts_from_the_end_of_the_one_before() {
        let mut starts = Starts::default();
        starts.listen("c", 240 * S);
        let mut container = container();
        container.last = Some(Termination { finished: Some(200 * S), ..Termination::default() });
        container.state = State::Running { since: Some(210 * S) };
        assert_eq!(starts.phases(&pod(), &container), [("started", 10.0), ("listening", 40.0)]);
    }

    #[test]
    fn there_is_a_bound_and_what_is_gone_is_forgotten() {
        let mut starts = Starts::default();
        for at in 0..MOST + 5 {
            starts.listen(&at.to_string(), S);
        }
        assert_eq!(starts.seen.len(), MOST);
        starts.retain(|container| container == "7");
        assert_eq!(starts.seen.len(), 1);
    }
}
