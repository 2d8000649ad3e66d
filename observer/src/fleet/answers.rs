//! What a fleet answers: what its agents do, in one order.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::directory::{Directory, Remembered};
use super::follow::follow;
use super::gather::{Gathered, Round, gather};
use crate::kube::AgentAt;
use crate::recent::{Asked, Hits, MOST, Order, Partial, Position, Query, Row, Trailer};
use crate::serve::{Api, Lines, Question, TokenFile};
use crate::timeline::Kind;
use crate::tls::Dial;

/// The path of what is asked for.
pub(super) const fn path_of(asked: Asked) -> &'static str {
    match asked {
        Asked::Requests => "/api/v1/requests",
        Asked::Top => "/api/v1/top",
        Asked::Logs => "/api/v1/logs",
        Asked::Events => "/api/v1/events",
        Asked::Explain => "/api/v1/explain",
    }
}

/// The agents of a cluster, as one that answers.
#[derive(Clone)]
pub struct Fleet {
    agents: Remembered,
    token: Arc<TokenFile>,
    dial: Option<Dial>,
    own: Option<Own>,
}

/// Who answers beside the agents.
#[derive(Clone)]
struct Own {
    api: Arc<dyn Api>,
    keeps_lines: bool,
}

impl Fleet {
    /// Of the agents that this directory knows, on a monotonic clock in nanoseconds. Agents on other machines are
    /// presented the token.
    pub fn new(directory: Directory, token: Arc<TokenFile>, clock: fn() -> u64) -> Self {
        Self { agents: Remembered::new(directory, clock), token, dial: None, own: None }
    }

    /// The same, asked over TLS.
    #[must_use]
    pub fn over(self, dial: Option<Dial>) -> Self {
        Self { dial, ..self }
    }

    /// The same, with one who answers beside the agents when events of the cluster are asked for, and, if it keeps
    /// what agents sent, lines of logs.
    #[must_use]
    pub fn beside(self, api: Arc<dyn Api>, keeps_lines: bool) -> Self {
        Self { own: Some(Own { api, keeps_lines }), ..self }
    }

    /// What is known here, where that is asked for. Lines that are told as they come, agents tell.
    pub(super) async fn own_rows(&self, asked: Asked, question: &Question) -> Option<Lines> {
        let own = self.own.as_ref().filter(|_| matches!(asked, Asked::Logs | Asked::Events))?;
        let has_lines = own.keeps_lines && !question.query.follow;
        let is_own = |kind| Kind::OF_CLUSTER.contains(&kind) || (has_lines && kind == Kind::Log);
        let question = Question { query: question.query.only(is_own)?, text: question.text.clone() };
        Some(own.api.answer(asked, question).await)
    }

