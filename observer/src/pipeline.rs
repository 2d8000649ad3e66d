//! The core in one piece: records in, observations and verdicts out. No input, no output, no clock.

mod tracked;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
};

use observer_ebpf::{
    Clock, Close, Data, Direction, NAMED, Record, State, Verdict, errno, exit_flags, open_flags,
};

use tracked::{Resume, Road, Tracked};

use crate::{
    connection::{Connection, Holder},
    exchange::{Dispatch, DispatchStats, End, Observation, Phase, Role, Undecoded, Upstream},
};

/// What the pipeline did with the records it was given: `received` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records given.
    pub received: u64,
    /// Records whose content was taken in.
    pub decoded: u64,
    /// Records about a connection that could not be remembered: the table is full.
    pub dropped_table_full: u64,
    /// Of the decoded ones, those that came for a connection after its end, and told nothing new.
    pub late: u64,
    /// Connections that were given up because all together held too much memory.
    pub evicted: u64,
    /// Bytes whose records never came, by what the positions tell.
    pub lost_bytes: u64,
    /// Bytes that came twice.
    pub repeated_bytes: u64,
    /// What became of the requests that gateways sent.
    pub dispatch: DispatchStats,
}

/// How much the core may remember.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections.
    pub connections: usize,
    /// Bytes of memory that all of them together may hold.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 16_384, bytes: 256 << 20 }
    }
}

/// Nanoseconds for which a stream may be silent unless the operator says otherwise: longer than an engine
/// pauses a stream to prefill another prompt, shorter than people wait before they try again.
pub const STALLS_AFTER: u64 = 2_000_000_000;

/// Between looks at a stream whose silence is its client's fault.
const AGAIN: u64 = 1_000_000_000;

/// A stream that stalls, unless its server is in a write that nobody takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Socket cookie.
    pub connection: u64,
    /// Process that serves it.
    pub tgid: u32,
}

/// The core.
pub struct Pipeline {
    connections: HashMap<u64, Tracked>,
    /// Connections on which an observed process is the client.
    upstreams: HashMap<u64, Upstream>,
    dispatch: Dispatch,
    limits: Limits,
    /// Bytes of memory that all conversations hold.
    held: usize,
    road: Road,
    /// When to look at which stream, soonest first; at most one of each connection, and that may be too early.
    deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    verdicts: VecDeque<(u64, Verdict)>,
    ended: VecDeque<u64>,
    undecoded: VecDeque<(u32, Undecoded, u64)>,
    defects: BTreeMap<&'static str, u64>,
}

impl Pipeline {
    /// A pipeline that remembers this much.
    pub fn new(limits: Limits) -> Self {
        Self {
            connections: HashMap::new(),
            upstreams: HashMap::new(),
            dispatch: Dispatch::default(),
            limits,
            held: 0,
            road: Road {
                clock: None,
                stalls_after: STALLS_AFTER,
                observations: VecDeque::new(),
                stats: Stats::default(),
            },
            deadlines: BinaryHeap::new(),
            verdicts: VecDeque::new(),
            ended: VecDeque::new(),
            undecoded: VecDeque::new(),
            defects: BTreeMap::new(),
        }
    }

    /// Streams may be silent for so many nanoseconds.
    #[must_use]
    pub fn stalls_after(mut self, nanos: u64) -> Self {
        self.road.stalls_after = nanos;
        self
    }

