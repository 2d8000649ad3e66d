//! Message heads: the first line and the fields, names in lower case, values as bytes.

/// Where one field lies in [`Fields::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    name: u32,
    value: u32,
    end: u32,
}

/// The fields of a message, in order. The reader of heads bounds their number and size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl Fields {
    /// No fields, with room for `fields` of them that take `bytes` in all.
    pub(crate) fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), spans: Vec::with_capacity(fields) }
    }

    /// Adds a field. Heads are bounded far below 4 GiB, so spans fit.
    pub(crate) fn push(&mut self, name: &str, value: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
        let middle = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value.trim_ascii());
        self.spans.push(Span { name: start, value: middle, end: self.bytes.len() as u32 });
    }

    /// All fields in order: name in lower case, value without surrounding whitespace.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.spans.iter().map(|span| {
            let name = self.bytes.get(span.name as usize..span.value as usize).unwrap_or_default();
            let value = self.bytes.get(span.value as usize..span.end as usize).unwrap_or_default();
            // Names come from a parser that lets only token characters through.
            (str::from_utf8(name).unwrap_or_default(), value)
        })
    }

    /// The first value of a field; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The first value of a field, if it is UTF-8; `name` in lower case.
    pub fn text(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.get(name)?).ok()
    }

    /// Bytes of memory that they take.
    pub fn held(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True if there is no field.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The members of a comma-separated list field (RFC 9110 section 5.6.1) over all its lines.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(known, _)| *known == name)
            .flat_map(|(_, value)| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// The media type without parameters, in the sender's case, such as `text/event-stream`.
    pub fn content_type(&self) -> Option<&str> {
        let value = self.text("content-type")?;
        let essence = value.split(';').next().unwrap_or(value).trim();
        (!essence.is_empty()).then_some(essence)
    }

    /// True if the media type, without its parameters, is `essence` in any case.
    pub fn is_content_type(&self, essence: &str) -> bool {
        self.content_type().is_some_and(|value| value.eq_ignore_ascii_case(essence))
    }

    /// Content-Length: `None` if absent, `Some(None)` if it is invalid or its values differ
    /// (RFC 9110 section 8.6 allows equal ones to be repeated).
    pub fn content_length(&self) -> Option<Option<u64>> {
        let mut lines = self.iter().filter(|(name, _)| *name == "content-length").peekable();
        lines.peek()?;
        let mut length = None;
        for member in lines.flat_map(|(_, value)| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
            let parsed = decimal(member);
            if parsed.is_none() || length.is_some_and(|known| Some(known) != parsed) {
                return Some(None);
            }
            length = parsed;
        }
        Some(length)
    }

    /// True if there is a Transfer-Encoding whose last coding is `chunked`.
    pub fn is_chunked(&self) -> bool {
        self.list("transfer-encoding").last().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
    }

    /// The codings of the content, in the order in which they were applied, without `identity`.
    pub fn content_codings(&self) -> impl Iterator<Item = &[u8]> {
        self.list("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    }

    /// True if the sender of a request waits for 100 (Continue) before it sends the body.
    pub fn expect_continue(&self) -> bool {
        self.list("expect").any(|member| member.eq_ignore_ascii_case(b"100-continue"))
    }
}

/// Digits only: no sign, no space, no overflow.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(bytes).ok()?.parse().ok()
}

/// Head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method, as sent.
    pub method: String,
    /// The path of the target without its query; the authority for CONNECT, `*` for OPTIONS.
    pub path: String,
    /// `x` of HTTP/1.x.
    pub minor: u8,
    /// The fields.
    pub fields: Fields,
}

/// Head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// `x` of HTTP/1.x.
    pub minor: u8,
    /// The fields.
    pub fields: Fields,
}

/// The path of a request target without its query (RFC 9112 section 3.2).
pub(crate) fn path_of(target: &str) -> &str {
    let target = match target.split_once("://") {
        // absolute-form: scheme://authority/path, as sent to proxies.
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            rest.find(['/', '?']).map_or("/", |start| &rest[start..])
        }
        _ => target,
    };
    let path = target.split(['?', '#']).next().unwrap_or(target);
    if path.is_empty() { "/" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.push(name, value.as_bytes());
        }
        fields
    }

    #[test]
    fn finds_values() {
        let fields = fields(&[
            ("Content-Type", " Text/Event-Stream; charset=utf-8 "),
            ("X-Request-ID", "a"),
            ("x", ""),
        ]);
        assert_eq!(fields.content_type(), Some("Text/Event-Stream"));
        assert!(fields.is_content_type("text/event-stream"));
        assert_eq!(fields.get("x-request-id"), Some(&b"a"[..]));
        assert_eq!(fields.get("x"), Some(&b""[..]));
        assert_eq!(fields.get("y"), None);
        assert_eq!(fields.len(), 3);
    }

    #[test]
    fn reads_lengths() {
        for (lines, expected) in [
            (&[][..], None),
            (&[("content-length", "42")], Some(Some(42))),
            (&[("content-length", "42, 42"), ("Content-Length", "42")], Some(Some(42))),
            (&[("content-length", "42"), ("content-length", "41")], Some(None)),
            (&[("content-length", "+42")], Some(None)),
            (&[("content-length", "")], Some(None)),
            (&[("content-length", "99999999999999999999")], Some(None)),
        ] {
            assert_eq!(fields(lines).content_length(), expected, "{lines:?}");
        }
    }

    #[test]
    fn reads_codings() {
        assert!(fields(&[("transfer-encoding", "gzip, Chunked")]).is_chunked());
        assert!(!fields(&[("transfer-encoding", "chunked, gzip")]).is_chunked());
        assert!(fields(&[("Expect", "100-Continue")]).expect_continue());
    }

    #[test]
    fn strips_queries() {
        for (target, path) in [
            ("/v1/models?key=secret", "/v1/models"),
            ("http://host:1/v1/x?y", "/v1/x"),
            ("http://host", "/"),
            ("http://host?q", "/"),
            ("*", "*"),
            ("host:443", "host:443"),
            ("/a://b", "/a://b"),
        ] {
            assert_eq!(path_of(target), path);
        }
    }
}
