//! Names the protocol that a direction of a connection speaks, from its first bytes.

/// Request methods of RFC 9110 section 9 and RFC 5789, each with the space that follows it.
const METHODS: [&[u8]; 9] =
    [b"POST ", b"GET ", b"PUT ", b"HEAD ", b"OPTIONS ", b"PATCH ", b"DELETE ", b"CONNECT ", b"TRACE "];

/// Start of an HTTP/1 status line.
pub(super) const STATUS_LINE: &[u8] = b"HTTP/1.";

/// Start of the HTTP/2 connection preface (RFC 9113 section 3.4). The kernel side shows 16 bytes of a
/// connection that does not speak HTTP/1, so the rest is not asked for.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What the first bytes of a direction look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// An HTTP/1 request.
    Http1Request,
    /// An HTTP/1 response.
    Http1Response,
    /// The preface of an HTTP/2 client.
    Http2Preface,
    /// A TLS record that carries a handshake message.
    Tls,
    /// None of these.
    Other,
    /// All bytes so far start one of these, but are too few to tell which.
    NeedMore,
}

/// Names the protocol of a direction that starts with `first`.
pub fn sniff(first: &[u8]) -> Protocol {
    if METHODS.iter().any(|method| first.starts_with(method)) {
        return Protocol::Http1Request;
    }
    if first.starts_with(STATUS_LINE) {
        return Protocol::Http1Response;
    }
    if first.starts_with(PREFACE) {
        return Protocol::Http2Preface;
    }
    // RFC 8446 section 5.1: content type handshake, legacy version 3.0 to 3.4.
    if let [0x16, 0x03, minor, ..] = first {
        return if *minor <= 4 { Protocol::Tls } else { Protocol::Other };
    }
    let undecided = METHODS.iter().chain([&STATUS_LINE, &PREFACE]).any(|word| word.starts_with(first))
        || [0x16, 0x03].starts_with(first);
    if undecided { Protocol::NeedMore } else { Protocol::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_protocols() {
        for (bytes, expected) in [
            (&b"POST /v1/chat/completions HTTP/1.1\r\n"[..], Protocol::Http1Request),
            (b"GET / HTTP/1.1", Protocol::Http1Request),
            (b"HTTP/1.1 200 OK", Protocol::Http1Response),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Http2Preface),
            (b"\x16\x03\x01\x02\x00", Protocol::Tls),
            (b"\x16\x03\x07", Protocol::Other),
            (b"HTTP/2", Protocol::Other),
            (b"*1\r\n$4\r\nPING", Protocol::Other),
            (b"", Protocol::NeedMore),
            (b"P", Protocol::NeedMore),
            (b"PR", Protocol::NeedMore),
            (b"H", Protocol::NeedMore),
            (b"POST", Protocol::NeedMore),
            (b"\x16", Protocol::NeedMore),
            (b"post /", Protocol::Other),
        ] {
            assert_eq!(sniff(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
