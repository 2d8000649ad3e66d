//! A connection to a port of a pod, through the API server and the pod's kubelet: it arrives on the pod's loopback.

use std::fmt::{self, Display};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::connect::{ConnectError, Connection};
use super::health::{Failure, Health};

/// Label of the cluster role's pods, as `deploy/` sets it.
const COMPONENT: &str = "app.kubernetes.io/component=cluster";

/// Name of its container, and of the port that it serves on.
const CONTAINER: &str = "cluster";
const PORT: &str = "http";

/// Why a pod of the cluster role cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No client can be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The API server did not do it.
    #[error("{what}: {}{}", .cause, remedy(*.failure))]
    Api {
        /// What it was asked for.
        what: String,
        /// How it failed.
        failure: Failure,
        /// What it said.
        #[source]
        cause: Box<kube::Error>,
    },
    /// There is no such pod.
    #[error(
        "no pod of `observer cluster` runs in the namespace {namespace} (label {COMPONENT}, container {CONTAINER}); \
         name the observer's namespace with --observer-namespace"
    )]
    NoPod {
        /// Where it was looked for.
        namespace: String,
    },
}

fn remedy(failure: Failure) -> &'static str {
    match failure {
        Failure::Forbidden => {
            "; it takes the rights to list pods and to get and create pods/portforward in the observer's namespace, or \
             --address of an agent or of the cluster role"
        }
        Failure::Unauthorized => "; see whether the kubeconfig's credentials are still good",
        Failure::Unreachable => {
            "; see whether the kubeconfig's server answers, or name another context with --context"
        }
        _ => "",
    }
}

fn failed(what: &impl Display, cause: kube::Error) -> ForwardError {
    ForwardError::Api { what: what.to_string(), failure: Failure::of_request(&cause), cause: Box::new(cause) }
}

/// A pod of the cluster role.
#[derive(Clone)]
pub struct ClusterPod {
    pods: Api<Pod>,
    namespace: String,
    name: String,
    port: u16,
}

impl Display for ClusterPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

impl ClusterPod {
    /// Finds one in the namespace that the observer is installed in.
    ///
    /// # Errors
    /// When there is none, or the API server does not tell.
    pub async fn find(connection: &Connection, namespace: &str) -> Result<Self, ForwardError> {
        // Its age is of no interest to somebody who asks once.
        let pods: Api<Pod> = Api::namespaced(connection.client(&Health::of("pods", || 0))?, namespace);
        let list = pods.list(&ListParams::default().labels(COMPONENT)).await;
        let list = list.map_err(|cause| failed(&format!("listing pods of {namespace}"), cause))?;
        // One that is ready, if any is.
        let mut found: Vec<_> = list.items.iter().filter_map(candidate).collect();
        found.sort_by_key(|(is_ready, ..)| !is_ready);
        let (_, name, port) = found
            .into_iter()
            .next()
            .ok_or_else(|| ForwardError::NoPod { namespace: namespace.to_owned() })?;
        Ok(Self { pods, namespace: namespace.to_owned(), name, port })
    }

    /// Opens a connection to it.
    ///
    /// # Errors
    /// When the API server refuses. What goes wrong beyond it shows when the connection is read.
    pub async fn connect(&self) -> Result<Forwarded, ForwardError> {
        let forwarder = self.pods.portforward(&self.name, &[self.port]).await;
        let mut forwarder = forwarder.map_err(|cause| failed(&format!("forwarding to {self}"), cause))?;
        let (stream, error) = (forwarder.take_stream(self.port), forwarder.take_error(self.port));
        // Both are there for a port that was asked for.
        let (stream, error) = stream.zip(error).ok_or_else(|| {
            let cause = kube::Error::Service("no stream".into());
            failed(&format!("forwarding to {self}"), cause)
        })?;
        Ok(Forwarded { stream, error: Some(Box::pin(error)) })
    }
}

/// Whether it is ready, its name and its port, if it runs the cluster role.
fn candidate(pod: &Pod) -> Option<(bool, String, u16)> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    if status.phase.as_deref() != Some("Running") || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let container = spec.containers.iter().find(|container| container.name == CONTAINER)?;
    let mut ports = container.ports.iter().flatten();
    let port = ports.find(|port| port.name.as_deref() == Some(PORT))?;
    let is_ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some((is_ready, pod.metadata.name.clone()?, u16::try_from(port.container_port).ok()?))
}

/// A forwarded connection.
pub struct Forwarded {
    stream: DuplexStream,
    /// What the kubelet says went wrong.
    error: Option<BoxFuture<'static, Option<String>>>,
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        // An end without a word is one; otherwise the kubelet said why before it ended.
        if buffer.filled().len() == before
            && buffer.remaining() > 0
            && let Some(error) = &mut self.error
        {
            let said = ready!(error.as_mut().poll(cx));
            self.error = None;
            if let Some(said) = said {
                return Poll::Ready(Err(io::Error::other(said.trim().to_owned())));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str, ready: &str, container: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"containers": [
                {"name": "sidecar", "ports": [{"name": "http", "containerPort": 1}]},
                {"name": container, "ports": [{"containerPort": 2}, {"name": "http", "containerPort": 9842}]},
            ]},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_running_pod_with_the_container_is_one() {
        let found = |pod: &Pod| candidate(pod);
        assert_eq!(found(&pod("a", "Running", "True", "cluster")), Some((true, "a".to_owned(), 9842)));
        assert_eq!(found(&pod("a", "Running", "False", "cluster")), Some((false, "a".to_owned(), 9842)));
        assert_eq!(found(&pod("a", "Pending", "False", "cluster")), None);
        assert_eq!(found(&pod("a", "Running", "True", "web")), None);
        let mut going = pod("a", "Running", "True", "cluster");
        going.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-03-01T12:00:00Z")).unwrap());
        assert_eq!(found(&going), None);
    }
}
