//! The cluster role: wires the rooms together for what must be watched once per cluster.
//!
//! Every replica serves; the one that leads watches, and tells of the cluster. One thread does all but render scrapes.

mod rows;

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tracing::{info, warn};

use crate::{
    agent::keeping::{self, Keeping},
    capture::{monotonic, wall},
    config::Config,
    export::{
        otlp::{Otlp, OtlpError, Row},
        prometheus::ClusterScrape,
    },
    fleet::{Directory, Fleet},
    kube::{Agents, Candidate, Clocks, ConnectError, Connection, Health, Leadership, cluster::Cluster},
    serve::{Feed, Intake, ServeError, Server, Sources, TokenFile},
    store::Store,
    timeline::Level,
    tls::{Dial, TlsError},
};
use rows::Own;

/// Events that a slow follower may lag behind.
const FEED: usize = 4096;

/// Before it is tried again to watch, where no client could be made.
const AGAIN: Duration = Duration::from_secs(5);

/// How long the end waits for a receiver to take the last events.
const LAST: Duration = Duration::from_millis(300);

const CLOCKS: Clocks = Clocks { monotonic, wall };

/// Why the cluster role ended.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The HTTP endpoint does not serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Agents are to be asked over TLS and cannot be.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API server cannot be asked.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nothing says where the API server is.
    #[error(
        "no API server to watch: this is no pod, or `kubernetes.mode` is off; run it in a pod, or set \
         `kubernetes.kubeconfig`"
    )]
    Nowhere,
    /// Log records are to be sent and cannot be.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The runtime or a signal handler could not be had.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Takes part in the election of a leader, and watches the cluster while it leads, until SIGINT or SIGTERM.
///
/// # Errors
/// [`ClusterError`]: what could not be started.
pub fn run(config: &Config) -> Result<(), ClusterError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cluster(config))
}

async fn cluster(config: &Config) -> Result<(), ClusterError> {
    let server = Server::bind(config.listen).await?.beside(&config.tls).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let connection = Connection::find(&config.kubernetes).await?.ok_or(ClusterError::Nowhere)?;
    let feed = Feed::new(FEED);
    let otlp = Otlp::new(&config.otlp, || wall().cast_signed())?;
    let (keeping, threads) = keeping::open(config, "", 'k', &Arc::default())?;
    let cluster = Arc::new(Cluster::new(
        config.kubernetes.scope.clone(),
        config.metrics.max_series,
        tell(feed.clone(), otlp.clone(), keeping.clone()),
        CLOCKS,
    ));
    let intake = intake(config, &keeping);
    let health = Health::of("leases", monotonic);
    let namespace = config.cluster.namespace.as_deref().unwrap_or(connection.namespace());
    let (mut candidate, leadership) = Candidate::new(
        &connection,
        (namespace, &config.cluster.lease),
        identity()?,
        Arc::clone(&health),
        CLOCKS,
    )?;
    let ready = Arc::new(AtomicBool::new(false));
    let token = Arc::new(TokenFile::at(config.api.token_file.clone()));
    info!(address = %server.address(), "serving /metrics, /healthz, /readyz and /api/v1");
    let sources = Sources {
        metrics: scrape(
            config,
            &cluster,
            &leadership,
            health,
            (otlp.clone(), keeping.store.clone(), intake.clone()),
        ),
        ready: Arc::clone(&ready),
        not_ready: "the lease was not read yet",
        events: Some(feed),
        api: Arc::new(
            fleet(config, &connection, namespace, Arc::clone(&token))?
                .beside(Arc::new(Own::new(&keeping, leadership.clone())), intake.is_some()),
        ),
        token,
        reviewer: crate::agent::reviewer(config, Some(&connection))?,
        intake,
        metrics_guarded: config.metrics.guarded,
    };
    let sending = otlp.clone().map(|otlp| tokio::spawn(async move { otlp.run().await }));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = server.run(sources, async {
        let _dropped_or_sent = stopped.await;
    });
    let working = async {
        tokio::select! {
            never = candidate.run(|| ready.store(true, Ordering::Release)) => never,
            () = lead(&connection, &cluster, &leadership, &keeping) => {}
            _ = interrupt.recv() => info!("SIGINT: stopping"),
            _ = terminate.recv() => info!("SIGTERM: stopping"),
        }
        ready.store(false, Ordering::Release);
        // What was watched is not any more, so whoever takes the lease goes on from here.
        candidate.release().await;
        if let Some((otlp, sending)) = otlp.zip(sending) {
            otlp.close();
            // What is left then is lost with the process.
            let _late = tokio::time::timeout(LAST, sending).await;
        }
        let _dropped_or_sent = stop.send(());
    };
    tokio::pin!(serving);
    let served = tokio::select! {
        // Not before it is told to, unless it cannot go on.
        served = &mut serving => served,
        () = working => serving.await,
    };
    threads.end();
    Ok(served?)
}

