//! Which of several replicas leads: a Lease, kept as client-go's `tools/leaderelection` keeps it.
//!
//! Written here because the crates for it are not safe with two replicas. They take an expired Lease without naming
//! the version that they saw, judge expiry by the other node's clock, and leave a leader that lost the API server
//! believing that it leads. Here every write names the version that it builds on, so that the API server decides
//! between two; a Lease is expired once this replica has seen it unchanged for its whole duration, by its own
//! monotonic clock; and a leader counts as one for less than that since it last *began* to renew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::info;

use super::{
    Clocks,
    connect::{ConnectError, Connection},
    health::{Failure, Health},
};

/// How long a Lease lasts that is not renewed.
const DURATION: Duration = Duration::from_secs(15);

/// For how long a leader leads that does not manage to renew it.
const RENEWED_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks at it, and two renewals.
const PERIOD: Duration = Duration::from_secs(2);

/// How long one look and renewal may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a release may take, while this process ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// The time for which this replica leads without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// What happened until then, in nanoseconds of the wall clock, is the business of who led before.
    pub since: u64,
}

/// Whether this replica leads.
#[derive(Clone)]
pub struct Leadership {
    clock: fn() -> u64,
    /// Monotonic nanoseconds until which it does.
    until: Arc<AtomicU64>,
    term: watch::Receiver<Option<Term>>,
}

impl Leadership {
    /// Whether it does now. True for no two replicas at a time.
    pub fn leads(&self) -> bool {
        (self.clock)() < self.until.load(Ordering::Acquire)
    }

    /// The terms, one after the other, with nothing between them.
    pub fn terms(&self) -> watch::Receiver<Option<Term>> {
        self.term.clone()
    }
}

/// Takes part in the election.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    health: Arc<Health>,
    ballot: Ballot,
    clocks: Clocks,
    until: Arc<AtomicU64>,
    term: watch::Sender<Option<Term>>,
}

