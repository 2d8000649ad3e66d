//! What engines say of themselves: three gauges, read from their own Prometheus endpoints, if the operator asks.
//!
//! In: finished records, which show where a known engine serves. Out: [`Told`], for the exporter. What an engine
//! says is exported under a name that says so, and is never merged with what was measured.
//!
//! An engine is read only where it was seen to serve: no port is tried that was not seen to speak HTTP, except
//! Triton's, whose metrics have one of their own. It is read only while it still listens there, and only in the
//! network namespace of the observer, since an address means nothing in another. Not covered, and counted: other
//! namespaces, so pods without `hostNetwork`. Not covered, and not seen: engines that have not answered yet, and
//! all but one of several workers that share an address.

mod exposition;
mod gauges;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use gauges::{Engine, Gauges};

use crate::discover::{ListenerAt, listener_at};
use crate::enrich::Identity;
use crate::exchange::{RequestRecord, Role};

use read::Reader;

/// Engines that are read; a node runs a few.
const ENGINES: usize = 256;

/// Results of reads, each shown at 0.
const RESULTS: [&str; 7] =
    ["ok", "not_listening", "other_namespace", "unreachable", "status", "too_large", "no_gauges"];

/// An engine that was seen to serve.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    engine: Engine,
    identity: Arc<Identity>,
    address: SocketAddr,
}

/// What one engine said.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Whose it is.
    pub identity: Arc<Identity>,
    /// Which software.
    pub engine: Engine,
    /// What it said.
    pub gauges: Gauges,
    /// When, monotonic nanoseconds.
    pub time: u64,
}

/// What engines said last, and how often they were asked.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// One for each address; none of an engine whose last read failed.
    pub readings: Vec<Reading>,
    /// Reads by result.
    pub results: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
struct State {
    targets: BTreeMap<u32, Target>,
    readings: BTreeMap<u32, Reading>,
    results: BTreeMap<&'static str, u64>,
}

/// The engines of this node; shared by the thread that learns of them, the one that reads, and scrapes.
pub struct Engines {
    state: Mutex<State>,
    /// Nanoseconds for which a reading is shown.
    lasts: u64,
}

impl Engines {
    /// Engines that are to be read so often.
    pub fn new(interval: Duration) -> Self {
        let results = RESULTS.into_iter().map(|result| (result, 0)).collect();
        let lasts = (2 * interval + read::TIMEOUT).as_nanos() as u64;
        Self { state: Mutex::new(State { results, ..State::default() }), lasts }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from a finished exchange whose process it is, and where it serves.
    pub fn served(&self, record: &RequestRecord, identity: &Arc<Identity>) {
        let engine = record.provider.as_deref().and_then(Engine::of);
        let answered = record.status.is_some_and(|status| (200..300).contains(&status));
        // What a gateway passes on bears the marks of the engine behind it.
        if record.role == Role::Gateway {
            self.process_gone(record.pid);
        }
        if let (Some(engine), Some(address), Role::Server, true) =
            (engine, record.local, record.role, answered)
        {
            let mut state = self.state();
            if state.targets.len() < ENGINES || state.targets.contains_key(&record.pid) {
                state.targets.insert(record.pid, Target { engine, identity: Arc::clone(identity), address });
            }
        }
    }

    /// Forgets a process that is gone.
    pub fn process_gone(&self, pid: u32) {
        let mut state = self.state();
        state.targets.remove(&pid);
        state.readings.remove(&pid);
    }

    /// Reads each engine once. Takes at most [`read::TIMEOUT`] for each.
    pub fn read(&self, clock: impl Fn() -> u64) {
        let targets = self.state().targets.clone();
        let reader = Reader::new();
        let mut asked = BTreeSet::new();
        for (pid, target) in targets {
            let address = match target.engine.metrics_port(pid) {
                Some(port) => SocketAddr::new(target.address.ip(), port),
                None => target.address,
            };
            if !asked.insert(address) {
                self.state().readings.remove(&pid);
                continue;
            }
            let gauges = match listener_at(pid, address) {
                ListenerAt::Here => {
                    reader.read(address).and_then(|text| target.engine.gauges(&text).ok_or("no_gauges"))
                }
                ListenerAt::Nowhere => Err("not_listening"),
                ListenerAt::OtherNamespace => Err("other_namespace"),
            };
            let mut state = self.state();
            *state.results.entry(gauges.as_ref().err().copied().unwrap_or("ok")).or_default() += 1;
            match gauges {
                Ok(gauges) if state.targets.contains_key(&pid) => {
                    let Target { engine, identity, .. } = target;
                    state.readings.insert(pid, Reading { identity, engine, gauges, time: clock() });
                }
                _ => drop(state.readings.remove(&pid)),
            }
        }
    }

    /// What was read lately, at this monotonic time: a reading goes when it is not renewed.
    pub fn told(&self, now: u64) -> Told {
        let state = self.state();
        let is_fresh = |reading: &&Reading| now.saturating_sub(reading.time) <= self.lasts;
        Told {
            readings: state.readings.values().filter(is_fresh).cloned().collect(),
            results: state.results.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answer(provider: &str, pid: u32, local: &str) -> RequestRecord {
        RequestRecord {
            pid,
            provider: Some(provider.to_owned()),
            status: Some(200),
            local: local.parse().ok(),
            ..RequestRecord::default()
        }
    }

    #[test]
    fn only_engines_that_were_seen_to_serve_are_targets() {
        let engines = Engines::new(Duration::from_secs(15));
        let identity = Arc::new(Identity::default());
        let vllm = || answer("vllm", 1, "127.0.0.1:8000");
        for (expected, record) in [
            (1, vllm()),
            (0, answer("llama.cpp", 1, "127.0.0.1:8000")),
            (0, answer("litellm", 1, "127.0.0.1:8000")),
            (0, RequestRecord { local: None, ..vllm() }),
            (0, RequestRecord { status: Some(401), ..vllm() }),
            (0, RequestRecord { role: Role::Gateway, ..vllm() }),
        ] {
            engines.served(&record, &identity);
            assert_eq!(engines.state().targets.len(), expected, "{record:?}");
            engines.process_gone(1);
        }
        engines.served(&vllm(), &identity);
        engines.served(&RequestRecord { role: Role::Gateway, ..vllm() }, &identity);
        assert!(engines.state().targets.is_empty(), "it was taken for an engine before it sent anything on");
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_shows_nothing() {
        let engines = Engines::new(Duration::from_secs(15));
        let identity = Arc::new(Identity::default());
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        engines.served(&answer("vllm", std::process::id(), &address.to_string()), &identity);
        drop(silent);
        let gauges = Gauges { waiting: Some(1.0), ..Gauges::default() };
        let earlier = Reading { identity: Arc::clone(&identity), engine: Engine::Vllm, gauges, time: 1 };
        engines.state().readings.insert(std::process::id(), earlier);
        engines.read(|| 1);
        let told = engines.told(1);
        assert_eq!((told.results["not_listening"], told.results["ok"]), (1, 0));
        assert!(told.readings.is_empty(), "not even what it said before");
    }

    #[test]
    fn a_reading_that_is_not_renewed_goes() {
        let engines = Engines::new(Duration::from_secs(1));
        let gauges = Gauges { waiting: Some(1.0), ..Gauges::default() };
        let reading = Reading { identity: Arc::default(), engine: Engine::Vllm, gauges, time: 100 };
        engines.state().readings.insert(1, reading);
        assert_eq!(engines.told(100 + engines.lasts).readings.len(), 1);
        assert_eq!(engines.told(101 + engines.lasts).readings.len(), 0);
    }
}
