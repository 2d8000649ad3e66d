//! What waits to be sent: bounded in bytes, in memory alone. What does not fit goes, the oldest first, and is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Why something is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The queue was full: the receiver is slow or away.
    QueueFull,
    /// The sender was too slow to take it in.
    Lagged,
    /// The receiver refused the request that it was in, and it makes no sense to repeat it.
    Refused,
    /// The receiver took others of the same request, and not this.
    Rejected,
    /// It alone is too large for the receiver.
    TooLarge,
    /// The wall clock was not known yet.
    NoTime,
    /// The observer ended.
    Stopped,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::Lagged,
        Self::Refused,
        Self::Rejected,
        Self::TooLarge,
        Self::NoTime,
        Self::Stopped,
    ];

    /// The word used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Lagged => "lagged",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::NoTime => "no_time",
            Self::Stopped => "stopped",
        }
    }
}

/// What became of what was to be sent: taken in = sent + dropped + waiting + under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `traces`, `logs` or `lines`.
    pub signal: &'static str,
    /// Taken in.
    pub taken: u64,
    /// Acknowledged by the receiver.
    pub sent: u64,
    /// Given up, by cause.
    pub dropped: BTreeMap<Cause, u64>,
    /// Waits.
    pub waiting: u64,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Is under way.
    pub under_way: u64,
    /// Requests to the receiver that failed and are repeated.
    pub retries: u64,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<(T, usize)>,
    told: Told,
    closed: bool,
}

/// A queue of spans or of log records. Cheap to clone; putting something in never waits.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Arc<Mutex<State<T>>>,
    most: usize,
    news: Arc<Notify>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), most: self.most, news: Arc::clone(&self.news) }
    }
}

/// What is under way: items with their sizes, oldest first.
pub(super) type Batch<T> = Vec<(T, usize)>;

impl<T> Queue<T> {
    pub(super) fn new(signal: &'static str, most: usize) -> Self {
        let told = Told { signal, ..Told::default() };
        let state = State { waiting: VecDeque::new(), told, closed: false };
        Self { state: Arc::new(Mutex::new(state)), most, news: Arc::default() }
    }

    /// Whether what waits takes more than half of the room.
    pub(super) fn is_behind(&self) -> bool {
        self.state().told.bytes > self.most as u64 / 2
    }

    /// How much was taken in.
    pub(super) fn taken(&self) -> u64 {
        self.state().told.taken
    }

