//! Finds the chunked coding again in a push, after a gap has swallowed framing.
//!
//! A sampled capture keeps the end of each call, and calls end where chunks end. So a chunk-size line is
//! believed if the chunks that it starts lead exactly to the end of the push; at the start of a push it is
//! believed unless something contradicts it.

/// Size lines that are tried per push, so that hostile content cannot make the search quadratic.
const TRIES: usize = 64;

/// Length of a size line, beyond which it is not believed.
const SIZE_LINE: usize = 256;

/// Where framing starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resumed {
    /// Bytes at the start of the push that are content of a chunk whose size line was lost.
    pub(super) content: usize,
    /// Offset of the next size line.
    pub(super) line: usize,
}

/// Looks for framing; `is_head` tells whether bytes start a message head.
pub(super) fn find(bytes: &[u8], is_head: impl Fn(&[u8]) -> bool) -> Option<Resumed> {
    if follows(bytes, 0, true, &is_head) {
        return Some(Resumed { content: 0, line: 0 });
    }
    // The gap ended between the CR and the LF that end a chunk's data.
    if bytes.first() == Some(&b'\n') && follows(bytes, 1, true, &is_head) {
        return Some(Resumed { content: 0, line: 1 });
    }
    memchr::memchr_iter(b'\r', bytes)
        .filter(|at| matches!(bytes.get(at + 1..at + 3), Some([b'\n', digit]) if digit.is_ascii_hexdigit()))
        .take(TRIES)
        .find(|at| follows(bytes, at + 2, *at == 0, &is_head))
        .map(|at| Resumed { content: at, line: at + 2 })
}

/// True if chunks follow one another from `at` to the end of `bytes`.
fn follows(bytes: &[u8], mut at: usize, mut believed: bool, is_head: impl Fn(&[u8]) -> bool) -> bool {
    loop {
        let Some((size, line)) = size_line(bytes.get(at..).unwrap_or_default()) else {
            return false;
        };
        let rest = bytes.get(at + line..).unwrap_or_default();
        if size == 0 {
            return match rest {
                [] | [b'\r'] => believed,
                [b'\r', b'\n', next @ ..] => next.is_empty() || is_head(next),
                _ => false,
            };
        }
        let Some(size) = usize::try_from(size).ok().filter(|size| *size < rest.len()) else {
            return believed;
        };
        match rest.get(size..) {
            Some([b'\r'] | [b'\r', b'\n']) => return true,
            Some([b'\r', b'\n', ..]) => (at, believed) = (at + line + size + 2, true),
            _ => return false,
        }
    }
}

/// Reads a whole size line at the start of `bytes`: the size, and the length of the line.
fn size_line(bytes: &[u8]) -> Option<(u64, usize)> {
    let line = memchr::memchr(b'\n', bytes.get(..SIZE_LINE.min(bytes.len()))?)?;
    let text = bytes.get(..line)?.strip_suffix(b"\r")?;
    let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if !(1..=16).contains(&digits) || !matches!(text.get(digits), None | Some(b';' | b' ' | b'\t')) {
        return None;
    }
    let size = u64::from_str_radix(str::from_utf8(text.get(..digits)?).ok()?, 16).ok()?;
    Some((size, line + 1))
}
