//! Elements of a JSON array that grows: one document per element.
//!
//! In: content bytes. Out: [`ArrayItem`]s: the objects of the top-level array, or the one object that stands
//! in its place. An element that lies within one push is not copied. After a hole it is not known where
//! elements start, so nothing more is told.

use super::{
    Defect, Piece,
    holed::{Holed, ITEM},
};

/// What such an array holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayItem<'a> {
    /// An element.
    Element(Piece<'a>),
    /// The stream ended within an element.
    Incomplete,
    /// Something was wrong with the stream.
    Defect(Defect),
}

/// Decodes elements.
#[derive(Debug, Default)]
pub struct ArrayDecoder {
    element: Holed,
    depth: u64,
    string: bool,
    escape: bool,
    lost: bool,
}

type Sink<'s> = &'s mut dyn FnMut(ArrayItem<'_>);

impl ArrayDecoder {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory that are held until more of an element comes.
    pub fn held(&self) -> usize {
        self.element.held()
    }

    /// Decodes the next bytes.
    pub fn push(&mut self, bytes: &[u8], sink: Sink<'_>) {
        if self.lost {
            return;
        }
        let mut start = 0;
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.escape => self.escape = false,
                b'\\' if self.string => self.escape = true,
                b'"' if self.depth > 0 => self.string = !self.string,
                _ if self.string => {}
                b'{' | b'[' if self.depth > 0 => self.depth += 1,
                b'{' => {
                    self.depth = 1;
                    start = at;
                }
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.end(bytes.get(start..=at).unwrap_or_default(), sink);
                    }
                }
                // Between elements: the brackets of the array, commas, white space.
                _ => {}
            }
        }
        if self.depth > 0 {
            self.element.extend(bytes.get(start..).unwrap_or_default());
        }
    }

    /// That many bytes of the stream were not captured.
    pub fn gap(&mut self, hole: u64, sink: Sink<'_>) {
        if hole > 0 && !self.lost {
            self.lost = true;
            self.element.clear();
            sink(ArrayItem::Defect(Defect::Hole));
        }
    }

    /// The stream ended.
    pub fn finish(&mut self, sink: Sink<'_>) {
        if self.depth > 0 && !self.lost {
            sink(ArrayItem::Incomplete);
        }
        *self = Self::default();
    }

    fn end(&mut self, last: &[u8], sink: Sink<'_>) {
        if self.element.is_pristine() && last.len() <= ITEM {
            return sink(ArrayItem::Element(Piece::intact(last)));
        }
        self.element.extend(last);
        if self.element.is_too_large() {
            sink(ArrayItem::Defect(Defect::TooLarge));
        }
        sink(ArrayItem::Element(self.element.piece()));
        self.element.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode<'a>(pushes: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        let mut items = Vec::new();
        let mut decoder = ArrayDecoder::new();
        let mut note = |item: ArrayItem<'_>| {
            items.push(match item {
                ArrayItem::Element(piece) => String::from_utf8_lossy(piece.bytes).into_owned(),
                other => format!("{other:?}"),
            });
        };
        pushes.for_each(|bytes| decoder.push(bytes, &mut note));
        decoder.finish(&mut note);
        items
    }

    #[test]
    fn elements_however_they_are_cut() {
        let text: &[u8] = b"[{\"a\":\"}]\\\"{\"}\n,\r\n{\"b\":[{}]},{\"c\"";
        let expected = ["{\"a\":\"}]\\\"{\"}", "{\"b\":[{}]}", "Incomplete"];
        assert_eq!(decode(std::iter::once(text)), expected);
        for size in 1..text.len() {
            assert_eq!(decode(text.chunks(size)), expected);
        }
        assert_eq!(decode(std::iter::once(&b"{\"error\":{}}"[..])), ["{\"error\":{}}"]);
    }

    #[test]
    fn a_hole_ends_it() {
        let mut items = 0;
        let mut decoder = ArrayDecoder::new();
        decoder.push(b"[{},{\"a\":", &mut |_| items += 1);
        decoder.gap(9, &mut |item| assert_eq!(item, ArrayItem::Defect(Defect::Hole)));
        decoder.push(b"},{}]", &mut |_| items += 1);
        decoder.finish(&mut |_| items += 1);
        assert_eq!(items, 1);
    }

    proptest! {
        #[test]
        fn cutting_noise_changes_nothing(text in r#"[\[\]{}",\\a ]{0,60}"#, size in 1_usize..20) {
            let bytes = text.as_bytes();
            prop_assert_eq!(decode(bytes.chunks(size)), decode(std::iter::once(bytes)));
        }
    }
}
