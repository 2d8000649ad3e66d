//! The HTTP endpoint of both roles.
//!
//! In: a function that renders a scrape, a flag that says when the role is ready, what happens, as it happens
//! ([`Feed`]), and whoever answers questions ([`Api`]). Out: `/metrics`, `/healthz`, `/readyz` for everybody, and
//! `/api/v1/…`, lines of JSON, for loopback peers, for those who present the token ([`TokenFile`]),
//! for those for whom a certificate vouches, and, as far as they may, for those whom the API server knows ([`Reviewer`]). In, too: lines of logs that others send
//! to be kept ([`Intake`]).
//!
//! Bounded: connections, streams, questions, the backlog of each stream, and the time that a shutdown waits.

mod access;
mod api;
mod encrypted;
mod explained;
mod feed;
mod guard;
mod intake;
mod listener;
mod node;
mod past;
mod requests;
mod rows;
mod token;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use access::{REMEMBERED, Reviewer};
pub use feed::Feed;
pub use intake::Intake;
pub(crate) use node::line;
pub use node::{NodeApi, RunningNow};
pub use requests::RequestFeed;
pub use rows::{LogFiles, RowFeed};
pub use token::{Token, TokenFile};

use crate::config::TlsConfig;
use crate::recent::{Asked, Query};
use crate::tls::{self, TlsError};

use encrypted::Encrypted;
use listener::{Limited, Peer};

/// Content type of `/metrics`: the text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a shutdown waits for answers that are being written: the agent is to be gone within a second.
const GRACE: Duration = Duration::from_millis(400);

/// Streams of `/api` at a time.
const STREAMS: usize = 32;

/// After so long without a line an empty one is sent.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Questions of `/api` that are being answered at a time; others wait.
const QUESTIONS: usize = 8;

/// Why the endpoint cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (`{field}`): {cause}; {}", remedy(cause))]
    Listen {
        /// The setting.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// TLS is to be spoken and cannot be.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Serving ended by itself.
    #[error("the HTTP endpoint on {address} stopped: {cause}; restart the agent")]
    Stopped {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has the port, perhaps another agent: stop it, or set `listen` to a free port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address: set `listen` to one, or to 0.0.0.0"
        }
        io::ErrorKind::PermissionDenied => "set `listen` to a port above 1023",
        _ => "set `listen` to another address and port",
    }
}

/// Renders a scrape, or says why it cannot. Called on a thread that may block.
pub type RenderMetrics = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// A question, as it was asked and as it is meant.
#[derive(Clone, Debug)]
pub struct Question {
    /// What it means.
    pub query: Query,
    /// The parameters of the URL, to be passed on.
    pub text: String,
}

/// Lines of JSON, each with its end.
pub type Lines = BoxStream<'static, Bytes>;

/// Whoever answers. Each answer but that to a follower ends with a trailer ([`crate::recent::Trailer`]).
pub trait Api: Send + Sync {
    /// Answers a question about what is asked for.
    fn answer(&self, asked: Asked, question: Question) -> BoxFuture<'static, Lines>;
}

/// What is served.
#[derive(Clone)]
pub struct Sources {
    /// Renders `/metrics`.
    pub metrics: RenderMetrics,
    /// Whether the role does what it is for.
    pub ready: Arc<AtomicBool>,
    /// Why it does not until then.
    pub not_ready: &'static str,
    /// Events of Kubernetes, told at `/api/v1/events` to whoever asks for nothing in particular.
    pub events: Option<Feed>,
    /// Who answers questions.
    pub api: Arc<dyn Api>,
    /// The token that others than loopback peers have to present.
    pub token: Arc<TokenFile>,
    /// Who asks the API server about others that present a token; without it they are refused.
    pub reviewer: Option<Arc<Reviewer>>,
    /// Where lines go that others send; without it they are refused.
    pub intake: Option<Intake>,
    /// Whether `/metrics` is for the same as `/api`, and not for everybody.
    pub metrics_guarded: bool,
}

#[derive(Clone)]
struct AppState {
    sources: Sources,
    streams: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
    /// Whether others may come over TLS.
    has_tls: bool,
}

/// The endpoint, bound to its address and not serving yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    /// Beside, over TLS.
    encrypted: Option<(TcpListener, Arc<ServerConfig>)>,
}

