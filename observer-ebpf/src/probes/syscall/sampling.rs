//! How much of a call is copied: requests whole up to a limit, of responses the head and the tail of each call,
//! of what user space does not want nothing.

use observer_ebpf::{Counter, Verdict, limits};

use crate::{
    emit::count,
    maps::{EPOCH, Scratch, Side, VERDICTS, scope as protocol},
    scope,
};

/// Turns without an HTTP request after which a connection that was not seen from its start is given up.
const MISMATCHES: u32 = 16;

const OBSERVE: u32 = Verdict::Observe as u32;
const IGNORE: u32 = Verdict::Ignore as u32;
const OPAQUE: u32 = Verdict::Opaque as u32;

/// What a call did to its direction.
pub struct Moved {
    /// Bytes that it moved.
    pub bytes: u64,
    /// Position of the first of them.
    pub position: u64,
    /// They are the first since the other direction last moved.
    pub turned: bool,
    /// Bytes between that turn and these.
    pub before: u64,
}

/// Moves a direction on.
#[inline(always)]
pub fn advance(side: &mut Side, other_calls: u64, bytes: u64) -> Moved {
    let turned = side.calls == 0 || other_calls != side.other_calls;
    if turned {
        side.other_calls = other_calls;
        side.since_turn = 0;
    }
    let (position, before) = (side.position, side.since_turn);
    side.calls += 1;
    side.position = position + bytes;
    side.since_turn = before + bytes;
    Moved { bytes, position, turned, before }
}

/// How much of a call is copied in the direction of requests; false if it needs no record.
#[inline(always)]
pub fn request(
    s: &mut Scratch,
    side: &mut Side,
    connection: u64,
    moved: &Moved,
    first: u64,
    available: u32,
) -> bool {
    let turned = moved.turned;
    s.head = 0;
    s.tail = 0;
    s.urgent = 0;
    if side.scope == protocol::UNKNOWN && turned {
        if scope::is_request(first, available) {
            side.scope = protocol::HTTP;
        } else {
            side.mismatches += 1;
            if s.call.accepted == 0 && side.mismatches < MISMATCHES {
                return false;
            }
            side.scope = protocol::NOT_HTTP;
            s.head = u64::from(limits::SNIFF);
            return true;
        }
    }
    if side.scope == protocol::NOT_HTTP || side.scope == protocol::UNKNOWN {
        return false;
    }
    let verdict = verdict(side, connection);
    if turned && verdict == IGNORE {
        let again = scope::is_post_to_v1(first, available);
        side.scope = if again { protocol::AGAIN } else { protocol::HTTP };
        if again {
            side.copied = 0;
        }
    }
    match (side.scope, verdict) {
        (_, OPAQUE) => return false,
        (protocol::HTTP, IGNORE) => {
            if !turned || !scope::is_post(first, available) {
                return false;
            }
            s.head = u64::from(limits::RECHECK);
            s.urgent = 1;
        }
        (_, OBSERVE) => {
            s.head = limits::REQUEST_WHOLE.saturating_sub(moved.before);
            s.tail = u64::from(limits::TAIL);
        }
        _ => {
            // The limit is for what lies between two turns: a pooled client may ask for other things first.
            if turned {
                side.copied = 0;
            }
            s.head = limits::UNDECIDED.saturating_sub(side.copied);
            s.tail = u64::from(limits::TAIL);
            // The verdict decides how much of a large request is copied.
            s.urgent = u64::from(side.copied + moved.bytes > limits::UNDECIDED / 2);
        }
    }
    true
}

/// How much of a call is copied in the direction of responses; false if it needs no record.
#[inline(always)]
pub fn response(s: &mut Scratch, side: &mut Side, scope: u32, connection: u64, turned: bool) -> bool {
    s.urgent = 0;
    match (scope, verdict(side, connection)) {
        (_, OBSERVE) => {
            s.head = u64::from(limits::RESPONSE_HEAD);
            s.tail = u64::from(limits::TAIL);
        }
        (protocol::HTTP, IGNORE) | (_, OPAQUE) => return false,
        _ => {
            if turned {
                side.copied = 0;
            }
            let left = limits::UNDECIDED.saturating_sub(side.copied);
            s.head =
                if left < u64::from(limits::RESPONSE_HEAD) { left } else { u64::from(limits::RESPONSE_HEAD) };
            s.tail = if left == 0 { 0 } else { u64::from(limits::TAIL) };
        }
    }
    true
}

/// Nothing of a call can be copied: all of it is a hole.
#[inline(always)]
pub fn nothing(s: &mut Scratch, bytes: u64) {
    count(Counter::OpaqueBytes, bytes);
    s.head = 0;
    s.tail = 0;
}

/// Counts what is going to be copied.
#[inline(always)]
pub fn copied(s: &Scratch, side: &mut Side, bytes: u64) {
    let wanted = s.head + s.tail;
    side.copied += if wanted < bytes { wanted } else { bytes };
}

/// Whether user space asked for a connection.
#[inline(always)]
pub fn is_observed(side: &mut Side, connection: u64) -> bool {
    verdict(side, connection) == OBSERVE
}

/// User space's verdict on a connection; 0 for none. Looked up only if one was given to anyone since.
#[inline(always)]
fn verdict(side: &mut Side, connection: u64) -> u32 {
    let epoch = match EPOCH.get_ptr(0) {
        // SAFETY: points into a map value. Read before the verdict: one that comes in between is looked up
        // again next time.
        Some(epoch) => unsafe { core::ptr::read_volatile(epoch) },
        None => 0,
    };
    if side.epoch != epoch {
        // SAFETY: points into a map value.
        side.verdict = unsafe { VERDICTS.get(connection) }.copied().unwrap_or(0);
        side.epoch = epoch;
    }
    side.verdict
}
