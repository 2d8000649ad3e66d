//! Lines of JSON: one document per line.
//!
//! In: content bytes. Out: [`NdjsonItem`]s: lines without their ends; empty ones are left out. A line that
//! lies within one push is not copied.

use super::{
    Defect, Piece,
    holed::{Holed, ITEM},
};

/// What a stream of lines holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdjsonItem<'a> {
    /// A line. If it is damaged, parts of other lines may be in it.
    Line(Piece<'a>),
    /// The stream ended within a line.
    Incomplete(Piece<'a>),
    /// Something was wrong with the stream.
    Defect(Defect),
}

/// Decodes lines.
#[derive(Debug, Default)]
pub struct NdjsonDecoder {
    line: Holed,
    hole: bool,
}

type Sink<'s> = &'s mut dyn FnMut(NdjsonItem<'_>);

impl NdjsonDecoder {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory that are held until more of a line comes.
    pub fn held(&self) -> usize {
        self.line.held()
    }

    /// Decodes the next bytes.
    pub fn push(&mut self, bytes: &[u8], sink: Sink<'_>) {
        if bytes.is_empty() {
            return;
        }
        self.tell_hole(sink);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes.get(start..end).unwrap_or_default();
            start = end + 1;
            if self.line.is_pristine() && line.len() <= ITEM {
                emit(Piece::intact(line), sink);
            } else {
                self.line.extend(line);
                self.end_line(sink);
            }
        }
        self.line.extend(bytes.get(start..).unwrap_or_default());
    }

    /// That many bytes of the stream were not captured. The line in which they lie is delivered damaged.
    pub fn gap(&mut self, hole: u64) {
        if hole > 0 {
            self.hole = true;
            self.line.punch();
        }
    }

    /// The stream ended.
    pub fn finish(&mut self, sink: Sink<'_>) {
        self.tell_hole(sink);
        if !self.line.piece().bytes.trim_ascii().is_empty() {
            if self.line.is_too_large() {
                sink(NdjsonItem::Defect(Defect::TooLarge));
            }
            sink(NdjsonItem::Incomplete(self.line.piece()));
        }
        self.line.clear();
    }

    fn tell_hole(&mut self, sink: Sink<'_>) {
        if std::mem::take(&mut self.hole) {
            sink(NdjsonItem::Defect(Defect::Hole));
        }
    }

    fn end_line(&mut self, sink: Sink<'_>) {
        if self.line.is_too_large() {
            sink(NdjsonItem::Defect(Defect::TooLarge));
        }
        emit(self.line.piece(), sink);
        self.line.clear();
    }
}

/// Emits a line that is not empty, without the CR of its end.
fn emit(line: Piece<'_>, sink: Sink<'_>) {
    let (_, after) = line.halves();
    let carriage_return = match line.hole {
        None => line.bytes.ends_with(b"\r"),
        Some(_) => after.ends_with(b"\r"),
    };
    let bytes = line.bytes.get(..line.bytes.len() - usize::from(carriage_return)).unwrap_or_default();
    if !bytes.trim_ascii().is_empty() {
        sink(NdjsonItem::Line(Piece { bytes, hole: line.hole }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(inputs: &[Option<&[u8]>]) -> Vec<String> {
        let mut items = Vec::new();
        let mut decoder = NdjsonDecoder::new();
        let mut note = |item: NdjsonItem<'_>| {
            items.push(match item {
                NdjsonItem::Line(line) => {
                    format!("{} {:?}", String::from_utf8_lossy(line.bytes).into_owned(), line.hole)
                }
                NdjsonItem::Incomplete(line) => {
                    format!("incomplete {} {:?}", String::from_utf8_lossy(line.bytes), line.hole)
                }
                NdjsonItem::Defect(defect) => defect.as_str().to_owned(),
            });
        };
        for input in inputs {
            match input {
                Some(bytes) => decoder.push(bytes, &mut note),
                None => decoder.gap(1),
            }
        }
        decoder.finish(&mut note);
        items
    }

    #[test]
    fn lines_and_their_ends() {
        let stream: &[u8] = b"{\"a\":1}\r\n\n \r\n{\"b\":2}\n{\"c\"";
        assert_eq!(decode(&[Some(stream)]), ["{\"a\":1} None", "{\"b\":2} None", "incomplete {\"c\" None"]);
    }

    #[test]
    fn a_hole_damages_the_line_around_it_only() {
        assert_eq!(
            decode(&[Some(b"1\n2a"), None, Some(b"z2\n3\n")]),
            ["1 None", "body_hole", "2az2 Some(2)", "3 None"]
        );
        assert_eq!(decode(&[Some(b"1\n"), None, Some(b"\n3\n")]), ["1 None", "body_hole", "3 None"]);
    }

    #[test]
    fn a_line_beyond_the_limit_is_damaged() {
        let long = vec![b'x'; ITEM + 1];
        let items = decode(&[Some(&long), Some(b"\nnext\n")]);
        assert_eq!(items.len(), 3);
        assert_eq!(items[0], "body_item_too_large");
        assert!(items[1].ends_with("Some(262144)"));
        assert_eq!(items[2], "next None");
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(stream in "[a\r\n ]{0,40}", places in prop::collection::vec(0_usize..40, 0..8)) {
            let bytes = stream.as_bytes();
            let whole = decode(&[Some(bytes)]);
            let single: Vec<Option<&[u8]>> = bytes.chunks(1).map(Some).collect();
            prop_assert_eq!(&decode(&single), &whole);
            let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let pieces: Vec<Option<&[u8]>> =
                places.windows(2).map(|pair| Some(&bytes[pair[0]..pair[1]])).collect();
            prop_assert_eq!(&decode(&pieces), &whole);
        }

        #[test]
        fn intact_lines_are_lines_of_the_stream(
            stream in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            from in 0_usize..200,
            hole in 1_usize..20,
        ) {
            let from = from.min(stream.len());
            let to = (from + hole).min(stream.len());
            for item in decode(&[Some(&stream[..from]), None, Some(&stream[to..])]) {
                if let Some(line) = item.strip_suffix(" None").filter(|line| !line.starts_with("incomplete")) {
                    let mut lines = stream.split(|byte| *byte == b'\n');
                    prop_assert!(lines.any(|known| {
                        let known = known.strip_suffix(b"\r").unwrap_or(known);
                        String::from_utf8_lossy(known) == line
                    }), "{line:?}");
                }
            }
        }
    }
}
