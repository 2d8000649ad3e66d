//! A bounded buffer for one item: whole if it is small and intact, else its start and its end.

use super::Piece;

/// Bytes of an item. An event with the largest known chunk of log probabilities takes a tenth of that.
pub(super) const ITEM: usize = 256 << 10;

/// Bytes kept after a hole. What a damaged item is read for, usage and timings, stands at its end.
pub(super) const TAIL: usize = 2 << 10;

/// An item that is being put together.
#[derive(Debug, Default)]
pub(super) struct Holed {
    bytes: Vec<u8>,
    hole: Option<usize>,
    too_large: bool,
}

impl Holed {
    /// Bytes of memory that are held.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends bytes. Beyond the limit, and after a hole, only the last ones are kept.
    pub(super) fn extend(&mut self, mut bytes: &[u8]) {
        if self.hole.is_none() {
            let room = ITEM - self.bytes.len();
            let Some((fits, rest)) = bytes.split_at_checked(room).filter(|(_, rest)| !rest.is_empty()) else {
                self.bytes.extend_from_slice(bytes);
                return;
            };
            self.bytes.extend_from_slice(fits);
            self.hole = Some(ITEM);
            self.too_large = true;
            bytes = rest;
        }
        self.bytes.extend_from_slice(bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or(bytes));
        self.trim(2 * TAIL);
    }

    /// Bytes are missing here. Of several holes, what lies between them is dropped.
    pub(super) fn punch(&mut self) {
        match self.hole {
            Some(hole) => self.bytes.truncate(hole),
            None => self.hole = Some(self.bytes.len()),
        }
    }

    /// What there is of the item.
    pub(super) fn piece(&mut self) -> Piece<'_> {
        self.trim(TAIL);
        Piece { bytes: &self.bytes, hole: self.hole }
    }

    /// True if the item was cut because of its size.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// True if there are no bytes in it.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// True if nothing has been put in, not even a hole.
    pub(super) fn is_pristine(&self) -> bool {
        self.bytes.is_empty() && self.hole.is_none()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.hole = None;
        self.too_large = false;
    }

    /// Drops the oldest bytes after the hole when there are more than `limit`.
    fn trim(&mut self, limit: usize) {
        if let Some(hole) = self.hole
            && self.bytes.len() - hole > limit
        {
            self.bytes.drain(hole..self.bytes.len() - TAIL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_however_it_is_cut() {
        let long: Vec<u8> = (0..ITEM + 10_000).map(|at| (at % 251) as u8).collect();
        for piece in [1000, 7777, long.len()] {
            let mut holed = Holed::default();
            long.chunks(piece).for_each(|bytes| holed.extend(bytes));
            assert!(holed.is_too_large());
            let Piece { bytes, hole } = holed.piece();
            assert_eq!(hole, Some(ITEM));
            assert_eq!(bytes[..ITEM], long[..ITEM]);
            assert_eq!(bytes[ITEM..], long[long.len() - TAIL..]);
        }
    }

    #[test]
    fn keeps_the_first_hole_and_the_last_end() {
        let mut holed = Holed::default();
        holed.extend(b"ab");
        holed.punch();
        holed.extend(b"lost");
        holed.punch();
        holed.extend(b"yz");
        assert_eq!(holed.piece(), Piece { bytes: b"abyz", hole: Some(2) });
    }

    #[test]
    fn exactly_the_limit_is_whole() {
        let mut holed = Holed::default();
        holed.extend(&vec![b'x'; ITEM]);
        assert_eq!(holed.piece().hole, None);
        holed.extend(b"");
        assert_eq!(holed.piece().hole, None);
        holed.extend(b"y");
        assert_eq!(holed.piece().hole, Some(ITEM));
    }
}
