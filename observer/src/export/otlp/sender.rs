//! Takes what waits and sends it, as long as it takes.

use std::time::Duration;

use tracing::{info, warn};

use super::queue::{Cause, Queue};
use super::reply::{Reply, backoff};
use super::signal::{Entry, Signal};
use super::transport::Transport;

/// Items of a request (OpenTelemetry: batch span processor, `maxExportBatchSize`).
pub(super) const ITEMS: usize = 512;

/// Bytes of a request before compression: receivers take 4 MiB by default (grpc: `defaultServerMaxReceiveMessageSize`).
const BYTES: usize = 2 << 20;

/// How long the first item waits for others.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sends until the queue is closed and empty, or the receiver does not take the rest at once.
pub(super) async fn run<S: Signal>(queue: Queue<Entry<S::Record>>, transport: &Transport, wall: fn() -> i64) {
    let mut said = Said::default();
    let (mut most, mut failures) = (ITEMS, 0_u32);
    while queue.some().await {
        tokio::select! {
            () = queue.full(most) => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let batch = queue.take(most, BYTES);
        let reply = transport.send::<S>(S::request(&batch)).await;
        let count = batch.len();
        match reply {
            Reply::Arrived { rejected, says } => {
                queue.arrived(count, rejected);
                said.arrived::<S>(rejected, says);
                (failures, most) = (0, (most * 2).min(ITEMS));
            }
            Reply::TooLarge if count > 1 => {
                most = (count / 2).max(1);
                queue.put_back(batch);
            }
            Reply::TooLarge => {
                queue.lost(count, Cause::TooLarge);
                said.failed::<S>("one alone is too large for the receiver and is given up");
            }
            Reply::Refused { why } => {
                queue.lost(count, Cause::Refused);
                said.failed::<S>(&format!("given up: {why}"));
            }
            Reply::Again { after, why } => {
                failures = failures.saturating_add(1);
                queue.retries();
                queue.put_back(batch);
                said.failed::<S>(&format!("tried again until there is no room: {why}"));
                let wait = backoff(failures, after, wall().unsigned_abs());
                let is_over = tokio::select! {
                    () = tokio::time::sleep(wait) => false,
                    // What is closed meanwhile has one more chance; what was closed before has had it.
                    () = queue.closed() => true,
                };
                if is_over && said.last_chance() {
                    break;
                }
            }
        }
    }
    let left = queue.give_up();
    if left > 0 {
        warn!(signal = S::NAME, left, "not sent before the end");
    }
}

/// What was said about the receiver, so that it is not said again for each request.
#[derive(Default)]
struct Said {
    failure: Option<String>,
    partial: Option<String>,
    had_last_chance: bool,
}

impl Said {
    fn failed<S: Signal>(&mut self, why: &str) {
        if self.failure.as_deref() != Some(why) {
            warn!(signal = S::NAME, why, "the OTLP receiver does not take it");
            self.failure = Some(why.to_owned());
        }
    }

    fn arrived<S: Signal>(&mut self, rejected: u64, says: String) {
        if self.failure.take().is_some() {
            info!(signal = S::NAME, "the OTLP receiver takes it again");
        }
        if !says.is_empty() && self.partial.as_ref() != Some(&says) {
            warn!(signal = S::NAME, rejected, says, "the OTLP receiver has something to say");
            self.partial = Some(says);
        }
    }

    fn last_chance(&mut self) -> bool {
        std::mem::replace(&mut self.had_last_chance, true)
    }
}