    /// What agents are asked. Lines that are kept here as well would count twice: they are counted here alone, with those
    /// whose files are gone. Lines themselves are told once, whoever tells them.
    fn for_agents(&self, question: &Question) -> Option<Question> {
        let counts = question.query.bucket.is_some();
        if !self.own.as_ref().is_some_and(|own| own.keeps_lines && counts) {
            return Some(question.clone());
        }
        let query = question.query.only(|kind| kind != Kind::Log)?;
        let kinds: Vec<_> = query.kinds().iter().map(|kind| kind.as_str()).collect();
        let rest = question.text.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("kind="));
        let kinds = format!("kind={}", kinds.join(","));
        let text = rest.chain([kinds.as_str()]).collect::<Vec<_>>().join("&");
        Some(Question { query, text })
    }

    /// The agents of nodes that a question is about.
    pub(super) async fn asked(&self, query: &Query) -> (Vec<AgentAt>, Option<Partial>) {
        let (mut agents, partial) = self.agents.agents().await;
        agents.retain(|agent| query.is_about_node(&agent.node));
        (agents, partial)
    }

    pub(super) fn dial(&self) -> Option<&Dial> {
        self.dial.as_ref()
    }

    pub(super) fn token(&self) -> &TokenFile {
        &self.token
    }

    async fn past(self, asked: Asked, question: Question) -> Lines {
        let query = &question.query;
        if query.bucket.is_some() {
            return self.hits(asked, &question).await;
        }
        match query.order {
            Order::Newest => {
                let gathered = self.all(asked, &question, |line| position(line).map(Reverse)).await;
                let last = gathered.lines.last_key_value().map(|(Reverse(last), _)| last.to_string());
                answer(gathered, last)
            }
            Order::Oldest => {
                let gathered = self.all(asked, &question, position).await;
                let last = gathered.lines.last_key_value().map(|(last, _)| last.to_string());
                answer(gathered, last)
            }
        }
    }

    /// Counts by spans of time, of all nodes together, oldest first.
    async fn hits(&self, asked: Asked, question: &Question) -> Lines {
        let key = |line: &[u8]| Some(Reverse(serde_json::from_slice::<Hits>(line).ok()?.time));
        let mut gathered = self.all(asked, question, key).await;
        if gathered.left_out > 0 {
            let reason = "there are too many spans: the newest are told".to_owned();
            gathered.partial.insert(0, Partial { node: String::new(), reason });
        }
        let lines = gathered.lines.into_values().rev().map(|line| added(&line, b""));
        let lines: Vec<Bytes> =
            lines.chain([line(&Trailer { partial: gathered.partial, next: None })]).collect();
        stream::iter(lines).boxed()
    }

    async fn top_rows(self, question: Question) -> Lines {
        // A role of its own has a row of its own. What has no window is no row.
        let key = |line: &[u8]| {
            let row: Row = serde_json::from_slice(line).ok().filter(|row: &Row| row.window > 0.0)?;
            let ((busy, names), role) = (row.rank(), row.role as u8);
            Some((busy, names.map(str::to_owned), role))
        };
        let mut gathered = self.all(Asked::Top, &question, key).await;
        if gathered.left_out > 0 {
            let reason = format!("{} rows more are left out", gathered.left_out);
            gathered.partial.insert(0, Partial { node: String::new(), reason });
        }
        answer(gathered, None)
    }

    async fn all<K: Ord + Send>(
        &self,
        asked: Asked,
        question: &Question,
        key: impl Fn(&[u8]) -> Option<K> + Sync,
    ) -> Gathered<K> {
        let for_agents = self.for_agents(question);
        let (agents, unknown) = match &for_agents {
            Some(question) => self.asked(&question.query).await,
            None => (Vec::new(), None),
        };
        let text = for_agents.map(|question| question.text).unwrap_or_default();
        let token = self.token.read();
        let counts = question.query.bucket.is_some();
        let round = Round {
            path: &format!("{}?{text}", path_of(asked)),
            token: token.as_ref(),
            dial: self.dial.as_ref(),
            most: if counts { MOST } else { question.query.limit() },
            stops_early: !counts && asked != Asked::Top && question.query.order == Order::Newest,
            joins: counts.then_some(added),
        };
        let (own, mut gathered) = tokio::join!(self.own_rows(asked, question), gather(agents, &round, &key));
        if let Some(own) = own {
            gathered.take_all(own, &round, &key).await;
        }
        gathered.partial.splice(..0, unknown);
        gathered
    }
}

impl Api for Fleet {
    fn answer(&self, asked: Asked, question: Question) -> BoxFuture<'static, Lines> {
        let fleet = self.clone();
        match asked {
            Asked::Top => fleet.top_rows(question).boxed(),
            _ if question.query.follow => follow(fleet, asked, question).boxed(),
            _ => fleet.past(asked, question).boxed(),
        }
    }
}

fn answer<K: Send + 'static>(gathered: Gathered<K>, last: Option<String>) -> Lines {
    let next = last.filter(|_| gathered.is_cut);
    let trailer = line(&Trailer { partial: gathered.partial, next });
    stream::iter(gathered.lines.into_values().chain([trailer])).boxed()
}

pub(super) fn line(value: &impl Serialize) -> Bytes {
    // Texts and lists of them always have a form.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}

/// One span's counts of two nodes, as that of all.
fn added(one: &[u8], other: &[u8]) -> Bytes {
    let hits = |line: &[u8]| serde_json::from_slice::<Hits>(line).unwrap_or_default();
    let (one, other) = (hits(one), hits(other));
    line(&Hits { node: String::new(), hits: one.hits.saturating_add(other.hits), ..one })
}

/// Where a line stands that is a record.
fn position(line: &[u8]) -> Option<Position> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
        node: String,
        #[serde(alias = "time")]
        ended_at: String,
    }
    let named: Named = serde_json::from_slice(line).ok()?;
    Position::named(&named.ended_at, named.node, named.id)
}