    /// Takes in one record.
    pub fn handle_record(&mut self, record: &Record<'_>) {
        self.road.stats.received += 1;
        let taken = match record {
            Record::Open(open) if open.flags & open_flags::OUTBOUND != 0 => self.open_upstream(open),
            Record::Open(open) => self.open(open),
            Record::Data(data, payload) if self.upstreams.contains_key(&data.connection) => {
                self.sent_upstream(data, payload);
                true
            }
            Record::Close(Close { connection, .. }) if self.upstreams.remove(connection).is_some() => {
                self.ended.push_back(*connection);
                true
            }
            Record::State(state) if self.upstreams.contains_key(&state.connection) => {
                if state.new == State::CLOSE && self.upstreams.remove(&state.connection).is_some() {
                    self.ended.push_back(state.connection);
                }
                true
            }
            Record::Ended(ended) if self.upstreams.contains_key(&ended.connection) => true,
            Record::Data(data, payload) => self.data(data, payload),
            Record::Close(close) => self.with(close.connection, close.header.time, |tracked, road| {
                tracked.reach(close.received, close.sent, close.header.time, road);
                let holder = Holder { tgid: close.header.tgid, fd: close.fd };
                tracked.connection.release(holder).then_some((close.header.time, End::Closed))
            }),
            Record::State(state) => self.with(state.connection, state.header.time, |tracked, road| {
                let time = state.header.time;
                if state.old == State::ESTABLISHED && matches!(state.new, State::CLOSE_WAIT | State::CLOSE) {
                    tracked.conversation.client_gone(time, &mut |told| road.observations.push_back(told));
                }
                // Descriptors that an exec or an exit dropped are closed without a `close`. Until then a call
                // may be under way whose bytes are in these positions, and whose record is yet to come.
                (state.new == State::CLOSE).then(|| {
                    tracked.reach(state.received, state.sent, time, road);
                    (time, End::Closed)
                })
            }),
            Record::Ended(ended) => self.with(ended.connection, ended.header.time, |tracked, road| {
                let (time, is_sent) = (ended.header.time, ended.direction == Direction::Sent as u8);
                let mut out = |told| road.observations.push_back(told);
                match ended.errno {
                    errno::EAGAIN if is_sent => tracked.conversation.blocked(time, &mut out),
                    0 if is_sent => {}
                    _ => tracked.conversation.client_gone(time, &mut out),
                }
                None
            }),
            Record::Exit(exit) => {
                // Without the flag only the leader thread is known to be gone.
                if exit.flags & exit_flags::GROUP_DEAD != 0 {
                    self.process_gone(exit.header.tgid, exit.header.time);
                }
                true
            }
            Record::Clock(Clock { header, realtime }) => {
                self.road.clock = Some((header.time, *realtime));
                true
            }
            Record::Listen(_) | Record::Exec(_) | Record::Oom(_) => true,
        };
        self.road.stats.decoded += u64::from(taken);
    }

    /// A process is the client of this connection, whatever it was taken for before.
    fn open_upstream(&mut self, open: &observer_ebpf::Open) -> bool {
        if self.connections.contains_key(&open.connection) {
            self.remove(open.connection, open.header.time, End::Dropped);
            // It lives on.
            self.ended.pop_back();
        }
        if self.connections.len() + self.upstreams.len() >= self.limits.connections {
            self.road.stats.dropped_table_full += 1;
            return false;
        }
        self.upstreams.entry(open.connection).or_insert_with(|| Upstream::new(open.header.tgid));
        true
    }

    fn sent_upstream(&mut self, data: &Data, payload: &[u8]) {
        let Some(upstream) = self.upstreams.get_mut(&data.connection) else { return };
        let tgid = data.header.tgid;
        let Self { dispatch, connections, verdicts, defects, road, .. } = self;
        upstream.take(data, payload, &mut |request| {
            let Some((id, wait)) = dispatch.sent(tgid, &request) else { return };
            if let Some(cause) = connections.get_mut(&id.connection) {
                cause.conversation.dispatched(id.sequence, wait);
            }
        });
        road.stats.lost_bytes = road.stats.lost_bytes.saturating_add(upstream.poll_lost());
        while let Some(defect) = upstream.poll_defect() {
            *defects.entry(defect).or_default() += 1;
        }
        if let Some(verdict) = upstream.poll_verdict() {
            verdicts.push_back((data.connection, verdict));
        }
    }

    /// What was told from the observation with this index on: who may cause requests, and whose role is known.
    fn relate(&mut self, from: usize, tgid: u32) {
        for observation in self.road.observations.range_mut(from..) {
            match observation {
                Observation::Phase { id, phase: Phase::Generating } => self.dispatch.answered(tgid, *id),
                Observation::Finished { id, record } => {
                    self.dispatch.finished(tgid, *id);
                    if self.dispatch.is_gateway(tgid) {
                        record.role = Role::Gateway;
                    }
                }
                _ => {}
            }
        }
    }

