//! Where the agents are, for as long as that can be told, and as it was last known after that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::kube::AgentAt;
use crate::recent::Partial;

/// Asks whoever knows where the agents are, or says why that cannot be told.
pub type Directory = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<AgentAt>, String>> + Send + Sync>;

/// What is younger is good enough: nanoseconds.
const FRESH: u64 = 5_000_000_000;

/// How long whoever knows may think about it.
const PATIENCE: Duration = Duration::from_secs(2);

/// When the agents were known, and where they were.
type Known = Arc<Mutex<Option<(u64, Vec<AgentAt>)>>>;

/// A directory with a memory.
#[derive(Clone)]
pub(super) struct Remembered {
    directory: Directory,
    clock: fn() -> u64,
    known: Known,
}

impl Remembered {
    /// On a monotonic clock in nanoseconds.
    pub(super) fn new(directory: Directory, clock: fn() -> u64) -> Self {
        Self { directory, clock, known: Known::default() }
    }

    /// The agents, and what is wrong with knowing them.
    pub(super) async fn agents(&self) -> (Vec<AgentAt>, Option<Partial>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = (self.clock)();
        if let Some((time, agents)) = &known
            && now.saturating_sub(*time) < FRESH
        {
            return (agents.clone(), None);
        }
        let told = timeout(PATIENCE, (self.directory)()).await;
        let told = told.unwrap_or_else(|_late| Err(format!("no answer in {} s", PATIENCE.as_secs())));
        let of_all = |reason| Some(Partial { node: String::new(), reason });
        match (told, known) {
            (Ok(agents), _) => {
                let none = agents.is_empty().then(|| "there are no agents".to_owned());
                let kept = Some((now, agents.clone()));
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = kept;
                (agents, none.and_then(of_all))
            }
            (Err(why), Some((time, agents))) => {
                let ago = now.saturating_sub(time) / 1_000_000_000;
                (agents, of_all(format!("agents are those of {ago} s ago ({why})")))
            }
            (Err(why), None) => (Vec::new(), of_all(format!("agents are not known ({why})"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    static NOW: AtomicU64 = AtomicU64::new(100_000_000_000);

    #[tokio::test(start_paused = true)]
    async fn what_was_known_serves_when_nobody_tells() {
        let answers = Arc::new(Mutex::new(vec![
            Ok(vec![AgentAt { node: "a".to_owned(), address: "10.0.0.1:1".parse().unwrap() }]),
            Err("forbidden".to_owned()),
        ]));
        let asked = Arc::clone(&answers);
        let directory: Directory = Arc::new(move || {
            let answer = asked.lock().unwrap().pop();
            Box::pin(async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        });
        let remembered = Remembered::new(directory, || NOW.load(Ordering::Relaxed));
        let told = async || {
            let (agents, partial) = remembered.agents().await;
            (agents.len(), partial.map(|partial| partial.to_string()).unwrap_or_default())
        };
        assert_eq!(told().await, (0, "agents are not known (forbidden)".to_owned()));
        assert_eq!(told().await, (1, String::new()));
        assert_eq!(told().await, (1, String::new()), "not asked again so soon");
        NOW.fetch_add(FRESH + 35_000_000_000, Ordering::Relaxed);
        assert_eq!(told().await, (1, "agents are those of 40 s ago (no answer in 2 s)".to_owned()));
    }

    #[tokio::test]
    async fn none_at_all_is_said() {
        let remembered = Remembered::new(Arc::new(|| Box::pin(async { Ok(Vec::new()) })), || 0);
        let (_, partial) = remembered.agents().await;
        assert_eq!(partial.unwrap().to_string(), "there are no agents");
    }
}