/// Where lines go that agents send, if they are to be kept and there is a store.
fn intake(config: &Config, keeping: &Keeping) -> Option<Intake> {
    if config.cluster.logs && keeping.store.is_none() {
        warn!("cluster.logs: without a store no lines are taken in");
    }
    let store = keeping.store.clone().filter(|_| config.cluster.logs)?;
    Some(Intake::new(store, config.logs.redact, || wall().cast_signed()))
}

/// The agents behind their Service, as one that answers; whether this replica leads does not matter.
fn fleet(
    config: &Config,
    connection: &Connection,
    namespace: &str,
    token: Arc<TokenFile>,
) -> Result<Fleet, ClusterError> {
    let service = &config.cluster.agents;
    let dial = match &config.tls.ca_file {
        None => None,
        Some(file) => {
            // Certificates are made for the name of the Service: pods have addresses that nobody knows before.
            let name = format!("{service}.{namespace}.svc");
            Some(Dial::to(&name, ("tls.ca_file", file), config.tls.identity().as_ref())?)
        }
    };
    let agents = Agents::behind(connection, namespace, service, dial.is_some(), monotonic)?;
    let directory: Directory = Arc::new(move || {
        let agents = agents.clone();
        Box::pin(async move { agents.list().await })
    });
    Ok(Fleet::new(directory, token, monotonic).over(dial))
}

/// Watches the cluster in each term.
async fn lead(connection: &Connection, cluster: &Cluster, leadership: &Leadership, keeping: &Keeping) {
    let mut terms = leadership.terms();
    // An error would mean that the candidate is gone, and then this ends with it.
    while let Ok(term) = terms.wait_for(Option::is_some).await.map(|term| *term) {
        let mark = term.map_or(0, |term| term.since);
        // Between these two rows it is known what happened in the cluster.
        keeping.own("leads", Level::Info, "this replica tells of the cluster from now on".to_owned());
        let watching = async {
            if let Err(error) = cluster.watch(connection, mark).await {
                warn!(%error, "the cluster is not watched; it is tried again");
            }
            sleep(AGAIN).await;
        };
        tokio::select! {
            () = watching => {}
            _ = terms.wait_for(Option::is_none) => {}
        }
        cluster.clear();
        keeping.own("follows", Level::Info, "this replica does not tell of the cluster any more".to_owned());
    }
}

fn scrape(
    config: &Config,
    cluster: &Arc<Cluster>,
    leadership: &Leadership,
    lease: Arc<Health>,
    (otlp, store, intake): (Option<Otlp>, Option<Store>, Option<Intake>),
) -> crate::serve::RenderMetrics {
    let (scrape, cluster, leadership) =
        (ClusterScrape::new(&config.metrics), Arc::clone(cluster), leadership.clone());
    Arc::new(move || {
        let mut watches = vec![lease.snapshot()];
        let told = leadership.leads().then(|| cluster.told());
        if told.is_some() {
            watches.extend(cluster.health());
        }
        // It may have been long to gather.
        let told = told.filter(|_| leadership.leads());
        let otlp = otlp.as_ref().map(Otlp::told).unwrap_or_default();
        let kept = store.as_ref().map(Store::counts);
        let received = intake.as_ref().map(Intake::counts);
        scrape
            .gather(told.as_ref(), &watches, &otlp, (kept.as_ref(), received))
            .map_err(|error| error.to_string())
    })
}

fn tell(feed: Feed, otlp: Option<Otlp>, keeping: Keeping) -> crate::kube::cluster::events::Tell {
    Box::new(move |occurrence| {
        keeping.event(rows::row(occurrence));
        if let Some(otlp) = &otlp {
            otlp.row(Row::of_kubernetes(occurrence, wall()));
        }
        if let Err(error) = feed.publish(occurrence) {
            warn!(%error, "an event cannot be written as JSON");
        }
    })
}

/// A name that no other replica has, be it on the same machine and under the same process id.
fn identity() -> io::Result<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let once = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(format!("{host}_{}", once.trim()))
}
