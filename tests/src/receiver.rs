//! A fake OTLP receiver: over HTTP and gRPC on one port, with or without TLS. It keeps what comes, and answers as a test
//! orders it.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode},
};
use flate2::read::GzDecoder;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
        trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::Span,
};
use prost::Message as _;
use tokio::sync::oneshot;

pub use tls::{Authority, Pair};

mod tls;

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With success.
    Take,
    /// With an HTTP status and these headers.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// With a gRPC status.
    Code(u16),
    /// With success, but for so many of it.
    Partial(i64),
    /// Not at all.
    Hang,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Came {
    /// Its path.
    pub path: String,
    /// Its head.
    pub headers: HeaderMap,
    /// Its message, decompressed.
    pub message: Bytes,
    /// How it was answered.
    pub answer: Answer,
}

#[derive(Default)]
struct Shared {
    came: Vec<Came>,
    orders: VecDeque<Answer>,
    always: Option<Answer>,
}

/// The receiver; it ends with the value.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Receiver {
    /// One that takes everything.
    pub fn start() -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), None)
    }

    /// One with TLS.
    pub fn with_tls(authority: &Authority) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), Some(authority))
    }

    /// One at this address.
    pub fn at(address: SocketAddr, authority: Option<&Authority>) -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let tls = authority.map(Authority::acceptor);
        let (state, (stop, stopped)) = (Arc::clone(&shared), oneshot::channel::<()>());
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
                tell.send(listener.local_addr().expect("its address")).expect("whoever started it waits");
                let app = Router::new().fallback(take).with_state(state);
                let stopped = async move {
                    let _dropped_or_sent = stopped.await;
                };
                let serving = async {
                    match tls {
                        None => axum::serve(listener, app).await,
                        Some(acceptor) => axum::serve(tls::Encrypted { listener, acceptor }, app).await,
                    }
                };
                tokio::select! {
                    served = serving => served.expect("it serves"),
                    () = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        let address = told.recv().expect("it listens");
        Self { address, shared, running: Some((stop, thread)) }
    }

    /// As an endpoint in settings.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next requests are answered so.
    pub fn order(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared().orders.extend(answers);
    }

    /// All requests are answered so from now on.
    pub fn always(&self, answer: Option<Answer>) {
        self.shared().always = answer;
    }

    /// All requests.
    pub fn came(&self) -> Vec<Came> {
        self.shared().came.clone()
    }

    /// All spans that were taken.
    pub fn spans(&self) -> Vec<Item<Span>> {
        let taken = self.taken(|path| path.ends_with("/v1/traces") || path.ends_with("TraceService/Export"));
        let requests = taken.map(|came| ExportTraceServiceRequest::decode(came.message).expect("spans"));
        let resources = requests.flat_map(|request| request.resource_spans);
        resources
            .flat_map(|one| {
                let resource = one.resource.expect("a resource").attributes;
                let spans = one.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans
                    .map(|span| Item {
                        resource: pairs(&resource),
                        attributes: pairs(&span.attributes),
                        item: span,
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// All log records that were taken.
    pub fn logs(&self) -> Vec<Item<LogRecord>> {
        let taken = self.taken(|path| path.ends_with("/v1/logs") || path.ends_with("LogsService/Export"));
        let requests = taken.map(|came| ExportLogsServiceRequest::decode(came.message).expect("log records"));
        let resources = requests.flat_map(|request| request.resource_logs);
        resources
            .flat_map(|one| {
                let resource = one.resource.expect("a resource").attributes;
                let logs = one.scope_logs.into_iter().flat_map(|scope| scope.log_records);
                logs.map(|log| Item {
                    resource: pairs(&resource),
                    attributes: pairs(&log.attributes),
                    item: log,
                })
                .collect::<Vec<_>>()
            })
            .collect()
    }

    fn taken(&self, of: fn(&str) -> bool) -> impl Iterator<Item = Came> {
        let came = self.came().into_iter().filter(move |came| of(&came.path));
        came.filter(|came| matches!(came.answer, Answer::Take | Answer::Partial(_)))
    }

    /// Ends it, so that its port can be taken again.
    pub fn stop(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn end(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ended_by_itself = stop.send(());
            let _panicked = thread.join();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

/// A span or log record.
#[derive(Clone, Debug)]
pub struct Item<T> {
    /// What it is about.
    pub resource: BTreeMap<String, String>,
    /// What is known.
    pub attributes: BTreeMap<String, String>,
    /// The whole of it.
    pub item: T,
}

/// Attributes as text.
pub fn pairs(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.as_ref().map_or_else(String::new, shown)))
        .collect()
}

fn shown(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(shown).collect::<Vec<_>>().join(","),
        other => format!("{other:?}"),
    }
}

async fn take(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("the body");
    let is_grpc = head.headers.get("content-type").is_some_and(|kind| kind == "application/grpc");
    let encoded = |name| head.headers.get(name).is_some_and(|encoding: &HeaderValue| encoding == "gzip");
    let message = if is_grpc {
        let (prefix, message) = body.split_at(5);
        assert_eq!(prefix[0] == 1, encoded("grpc-encoding"), "the flag and the head agree");
        assert_eq!(u32::from_be_bytes(prefix[1..5].try_into().expect("4")) as usize, message.len());
        decompressed(body.slice(5..), prefix[0] == 1)
    } else {
        assert_eq!(head.headers["content-type"], "application/x-protobuf");
        let is_compressed = encoded("content-encoding");
        decompressed(body, is_compressed)
    };
    let answer = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let always = shared.always.clone().unwrap_or(Answer::Take);
        let answer = shared.orders.pop_front().unwrap_or(always);
        let path = head.uri.path().to_owned();
        shared.came.push(Came { path, headers: head.headers, message, answer: answer.clone() });
        answer
    };
    let is_traces = head.uri.path().ends_with("traces") || head.uri.path().contains("TraceService");
    respond(answer, is_grpc, is_traces).await
}

fn decompressed(body: Bytes, is_compressed: bool) -> Bytes {
    if !is_compressed {
        return body;
    }
    let mut plain = Vec::new();
    GzDecoder::new(body.as_ref()).read_to_end(&mut plain).expect("gzip");
    plain.into()
}

async fn respond(answer: Answer, is_grpc: bool, is_traces: bool) -> Response<Body> {
    let rejected = match answer {
        Answer::Hang => std::future::pending().await,
        Answer::Status(status, headers) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            for (name, value) in headers {
                response.headers_mut().insert(*name, HeaderValue::from_static(value));
            }
            return response;
        }
        Answer::Code(code) => {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            response.headers_mut().insert("grpc-status", code.into());
            return response;
        }
        Answer::Take => 0,
        Answer::Partial(rejected) => rejected,
    };
    let error_message = if rejected > 0 { "not these".to_owned() } else { String::new() };
    let message = if is_traces {
        let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message };
        ExportTraceServiceResponse { partial_success: (rejected > 0).then_some(partial) }.encode_to_vec()
    } else {
        let partial = ExportLogsPartialSuccess { rejected_log_records: rejected, error_message };
        ExportLogsServiceResponse { partial_success: (rejected > 0).then_some(partial) }.encode_to_vec()
    };
    if !is_grpc {
        return Response::builder()
            .header("content-type", "application/x-protobuf")
            .body(Body::from(message))
            .expect("a response");
    }
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from(0))]);
    let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).expect("a response")
}
