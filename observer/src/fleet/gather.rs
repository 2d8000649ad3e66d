//! The best lines of all agents, as one answer: bounded in what is held, however many there are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ask::{Answer, AskError, Call, ask};
use crate::kube::AgentAt;
use crate::recent::{self, Partial, Trailer};
use crate::serve::{Lines, Token};
use crate::tls::Dial;

/// Agents that are asked at a time.
const AT_A_TIME: usize = 64;

/// How long an agent may take to begin with its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it may take for the whole of it: as long as it may search, and what comes and goes besides.
const WHOLE: Duration = Duration::from_nanos(recent::PATIENCE).saturating_add(PATIENCE);

/// Bytes of what an agent says of itself that are passed on.
const SAID: usize = 200;

/// Makes one line of two.
type Join = fn(&[u8], &[u8]) -> Bytes;

/// What is asked of every agent.
pub(super) struct Round<'a> {
    pub(super) path: &'a str,
    pub(super) token: Option<&'a Token>,
    /// How they are spoken to, if not in the clear.
    pub(super) dial: Option<&'a Dial>,
    /// Most lines that are kept.
    pub(super) most: usize,
    /// Whether an agent whose lines do not count any more has nothing more to say: all that it could say of itself is
    /// about what would come later.
    pub(super) stops_early: bool,
    /// Makes one line of two that have the same key. Without it they are the same line, told by two.
    pub(super) joins: Option<Join>,
}

/// What all said.
pub(super) struct Gathered<K> {
    /// The first lines by their keys.
    pub(super) lines: BTreeMap<K, Bytes>,
    /// Lines that there was no room for, as far as they were read.
    pub(super) left_out: u64,
    /// Whether there is more than these lines.
    pub(super) is_cut: bool,
    /// What is missing.
    pub(super) partial: Vec<Partial>,
}

/// Why an agent did not say everything.
pub(super) fn unreachable(node: &str, why: &str) -> Partial {
    Partial { node: node.to_owned(), reason: format!("unreachable ({why})") }
}

/// Opens a connection to an agent.
pub(super) async fn connect(agent: &AgentAt) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(agent.address).await.map_err(|error| error.kind().to_string())?;
    // Questions are small and wanted now; without the option they are only late.
    let _best_effort = stream.set_nodelay(true);
    Ok(stream)
}

/// Asks an agent.
async fn question(
    agent: &AgentAt,
    path: &str,
    token: Option<&Token>,
    dial: Option<&Dial>,
) -> Result<Answer, Partial> {
    let unreachable = |why: String| unreachable(&agent.node, &why);
    let stream = connect(agent).await.map_err(unreachable)?;
    let host = agent.address.to_string();
    let call = Call { host: &host, path, token };
    let asked = match dial {
        None => ask(stream, call).await,
        Some(dial) => ask(dial.over(stream).await.map_err(unreachable)?, call).await,
    };
    asked.map_err(|error| match error {
        AskError::Refused { .. } => {
            Partial { node: agent.node.clone(), reason: format!("refused to answer ({error})") }
        }
        error => unreachable(error.to_string()),
    })
}

/// The same of one that has to begin in time.
pub(super) async fn begun(
    agent: &AgentAt,
    path: &str,
    token: Option<&Token>,
    dial: Option<&Dial>,
) -> Result<Answer, Partial> {
    let late = |_late| Err(unreachable(&agent.node, &format!("no answer in {} s", PATIENCE.as_secs())));
    timeout(PATIENCE, question(agent, path, token, dial)).await.unwrap_or_else(late)
}

/// Asks all agents. `key` orders lines, the least first; what has none is no line of an answer.
pub(super) async fn gather<K: Ord + Send>(
    agents: Vec<AgentAt>,
    round: &Round<'_>,
    key: impl Fn(&[u8]) -> Option<K> + Sync,
) -> Gathered<K> {
    let nothing = Gathered { lines: BTreeMap::new(), left_out: 0, is_cut: false, partial: Vec::new() };
    let gathered = Mutex::new(nothing);
    stream::iter(&agents)
        .for_each_concurrent(AT_A_TIME, async |agent| {
            let told = timeout(WHOLE, one(agent, round, &key, &gathered)).await;
            let late =
                |_late| Err(unreachable(&agent.node, &format!("no whole answer in {} s", WHOLE.as_secs())));
            if let Err(partial) = told.unwrap_or_else(late) {
                gathered.lock().unwrap_or_else(PoisonError::into_inner).partial.push(partial);
            }
        })
        .await;
    let mut gathered = gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
    gathered.partial.sort_unstable_by(|a, b| (&a.node, &a.reason).cmp(&(&b.node, &b.reason)));
    gathered
}

/// Takes in what one agent says.
async fn one<K: Ord>(
    agent: &AgentAt,
    round: &Round<'_>,
    key: impl Fn(&[u8]) -> Option<K>,
    gathered: &Mutex<Gathered<K>>,
) -> Result<(), Partial> {
    let broken = |error: AskError| unreachable(&agent.node, &error.to_string());
    let mut answer = begun(agent, round.path, round.token, round.dial).await?;
    while let Some(line) = answer.line().await.map_err(broken)? {
        let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
        match gathered.take(&line, round, &key) {
            Taken::More => {}
            Taken::Enough => return Ok(()),
            Taken::NoLine => {
                let reason =
                    "sent what is no line of an answer: see whether it is of this version".to_owned();
                return Err(Partial { node: agent.node.clone(), reason });
            }
        }
    }
    Err(unreachable(&agent.node, "the answer broke off"))
}

/// What came of a line.
enum Taken {
    /// There are more.
    More,
    /// What comes after it does not count.
    Enough,
    /// It is no line of an answer.
    NoLine,
}

fn shortened(mut partial: Partial) -> Partial {
    for text in [&mut partial.node, &mut partial.reason] {
        *text = text.chars().take(SAID).map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
    partial
}

impl<K: Ord> Gathered<K> {
    /// Takes in an answer that comes from nowhere else.
    pub(super) async fn take_all(
        &mut self,
        mut lines: Lines,
        round: &Round<'_>,
        key: impl Fn(&[u8]) -> Option<K>,
    ) {
        while let Some(line) = lines.next().await {
            if !matches!(self.take(&line, round, &key), Taken::More) {
                return;
            }
        }
    }

    fn take(&mut self, line: &[u8], round: &Round<'_>, key: impl Fn(&[u8]) -> Option<K>) -> Taken {
        if let Some(key) = key(line) {
            if !self.offer(key, line, round) && round.stops_early {
                return Taken::Enough;
            }
            return Taken::More;
        }
        let Ok(trailer) = serde_json::from_slice::<Trailer>(line) else { return Taken::NoLine };
        self.is_cut |= trailer.next.is_some();
        self.partial.extend(trailer.partial.into_iter().map(shortened));
        Taken::Enough
    }

    /// Takes a line in if it belongs to the first ones; whether it did.
    fn offer(&mut self, key: K, line: &[u8], round: &Round<'_>) -> bool {
        if let Some(known) = self.lines.get_mut(&key) {
            if let Some(join) = round.joins {
                *known = join(known, line);
            }
            return true;
        }
        let is_full = self.lines.len() >= round.most;
        if is_full {
            self.is_cut = true;
            self.left_out += 1;
            if self.lines.last_key_value().is_none_or(|(last, _)| *last <= key) {
                return false;
            }
            self.lines.pop_last();
        }
        // A copy, so that a line does not hold the whole buffer that it came in.
        self.lines.insert(key, Bytes::copy_from_slice(line));
        true
    }
}
