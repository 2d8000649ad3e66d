//! What the kubelet allocated to containers, from its pod-resources API: gRPC over a socket on the node (kubelet
//! `staging/src/k8s.io/kubelet/pkg/apis/podresources/v1/api.proto`).

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tower::service_fn;
use tracing::info;

use crate::gpus::Allocation;

/// Between two questions: allocations last as long as pods do.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer; that of a full node is some 100 KB.
const LARGEST: usize = 16 << 20;

/// Resources whose devices are NVIDIA's GPUs: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`, `nvidia.com/gpu.shared`.
const RESOURCES: &str = "nvidia.com/";

/// The messages, those fields that are read.
mod message {
    /// Nothing is asked for in particular.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Request {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Response {
        #[prost(message, repeated, tag = "1")]
        pub(super) pod_resources: Vec<Pod>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Pod {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) namespace: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) containers: Vec<Container>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Container {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) devices: Vec<Devices>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Devices {
        #[prost(string, tag = "1")]
        pub(super) resource_name: String,
        #[prost(string, repeated, tag = "2")]
        pub(super) device_ids: Vec<String>,
    }
}

/// What the kubelet says, as far as it says anything: read by scrapes.
#[derive(Clone, Default)]
pub struct AllocationsTold(Arc<Mutex<Answers>>);

/// The last answer; none since the kubelet does not answer. Then how often it did, and did not.
type Answers = (Option<Vec<Allocation>>, u64, u64);

impl AllocationsTold {
    /// The last answer; none since the kubelet does not answer. Then how often it did, and did not.
    pub fn get(&self) -> (Option<Vec<Allocation>>, u64, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, answer: Option<Vec<Allocation>>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = if answer.is_some() { &mut told.1 } else { &mut told.2 };
        *count += 1;
        told.0 = answer;
    }
}

/// Asks the kubelet at this socket over and over, as long as there is one. Never ends.
#[expect(clippy::infinite_loop, reason = "it ends with the runtime that it is spawned in")]
pub async fn watch_allocations(socket: PathBuf, told: AllocationsTold) {
    let mut said = None;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // No kubelet, no word about it.
        if !socket.exists() {
            if told.get().0.is_some() {
                told.set(None);
            }
            continue;
        }
        let answer = tokio::time::timeout(TIMEOUT, ask(socket.clone())).await;
        let answer = answer.map_err(|late| late.to_string()).and_then(|answer| answer);
        let why = answer.as_ref().err().cloned();
        if why != said {
            if let Some(why) = &why {
                info!(%why, socket = %socket.display(), "the kubelet does not tell who has which GPU");
            }
            said = why;
        }
        told.set(answer.ok());
    }
}

async fn ask(socket: PathBuf) -> Result<Vec<Allocation>, String> {
    let connect = service_fn(move |_uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name goes into a header that the kubelet does not look at.
    let endpoint = Endpoint::from_static("http://kubelet").connect_timeout(TIMEOUT);
    let channel: Channel = endpoint.connect_with_connector(connect).await.map_err(|error| chain(&error))?;
    let mut client = Grpc::new(channel).max_decoding_message_size(LARGEST);
    client.ready().await.map_err(|error| chain(&error))?;
    let path = PathAndQuery::from_static("/v1.PodResourcesLister/List");
    let codec = ProstCodec::<message::Request, message::Response>::default();
    let answer = client.unary(tonic::Request::new(message::Request {}), path, codec).await;
    let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
    Ok(allocations(answer))
}

/// An error and what caused it: the transport's own text says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}

fn allocations(answer: message::Response) -> Vec<Allocation> {
    let mut all = Vec::new();
    for pod in answer.pod_resources {
        for container in pod.containers {
            let gpus =
                container.devices.into_iter().filter(|devices| devices.resource_name.starts_with(RESOURCES));
            let ids: Vec<String> = gpus.flat_map(|devices| devices.device_ids).collect();
            if !ids.is_empty() {
                all.push(Allocation {
                    names: [pod.namespace.clone(), pod.name.clone(), container.name],
                    ids,
                });
            }
        }
    }
    all
}
