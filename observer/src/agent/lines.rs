//! Lines of logs, from their files to the store, to a receiver and to followers.
//!
//! Where lines are stored, the places up to which files were read are committed with them. Where they are only sent, what
//! was sent is committed: a line that was under way when the agent ended is sent again, with the same `log.record.uid`.

use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    keeping::{Keeping, sources},
    now,
    telling::known,
};
use crate::{
    config::Config,
    export::otlp::{Otlp, PodKnown, Row as Record},
    logs::{Places, Tail, Units},
    store::Store,
    timeline::Row,
};

/// Between looks at files of logs.
const LOOK: Duration = Duration::from_millis(250);

/// Between looks whether a receiver has caught up.
const ROOM: Duration = Duration::from_millis(20);

/// How long lines of one turn that are stored as well wait for a receiver.
const PATIENCE: Duration = Duration::from_secs(1);

/// Follows logs on a thread of its own. At worst it waits for the store while the process ends: what it read is read again then.
pub(super) fn follow(
    config: &Config,
    store: &Store,
    keeping: &Keeping,
    stop: Arc<AtomicBool>,
) -> io::Result<()> {
    let (store, keeping) = (store.clone(), keeping.clone());
    let (redacts, sources) = (config.logs.redact, sources(config, &keeping.wanted));
    let age = i64::try_from(config.store.age.as_nanos()).unwrap_or(i64::MAX);
    let units = Units {
        names: config.logs.units.clone(),
        folder: config.logs.journal.clone(),
        node: config.node.clone(),
        since: now().saturating_sub(age),
    };
    thread::Builder::new().name("logs".into()).spawn(move || {
        let begin = || {
            let generation = store.generation();
            let places = store.places().and_then(|text| Places::of(&text)).unwrap_or_default();
            (generation, Tail::new(places, redacts).with_units(units.clone()), Sent::default())
        };
        let (mut generation, mut tail, mut sent) = begin();
        while !stop.load(Ordering::Relaxed) {
            let mut told = Vec::new();
            let is_more = tail.turn(&sources(), now(), &mut told);
            *keeping.read.lock().unwrap_or_else(PoisonError::into_inner) = tail.counts();
            for row in &told {
                keeping.rows.publish(row);
            }
            if !send(&keeping, &told, &stop) {
                return;
            }
            let done = if keeping.stores_logs {
                (!told.is_empty()).then(|| (told, tail.places().text()))
            } else {
                let places = sent.places(keeping.to.of_lines(), !told.is_empty(), || tail.places().text());
                places.map(|places| (Vec::new(), places))
            };
            if let Some((rows, places)) = done
                && store.lines(generation, rows, places).is_err()
            {
                (generation, tail, sent) = begin();
            }
            if !is_more {
                thread::sleep(LOOK);
            }
        }
    })?;
    Ok(())
}

/// Hands lines to those who send them; whether all. While a receiver is behind they wait here, and what comes after them in its
/// files. What is stored as well does not wait for long, so that it is in the store in time.
fn send(keeping: &Keeping, rows: &[Row], stop: &AtomicBool) -> bool {
    let mut patience = if keeping.stores_logs { PATIENCE.as_millis() / ROOM.as_millis() } else { u128::MAX };
    // Most lines of a turn are of few pods.
    let mut last: Option<(&Row, Option<PodKnown>)> = None;
    for row in rows {
        while patience > 0 && keeping.to.of_lines().iter().any(Otlp::is_behind) {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            patience -= 1;
            thread::sleep(ROOM);
        }
        let is_same = |other: &Row| (&other.namespace, &other.pod) == (&row.namespace, &row.pod);
        let pod = match last.take().filter(|(other, _)| is_same(other)) {
            Some((_, pod)) => pod,
            None => known(&keeping.pods, &row.namespace, &row.pod),
        };
        for otlp in keeping.to.of_lines() {
            otlp.row(Record::of_timeline(row, pod.clone(), now().unsigned_abs()));
        }
        last = Some((row, pod));
    }
    true
}

/// Places that are committed once what was read up to there has been sent.
#[derive(Default)]
struct Sent {
    /// The places, and how many log records each had taken in by then.
    waiting: Option<(Vec<u64>, String)>,
    /// Whether more was read than up to there.
    is_older: bool,
}

impl Sent {
    /// Places that may be committed now. `has_read`: whether the last turn read anything; `read`: up to where.
    fn places(&mut self, to: &[Otlp], has_read: bool, read: impl FnOnce() -> String) -> Option<String> {
        self.is_older |= has_read;
        let all = |taken: &[u64]| to.iter().zip(taken).all(|(otlp, taken)| otlp.has_settled(*taken));
        let done = self.waiting.take_if(|(taken, _)| all(taken)).map(|(_, places)| places);
        if self.waiting.is_none() && std::mem::take(&mut self.is_older) {
            self.waiting = Some((to.iter().map(Otlp::taken_logs).collect(), read()));
        }
        done
    }
}
