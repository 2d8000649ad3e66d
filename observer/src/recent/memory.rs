//! The memory itself: a queue of finished requests, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::position::Position;
use super::size::held;
use crate::exchange::RequestRecord;

/// A finished request, as it is remembered and handed on.
#[derive(Debug)]
pub struct Finished {
    /// Counts from 0 on each node.
    pub sequence: u64,
    /// Its place among all requests.
    pub position: Position,
    /// What is known of it; without what only histograms need.
    pub record: RequestRecord,
    bytes: usize,
}

/// Finished requests, newest last.
#[derive(Debug)]
pub struct Recent {
    finished: VecDeque<Arc<Finished>>,
    bytes: usize,
    most: usize,
    next: u64,
    /// Nothing that ended after this is missing, nanoseconds since 1970.
    complete_since: i64,
}

impl Recent {
    /// An empty memory that holds at most so many bytes, and that begins now.
    pub fn new(most: usize, now: i64) -> Self {
        Self { finished: VecDeque::new(), bytes: 0, most, next: 0, complete_since: now }
    }

    /// Takes a request in that ended just now, and forgets the oldest if there is no room.
    pub fn remember(&mut self, mut record: RequestRecord, now: i64) -> Arc<Finished> {
        record.gap_micros = Vec::new();
        let position = Position::of(&record).unwrap_or_else(|| {
            // The core did not know the wall clock yet.
            record.ended_at = Timestamp::from_nanosecond(now.into()).ok().map(|now| now.to_string());
            Position { time: now, node: record.node.clone(), id: record.id.clone() }
        });
        let bytes = held(&record);
        let finished = Arc::new(Finished { sequence: self.next, position, record, bytes });
        self.next += 1;
        self.bytes += bytes;
        self.finished.push_back(Arc::clone(&finished));
        while self.bytes > self.most
            && let Some(oldest) = self.finished.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.complete_since = self.complete_since.max(oldest.position.time);
        }
        finished
    }

    /// The newest that came before this one, newest first, at most so many. Copying a few at a time keeps whoever
    /// remembers from waiting.
    pub fn before(&self, sequence: u64, most: usize) -> impl Iterator<Item = Arc<Finished>> {
        let first = self.finished.front().map_or(self.next, |finished| finished.sequence);
        // Sequences have no holes.
        let end = sequence.min(self.next).saturating_sub(first) as usize;
        self.finished.range(..end).rev().take(most).cloned()
    }

    /// Since when nothing is missing, nanoseconds since 1970.
    pub fn complete_since(&self) -> i64 {
        self.complete_since
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.finished.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.finished.is_empty()
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many were forgotten for want of room.
    pub fn forgotten(&self) -> u64 {
        self.next - self.finished.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize) -> RequestRecord {
        RequestRecord {
            id: number.to_string(),
            ended_at: Some(format!("2026-03-01T12:00:{number:02}Z")),
            gap_micros: vec![1; 10_000],
            ..RequestRecord::default()
        }
    }

    fn ids(memory: &Recent, sequence: u64, most: usize) -> Vec<String> {
        memory.before(sequence, most).map(|finished| finished.record.id.clone()).collect()
    }

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let one = held(&RequestRecord { gap_micros: Vec::new(), ..record(1) });
        let mut memory = Recent::new(3 * one, 7);
        assert_eq!((memory.len(), memory.complete_since()), (0, 7));
        let sequences: Vec<u64> = (1..=3).map(|number| memory.remember(record(number), 0).sequence).collect();
        assert_eq!((sequences, memory.forgotten(), memory.complete_since()), (vec![0, 1, 2], 0, 7));
        assert_eq!(memory.bytes(), 3 * one);
        for number in 4..=5 {
            memory.remember(record(number), 0);
        }
        assert_eq!((memory.len(), memory.forgotten(), memory.bytes()), (3, 2, 3 * one));
        let second: Timestamp = "2026-03-01T12:00:02Z".parse().unwrap();
        assert_eq!(i128::from(memory.complete_since()), second.as_nanosecond());
        assert_eq!(ids(&memory, u64::MAX, 9), ["5", "4", "3"]);
        assert_eq!(ids(&memory, 4, 1), ["4"]);
        assert_eq!(ids(&memory, 3, 9), ["3"]);
        assert_eq!(ids(&memory, 2, 9), [""; 0], "forgotten");
    }

    #[test]
    fn one_that_is_larger_than_the_memory_is_not_kept() {
        let mut memory = Recent::new(100, 0);
        let finished = memory.remember(record(1), 0);
        assert_eq!((finished.record.id.as_str(), memory.len(), memory.bytes()), ("1", 0, 0));
        assert_eq!(memory.forgotten(), 1);
        assert!(finished.record.gap_micros.is_empty());
    }

    #[test]
    fn what_has_no_time_of_its_own_ended_when_it_came() {
        let mut memory = Recent::new(1 << 20, 0);
        let finished = memory.remember(RequestRecord::default(), 42);
        assert_eq!(finished.position.time, 42);
        assert_eq!(finished.record.ended_at.as_deref(), Some("1970-01-01T00:00:00.000000042Z"));
    }
}
