//! Keeps whoever wants to know up to date on one kind of object.

use std::{fmt::Debug, sync::Arc};

use futures_util::{Stream, StreamExt as _, pin_mut};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::health::{Failure, Health};

/// Objects that come in one answer of a list.
const PAGE: u32 = 500;

/// Whoever is kept up to date.
pub trait Keep<K>: Send {
    /// Everything is told anew: what is not told until [`Keep::told`] is not there any more.
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

/// Keeps `keep` up to date, until it is dropped. Bookmarks, time-outs, 410 and breaks of the connection are handled by
/// the library, which waits from 0.8 to 30 s before it tries again.
pub async fn keep<K>(api: Api<K>, config: watcher::Config, health: Arc<Health>, keep: &mut impl Keep<K>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let events = watcher(api, config.page_size(PAGE)).default_backoff();
    follow(events, &health, keep).await;
}

async fn follow<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    health: &Health,
    keep: &mut impl Keep<K>,
) {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                health.works();
                match event {
                    Event::Init => {
                        health.listed();
                        keep.begin();
                    }
                    Event::InitApply(object) | Event::Apply(object) => keep.apply(object),
                    Event::Delete(object) => keep.delete(object),
                    Event::InitDone => keep.told(),
                }
                health.count(keep.len());
            }
            Err(error) => health.fail(Failure::of(&error), &error),
        }
    }
}
