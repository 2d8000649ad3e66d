//! What whoever asks may see: everything, or what is of namespaces whose logs the API server lets them read.
//!
//! Answers of the API server are remembered for a short while, so what was granted or taken away counts within
//! [`REMEMBERED`], in streams that are open, too. Where it does not answer, nothing is shown.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use super::Lines;
use crate::kube::{Doing, Reviews, User};
use crate::recent::Trailer;

/// For how long an answer of the API server is good.
pub const REMEMBERED: Duration = Duration::from_secs(30);

/// Answers that are remembered at a time, of each kind.
const ANSWERS: usize = 4096;

/// Digest of a token: tokens themselves are not kept beyond the request.
type Digest = [u8; 32];

/// Asks the API server, and remembers for a while.
pub struct Reviewer {
    reviews: Reviews,
    monotonic: fn() -> u64,
    users: Mutex<Remembered<Digest, Option<User>>>,
    rights: Mutex<Remembered<(Digest, Doing), bool>>,
}

struct Remembered<K, V>(HashMap<K, (u64, V)>);

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K, now: u64) -> Option<V> {
        let (until, value) = self.0.get(key)?;
        (now < *until).then(|| value.clone())
    }

    fn put(&mut self, key: K, value: V, now: u64) {
        if self.0.len() >= ANSWERS {
            self.0.retain(|_, (until, _)| now < *until);
        }
        if self.0.len() >= ANSWERS {
            // Whoever fills it has everybody asked for again, and no more.
            self.0.clear();
        }
        self.0.insert(key, (now.saturating_add(REMEMBERED.as_nanos() as u64), value));
    }
}

impl Reviewer {
    /// One that remembers by this clock.
    pub fn new(reviews: Reviews, monotonic: fn() -> u64) -> Self {
        let (users, rights) =
            (Mutex::new(Remembered(HashMap::new())), Mutex::new(Remembered(HashMap::new())));
        Self { reviews, monotonic, users, rights }
    }

    async fn user(&self, token: &str) -> Result<Option<User>, String> {
        let digest = digest(token);
        let known =
            self.users.lock().unwrap_or_else(PoisonError::into_inner).get(&digest, (self.monotonic)());
        if let Some(user) = known {
            return Ok(user);
        }
        let user = self.reviews.user(token).await?;
        let now = (self.monotonic)();
        self.users.lock().unwrap_or_else(PoisonError::into_inner).put(digest, user.clone(), now);
        Ok(user)
    }

    /// Whether the owner of a token may do something; nobody's token may nothing.
    ///
    /// # Errors
    /// Why the API server does not tell.
    async fn may(&self, token: &str, doing: Doing) -> Result<bool, String> {
        let Some(user) = self.user(token).await? else { return Ok(false) };
        let key = (digest(token), doing);
        let known = self.rights.lock().unwrap_or_else(PoisonError::into_inner).get(&key, (self.monotonic)());
        if let Some(may) = known {
            return Ok(may);
        }
        let may = self.reviews.may(&user, &key.1).await?;
        let now = (self.monotonic)();
        self.rights.lock().unwrap_or_else(PoisonError::into_inner).put(key, may, now);
        Ok(may)
    }
}

fn digest(token: &str) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().unwrap_or_default()
}

/// What whoever asks may see.
#[derive(Clone)]
pub(super) enum Sight {
    /// Everything.
    All,
    /// What the owner of a token may.
    Of(Arc<Viewer>),
}

/// Somebody who presented a token of the API server's.
pub(super) struct Viewer {
    reviewer: Arc<Reviewer>,
    token: String,
}

/// Whether a token of the API server's lets somebody in.
pub(super) enum Admission {
    /// It does.
    As(Sight),
    /// It is nobody's.
    Nobody,
    /// Its owner may not do this.
    Forbidden,
}

/// Lets in whoever presents a token that the API server knows.
///
/// # Errors
/// Why the API server does not tell.
pub(super) async fn admit(reviewer: &Arc<Reviewer>, token: &str) -> Result<Admission, String> {
    if reviewer.user(token).await?.is_none() {
        return Ok(Admission::Nobody);
    }
    let viewer = Viewer { reviewer: Arc::clone(reviewer), token: token.to_owned() };
    Ok(Admission::As(Sight::Of(Arc::new(viewer))))
}

/// Lets in whoever may read metrics.
///
/// # Errors
/// Why the API server does not tell.
pub(super) async fn admit_to_metrics(reviewer: &Arc<Reviewer>, token: &str) -> Result<Admission, String> {
    if reviewer.user(token).await?.is_none() {
        return Ok(Admission::Nobody);
    }
    let may = reviewer.may(token, Doing::ReadMetrics).await?;
    Ok(if may { Admission::As(Sight::All) } else { Admission::Forbidden })
}

/// What tells whose a line is.
#[derive(Deserialize)]
struct Whose {
    namespace: String,
}

/// A line in the place of others that were missed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lagged {
    #[serde(rename = "lagged")]
    _missed: u64,
}

impl Viewer {
    /// Whether a line may be seen. One that does not say whose it is, only by whoever sees everything.
    async fn may_see(&self, line: &[u8]) -> Result<bool, String> {
        if serde_json::from_slice::<Trailer>(line).is_ok() || serde_json::from_slice::<Lagged>(line).is_ok() {
            return Ok(true);
        }
        if self.reviewer.may(&self.token, Doing::ReadLogs(String::new())).await? {
            return Ok(true);
        }
        match serde_json::from_slice(line) {
            Ok(Whose { namespace }) if !namespace.is_empty() => {
                self.reviewer.may(&self.token, Doing::ReadLogs(namespace)).await
            }
            _ => Ok(false),
        }
    }
}

impl Sight {
    /// The lines that may be seen. They end where the API server does not tell: an answer without its trailer is none.
    pub(super) fn of(self, lines: Lines) -> Lines {
        let Self::Of(viewer) = self else { return lines };
        let open = (lines, viewer);
        stream::unfold(open, |(mut lines, viewer)| async move {
            loop {
                let line: Bytes = lines.next().await?;
                match viewer.may_see(&line).await {
                    Ok(true) => return Some((line, (lines, viewer))),
                    Ok(false) => {}
                    Err(why) => {
                        tracing::warn!(
                            why,
                            "the API server does not tell what may be seen: an answer ends early"
                        );
                        return None;
                    }
                }
            }
        })
        .boxed()
    }
}
