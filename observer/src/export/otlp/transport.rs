//! One request to a receiver and its answer, over gRPC or HTTP, on one HTTP client.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic_prost::ProstCodec;

use super::reply::{self, Reply, chain};
use super::signal::Signal;
use crate::config::{OtlpConfig, OtlpProtocol, header};
use crate::tls::{self, TlsError, Trusted};

/// How long a receiver may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to answer (OpenTelemetry: exporter, `OTEL_EXPORTER_OTLP_TIMEOUT`).
const ANSWER: Duration = Duration::from_secs(10);

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(90);

/// Bytes of an answer that are read.
const LONGEST: usize = 64 << 10;

const USER_AGENT: &str = concat!("observer/", env!("CARGO_PKG_VERSION"));

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// A file of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    endpoint: Uri,
    protocol: OtlpProtocol,
    gzip: bool,
    insists: bool,
    headers: HeaderMap,
    headers_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    wall: fn() -> i64,
}

impl Transport {
    pub(super) fn new(config: &OtlpConfig, endpoint: Uri, wall: fn() -> i64) -> Result<Self, OtlpError> {
        let is_grpc = config.protocol == OtlpProtocol::Grpc;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        let trusted = match &config.ca_file {
            Some(path) => Trusted::File(("otlp.ca_file", path)),
            None if endpoint.scheme_str() == Some("http") => Trusted::Nobody,
            None => Trusted::System("otlp.ca_file"),
        };
        let tls = tls::client(trusted, config.identity().as_ref())?;
        let tls = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = if is_grpc {
            tls.enable_http2().wrap_connector(http)
        } else {
            tls.enable_http1().wrap_connector(http)
        };
        let client = Client::builder(TokioExecutor::new())
            .http2_only(is_grpc)
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let headers = headers(config.headers.iter().cloned());
        Ok(Self {
            client,
            endpoint,
            protocol: config.protocol,
            gzip: config.gzip,
            insists: config.insists,
            headers,
            headers_file: config.headers_file.clone(),
            token_file: config.token_file.clone(),
            wall,
        })
    }

    /// Sends this once.
    pub(super) async fn send<S: Signal>(&self, message: S::Request) -> Reply {
        let headers = match self.headers() {
            Ok(headers) => headers,
            Err(why) => return Reply::Again { after: None, why },
        };
        let sending = async {
            match self.protocol {
                OtlpProtocol::Grpc => self.send_grpc::<S>(message, headers).await,
                OtlpProtocol::HttpProtobuf => self.send_http::<S>(&message, headers).await,
            }
        };
        match tokio::time::timeout(ANSWER, sending).await {
            Ok(reply) => reply,
            Err(_elapsed) => Reply::Again { after: None, why: format!("no answer in {ANSWER:?}") },
        }
    }

    /// Those of the settings, and those that files have now.
    fn headers(&self) -> Result<HeaderMap, String> {
        let mut all = self.headers.clone();
        let read = |name: &str, path: &Path| {
            std::fs::read_to_string(path).map_err(|error| format!("{name} {}: {error}", path.display()))
        };
        if let Some(path) = &self.token_file {
            let token = read("otlp.token_file", path)?;
            let pair = header(&format!("authorization=Bearer {}", token.trim()));
            let pair = pair.filter(|_| !token.trim().is_empty());
            let pair =
                pair.ok_or_else(|| format!("otlp.token_file {}: it holds no token", path.display()))?;
            all.extend(headers([pair].into_iter()));
        }
        if let Some(path) = &self.headers_file {
            let text = read("otlp.headers_file", path)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let read: Option<Vec<_>> = lines.map(header).collect();
            let read = read.ok_or_else(|| {
                format!("otlp.headers_file {}: a line is no header that may be set", path.display())
            })?;
            all.extend(headers(read.into_iter()));
        }
        Ok(all)
    }

    async fn send_http<S: Signal>(&self, message: &S::Request, headers: HeaderMap) -> Reply {
        let body = message.encode_to_vec();
        let (body, encoding) = if self.gzip { (gzipped(&body), Some("gzip")) } else { (body, None) };
        let mut request = Request::new(Body::new(Full::new(Bytes::from(body))));
        match self.place(S::PATH) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Reply::Refused { why: error.to_string() },
        }
        *request.method_mut() = Method::POST;
        *request.headers_mut() = headers;
        let set = request.headers_mut();
        set.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        set.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(encoding) = encoding {
            set.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return Reply::Again { after: None, why: chain(&error) },
        };
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, LONGEST).collect().await {
            Ok(body) => body.to_bytes(),
            // Its status says enough.
            Err(_unreadable) => Bytes::new(),
        };
        if head.status.is_success() {
            // An answer that is none says nothing of anything that was rejected.
            let (rejected, says) = S::Response::decode(body)
                .map_or_else(|_error| (0, String::new()), |answer| S::rejected(&answer));
            return Reply::Arrived { rejected, says: reply::shortened(&says) };
        }
        match reply::of_http(head.status, &head.headers, &body, (self.wall)()) {
            Reply::Refused { why } if self.insists && matches!(head.status.as_u16(), 401 | 403 | 404) => {
                Reply::Again { after: None, why }
            }
            reply => reply,
        }
    }

    /// Where this path is below the endpoint.
    fn place(&self, path: &str) -> Result<Uri, hyper::http::Error> {
        let mut parts = self.endpoint.clone().into_parts();
        parts.path_and_query =
            Some(format!("{}{path}", self.endpoint.path().trim_end_matches('/')).try_into()?);
        Ok(Uri::from_parts(parts)?)
    }

    async fn send_grpc<S: Signal>(&self, message: S::Request, headers: HeaderMap) -> Reply {
        let mut grpc = tonic::client::Grpc::with_origin(self.client.clone(), self.endpoint.clone())
            .accept_compressed(CompressionEncoding::Gzip);
        if self.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        if let Err(error) = grpc.ready().await {
            return Reply::Again { after: None, why: chain(&error) };
        }
        let codec: ProstCodec<S::Request, S::Response> = ProstCodec::default();
        match grpc.unary(request, PathAndQuery::from_static(S::METHOD), codec).await {
            Ok(response) => {
                let (rejected, says) = S::rejected(response.get_ref());
                Reply::Arrived { rejected, says: reply::shortened(&says) }
            }
            Err(status) => reply::of_grpc(&status),
        }
    }
}

fn headers(pairs: impl Iterator<Item = (String, String)>) -> HeaderMap {
    pairs
        .filter_map(|(name, value)| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        })
        .collect()
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory does not fail.
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}
