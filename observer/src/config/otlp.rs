//! `otlp.*`: where spans and log records go.

use std::path::PathBuf;

use toml::Value;

use super::fields::{items, text};
use crate::tls::Identity;

/// Headers that are set by the protocol itself.
const RESERVED: [&str; 5] = ["content-type", "content-encoding", "content-length", "host", "te"];

/// What to write for `otlp.endpoint`.
pub(super) const ENDPOINT: &str = "write the URL of a receiver without /v1/…, such as http://collector:4318, or http://collector:4317 for grpc";
/// What to write for `otlp.headers`.
pub(super) const HEADERS: &str = "write at most 32 headers as name=value, such as [\"x-scope-orgid=ml\"]; secrets belong into otlp.headers_file";

/// `otlp.*`.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch that an operator has")]
pub struct OtlpConfig {
    /// Where the receiver is; without it nothing is sent.
    pub endpoint: Option<hyper::Uri>,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Sent with each request.
    pub headers: Vec<(String, String)>,
    /// File with more of them, a `name=value` per line; read again for each request.
    pub headers_file: Option<PathBuf>,
    /// File with a token that is presented; read again for each request.
    pub token_file: Option<PathBuf>,
    /// File with the certificates of those who may vouch for the receiver, PEM; without it those of the system.
    pub ca_file: Option<PathBuf>,
    /// File with the certificate that is shown to the receiver, PEM.
    pub cert_file: Option<PathBuf>,
    /// File with its key, PEM.
    pub key_file: Option<PathBuf>,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// Whether requests are sent as spans.
    pub traces: bool,
    /// Whether events are sent as log records.
    pub logs: bool,
    /// Whether lines of logs are sent as log records.
    pub lines: bool,
    /// Whether to go on where the receiver says that it does not know who this is, or that it takes nothing: another
    /// observer will, once both have the same token.
    pub insists: bool,
    /// Bytes of spans that may wait, and of log records.
    pub queue: usize,
}

/// How a receiver is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC, over HTTP/2 without upgrade where the endpoint is `http`.
    Grpc,
    /// Protobuf in POSTs.
    #[default]
    HttpProtobuf,
}

impl OtlpConfig {
    /// What is shown to the receiver.
    pub fn identity(&self) -> Option<Identity> {
        super::tls::identity(["otlp.cert_file", "otlp.key_file"], [&self.cert_file, &self.key_file])
    }

    /// Whether anything is sent as log records.
    pub const fn has_logs(&self) -> bool {
        self.logs || self.lines
    }
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: OtlpProtocol::default(),
            headers: Vec::new(),
            headers_file: None,
            token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            gzip: true,
            traces: true,
            logs: false,
            lines: false,
            insists: false,
            queue: 16 << 20,
        }
    }
}

pub(super) fn endpoint(value: &Value) -> Result<Option<hyper::Uri>, String> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    let uri: hyper::Uri = text.parse().map_err(|_unhelpful| "is not a URL".to_owned())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_http || uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err("is not the URL of a receiver".to_owned());
    }
    if uri.query().is_some() {
        return Err("has parameters".to_owned());
    }
    Ok(Some(uri))
}

pub(super) fn protocol(value: &Value) -> Result<OtlpProtocol, String> {
    match text(value)? {
        "grpc" => Ok(OtlpProtocol::Grpc),
        "http/protobuf" => Ok(OtlpProtocol::HttpProtobuf),
        _ => Err("is neither".to_owned()),
    }
}

pub(super) fn headers(value: &Value) -> Result<Vec<(String, String)>, String> {
    let items = items(value)?;
    if items.len() > 32 {
        return Err(format!("has {} headers", items.len()));
    }
    items.iter().enumerate().map(|(at, item)| header(text(item)?).ok_or_else(|| nth(at))).collect()
}

/// A value may be a secret, so it is not shown.
fn nth(at: usize) -> String {
    format!("number {} is no header that may be set", at + 1)
}

/// A header, of a line `name=value` or, as in HTTP, `name: value`.
pub(crate) fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(['=', ':'])?;
    let name = hyper::header::HeaderName::try_from(name.trim()).ok()?;
    let value = value.trim();
    hyper::header::HeaderValue::from_str(value).ok()?;
    (!RESERVED.contains(&name.as_str())).then(|| (name.to_string(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_receivers() {
        let of = |text: &str| endpoint(&Value::String(text.to_owned()));
        assert_eq!(of("http://c:4318/").unwrap().unwrap().host(), Some("c"));
        assert_eq!(of("https://[::1]:1/otlp").unwrap().unwrap().path(), "/otlp");
        assert_eq!(of(""), Ok(None));
        for bad in ["c:4318", "ftp://c", "/v1", "http://user:pass@c", "http://c?x=1", "http://"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_are_pairs_and_their_values_are_not_shown() {
        let of = |text: &str| headers(&Value::String(text.to_owned()));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = vec![pair("x-scope-orgid", "ml"), pair("authorization", "Bearer a=b")];
        assert_eq!(of("X-Scope-OrgID=ml, authorization: Bearer a=b"), Ok(both));
        for bad in ["secret", "a b=secret", "x=sec\u{1}ret", "content-type=secret", "Host=secret"] {
            let why = of(bad).unwrap_err();
            assert!(!why.contains("secret"), "{bad}: {why}");
        }
    }
}
