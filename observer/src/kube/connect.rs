//! Settings → a client of the API server, or why there is none.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::http::Response;
use http_body_util::BodyExt as _;
use kube::{
    Client, Config,
    client::{ClientBuilder, DynBody},
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;
use tower::util::MapResponseLayer;

use super::health::Health;
use crate::config::{KubernetesConfig, KubernetesMode};

/// An API server that sends nothing for so long, not even a bookmark, has hung. Longer than kube's watches last.
const SILENCE: Duration = Duration::from_secs(305);

/// Why the API server cannot be asked.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The kubeconfig is of no use.
    #[error("kubeconfig {}: {cause}; name a readable one in kubernetes.kubeconfig", path.display())]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: Box<KubeconfigError>,
    },
    /// This is no pod, or one without a service account.
    #[error(
        "no service account: {0}; run in a pod with one, set kubernetes.kubeconfig, or kubernetes.mode = \"off\""
    )]
    InCluster(#[from] InClusterError),
    /// The client cannot be made of it.
    #[error("cannot make a client of the API server: {0}")]
    Client(#[from] kube::Error),
}

/// How the API server is reached.
#[derive(Clone, Debug)]
pub struct Connection {
    config: Config,
}

impl Connection {
    /// Finds out how; none if these settings do not ask for it.
    ///
    /// # Errors
    /// When they do and it cannot be done.
    pub async fn find(settings: &KubernetesConfig) -> Result<Option<Self>, ConnectError> {
        if settings.mode == KubernetesMode::Off {
            return Ok(None);
        }
        let config = match &settings.kubeconfig {
            Some(path) => {
                let failed = |cause| ConnectError::Kubeconfig { path: path.clone(), cause: Box::new(cause) };
                let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(failed)?
            }
            None => match Config::incluster() {
                Ok(config) => config,
                Err(_) if settings.mode == KubernetesMode::Auto => return Ok(None),
                Err(error) => return Err(error.into()),
            },
        };
        let mut config = config;
        config.read_timeout = Some(SILENCE);
        // Nothing goes out but to the API server itself.
        config.proxy_url = None;
        Ok(Some(Self { config }))
    }

    /// The namespace that this is in.
    pub fn namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// A client that notes when something comes: bookmarks tell that a quiet watch is alive, and the library keeps them
    /// to itself. A refusal tells nothing about objects.
    ///
    /// # Errors
    /// When the client cannot be made of the configuration.
    pub fn client(&self, health: &Arc<Health>) -> Result<Client, ConnectError> {
        let health = Arc::clone(health);
        let heard = MapResponseLayer::new(move |response: Response<Box<DynBody>>| {
            let health = response.status().is_success().then(|| Arc::clone(&health));
            let hear = move || health.iter().for_each(|health| health.hear());
            hear();
            response.map(|body| {
                body.map_frame(move |frame| {
                    hear();
                    frame
                })
            })
        });
        Ok(ClientBuilder::try_from(self.config.clone())?.with_layer(&heard).build())
    }
}
