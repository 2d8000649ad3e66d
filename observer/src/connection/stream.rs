//! One direction of a connection: puts records in place by their position.

use observer_ebpf::Data;

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next bytes.
    Bytes(&'a [u8]),
    /// Bytes that the kernel side chose not to copy.
    Hole(u64),
    /// Bytes whose record never came.
    Lost(u64),
}

/// Position of one direction.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    next: u64,
    /// Bytes that came again, or late: they are passed over.
    pub repeated: u64,
}

impl Stream {
    /// Position of the next byte.
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// Puts a record in its place.
    pub fn push<'a>(&mut self, data: &Data, payload: &'a [u8], sink: &mut impl FnMut(Piece<'a>)) {
        self.advance(data.position, sink);
        let end = data.position.saturating_add(u64::from(data.length));
        let repeated = self.next - data.position;
        if repeated > 0 {
            self.repeated = self.repeated.saturating_add(repeated.min(u64::from(data.length)));
        }
        if end <= self.next {
            return;
        }
        let captured_end = data.position.saturating_add(payload.len() as u64).min(end);
        let fresh = usize::try_from(repeated).ok().and_then(|skip| payload.get(skip..)).unwrap_or_default();
        if !fresh.is_empty() {
            sink(Piece::Bytes(fresh));
        }
        let hole = end - captured_end.max(self.next);
        if hole > 0 {
            sink(Piece::Hole(hole));
        }
        self.next = end;
    }

    /// The direction is known to have reached a position: what is missing until there is lost.
    pub fn advance<'a>(&mut self, position: u64, sink: &mut impl FnMut(Piece<'a>)) {
        if position > self.next {
            sink(Piece::Lost(position - self.next));
            self.next = position;
        }
    }

    /// Starts at a position without calling what lies before it lost: it was never asked for.
    pub fn start_at(&mut self, position: u64) {
        self.next = self.next.max(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(position: u64, length: u32) -> Data {
        Data { position, length, ..Data::default() }
    }

    fn pieces(records: &[(u64, u32, &'static [u8])]) -> Vec<String> {
        let mut stream = Stream::default();
        let mut out = Vec::new();
        for &(position, length, payload) in records {
            stream.push(&data(position, length), payload, &mut |piece| {
                out.push(match piece {
                    Piece::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Piece::Hole(length) => format!("hole {length}"),
                    Piece::Lost(length) => format!("lost {length}"),
                });
            });
        }
        out
    }

    #[test]
    fn holes_and_losses_are_told_apart() {
        assert_eq!(pieces(&[(0, 5, b"abc"), (5, 1, b"f")]), ["abc", "hole 2", "f"]);
        assert_eq!(pieces(&[(0, 3, b"abc"), (5, 1, b"f")]), ["abc", "lost 2", "f"]);
    }

    #[test]
    fn repeated_bytes_are_passed_over() {
        assert_eq!(pieces(&[(0, 3, b"abc"), (1, 4, b"bcde")]), ["abc", "de"]);
        assert_eq!(pieces(&[(0, 3, b"abc"), (0, 3, b"abc")]), ["abc"]);
        assert_eq!(pieces(&[(0, 9, b"abc"), (1, 9, b"bcde")]), ["abc", "hole 6", "hole 1"]);
    }
}
