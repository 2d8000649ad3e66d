//! Whether a stream flows: stalls of the server, told apart from a client that does not read.
//!
//! The server owes a delivery from the moment when its last one was taken, or when a client that had not read
//! reads again. It stalls if it owes one for longer than the threshold: the configured minimum, or ten times
//! the median gap of the stream so far if that is more. Whoever looks, and when, does not matter: the next
//! record finds the same stalls as a timer does, only later.

use super::{
    one::{Exchange, Progress},
    record::{Phase, Silence},
};

/// Median gaps that a stream may be silent for: engines pause for longer than one step when they prefill
/// another request in between, and ten steps are seen by whoever reads along.
const MEDIANS: u64 = 10;

/// A write that takes so many nanoseconds waits for the client to make room: what only copies takes microseconds, and a few
/// milliseconds if its thread loses the core in between.
const BLOCKING: u64 = 10_000_000;

/// Stalls of one stream whose times are kept.
const STALLS: usize = 16;

/// State of one stream.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// Nanoseconds that any stream may be silent for.
    minimum: u64,
    /// Entry and return of the latest write.
    write: (u64, u64),
    /// Since when the server owes a delivery.
    quiet_since: Option<u64>,
    /// The first and the latest write that was not taken whole, until one is.
    blocked: Option<(u64, u64)>,
    is_stalled: bool,
    /// When the client went away, if it did.
    pub(super) gone: Option<u64>,
    pub(super) stalls: u64,
    /// Beginning and end of the first of them; of the one that lasts, how far it is known to.
    silences: Vec<(u64, u64)>,
    /// Times that the client did not read for as long as would make a stall.
    pub(super) client_stalls: u64,
    /// Nanoseconds in which there was something to write and the client did not read.
    pub(super) client_wait: u64,
}

impl Flow {
    pub(super) fn new(minimum: u64) -> Self {
        Self {
            minimum,
            write: (0, 0),
            quiet_since: None,
            blocked: None,
            is_stalled: false,
            gone: None,
            stalls: 0,
            silences: Vec::new(),
            client_stalls: 0,
            client_wait: 0,
        }
    }

    /// Since when there has been nothing, if that may become a stall.
    fn silent_since(&self) -> Option<u64> {
        self.quiet_since.filter(|_| self.blocked.is_none() && !self.is_stalled)
    }

    /// When to look whether the stream stalls; it does not before that.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.silent_since().map(|since| since.saturating_add(self.minimum).saturating_add(1))
    }

    /// A delivery, in the latest write.
    pub(super) fn delivered(&mut self) {
        self.resumed(self.write.0);
        self.quiet_since = self.gone.is_none().then_some(self.write.1);
    }

    /// A stall, if there is one, is over; whether there was.
    fn resumed(&mut self, time: u64) -> bool {
        let was_stalled = std::mem::take(&mut self.is_stalled);
        if was_stalled
            && self.silences.len() as u64 == self.stalls
            && let Some(last) = self.silences.last_mut()
        {
            last.1 = last.1.max(time);
        }
        was_stalled
    }

    /// The stalls whose times are kept, in seconds after this time.
    pub(super) fn silences(&self, origin: u64) -> Vec<Silence> {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let silence = |(from, to): &(u64, u64)| Silence {
            at: seconds(from.saturating_sub(origin)),
            seconds: seconds(to.saturating_sub(*from)),
        };
        self.silences.iter().map(silence).collect()
    }
}

impl Exchange {
    /// Nanoseconds of silence that make no stall yet. The median is exact and of the gaps that are kept; it
    /// is asked for only when a stream has been silent for the minimum, so deliveries do not pay for it.
    fn patience(&self) -> u64 {
        let mut gaps = self.gap_micros.clone();
        if gaps.is_empty() {
            return self.flow.minimum;
        }
        let middle = (gaps.len() - 1) / 2;
        let (_, median, _) = gaps.select_nth_unstable(middle);
        self.flow.minimum.max(u64::from(*median) * 1000 * MEDIANS)
    }

    fn is_too_long(&self, silence: u64) -> bool {
        silence > self.flow.minimum && silence > self.patience()
    }

    /// No token came until now: notes a stall if that is too long and was not noted.
    pub(super) fn quiet_until(&mut self, time: u64, sink: &mut dyn FnMut(Progress)) {
        let Some(since) = self.flow.silent_since() else { return };
        // With something missing, there may have been a delivery.
        if self.partial.is_empty() && self.is_too_long(time.saturating_sub(since)) {
            self.flow.is_stalled = true;
            self.flow.stalls += 1;
            if self.flow.silences.len() < STALLS {
                self.flow.silences.push((since, time));
            }
            self.enter(Phase::Stalled, sink);
        }
    }

    /// A write took something, from its entry to its return. Called for each record of it, before its bytes.
    pub(super) fn written(&mut self, entered: u64, returned: u64, sink: &mut dyn FnMut(Progress)) {
        let returned = returned.max(entered);
        if self.flow.write.0 != entered && self.flow.quiet_since.is_some() {
            self.quiet_until(entered, sink);
            let over = self.flow.blocked.take_if(|(_, latest)| *latest < entered);
            // A write that is taken at last ends the client's time; one that takes long is all client's time.
            let since = over.map_or(entered, |(first, _)| first);
            if over.is_some() || returned - since >= BLOCKING {
                self.flow.client_wait += returned - since;
            }
            if self.is_too_long(returned - since) {
                self.flow.client_stalls += 1;
            }
            let quiet_since = &mut self.flow.quiet_since;
            *quiet_since = match over {
                Some(_) => Some(returned),
                None => quiet_since.map(|quiet| quiet.saturating_add(returned - entered)),
            };
        }
        self.flow.write = (entered, returned);
    }

    /// A write was not taken, or not whole: the client does not read as fast as the server writes.
    pub(super) fn blocked(&mut self, time: u64, sink: &mut dyn FnMut(Progress)) {
        self.quiet_until(time, sink);
        if self.flow.quiet_since.is_none() {
            return;
        }
        if self.flow.resumed(time) {
            // The server has something to say again.
            self.enter(Phase::Generating, sink);
        }
        self.flow.blocked.get_or_insert((time, time)).1 = time;
    }

    /// Nothing is owed any more: the stream said that it is over, or it is cut off.
    pub(super) fn flow_over(&mut self, time: u64, sink: &mut dyn FnMut(Progress)) {
        self.quiet_until(time, sink);
        if self.flow.quiet_since.is_some() {
            self.flow.resumed(time);
        }
        self.flow.quiet_since = None;
        if let Some((first, _)) = self.flow.blocked.take() {
            let waited = time.saturating_sub(first);
            self.flow.client_wait += waited;
            if self.is_too_long(waited) {
                self.flow.client_stalls += 1;
            }
        }
    }

    /// The client closed or reset its side.
    pub(super) fn client_gone(&mut self, time: u64, sink: &mut dyn FnMut(Progress)) {
        self.evidence.client_gone = true;
        if self.flow.gone.is_none() {
            self.flow.gone = Some(time);
            self.flow_over(time, sink);
        }
    }
}
