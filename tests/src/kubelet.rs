//! A fake kubelet: its pod-resources API on a socket, as gRPC puts it on the wire (`PROTOCOL-HTTP2.md`).

use std::{convert::Infallible, path::Path};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;

#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(message, repeated, tag = "1")]
    pods: Vec<Pod>,
}

#[derive(Clone, PartialEq, Message)]
struct Pod {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<Devices>,
    #[prost(int64, repeated, tag = "3")]
    cpu_ids: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Devices {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(string, repeated, tag = "2")]
    ids: Vec<String>,
}

/// Serves this at a socket until the runtime ends: pods of the namespace `ml` with one container `server` each, by name,
/// resource and ids.
pub fn serve(socket: &Path, allocations: &[(&str, &str, &[&str])]) {
    let pods = allocations.iter().map(|(pod, resource, ids)| {
        let devices =
            Devices { resource: (*resource).to_owned(), ids: ids.iter().map(|&id| id.to_owned()).collect() };
        let container = Container { name: "server".into(), devices: vec![devices], cpu_ids: vec![1, 2] };
        Pod { name: (*pod).to_owned(), namespace: "ml".into(), containers: vec![container] }
    });
    let message = List { pods: pods.collect() }.encode_to_vec();
    // Not compressed, then the length.
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let framed = Bytes::from(framed);
    let listener = UnixListener::bind(socket).expect("a socket");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let framed = framed.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let framed = framed.clone();
                async move { Ok::<_, Infallible>(answered(request, framed).await) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
}

type Body = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answered(request: Request<Incoming>, framed: Bytes) -> Response<Body> {
    let known = request.uri().path() == "/v1.PodResourcesLister/List";
    let asked = request.into_body().collect().await.expect("a request").to_bytes();
    assert_eq!(&asked[..], [0; 5], "an empty message");
    let mut trailers = HeaderMap::new();
    // 12: UNIMPLEMENTED.
    trailers.insert("grpc-status", if known { "0" } else { "12" }.parse().expect("a header"));
    let frames = vec![Ok(Frame::data(framed)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Response::builder().header("content-type", "application/grpc").body(body).expect("a response")
}
