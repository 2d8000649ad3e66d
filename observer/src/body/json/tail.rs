//! Reads the end of a document backwards.
//!
//! Backwards, the state is known: the document ends outside of strings, at depth 0. A quote that is met
//! outside of a string closes one, which its next quote without an odd run of backslashes before it opens.

/// The part of a document's end that holds whole members of its top-level object, closing brace included.
/// `None` if no member starts in `end`, or if `end` cannot be the end of the document: an object that opens in
/// it is the top-level one only if the document starts with it, and `opened` says that it started earlier.
pub(super) fn whole_members(end: &[u8], opened: bool) -> Option<&[u8]> {
    let end = end.trim_ascii_end();
    let mut members = None;
    let mut depth = 0_usize;
    let mut at = end.len();
    if end.last() != Some(&b'}') {
        return None;
    }
    while let Some(byte) = at.checked_sub(1).and_then(|before| end.get(before)) {
        at -= 1;
        match byte {
            b'}' | b']' => depth += 1,
            b'{' | b'[' => {
                depth -= 1;
                if depth == 0 {
                    let first = !opened && end.get(..at)?.trim_ascii().is_empty();
                    return if *byte == b'{' && first { end.get(at + 1..) } else { None };
                }
            }
            b',' if depth == 1 => members = end.get(at + 1..),
            b'"' => match opening_quote(end.get(..at).unwrap_or_default()) {
                Some(quote) => at = quote,
                None => break,
            },
            _ => {}
        }
    }
    members
}

/// The quote that opens the string whose content ends `bytes`.
fn opening_quote(bytes: &[u8]) -> Option<usize> {
    memchr::memrchr_iter(b'"', bytes).find_map(|quote| {
        let before = bytes.get(..quote).unwrap_or_default();
        let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        if backslashes == before.len() {
            // What precedes it was not captured, so it cannot be told whether it is escaped.
            return Some(None);
        }
        (backslashes % 2 == 0).then_some(Some(quote))
    })?
}
