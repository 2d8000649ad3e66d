//! One whole message head out of its bytes.

use httparse::{EMPTY_HEADER, Error, Header, ParserConfig, Status};

use crate::http::{Defect, Fields, RequestHead, ResponseHead, head::path_of};

/// Fields of a head that are read. Servers refuse more than about a hundred.
const FIELDS: usize = 128;

/// Servers that were seen to work with their clients are observed, strict or not.
fn config() -> ParserConfig {
    let mut config = ParserConfig::default();
    config
        .allow_multiple_spaces_in_request_line_delimiters(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_requests(true)
        .ignore_invalid_headers_in_responses(true);
    config
}

/// Reads a request head that fills `bytes`.
pub(super) fn request(bytes: &[u8]) -> Result<RequestHead, Defect> {
    let mut headers = [EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut headers);
    match config().parse_request(&mut parsed, bytes) {
        Ok(Status::Complete(_)) => Ok(RequestHead {
            method: parsed.method.unwrap_or_default().to_owned(),
            path: path_of(parsed.path.unwrap_or_default()).to_owned(),
            minor: parsed.version.unwrap_or_default(),
            fields: fields(parsed.headers),
        }),
        Err(Error::TooManyHeaders) => Err(Defect::TooManyFields),
        Ok(Status::Partial) | Err(_) => Err(Defect::HeadMalformed),
    }
}

/// Reads a response head that fills `bytes`.
pub(super) fn response(bytes: &[u8]) -> Result<ResponseHead, Defect> {
    let mut headers = [EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut headers);
    match config().parse_response(&mut parsed, bytes) {
        Ok(Status::Complete(_)) => Ok(ResponseHead {
            status: parsed.code.unwrap_or_default(),
            minor: parsed.version.unwrap_or_default(),
            fields: fields(parsed.headers),
        }),
        Err(Error::TooManyHeaders) => Err(Defect::TooManyFields),
        Ok(Status::Partial) | Err(_) => Err(Defect::HeadMalformed),
    }
}

fn fields(headers: &[Header<'_>]) -> Fields {
    let bytes = headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    let mut fields = Fields::with_capacity(headers.len(), bytes);
    for header in headers {
        fields.push(header.name, header.value);
    }
    fields
}

/// What a line holds so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing.
    #[default]
    Empty,
    /// A carriage return and nothing else.
    Cr,
    /// Anything else.
    Text,
}

impl Line {
    /// Looks for the end of the empty line that ends a head or a trailer section: the number of bytes up to
    /// and including it. A bare LF ends a line too (RFC 9112 section 2.2).
    pub(super) fn find_empty(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            self.extend(bytes.get(start..end).unwrap_or_default());
            start = end + 1;
            if std::mem::take(self) != Self::Text {
                return Some(start);
            }
        }
        self.extend(bytes.get(start..).unwrap_or_default());
        None
    }

    fn extend(&mut self, bytes: &[u8]) {
        *self = match (*self, bytes) {
            (state, []) => state,
            (Self::Empty, [b'\r']) => Self::Cr,
            _ => Self::Text,
        };
    }
}