    fn open(&mut self, open: &observer_ebpf::Open) -> bool {
        if let Some(tracked) = self.connections.get_mut(&open.connection) {
            tracked.connection.hold(Holder { tgid: open.header.tgid, fd: open.fd });
            return true;
        }
        let connection = Connection::new(open);
        self.track(connection)
    }

    fn track(&mut self, connection: Connection) -> bool {
        if self.connections.len() + self.upstreams.len() >= self.limits.connections {
            self.road.stats.dropped_table_full += 1;
            return false;
        }
        self.connections.insert(connection.id, Tracked::new(connection));
        true
    }

    fn data(&mut self, data: &Data, payload: &[u8]) -> bool {
        if !self.connections.contains_key(&data.connection) && data.connection & NAMED == 0 {
            // Its opening was lost, or it was forgotten: join at the next message.
            let mut connection = Connection::unseen(data.connection, data.header.tgid);
            connection.hold(Holder { tgid: data.header.tgid, fd: data.fd });
            if !self.track(connection) {
                return false;
            }
        }
        self.with(data.connection, data.header.time, |tracked, road| {
            tracked.take(data, payload, road);
            None
        })
    }

    /// Lets a connection take something in, then passes on what it tells; removes it if that was its end.
    fn with(
        &mut self,
        id: u64,
        time: u64,
        take: impl FnOnce(&mut Tracked, &mut Road) -> Option<(u64, End)>,
    ) -> bool {
        let Some(tracked) = self.connections.get_mut(&id) else {
            self.road.stats.late += 1;
            // The kernel side may know it all the same: it was not taken in, or its opening was lost.
            self.ended.push_back(id);
            return true;
        };
        let told = self.road.observations.len();
        let end = take(tracked, &mut self.road);
        let tgid = tracked.connection.tgid;
        while let Some(asked) = tracked.conversation.poll_asked() {
            self.dispatch.received(tgid, asked.id, asked.time, asked.keys);
        }
        if !tracked.is_due
            && let Some(deadline) = tracked.conversation.deadline()
        {
            tracked.is_due = true;
            self.deadlines.push(Reverse((deadline, id)));
        }
        if let Some(verdict) = tracked.conversation.poll_verdict() {
            if verdict == Verdict::Ignore {
                tracked.resume = [Resume::Ignored; 2];
            }
            self.verdicts.push_back((id, verdict));
        }
        while let Some(defect) = tracked.conversation.poll_defect() {
            *self.defects.entry(defect).or_default() += 1;
        }
        let held = tracked.conversation.held();
        self.held = self.held - std::mem::replace(&mut tracked.held, held) + held;
        self.relate(told, tgid);
        if let Some((time, end)) = end {
            self.remove(id, time, end);
        } else if self.held > self.limits.bytes {
            // The one that asks for more gives way: the others go on undisturbed.
            self.road.stats.evicted += 1;
            self.remove(id, time, End::Dropped);
        }
        true
    }

    fn remove(&mut self, id: u64, time: u64, end: End) {
        let Some(mut tracked) = self.connections.remove(&id) else { return };
        self.held -= tracked.held;
        let told = self.road.observations.len();
        tracked.end(time, end, &mut self.road);
        self.relate(told, tracked.connection.tgid);
        while let Some(defect) = tracked.conversation.poll_defect() {
            *self.defects.entry(defect).or_default() += 1;
        }
        let Connection { received, sent, .. } = &tracked.connection;
        // Of what is no protocol known here the kernel side counts no bytes.
        if let Some(cause) = tracked.conversation.undecoded().filter(|cause| *cause != Undecoded::Other) {
            let bytes = received.position().saturating_add(sent.position());
            self.undecoded.push_back((tracked.connection.tgid, cause, bytes));
        }
        let repeated = received.repeated.saturating_add(sent.repeated);
        self.road.stats.repeated_bytes = self.road.stats.repeated_bytes.saturating_add(repeated);
        self.ended.push_back(id);
    }

    /// A process is gone: so are the connections that only it held.
    pub fn process_gone(&mut self, tgid: u32, time: u64) {
        self.release(tgid, time, End::Exited);
    }

    /// A process is not observed any more: nothing will be known of its connections' ends.
    pub fn let_go(&mut self, tgid: u32, time: u64) {
        self.release(tgid, time, End::Dropped);
    }

