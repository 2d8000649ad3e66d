//! How far a watch can be trusted: when the API server was last heard, and what went wrong.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use kube::runtime::watcher;
use tracing::{info, warn};

/// Why a watch does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer, or an answer that broke off.
    Unreachable,
    /// 401: who asks is not known.
    Unauthorized,
    /// 403: who asks may not.
    Forbidden,
    /// 404: no such resource here.
    NotFound,
    /// 410: too much happened since; it is listed again.
    Gone,
    /// 429: too many requests.
    Throttled,
    /// 5xx.
    Server,
    /// Anything else.
    Other,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Gone,
        Self::Throttled,
        Self::Server,
        Self::Other,
    ];

    /// As label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Gone => "gone",
            Self::Throttled => "throttled",
            Self::Server => "server",
            Self::Other => "other",
        }
    }

    /// What an error of a watch means.
    pub(crate) fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of_request(error),
            watcher::Error::WatchError(status) => Self::of_code(status.code),
            watcher::Error::NoResourceVersion => Self::Other,
        }
    }

    /// What an error of a request means.
    pub(crate) fn of_request(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_code(status.code),
            // A token that cannot be read is as good as one that is not accepted.
            kube::Error::Auth(_) => Self::Unauthorized,
            kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => {
                Self::Other
            }
            _ => Self::Unreachable,
        }
    }

    fn of_code(code: u16) -> Self {
        match code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            410 => Self::Gone,
            429 => Self::Throttled,
            500..=599 => Self::Server,
            _ => Self::Other,
        }
    }

    /// Whether somebody has to change the cluster first: to try again soon would only be a nuisance.
    pub(crate) const fn is_refusal(self) -> bool {
        matches!(self, Self::Forbidden | Self::NotFound)
    }

    /// What an operator can do, where something can be done.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Unauthorized => "; check the service account's token",
            Self::Forbidden => "; grant get, list and watch as deploy/ does",
            Self::NotFound => "; the cluster does not have this resource",
            Self::Unreachable | Self::Gone | Self::Throttled | Self::Server | Self::Other => "",
        }
    }
}

/// One watch, as those who serve it and those who tell of it share it.
#[derive(Debug)]
pub struct Health {
    resource: &'static str,
    clock: fn() -> u64,
    heard: AtomicU64,
    failing: AtomicBool,
    failures: [AtomicU64; Failure::ALL.len()],
    bytes: AtomicU64,
    lists: AtomicU64,
    objects: AtomicU64,
}

/// What is told of a watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Plural name of what is watched.
    pub resource: &'static str,
    /// Seconds since the API server was last heard on it; absent before the first time. A healthy server says
    /// something about every minute.
    pub age: Option<f64>,
    /// What went wrong, by reason.
    pub failures: Vec<(&'static str, u64)>,
    /// Bytes that came.
    pub bytes: u64,
    /// How often everything was listed.
    pub lists: u64,
    /// Objects that are known.
    pub objects: u64,
}

impl Health {
    /// Of a watch of this resource, by its plural name, on this monotonic clock in nanoseconds.
    pub fn of(resource: &'static str, clock: fn() -> u64) -> Arc<Self> {
        Arc::new(Self {
            resource,
            clock,
            heard: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            failures: Default::default(),
            bytes: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            objects: AtomicU64::new(0),
        })
    }

    /// Plural name of what is watched.
    pub fn resource(&self) -> &'static str {
        self.resource
    }

    /// Something came from the API server, of so many bytes.
    pub(crate) fn hear(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heard.store((self.clock)(), Ordering::Relaxed);
    }

    /// An event came: the watch works.
    pub(crate) fn works(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            info!(resource = self.resource, "the watch works again");
        }
    }

    /// Everything was listed.
    pub(crate) fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }

    /// So many objects are known.
    pub(crate) fn count(&self, objects: usize) {
        self.objects.store(objects as u64, Ordering::Relaxed);
    }

    /// It does not get on, for now. Said once until it does.
    pub(crate) fn fail(&self, failure: Failure, error: &dyn std::error::Error) {
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
        // To be told to list again is the ordinary course of a watch.
        if failure != Failure::Gone && !self.failing.swap(true, Ordering::Relaxed) {
            let (resource, remedy) = (self.resource, failure.remedy());
            if failure == Failure::NotFound {
                // A CRD that is not installed is no trouble.
                info!(resource, "not watched{remedy}; it is asked for again");
                return;
            }
            warn!(
                resource,
                "cannot watch: {}{remedy}; what was known stays, and it is tried again",
                chain(error)
            );
        }
    }

    /// What is to be told.
    pub fn snapshot(&self) -> Snapshot {
        let heard = self.heard.load(Ordering::Relaxed);
        let failures = Failure::ALL.into_iter().zip(&self.failures);
        Snapshot {
            resource: self.resource,
            age: (heard != 0).then(|| (self.clock)().saturating_sub(heard) as f64 / 1e9),
            failures: failures
                .map(|(failure, count)| (failure.as_str(), count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            bytes: self.bytes.load(Ordering::Relaxed),
            lists: self.lists.load(Ordering::Relaxed),
            objects: self.objects.load(Ordering::Relaxed),
        }
    }
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text
}
