//! WATCH: a stream of frames, one JSON event each
//! (kubernetes: apiserver/pkg/endpoints/handlers/watch.go, apiserver/pkg/storage/cacher).

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Shared, State,
    read::{number, selection, within},
    seen::Seen,
    selector::Selection,
    shape::Shape,
    status::Failure,
    store::Change,
};

/// How long a watch lasts that does not say it.
const LONGEST: Duration = Duration::from_mins(30);

/// Between the half frame that a cut watch ends with and the end of its connection, for the half to be sent.
const BEFORE_CUT: Duration = Duration::from_millis(10);

/// A watch that goes on.
pub(super) struct Watch {
    shared: Arc<Shared>,
    news: Receiver<u64>,
    seen: Arc<Seen>,
    shape: Shape,
    selection: Selection,
    /// What was sent reaches to here.
    version: u64,
    bookmarks: bool,
    frames: VecDeque<Bytes>,
    end: Instant,
    bookmark_every: Duration,
    next_bookmark: Instant,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Open,
    /// What is queued is the last.
    Over,
    /// Half a frame was sent.
    Cut,
    Closed,
}

impl Watch {
    /// Begins a watch; or says why it cannot.
    pub(super) fn new(
        shared: &Arc<Shared>,
        state: &State,
        shape: Shape,
        seen: &Arc<Seen>,
        gone_in_head: bool,
    ) -> Result<Self, Failure> {
        let request = &seen.request;
        let selection = selection(&shape.resource, request)?;
        let asked = number(request, "resourceVersion")?.unwrap_or(0);
        let seconds = number(request, "timeoutSeconds")?.filter(|seconds| *seconds > 0);
        let now = Instant::now();
        let mut watch = Self {
            shared: Arc::clone(shared),
            news: shared.news.subscribe(),
            seen: Arc::clone(seen),
            shape,
            selection,
            version: asked,
            bookmarks: request.parameter("allowWatchBookmarks") == "true",
            frames: VecDeque::new(),
            end: now + seconds.map_or(LONGEST, Duration::from_secs),
            bookmark_every: state.bookmark_every,
            next_bookmark: now + state.bookmark_every,
            stage: Stage::Open,
        };
        let streams_list = request.parameter("sendInitialEvents") == "true";
        if asked == 0 || streams_list {
            watch.version = state.store.version();
            watch.begin_with_all(state);
            if streams_list && watch.bookmarks {
                watch.bookmark(true);
            }
        } else if let Err(expired) = state.store.since(asked) {
            let failure = Failure::too_old(asked, expired.0);
            if gone_in_head {
                return Err(failure);
            }
            watch.fail(&failure);
        }
        seen.set_open(true);
        Ok(watch)
    }

    /// The next frame; an error where the connection is to break off.
    pub(super) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            match self.stage {
                Stage::Cut => {
                    sleep(BEFORE_CUT).await;
                    self.stage = Stage::Closed;
                    return Some(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                Stage::Closed => return None,
                Stage::Open | Stage::Over if self.seen.is_cut() => {
                    self.stage = Stage::Cut;
                    return Some(Ok(self.half_frame()));
                }
                Stage::Open | Stage::Over => {}
            }
            self.news.mark_unchanged();
            if self.is_silenced() {
                self.shared.hear(&mut self.news).await;
                continue;
            }
            if let Some(frame) = self.frames.pop_front() {
                self.seen.sent(frame.len());
                return Some(Ok(frame));
            }
            if self.stage == Stage::Over {
                return None;
            }
            self.look();
            if self.frames.is_empty() && self.stage == Stage::Open {
                self.wait().await;
            }
        }
    }

    fn is_silenced(&self) -> bool {
        self.shared.state().faults.silences(&self.seen.request)
    }

    async fn wait(&mut self) {
        let due = if self.bookmarks { self.end.min(self.next_bookmark) } else { self.end };
        tokio::select! {
            () = self.shared.hear(&mut self.news) => return,
            () = sleep_until(due) => {}
        }
        if self.bookmarks {
            self.bookmark(false);
        }
        if due == self.end {
            self.stage = Stage::Over;
        }
    }

    /// Queues what happened since.
    fn look(&mut self) {
        let shared = Arc::clone(&self.shared);
        let state = shared.state();
        if !state.resources.contains(&self.shape.resource) {
            self.stage = Stage::Over;
            return;
        }
        match state.store.since(self.version) {
            Ok(changes) => {
                let collection = self.shape.resource.collection();
                for change in changes.filter(|change| change.key.collection == collection) {
                    self.tell(change);
                }
                // A version beyond the server's own, of a server that was there before, is waited for.
                self.version = self.version.max(state.store.version());
            }
            Err(expired) => self.fail(&Failure::too_old(self.version, expired.0)),
        }
        if self.seen.take_bookmark() && self.bookmarks {
            self.bookmark(false);
        }
    }

    /// Queues what a change means to who selects.
    fn tell(&mut self, change: &Change) {
        if !within(&change.key, &self.seen.request.namespace) {
            return;
        }
        let selected = |object: &Option<Arc<super::store::Object>>| {
            object
                .as_ref()
                .filter(|object| self.selection.matches(&object.value))
                .map(|object| object.value.clone())
        };
        let (kind, value) = match (selected(&change.before), selected(&change.after)) {
            (None, None) => return,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            // Gone, or not selected any more: as it was, with the version of the change.
            (Some(mut before), None) => {
                before["metadata"]["resourceVersion"] = json!(change.version.to_string());
                ("DELETED", before)
            }
        };
        self.queue(kind, &self.shape.show(&value));
    }

    fn begin_with_all(&mut self, state: &State) {
        for (key, object) in state.store.all(self.shape.resource.collection()) {
            if within(key, &self.seen.request.namespace) && self.selection.matches(&object.value) {
                self.queue("ADDED", &self.shape.show(&object.value));
            }
        }
    }

    fn bookmark(&mut self, ends_initial: bool) {
        self.queue("BOOKMARK", &self.shape.bookmark(self.version, ends_initial));
        self.next_bookmark = Instant::now() + self.bookmark_every;
    }

    fn fail(&mut self, failure: &Failure) {
        self.queue("ERROR", &failure.0);
        self.stage = Stage::Over;
    }

    fn queue(&mut self, kind: &str, object: &Value) {
        let mut frame = json!({"type": kind, "object": object}).to_string();
        frame.push('\n');
        self.frames.push_back(frame.into());
    }

    /// Half of what comes next, or of a frame that would not have come.
    fn half_frame(&self) -> Bytes {
        let next = self.frames.front().cloned();
        let frame =
            next.unwrap_or_else(|| Bytes::from_static(b"{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"P"));
        frame.slice(..frame.len() / 2)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seen.set_open(false);
    }
}
