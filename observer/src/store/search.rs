//! Rows that a question is about, out of all volumes, in the order that was asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::{
    DocAddress, DocId, Score, Searcher, SegmentOrdinal, SegmentReader, TantivyDocument, TantivyError,
};

use super::document::TIME;
use super::shelf::Shelf;
use super::volume::Volume;
use crate::capture::monotonic;
use crate::recent::{Order, Position, Query};
use crate::timeline::Row;

/// Places of rows that are gathered at first, and most of them at a time.
const FIRST: usize = 1 << 10;
const MOST: usize = 1 << 17;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Rows in the order that was asked for.
    pub rows: Vec<Row>,
    /// There may be more: where the next page begins.
    pub next: Option<Position>,
    /// The time that was reached when the search had taken too long.
    pub reached: Option<i64>,
    /// Volumes that could not be read.
    pub damaged: usize,
}

/// Finds rows.
pub(super) fn search(shelf: &Shelf, query: &Query, now: i64, end: u64) -> Found {
    let limit = query.limit();
    let mut rows: Vec<Row> = Vec::new();
    let (reached, damaged) = walk(shelf, query, (now, end), |row| {
        // Rows of one time are ordered by more than that.
        if rows.len() > limit && rows.last().is_some_and(|last| last.time != row.time) {
            return false;
        }
        rows.push(row);
        true
    });
    match query.order {
        Order::Newest => rows.sort_by_cached_key(|row| Reverse(Position::of_row(row))),
        Order::Oldest => rows.sort_by_cached_key(Position::of_row),
    }
    let mut found = Found { rows, next: None, reached, damaged };
    if let Some(reached) = reached {
        // What else has this time was not looked at: the next page begins with all of it.
        found.rows.retain(|row| row.time != reached);
        found.next = Some(before(reached, query.order));
    }
    if found.rows.len() > limit {
        found.rows.truncate(limit);
        found.reached = None;
        found.next = found.rows.last().map(Position::of_row);
    }
    found
}

/// A place before all that has this time.
fn before(time: i64, order: Order) -> Position {
    match order {
        Order::Newest => Position { time: time.saturating_add(1), node: String::new(), id: String::new() },
        Order::Oldest => {
            Position { time: time.saturating_sub(1), node: char::MAX.to_string(), id: String::new() }
        }
    }
}

/// Counts rows by spans of time.
pub(super) fn hits(
    shelf: &Shelf,
    query: &Query,
    span: i64,
    now: i64,
    end: u64,
) -> (BTreeMap<i64, u64>, Found) {
    let mut spans = BTreeMap::new();
    let (reached, damaged) = walk(shelf, query, (now, end), |row| {
        *spans.entry(row.time.div_euclid(span) * span).or_default() += 1;
        true
    });
    (spans, Found { reached, damaged, ..Found::default() })
}

/// Where a row is: its time, so that the order asked for ascends, volume, segment and document.
type Place = (i64, u64, SegmentOrdinal, DocId);

/// A volume as it is now.
struct Opened {
    volume: Arc<Volume>,
    searcher: Searcher,
}

