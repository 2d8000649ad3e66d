//! What ends on any node, as it ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::answers::{Fleet, line, path_of};
use super::gather::{begun, unreachable};
use crate::kube::AgentAt;
use crate::recent::{Asked, Partial, Trailer};
use crate::serve::{Lines, Question};

/// Lines that the reader may lag behind. Beyond that agents wait, and tell what it missed.
const LAG: usize = 256;

/// Between looks at which agents there are, and before one that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// Follows all agents for as long as the lines are read.
pub(super) async fn follow(fleet: Fleet, what: Asked, asked: Question) -> Lines {
    let (sender, lines) = channel(LAG);
    let mut tasks = JoinSet::new();
    // First, so that nothing is told between.
    if let Some(own) = fleet.own_rows(what, &asked).await {
        tasks.spawn(pass_on(own, sender.clone()));
    }
    tasks.spawn(watch(fleet, what, asked, sender));
    // The tasks end with the stream.
    let open: (Receiver<Bytes>, JoinSet<()>) = (lines, tasks);
    stream::unfold(open, async |(mut lines, tasks)| {
        let line = lines.recv().await?;
        Some((line, (lines, tasks)))
    })
    .boxed()
}

/// Passes on what is told here.
async fn pass_on(mut own: Lines, lines: Sender<Bytes>) {
    while let Some(line) = own.next().await {
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

/// Keeps one task for each agent that there is.
async fn watch(fleet: Fleet, what: Asked, asked: Question, lines: Sender<Bytes>) {
    let mut tasks = JoinSet::new();
    let mut followed: HashMap<SocketAddr, AbortHandle> = HashMap::new();
    let (mut is_told, mut is_first) = (false, true);
    loop {
        let (agents, partial) = fleet.asked(&asked.query).await;
        match partial {
            None => {
                is_told = false;
                followed.retain(|address, task| {
                    let stays = agents.iter().any(|agent| agent.address == *address);
                    if !stays {
                        task.abort();
                    }
                    stays
                });
            }
            Some(partial) => {
                if !std::mem::replace(&mut is_told, true) && tell(&lines, partial).await.is_err() {
                    return;
                }
            }
        }
        for agent in agents {
            // What an agent remembers was asked for once, of those that were there then.
            let text = if is_first { asked.text.clone() } else { from_now_on(&asked.text) };
            followed
                .entry(agent.address)
                .or_insert_with(|| tasks.spawn(one(fleet.clone(), what, agent, text, lines.clone())));
        }
        is_first = false;
        sleep(AGAIN).await;
        while tasks.try_join_next().is_some() {}
    }
}

/// Follows one agent. What ended while it could not be is not told, and that is said.
async fn one(fleet: Fleet, what: Asked, agent: AgentAt, text: String, lines: Sender<Bytes>) {
    let base = path_of(what);
    let (mut path, again) = (format!("{base}?{text}"), format!("{base}?{}", from_now_on(&text)));
    let mut is_told = false;
    loop {
        let token = fleet.token().read();
        let why = match begun(&agent, &path, token.as_ref(), fleet.dial()).await {
            Err(why) => why,
            Ok(mut answer) => {
                is_told = false;
                path.clone_from(&again);
                loop {
                    match answer.line().await {
                        Ok(Some(line)) => {
                            if lines.send(line).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => break unreachable(&agent.node, "it ended"),
                        Err(error) => break unreachable(&agent.node, &error.to_string()),
                    }
                }
            }
        };
        if !is_told && tell(&lines, why).await.is_err() {
            return;
        }
        is_told = true;
        sleep(AGAIN).await;
    }
}

async fn tell(lines: &Sender<Bytes>, partial: Partial) -> Result<(), ()> {
    let told = line(&Trailer { partial: vec![partial], next: None });
    lines.send(told).await.map_err(|_nobody_reads| ())
}

/// The same question, but for what is remembered.
fn from_now_on(text: &str) -> String {
    let rest = text.split('&').filter(|pair| !pair.starts_with("since=") && !pair.starts_with("follow="));
    rest.filter(|pair| !pair.is_empty()).chain(["follow=true"]).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::from_now_on;

    #[test]
    fn what_is_remembered_is_asked_for_once() {
        assert_eq!(from_now_on("since=5m&namespace=ml&follow=true"), "namespace=ml&follow=true");
        assert_eq!(from_now_on(""), "follow=true");
    }
}