impl Candidate {
    /// One for the Lease of this name and namespace. `identity` must be no other replica's.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(
        connection: &Connection,
        (namespace, name): (&str, &str),
        identity: String,
        health: Arc<Health>,
        clocks: Clocks,
    ) -> Result<(Self, Leadership), ConnectError> {
        let (term, terms) = watch::channel(None);
        let until = Arc::new(AtomicU64::new(0));
        let leadership = Leadership { clock: clocks.monotonic, until: Arc::clone(&until), term: terms };
        let api = Api::namespaced(connection.client(&health)?, namespace);
        let ballot = Ballot { identity, seen: None };
        Ok((Self { api, name: name.to_owned(), health, ballot, clocks, until, term }, leadership))
    }

    /// Takes part until it is dropped. `settled` is called each time that it is known who leads.
    pub async fn run(&mut self, settled: impl Fn()) -> ! {
        loop {
            self.lapse();
            let began = (self.clocks.monotonic)();
            let left = self.left();
            let patience = if left.is_zero() { PATIENCE } else { left.min(PATIENCE) };
            match timeout(patience, self.attempt()).await {
                Ok(Ok(standing)) => {
                    self.health.works();
                    self.stand(standing, began);
                    settled();
                }
                Ok(Err(error)) => self.health.fail(Failure::of_request(&error), &error),
                Err(late) => self.health.fail(Failure::Unreachable, &late),
            }
            self.lapse();
            // A term ends on time, though nothing else happens then.
            let left = self.left();
            sleep(if left.is_zero() { PERIOD } else { left.min(PERIOD) }).await;
        }
    }

    /// For how long this replica leads yet.
    fn left(&self) -> Duration {
        Duration::from_nanos(self.until.load(Ordering::Acquire).saturating_sub((self.clocks.monotonic)()))
    }

    /// Ends a term that was not renewed in time.
    fn lapse(&self) {
        if self.left().is_zero() && self.term.send_if_modified(|term| term.take().is_some()) {
            info!(lease = self.name, "could not renew the lease in time: leads no more");
        }
    }

    /// What a look at the Lease came to, at this monotonic time before it.
    fn stand(&self, standing: Option<Term>, began: u64) {
        let Some(term) = standing else {
            self.until.store(0, Ordering::Release);
            if self.term.send_replace(None).is_some() {
                info!(lease = self.name, "another replica holds the lease: leads no more");
            }
            return;
        };
        self.until.store(began + RENEWED_WITHIN.as_nanos() as u64, Ordering::Release);
        let new = self.term.send_if_modified(|now| now.is_none() && now.replace(term).is_none());
        if new {
            info!(lease = self.name, identity = self.ballot.identity, "leads");
        }
    }

    /// Looks at the Lease, and takes or renews it if that is due. The term, if this replica leads.
    async fn attempt(&mut self) -> Result<Option<Term>, kube::Error> {
        let mut refused = None;
        // Somebody may have written in between, and be it only an annotation.
        for _ in 0..3 {
            let Some(lease) = self.api.get_opt(&self.name).await? else {
                match self.create().await {
                    Err(error) if is_conflict(&error) => refused = Some(error),
                    created => return created.map(Some),
                }
                continue;
            };
            let spec = lease.spec.clone().unwrap_or_default();
            let Some((spec, term)) = self.ballot.vote(&spec, (self.clocks.monotonic)(), (self.clocks.wall)())
            else {
                return Ok(None);
            };
            let lease = Lease { spec: Some(spec), ..lease };
            match self.api.replace(&self.name, &PostParams::default(), &lease).await {
                Ok(_) => return Ok(Some(term)),
                Err(error) if is_conflict(&error) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    async fn create(&self) -> Result<Term, kube::Error> {
        let wall = (self.clocks.wall)();
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(self.ballot.held(wall, None, 0)) };
        self.api.create(&PostParams::default(), &lease).await?;
        Ok(Term { since: wall })
    }

    /// Leads no more from now on, and leaves the Lease to others. Whoever acted on the term must have ended before.
    pub async fn release(self) {
        self.until.store(0, Ordering::Release);
        if self.term.send_replace(None).is_none() {
            return;
        }
        let release = async {
            let Some(lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
            let spec = lease.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.ballot.identity) {
                return Ok(());
            }
            let spec = LeaseSpec {
                holder_identity: None,
                lease_duration_seconds: Some(1),
                renew_time: micro((self.clocks.wall)()),
                ..spec
            };
            let lease = Lease { spec: Some(spec), ..lease };
            self.api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| ())
        };
        match timeout(FAREWELL, release).await {
            Ok(Ok(())) => info!(lease = self.name, "left the lease to others"),
            Ok(Err(error)) => info!(%error, "could not leave the lease to others; it expires"),
            Err(_late) => info!("could not leave the lease to others in time; it expires"),
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn micro(wall: u64) -> Option<MicroTime> {
    Timestamp::from_nanosecond(wall.into()).ok().map(MicroTime)
}

/// What one replica decides by. No IO, no clock.
struct Ballot {
    identity: String,
    /// The Lease as it was last seen to change, and when that was, monotonic.
    seen: Option<(LeaseSpec, u64)>,
}

impl Ballot {
    /// What to write, and the term that begins or goes on with it; `None` while another one holds the Lease.
    fn vote(&mut self, spec: &LeaseSpec, now: u64, wall: u64) -> Option<(LeaseSpec, Term)> {
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != spec) {
            self.seen = Some((spec.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let renewed = spec.renew_time.as_ref().and_then(|time| u64::try_from(time.0.as_nanosecond()).ok());
        let transitions = spec.lease_transitions.unwrap_or(0);
        match spec.holder_identity.as_deref().filter(|holder| !holder.is_empty()) {
            Some(holder) if holder == self.identity => {
                let acquired = spec.acquire_time.clone();
                Some((
                    self.held(wall, acquired, transitions),
                    Term { since: renewed.unwrap_or(wall).min(wall) },
                ))
            }
            Some(_) => {
                let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                let lasts = seconds.map_or(DURATION, Duration::from_secs);
                if now.saturating_sub(since) < lasts.as_nanos() as u64 {
                    return None;
                }
                // It may have been at work until it would have renewed again.
                let until = renewed.map_or(wall, |renewed| renewed + PERIOD.as_nanos() as u64);
                Some((self.held(wall, None, transitions.saturating_add(1)), Term { since: until.min(wall) }))
            }
            // Released. Who did so had stopped.
            None => {
                let since = renewed.unwrap_or(wall).min(wall);
                Some((self.held(wall, None, transitions.saturating_add(1)), Term { since }))
            }
        }
    }

    fn held(&self, wall: u64, acquired: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            acquire_time: acquired.or_else(|| micro(wall)),
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            lease_transitions: Some(transitions),
            renew_time: micro(wall),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// A wall clock far from the monotonic one.
    const WALL: u64 = 1_800_000_000 * SECOND;

    fn ballot(identity: &str) -> Ballot {
        Ballot { identity: identity.to_owned(), seen: None }
    }

    #[test]
    fn a_lease_is_taken_once_it_was_seen_unchanged_for_its_duration() {
        let (mut a, mut b) = (ballot("a"), ballot("b"));
        let (held, term) = a.vote(&LeaseSpec::default(), SECOND, WALL).unwrap();
        assert_eq!((held.holder_identity.as_deref(), held.lease_transitions), (Some("a"), Some(1)));
        assert_eq!(term.since, WALL);
        // Its clock is an hour ahead, or behind: what counts is how long it was seen.
        for skew in [WALL + 3600 * SECOND, WALL - 3600 * SECOND] {
            let mut b = ballot("b");
            assert!(b.vote(&held, 10 * SECOND, skew).is_none());
            assert!(b.vote(&held, 24 * SECOND, skew).is_none());
            assert!(b.vote(&held, 25 * SECOND, skew).is_some());
        }
        // A renewal starts that anew.
        assert!(b.vote(&held, 10 * SECOND, WALL).is_none());
        let (renewed, _) = a.vote(&held, 12 * SECOND, WALL + 11 * SECOND).unwrap();
        assert_eq!(renewed.acquire_time, held.acquire_time);
        assert_eq!(renewed.lease_transitions, Some(1));
        assert!(b.vote(&renewed, 24 * SECOND, WALL).is_none());
        assert!(b.vote(&renewed, 38 * SECOND, WALL).is_none());
        let (taken, term) = b.vote(&renewed, 39 * SECOND, WALL + 40 * SECOND).unwrap();
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(2)));
        assert_eq!(term.since, WALL + 13 * SECOND, "its last renewal, and a period");
        assert!(a.vote(&taken, 40 * SECOND, WALL).is_none());
    }

    #[test]
    fn what_is_released_is_taken_at_once_and_goes_on_where_it_ended() {
        let released = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            lease_transitions: Some(7),
            renew_time: micro(WALL),
            ..LeaseSpec::default()
        };
        for holder in [None, Some(String::new())] {
            let spec = LeaseSpec { holder_identity: holder, ..released.clone() };
            let (taken, term) = ballot("b").vote(&spec, SECOND, WALL + 5 * SECOND).unwrap();
            assert_eq!((taken.lease_transitions, term.since), (Some(8), WALL));
        }
    }

    #[test]
    fn nonsense_in_a_lease_is_no_trouble() {
        let odd = LeaseSpec {
            holder_identity: Some("x".to_owned()),
            lease_duration_seconds: Some(-5),
            lease_transitions: Some(i32::MAX),
            ..LeaseSpec::default()
        };
        let mut b = ballot("b");
        assert!(b.vote(&odd, 0, WALL).is_none());
        assert!(b.vote(&odd, 14 * SECOND, WALL).is_none());
        let (taken, term) = b.vote(&odd, 15 * SECOND, WALL).unwrap();
        assert_eq!((taken.lease_transitions, term.since), (Some(i32::MAX), WALL));
    }

    #[test]
    fn a_leader_stops_before_others_may_start() {
        assert!(RENEWED_WITHIN < DURATION);
        assert!(PERIOD + PATIENCE < RENEWED_WITHIN);
    }
}