    fn release(&mut self, tgid: u32, time: u64, end: End) {
        let mut over: Vec<u64> = self
            .connections
            .iter_mut()
            .filter_map(|(id, tracked)| tracked.connection.release_all(tgid).then_some(*id))
            .collect();
        over.sort_unstable();
        for id in over {
            self.remove(id, time, end);
        }
        self.dispatch.process_gone(tgid);
        let Self { upstreams, ended, .. } = self;
        upstreams.retain(|id, upstream| {
            let is_gone = upstream.tgid == tgid;
            if is_gone {
                ended.push_back(*id);
            }
            !is_gone
        });
    }

    /// Something happened that may have touched every open exchange: none of them is trusted.
    pub fn mark_open(&mut self, cause: &'static str) {
        for tracked in self.connections.values_mut() {
            tracked.conversation.mark_open(cause);
        }
    }

    /// The next stream that has been silent until `now` for so long that it may stall. Each is told once, and
    /// again after a while if nothing comes of it.
    pub fn poll_suspect(&mut self, now: u64) -> Option<Suspect> {
        while self.deadlines.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((_, id))) = self.deadlines.pop() else { break };
            let Some(tracked) = self.connections.get_mut(&id) else { continue };
            let deadline = tracked.conversation.deadline();
            tracked.is_due = deadline.is_some();
            if let Some(deadline) = deadline {
                let is_suspect = deadline <= now;
                let next = if is_suspect { now.saturating_add(AGAIN) } else { deadline };
                self.deadlines.push(Reverse((next, id)));
                if is_suspect {
                    return Some(Suspect { connection: id, tgid: tracked.connection.tgid });
                }
            }
        }
        None
    }

    /// All records up to `now` were handed in, and nobody was writing to this connection: its stream stalls if
    /// it has been silent for too long. What its next record says later does not depend on this.
    pub fn handle_timeout(&mut self, connection: u64, now: u64) {
        if let Some(tracked) = self.connections.get_mut(&connection) {
            let observations = &mut self.road.observations;
            tracked.conversation.quiet_until(now, &mut |told| observations.push_back(told));
        }
    }

    /// Ends everything that is open, as at the end of a recording.
    pub fn finish(&mut self, time: u64) {
        let mut open: Vec<u64> = self.connections.keys().copied().collect();
        open.sort_unstable();
        for id in open {
            self.remove(id, time, End::Dropped);
        }
    }

    /// The next observation.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.road.observations.pop_front()
    }

    /// The next verdict that the kernel side should be told.
    pub fn poll_verdict(&mut self) -> Option<(u64, Verdict)> {
        self.verdicts.pop_front()
    }

    /// The next connection that is over, for the kernel side to forget some time later.
    pub fn poll_ended(&mut self) -> Option<u64> {
        self.ended.pop_front()
    }

    /// What became of the records.
    pub fn stats(&self) -> Stats {
        Stats { dispatch: self.dispatch.stats, ..self.road.stats }
    }

    /// Connections by state.
    pub fn connections(&self) -> BTreeMap<&'static str, u64> {
        let mut states = BTreeMap::from([("undecided", 0), ("observed", 0), ("ignored", 0), ("opaque", 0)]);
        states.insert("upstream", self.upstreams.len() as u64);
        for tracked in self.connections.values() {
            *states.entry(tracked.conversation.state()).or_default() += 1;
        }
        states
    }

    /// Bytes of a connection that is over and was not decoded: process, cause, bytes.
    pub fn poll_undecoded(&mut self) -> Option<(u32, &'static str, u64)> {
        self.undecoded.pop_front().map(|(tgid, cause, bytes)| (tgid, cause.as_str(), bytes))
    }

    /// Defects of HTTP messages, by name, whether or not the exchange was one with an LLM.
    pub fn defects(&self) -> &BTreeMap<&'static str, u64> {
        &self.defects
    }

    /// Whether a connection is followed now.
    pub fn follows(&self, connection: u64) -> bool {
        self.connections.contains_key(&connection)
    }

    /// LLM exchanges that are open.
    pub fn in_flight(&self) -> usize {
        self.connections.values().map(|tracked| tracked.conversation.in_flight()).sum()
    }
}