async fn bind(field: &'static str, listen: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let refused = |cause| ServeError::Listen { field, address: listen, cause };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

impl Server {
    /// Takes the address, so that a port in use is known before anything else is started.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn bind(listen: SocketAddr) -> Result<Self, ServeError> {
        let (listener, address) = bind("listen", listen).await?;
        Ok(Self { listener, address, encrypted: None })
    }

    /// The same, over TLS beside, if the settings say so.
    ///
    /// # Errors
    ///
    /// When a file cannot be used, or the address cannot be listened on.
    pub async fn beside(mut self, config: &TlsConfig) -> Result<Self, ServeError> {
        if let Some((listen, identity)) = config.listen.zip(config.identity()) {
            let vouching = config.ca_file.as_deref().map(|file| ("tls.ca_file", file));
            let tls = tls::server(&identity, vouching)?;
            let (listener, address) = bind("tls.listen", listen).await?;
            tracing::info!(tls = %address, "serving over TLS, too");
            self.encrypted = Some((listener, tls));
        }
        Ok(self)
    }

    /// The address at which TLS is spoken.
    pub fn encrypted_address(&self) -> Option<SocketAddr> {
        self.encrypted.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// The address, with the port that was given if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes. Open streams end then; what does not, is cut soon after.
    ///
    /// # Errors
    ///
    /// When serving ends for another reason.
    pub async fn run(
        self,
        sources: Sources,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        self.run_with_grace(sources, shutdown, GRACE).await
    }

    async fn run_with_grace(
        self,
        sources: Sources,
        shutdown: impl Future<Output = ()> + Send + 'static,
        grace: Duration,
    ) -> Result<(), ServeError> {
        // What is wrong with it is said now, not when somebody is refused.
        let _token = sources.token.read();
        let (stop_sender, stop) = watch::channel(false);
        let mut stopped = stop.clone();
        let [streams, questions] = [STREAMS, QUESTIONS].map(|most| Arc::new(Semaphore::new(most)));
        let failed = |cause| ServeError::Stopped { address: self.address, cause };
        let mut stop_encrypted = stop.clone();
        let has_tls = self.encrypted.is_some();
        let state = AppState { sources, streams, questions, stop, has_tls };
        let service = router(state).into_make_service_with_connect_info::<Peer>();
        let plain = axum::serve(Limited::new(self.listener), service.clone());
        let plain = plain.with_graceful_shutdown(async move {
            shutdown.await;
            // Nobody is left to tell if there is no receiver.
            let _told = stop_sender.send(true);
        });
        let encrypted = match self.encrypted {
            None => None,
            Some((listener, config)) => {
                let listener = Encrypted::new(Limited::new(listener), config).map_err(failed)?;
                let stopped = async move {
                    // An error means that the sender is gone, which is the end, too.
                    let _told = stop_encrypted.wait_for(|stop| *stop).await;
                };
                Some(axum::serve(listener, service).with_graceful_shutdown(stopped))
            }
        };
        let serving = async {
            match encrypted {
                None => plain.await,
                Some(encrypted) => tokio::try_join!(plain.into_future(), encrypted.into_future()).map(|_| ()),
            }
        };
        let cut = async move {
            // An error means that the sender is gone, so serving has ended and the other branch wins.
            if stopped.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            ended = serving => {
                ended.map_err(failed)
            }
            () = cut => Ok(()),
        }
    }
}

fn router(state: AppState) -> Router {
    let api = Router::new()
        .route("/v1/requests", api::about(Asked::Requests))
        .route("/v1/top", api::about(Asked::Top))
        .route("/v1/logs", api::about(Asked::Logs))
        .route("/v1/events", get(api::events))
        .route("/v1/explain", api::about(Asked::Explain));
    let api = api.layer(middleware::from_fn_with_state(state.clone(), guard::guard));
    let intake = post(intake::logs).layer(middleware::from_fn_with_state(state.clone(), guard::guard));
    let scrape = get(metrics);
    let scrape = if state.sources.metrics_guarded {
        scrape.layer(middleware::from_fn_with_state(state.clone(), guard::guard_metrics))
    } else {
        scrape
    };
    Router::new()
        .route("/metrics", scrape)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/v1/logs", intake)
        .nest("/api", api)
        .with_state(state)
}

async fn ready(State(state): State<AppState>) -> Response {
    if state.sources.ready.load(Ordering::Acquire) {
        "ready\n".into_response()
    } else {
        let why = format!("not ready: {}\n", state.sources.not_ready);
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }
}

async fn metrics(State(state): State<AppState>) -> Response {
    let render = Arc::clone(&state.sources.metrics);
    match tokio::task::spawn_blocking(move || render()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Ok(Err(cause)) => failed(&cause),
        Err(cause) => failed(&cause.to_string()),
    }
}

fn failed(cause: &str) -> Response {
    tracing::error!(cause, "metrics cannot be rendered");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be rendered: {cause}\n")).into_response()
}

#[cfg(test)]
mod tests;