    /// How much of it was sent, or given up.
    pub(super) fn settled(&self) -> u64 {
        let state = self.state();
        state.told.taken - state.waiting.len() as u64 - state.told.under_way
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Every change is complete in itself, so it is good even after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in something of this size.
    pub(super) fn put(&self, item: T, size: usize) {
        let mut state = self.state();
        state.told.taken += 1;
        if state.closed {
            drop_counted(&mut state.told, Cause::Stopped, 1);
            return;
        }
        state.told.bytes += size as u64;
        state.waiting.push_back((item, size));
        self.shrink(&mut state);
        drop(state);
        self.news.notify_one();
    }

    /// Counts what was taken in and given up at once.
    pub(super) fn refuse(&self, cause: Cause, count: u64) {
        let mut state = self.state();
        state.told.taken += count;
        drop_counted(&mut state.told, cause, count);
    }

    fn shrink(&self, state: &mut State<T>) {
        while state.told.bytes > self.most as u64
            && let Some((_, size)) = state.waiting.pop_front()
        {
            state.told.bytes -= size as u64;
            drop_counted(&mut state.told, Cause::QueueFull, 1);
        }
    }

    /// Returns when something waits, or when nothing will any more; whether something does.
    pub(super) async fn some(&self) -> bool {
        loop {
            let news = self.news.notified();
            {
                let state = self.state();
                if state.closed || !state.waiting.is_empty() {
                    return !state.waiting.is_empty();
                }
            }
            news.await;
        }
    }

    /// Returns when so many wait, or half of the room is taken, or nothing more will come.
    pub(super) async fn full(&self, items: usize) {
        loop {
            let news = self.news.notified();
            {
                let state = self.state();
                let is_behind = state.told.bytes > self.most as u64 / 2;
                if state.closed || is_behind || state.waiting.len() >= items {
                    return;
                }
            }
            news.await;
        }
    }

    /// Returns when nothing more will come.
    pub(super) async fn closed(&self) {
        loop {
            let news = self.news.notified();
            if self.state().closed {
                return;
            }
            news.await;
        }
    }

    /// Takes the oldest out, at most so many items and bytes, but one at least.
    pub(super) fn take(&self, items: usize, bytes: usize) -> Batch<T> {
        let mut state = self.state();
        let (mut batch, mut taken) = (Vec::new(), 0);
        while batch.len() < items
            && let Some((_, size)) = state.waiting.front()
            && (batch.is_empty() || taken + size <= bytes)
            && let Some((item, size)) = state.waiting.pop_front()
        {
            taken += size;
            batch.push((item, size));
        }
        state.told.bytes -= taken as u64;
        state.told.under_way += batch.len() as u64;
        batch
    }

    /// A batch arrived, but for so many of it.
    pub(super) fn arrived(&self, count: usize, rejected: u64) {
        let mut state = self.state();
        let rejected = rejected.min(count as u64);
        state.told.under_way -= count as u64;
        state.told.sent += count as u64 - rejected;
        drop_counted(&mut state.told, Cause::Rejected, rejected);
    }

    /// A batch is given up.
    pub(super) fn lost(&self, count: usize, cause: Cause) {
        let mut state = self.state();
        state.told.under_way -= count as u64;
        drop_counted(&mut state.told, cause, count as u64);
    }

    /// A batch is to be sent again: it takes its place, and what is oldest goes if there is no room.
    pub(super) fn put_back(&self, batch: Batch<T>) {
        let mut state = self.state();
        state.told.under_way -= batch.len() as u64;
        for (item, size) in batch.into_iter().rev() {
            state.told.bytes += size as u64;
            state.waiting.push_front((item, size));
        }
        self.shrink(&mut state);
    }

    pub(super) fn retries(&self) {
        self.state().told.retries += 1;
    }

    /// Nothing more comes. What waits may still be taken.
    pub(super) fn close(&self) {
        self.state().closed = true;
        // One for whoever waits now, and one for whoever is about to.
        self.news.notify_waiters();
        self.news.notify_one();
    }

    /// Gives up what waits.
    pub(super) fn give_up(&self) -> u64 {
        let mut state = self.state();
        let count = std::mem::take(&mut state.waiting).len() as u64;
        state.told.bytes = 0;
        drop_counted(&mut state.told, Cause::Stopped, count);
        count
    }

    pub(super) fn told(&self) -> Told {
        let state = self.state();
        Told { waiting: state.waiting.len() as u64, ..state.told.clone() }
    }
}

fn drop_counted(told: &mut Told, cause: Cause, count: u64) {
    if count > 0 {
        *told.dropped.entry(cause).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(queue: &Queue<u32>, cause: Cause) -> u64 {
        queue.told().dropped.get(&cause).copied().unwrap_or(0)
    }

    fn adds_up(queue: &Queue<u32>) {
        let told = queue.told();
        let known = told.sent + told.dropped.values().sum::<u64>() + told.waiting + told.under_way;
        assert_eq!(told.taken, known, "{told:?}");
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let queue = Queue::new("traces", 100);
        for number in 0..12 {
            queue.put(number, 10);
        }
        assert_eq!((queue.told().waiting, queue.told().bytes), (10, 100));
        assert_eq!(dropped(&queue, Cause::QueueFull), 2);
        let batch = queue.take(4, 1000);
        assert_eq!(batch.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 3, 4, 5]);
        adds_up(&queue);
        // Meanwhile others take their room.
        for number in 12..14 {
            queue.put(number, 10);
        }
        queue.put_back(batch);
        assert_eq!(dropped(&queue, Cause::QueueFull), 4);
        let batch = queue.take(100, 35);
        assert_eq!(batch.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [4, 5, 6]);
        queue.arrived(batch.len(), 1);
        assert_eq!((queue.told().sent, dropped(&queue, Cause::Rejected)), (2, 1));
        let batch = queue.take(2, 0);
        assert_eq!(batch.len(), 1, "one at least");
        queue.lost(batch.len(), Cause::Refused);
        adds_up(&queue);
        queue.close();
        queue.put(99, 1);
        assert_eq!(queue.give_up(), 6);
        assert_eq!(dropped(&queue, Cause::Stopped), 7);
        adds_up(&queue);
        assert_eq!(queue.told().bytes, 0);
    }

    #[test]
    fn what_is_larger_than_the_queue_does_not_stay() {
        let queue = Queue::new("logs", 5);
        queue.put(1, 6);
        assert_eq!((queue.told().waiting, dropped(&queue, Cause::QueueFull)), (0, 1));
        adds_up(&queue);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let queue = Queue::new("traces", 100);
        let other = queue.clone();
        let waiting =
            tokio::spawn(async move { (other.some().await, other.full(2).await, other.closed().await) });
        tokio::task::yield_now().await;
        queue.put(1, 1);
        tokio::task::yield_now().await;
        queue.put(2, 1);
        tokio::task::yield_now().await;
        queue.close();
        assert!(waiting.await.unwrap().0);
        queue.take(2, 2);
        assert!(!queue.some().await, "nothing will come any more");
    }
}