/// Visits rows that meet the conditions, until there are no more or `visit` has enough. The time that was reached when
/// it took too long, and how many volumes could not be read.
fn walk(
    shelf: &Shelf,
    query: &Query,
    (now, end): (i64, u64),
    mut visit: impl FnMut(Row) -> bool,
) -> (Option<i64>, usize) {
    let (mut since, mut until) = query.window(now);
    match (&query.cursor, query.order) {
        (Some(cursor), Order::Newest) => until = until.min(cursor.time),
        (Some(cursor), Order::Oldest) => since = since.max(cursor.time),
        (None, _) => {}
    }
    let mut opened = BTreeMap::new();
    for volume in shelf.volumes() {
        let (first, last) = volume.times();
        if first <= until && last >= since && !volume.is_damaged.load(Ordering::Relaxed) {
            opened.insert(volume.sequence, Opened { searcher: volume.searcher(), volume });
        }
    }
    let narrowed = shelf.fields.narrowed(query, (since, until));
    let (mut after, mut most, mut damaged) = (None, FIRST, 0);
    loop {
        let mut places: Vec<Place> = Vec::new();
        opened.retain(|sequence, opened| {
            let best = Best { order: query.order, window: (since, until), after, volume: *sequence, most };
            match guarded(&opened.volume, || opened.searcher.search(&*narrowed, &best)) {
                Some(found) => places.extend(found),
                None => damaged += 1,
            }
            !opened.volume.is_damaged.load(Ordering::Relaxed)
        });
        let is_last = places.len() < most;
        places.sort_unstable();
        places.truncate(most);
        for (key, sequence, segment, document) in &places {
            if monotonic() >= end {
                return (Some(time(*key, query.order)), damaged);
            }
            let Some(Opened { volume, searcher }) = opened.get(sequence) else { continue };
            let address = DocAddress::new(*segment, *document);
            let Some(stored) = guarded(volume, || searcher.doc::<TantivyDocument>(address)) else {
                opened.remove(sequence);
                damaged += 1;
                continue;
            };
            let row = shelf.fields.row(&stored);
            let row =
                row.filter(|row| query.is_beyond_cursor(&Position::of_row(row)) && query.matches_row(row));
            if row.is_some_and(|row| !visit(row)) {
                return (None, damaged);
            }
        }
        if is_last {
            return (None, damaged);
        }
        after = places.last().copied();
        most = (most * 4).min(MOST);
    }
}

/// Reads in a volume. The index trusts its bytes: damage shows as an error or as a panic.
fn guarded<T>(volume: &Volume, read: impl FnOnce() -> Result<T, TantivyError>) -> Option<T> {
    let read = catch_unwind(AssertUnwindSafe(read));
    if let Ok(Ok(read)) = read {
        return Some(read);
    }
    volume.is_damaged.store(true, Ordering::Relaxed);
    None
}

/// A time as an ascending key, and back.
const fn key(time: i64, order: Order) -> i64 {
    match order {
        Order::Newest => !time,
        Order::Oldest => time,
    }
}

const fn time(of: i64, order: Order) -> i64 {
    key(of, order)
}

/// Gathers the first places after one.
struct Best {
    order: Order,
    window: (i64, i64),
    after: Option<Place>,
    volume: u64,
    most: usize,
}

struct BestOfSegment {
    order: Order,
    after: Option<Place>,
    volume: u64,
    most: usize,
    segment: SegmentOrdinal,
    times: Column<i64>,
    /// The last of them on top.
    best: BinaryHeap<Place>,
}

impl Collector for Best {
    type Fruit = Vec<Place>;
    type Child = Option<BestOfSegment>;

    fn for_segment(
        &self,
        segment: SegmentOrdinal,
        reader: &SegmentReader,
    ) -> tantivy::Result<Option<BestOfSegment>> {
        let times = reader.fast_fields().i64(TIME)?;
        let (since, until) = self.window;
        if times.max_value() < since || times.min_value() > until {
            return Ok(None);
        }
        Ok(Some(BestOfSegment {
            order: self.order,
            after: self.after,
            volume: self.volume,
            most: self.most,
            segment,
            times,
            best: BinaryHeap::new(),
        }))
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Option<Vec<Place>>>) -> tantivy::Result<Vec<Place>> {
        Ok(fruits.into_iter().flatten().flatten().collect())
    }
}

impl SegmentCollector for BestOfSegment {
    type Fruit = Vec<Place>;

    fn collect(&mut self, document: DocId, _score: Score) {
        let Some(time) = self.times.first(document) else { return };
        let place = (key(time, self.order), self.volume, self.segment, document);
        if self.after.is_some_and(|after| place <= after) {
            return;
        }
        if self.best.len() < self.most {
            self.best.push(place);
        } else if self.best.peek().is_some_and(|last| place < *last) {
            self.best.pop();
            self.best.push(place);
        }
    }

    fn harvest(self) -> Vec<Place> {
        self.best.into_vec()
    }
}
