//! Keeps whoever wants to know up to date on one kind of object.
//!
//! kube's watcher lists in pages, follows what changes since, and lists again when the server has forgotten what came
//! since. What it leaves to its caller is done here: to wait between failures, not to hammer where it is refused,
//! and to list again where a watch is refused as too old.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, pin_mut};
use kube::{
    Api, Resource,
    runtime::{
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::health::{Failure, Health};

/// Objects that come in one answer of a list: what is in memory at a time as the server tells it.
const PAGE: u32 = 250;

/// Before what is forbidden or not there is asked for again.
const REFUSED: Duration = Duration::from_secs(15);

/// Whoever is kept up to date.
pub trait Keep<K>: Send {
    /// Everything is told anew: what is not told until [`Keep::told`] is not there any more. May come again before that.
    fn begin(&mut self) {}
    /// This is what an object is now.
    fn apply(&mut self, object: K);
    /// An object is gone.
    fn delete(&mut self, object: K);
    /// Everything was told.
    fn told(&mut self) {}
    /// How many objects are known.
    fn len(&self) -> usize;
    /// Whether none is.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keeps `keep` up to date, until it is dropped. Waits from 0.8 to 30 s before it tries again what failed, and
/// always [`REFUSED`] where it was refused.
pub async fn keep<K>(api: Api<K>, config: watcher::Config, health: Arc<Health>, keep: &mut impl Keep<K>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = config.page_size(PAGE);
    let mut backoff = DefaultBackoff::default();
    while follow(watcher(api.clone(), config.clone()), &mut backoff, &health, keep).await == End::Anew {}
}

/// Why a stream of events is followed no further.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// What is known is no place to go on from: everything is to be listed anew.
    Anew,
    /// There are no more.
    Ended,
}

async fn follow<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    backoff: &mut impl Backoff,
    health: &Health,
    keep: &mut impl Keep<K>,
) -> End {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                // An intention: that the server answers shows in what follows.
                health.listed();
                keep.begin();
            }
            Ok(event) => {
                backoff.reset();
                health.works();
                match event {
                    Event::InitApply(object) | Event::Apply(object) => keep.apply(object),
                    Event::Delete(object) => keep.delete(object),
                    Event::InitDone => keep.told(),
                    Event::Init => {}
                }
                health.count(keep.len());
            }
            Err(error) => {
                let failure = Failure::of(&error);
                health.fail(failure, &error);
                let pause = if failure.is_refusal() { None } else { backoff.next() };
                sleep(pause.unwrap_or(REFUSED)).await;
                match (failure, &error) {
                    // kube's watcher lists again if an event says that a version is too old. A server without a
                    // watch cache says so in the status code, and kube's watcher asks for that version for ever;
                    // and so it does where the resource itself is gone.
                    (Failure::Gone | Failure::NotFound, watcher::Error::WatchStartFailed(_)) => {
                        return End::Anew;
                    }
                    // Of a resource that is not there, there are no objects.
                    (Failure::NotFound, _) => {
                        keep.begin();
                        keep.told();
                        health.count(keep.len());
                    }
                    _ => {}
                }
            }
        }
    }
    End::Ended
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::stream;
    use serde_json::json;

    use super::*;

    /// Names, as they are told.
    #[derive(Default)]
    struct Names {
        known: BTreeSet<&'static str>,
        telling: BTreeSet<&'static str>,
        begun: u32,
    }

    impl Keep<&'static str> for Names {
        fn begin(&mut self) {
            self.begun += 1;
            self.telling.clear();
        }
        fn apply(&mut self, object: &'static str) {
            self.telling.insert(object);
            self.known.insert(object);
        }
        fn delete(&mut self, object: &'static str) {
            self.known.remove(object);
        }
        fn told(&mut self) {
            self.known = std::mem::take(&mut self.telling);
        }
        fn len(&self) -> usize {
            self.known.len()
        }
    }

    fn refused(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(serde_json::from_value(json!({"code": code})).unwrap()))
    }

    async fn follow_all(
        events: Vec<watcher::Result<Event<&'static str>>>,
    ) -> (End, Names, super::super::health::Snapshot, Duration) {
        let (health, mut names) = (Health::of("pods", || 1), Names::default());
        let begin = tokio::time::Instant::now();
        let mut backoff = DefaultBackoff::default();
        let end = follow(stream::iter(events), &mut backoff, &health, &mut names).await;
        (end, names, health.snapshot(), begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_breaks_off_begins_again() {
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply("a")),
            Err(watcher::Error::InitialListFailed(refused(410))),
            Ok(Event::Init),
            Ok(Event::InitApply("b")),
            Ok(Event::InitDone),
            Ok(Event::Apply("c")),
        ];
        let (end, names, told, _) = follow_all(events).await;
        assert_eq!((end, names.begun), (End::Ended, 2));
        assert_eq!(names.known, BTreeSet::from(["b", "c"]));
        assert_eq!((told.lists, told.objects, &told.failures), (2, 2, &vec![("gone", 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_begun_and_fails_waits_longer_each_time() {
        let failing = |_| [Ok(Event::Init), Err(watcher::Error::InitialListFailed(refused(503)))];
        let (_, _, told, took) = follow_all((0..8).flat_map(failing).collect()).await;
        assert_eq!(told.failures, [("server", 8)]);
        // 0.8 s eight times would be 6.4 s, with jitter at most twice that.
        assert!(took > Duration::from_mins(1), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_asked_for_seldom() {
        let (_, _, _, took) = follow_all(vec![Err(watcher::Error::InitialListFailed(refused(403)))]).await;
        assert_eq!(took, REFUSED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_as_too_old_is_given_up() {
        let events = vec![Err(watcher::Error::WatchStartFailed(refused(410))), Ok(Event::Init)];
        let (end, names, ..) = follow_all(events).await;
        assert_eq!((end, names.begun), (End::Anew, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_resource_that_is_gone_there_are_no_objects() {
        let there = vec![Ok(Event::Init), Ok(Event::InitApply("a")), Ok(Event::InitDone)];
        let gone = vec![Err(watcher::Error::WatchStartFailed(refused(404)))];
        let (end, names, ..) = follow_all([there, gone].into_iter().flatten().collect()).await;
        assert_eq!((end, names.known), (End::Anew, BTreeSet::from(["a"])), "once may be chance");
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply("a")),
            Ok(Event::InitDone),
            Err(watcher::Error::InitialListFailed(refused(404))),
        ];
        let (end, names, told, _) = follow_all(events).await;
        assert_eq!((end, names.known, told.objects), (End::Ended, BTreeSet::new(), 0));
    }
}
