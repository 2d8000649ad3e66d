//! One connection that is followed: what its records mean for its streams and its exchanges.

use std::collections::VecDeque;

use observer_ebpf::{Data, Direction};

use super::Stats;
use crate::{
    connection::{Connection, Piece},
    exchange::{Context, Conversation, End, Observation},
};

/// A connection that is followed, and its exchanges.
pub(super) struct Tracked {
    pub(super) connection: Connection,
    pub(super) conversation: Conversation,
    /// The next record of this direction may start anywhere: received, sent.
    pub(super) resume: [Resume; 2],
    /// Bytes of memory that the conversation held when it was last looked at.
    pub(super) held: usize,
    /// It is among the deadlines, at whatever time.
    pub(super) is_due: bool,
}

/// Why the next record of a direction may start anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Resume {
    /// It may not.
    #[default]
    No,
    /// The connection was joined midway.
    Joined,
    /// The connection was ignored.
    Ignored,
}

/// What all connections share: what they need to know, and where what they tell goes.
pub(super) struct Road {
    /// Last moment known on both clocks: monotonic, realtime.
    pub(super) clock: Option<(u64, u64)>,
    pub(super) stalls_after: u64,
    pub(super) observations: VecDeque<Observation>,
    pub(super) stats: Stats,
}

impl Tracked {
    pub(super) fn new(connection: Connection) -> Self {
        let is_whole = connection.is_whole();
        let conversation = Conversation::new(is_whole);
        let resume = [if is_whole { Resume::No } else { Resume::Joined }; 2];
        Self { connection, conversation, resume, held: 0, is_due: false }
    }

    pub(super) fn take(&mut self, data: &Data, payload: &[u8], road: &mut Road) {
        let sent = data.direction == Direction::Sent as u8;
        let Self { connection, conversation, resume, .. } = self;
        let stream = if sent { &mut connection.sent } else { &mut connection.received };
        if conversation.is_ignored() {
            // What is on its way since before the verdict does not tell where the next record starts.
            stream.start_at(data.position);
        } else {
            let resume = std::mem::take(&mut resume[usize::from(sent)]);
            match resume {
                Resume::Joined if data.position > stream.position() => conversation.joined_late(sent),
                Resume::Ignored if sent => conversation.responses_resumed(),
                Resume::No | Resume::Joined | Resume::Ignored => {}
            }
            if resume != Resume::No {
                stream.start_at(data.position);
            }
        }
        let mut pieces = Pieces::default();
        stream.push(data, payload, &mut |piece| pieces.add(piece));
        let time = data.header.time;
        let moment = (data.arrived != 0).then_some(data.arrived);
        for piece in pieces.into_iter() {
            self.piece(sent, time, moment, piece, road);
        }
    }

    /// `moment` is when received bytes arrived, or when the call returned that sent them.
    fn piece(&mut self, sent: bool, time: u64, moment: Option<u64>, piece: Piece<'_>, road: &mut Road) {
        if let Piece::Lost(length) = piece {
            road.stats.lost_bytes = road.stats.lost_bytes.saturating_add(length);
        }
        let context = context(&self.connection, road);
        let observations = &mut road.observations;
        let mut out = |observation| observations.push_back(observation);
        if sent {
            self.conversation.sent(&context, time, moment.unwrap_or(time), piece, &mut out);
        } else {
            self.conversation.received(&context, time, moment, piece, &mut out);
        }
    }

    /// Both directions are known to have reached these positions.
    pub(super) fn reach(&mut self, received: u64, sent: u64, time: u64, road: &mut Road) {
        if self.conversation.is_ignored() {
            self.connection.received.start_at(received);
            self.connection.sent.start_at(sent);
            return;
        }
        for (is_sent, position) in [(false, received), (true, sent)] {
            let stream = if is_sent { &mut self.connection.sent } else { &mut self.connection.received };
            if std::mem::take(&mut self.resume[usize::from(is_sent)]) != Resume::No {
                // There were bytes since it was joined, and no record of them.
                if position > stream.position() {
                    self.conversation.joined_late(is_sent);
                }
                stream.start_at(position);
                continue;
            }
            let mut lost = 0;
            stream.advance(position, &mut |piece| {
                if let Piece::Lost(length) = piece {
                    lost = length;
                }
            });
            if lost > 0 {
                self.piece(is_sent, time, None, Piece::Lost(lost), road);
            }
        }
    }

    pub(super) fn end(&mut self, time: u64, end: End, road: &mut Road) {
        let context = context(&self.connection, road);
        let observations = &mut road.observations;
        self.conversation.end(&context, time, end, &mut |observation| observations.push_back(observation));
    }
}

fn context(connection: &Connection, road: &Road) -> Context {
    Context {
        connection: connection.id,
        tgid: connection.tgid,
        peer: connection.peer,
        local: connection.local,
        connected: connection.connected,
        accepted: connection.accepted,
        clock: road.clock,
        stalls_after: road.stalls_after,
    }
}

/// A record makes at most three pieces: lost, bytes, hole.
#[derive(Default)]
struct Pieces<'a>([Option<Piece<'a>>; 3]);

impl<'a> Pieces<'a> {
    fn add(&mut self, piece: Piece<'a>) {
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = Some(piece);
        }
    }

    fn into_iter(self) -> impl Iterator<Item = Piece<'a>> {
        self.0.into_iter().flatten()
    }
}
