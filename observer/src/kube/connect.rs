//! Settings → a client of the API server, or why there is none.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
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

/// How long the server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// An API server that sends nothing for so long, not even the bookmark of every minute, has hung (kubernetes:
/// apiserver/pkg/storage/cacher, `bookmarkFrequency`).
const SILENCE: Duration = Duration::from_secs(90);

/// What the client calls itself.
const USER_AGENT: &str = concat!("observer/", env!("CARGO_PKG_VERSION"));

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
    /// The operator's kubeconfig is of no use.
    #[error("{}: {cause}; name a readable one with --kubeconfig, and one of its contexts with --context", named(path.as_deref()))]
    OfOperator {
        /// Which; the ones that kubectl looks for without it.
        path: Option<PathBuf>,
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

fn named(path: Option<&Path>) -> String {
    path.map_or_else(|| "kubeconfig of this user".to_owned(), |path| format!("kubeconfig {}", path.display()))
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
                of_kubeconfig(kubeconfig, None).await.map_err(failed)?
            }
            None => match Config::incluster() {
                Ok(config) => config,
                Err(_) if settings.mode == KubernetesMode::Auto => return Ok(None),
                Err(error) => return Err(error.into()),
            },
        };
        let mut connection = Self::with(config);
        connection.config.read_timeout = Some(SILENCE);
        connection.config.reset_reader_on_write = true;
        Ok(Some(connection))
    }

    /// As kubectl does: by this kubeconfig, or by those that `KUBECONFIG` names, or else by that of the home folder; in
    /// this context, or in the current one. What is open may be silent for as long as it likes.
    ///
    /// # Errors
    /// When there is none, or it is of no use.
    pub async fn of_operator(path: Option<&Path>, context: Option<&str>) -> Result<Self, ConnectError> {
        let failed =
            |cause| ConnectError::OfOperator { path: path.map(Path::to_owned), cause: Box::new(cause) };
        let kubeconfig = path.map_or_else(Kubeconfig::read, Kubeconfig::read_from).map_err(failed)?;
        let mut config = of_kubeconfig(kubeconfig, context.map(str::to_owned)).await.map_err(failed)?;
        config.read_timeout = None;
        Ok(Self::with(config))
    }

    fn with(mut config: Config) -> Self {
        config.connect_timeout = Some(CONNECT);
        // Whoever asks tries again, and counts it; the library would do so for minutes without a word.
        config.default_retry = false;
        config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
        Self { config }
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
            let hear = move |bytes| health.iter().for_each(|health| health.hear(bytes));
            hear(0);
            response.map(|body| {
                body.map_frame(move |frame| {
                    hear(frame.data_ref().map_or(0, Bytes::len));
                    frame
                })
            })
        });
        Ok(ClientBuilder::try_from(self.config.clone())?.with_layer(&heard).build())
    }
}

async fn of_kubeconfig(kubeconfig: Kubeconfig, context: Option<String>) -> Result<Config, KubeconfigError> {
    let proxy = names_proxy(&kubeconfig);
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    // The environment's proxy is for the outside world. One that the kubeconfig names is refused where a client is made,
    // with that reason.
    config.proxy_url = config.proxy_url.filter(|_| proxy);
    Ok(config)
}

/// Whether the kubeconfig itself names a proxy for a cluster.
fn names_proxy(kubeconfig: &Kubeconfig) -> bool {
    let clusters = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
    clusters.filter_map(|cluster| cluster.proxy_url.as_deref()).any(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn found(cluster: serde_json::Value) -> Result<Option<Connection>, ConnectError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "ml"}}],
            "clusters": [{"name": "k", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "t"}}]});
        std::fs::write(file.path(), text.to_string()).unwrap();
        let kubeconfig = Some(file.path().to_owned());
        Connection::find(&KubernetesConfig { kubeconfig, ..KubernetesConfig::default() }).await
    }

    #[tokio::test]
    async fn what_the_kubeconfig_says_and_nothing_else() {
        let plain = found(json!({"server": "http://192.0.2.1"})).await.unwrap().unwrap();
        assert_eq!(plain.namespace(), "ml");
        assert!(plain.client(&Health::of("pods", || 0)).is_ok());
        let proxied = found(json!({"server": "http://192.0.2.1", "proxy-url": "http://192.0.2.2"})).await;
        let error = proxied.unwrap().unwrap().client(&Health::of("pods", || 0)).err().unwrap();
        assert!(error.to_string().contains("192.0.2.2"), "{error}");
    }

    #[tokio::test]
    async fn an_operator_is_told_of_flags_and_an_agent_of_settings() {
        let nowhere = PathBuf::from("/nowhere/config");
        let operator = Connection::of_operator(Some(&nowhere), None).await.err().unwrap().to_string();
        assert!(operator.starts_with("kubeconfig /nowhere/config: "), "{operator}");
        assert!(
            operator.contains("--kubeconfig") && !operator.contains("kubernetes.kubeconfig"),
            "{operator}"
        );
        let settings = KubernetesConfig { kubeconfig: Some(nowhere), ..KubernetesConfig::default() };
        let agent = Connection::find(&settings).await.err().unwrap().to_string();
        assert!(agent.contains("kubernetes.kubeconfig"), "{agent}");
    }

    #[tokio::test]
    async fn without_a_pod_and_a_kubeconfig_there_is_none() {
        let find =
            async |mode| Connection::find(&KubernetesConfig { mode, ..KubernetesConfig::default() }).await;
        assert!(find(KubernetesMode::Auto).await.unwrap().is_none());
        assert!(find(KubernetesMode::Off).await.unwrap().is_none());
        let error = find(KubernetesMode::On).await.unwrap_err();
        assert!(error.to_string().contains("set kubernetes.kubeconfig"), "{error}");
    }
}
