//! The way to whoever is asked: an address, or a pod of the cluster role through the API server.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::Failure;
use crate::config::DEFAULT_PORT;
use crate::config::cli::{Pair, ReachArgs};
use crate::fleet::{Answer, AskError, Call, Io, ask};
use crate::kube::{ClusterPod, Connection};
use crate::serve::{Token, TokenFile};
use crate::tls::{Dial, Identity};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer may take to begin: a cluster asks its nodes first.
const ANSWER: Duration = Duration::from_mins(1);

/// A way that was found.
pub(super) struct Way {
    to: To,
    token: Option<Token>,
}

enum To {
    /// An agent or the cluster role.
    Address(String),
    /// The same, over TLS.
    Encrypted(String, Box<Dial>),
    /// The cluster role, by way of its loopback.
    Pod(Box<ClusterPod>),
}

impl Way {
    /// Finds it.
    pub(super) async fn find(args: &ReachArgs) -> Result<Self, Failure> {
        let token = match &args.token_file {
            None => None,
            Some(path) => Some(
                TokenFile::at(Some(path.clone()))
                    .read()
                    .ok_or_else(|| Failure::NoToken { file: path.display().to_string() })?,
            ),
        };
        if let Some(address) = &args.address {
            let to = match &args.ca_file {
                None => To::Address(address.clone()),
                Some(file) => To::Encrypted(address.clone(), Box::new(dial(address, file, args)?)),
            };
            return Ok(Self { to, token });
        }
        if args.kubeconfig.is_some() || args.context.is_some() {
            let connection =
                Connection::of_operator(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
            return Self::through(&connection, args, token).await;
        }
        let here = format!("127.0.0.1:{DEFAULT_PORT}");
        let Err(cause) = connect(&here).await else { return Ok(Self { to: To::Address(here), token }) };
        match Connection::of_operator(None::<&Path>, None).await {
            Ok(connection) => Self::through(&connection, args, token).await,
            Err(why) => Err(Failure::NoAgent { address: here, cause, cluster: Some(Box::new(why)) }),
        }
    }

    async fn through(
        connection: &Connection,
        args: &ReachArgs,
        token: Option<Token>,
    ) -> Result<Self, Failure> {
        let pod = ClusterPod::find(connection, &args.observer_namespace).await?;
        Ok(Self { to: To::Pod(Box::new(pod)), token })
    }

    /// Who is asked.
    pub(super) fn whom(&self) -> String {
        match &self.to {
            To::Address(address) | To::Encrypted(address, _) => address.clone(),
            To::Pod(pod) => pod.to_string(),
        }
    }

    /// Asks for a path with these parameters.
    pub(super) async fn ask(&self, path: &str, parameters: &[Pair]) -> Result<Answer, Failure> {
        let text = serde_urlencoded::to_string(parameters).unwrap_or_default();
        let path = if text.is_empty() { path.to_owned() } else { format!("{path}?{text}") };
        let no_agent = |address: &String| {
            let address = address.clone();
            |cause| Failure::NoAgent { address, cause, cluster: None }
        };
        match &self.to {
            To::Address(address) => {
                let stream = connect(address).await.map_err(no_agent(address))?;
                self.answer(stream, address, &path).await
            }
            To::Encrypted(address, dial) => {
                let stream = connect(address).await.map_err(no_agent(address))?;
                let stream = dial.over(stream).await.map_err(no_agent(address))?;
                self.answer(stream, address, &path).await
            }
            To::Pod(pod) => self.answer(pod.connect().await?, "localhost", &path).await,
        }
    }

    async fn answer(&self, io: impl Io, host: &str, path: &str) -> Result<Answer, Failure> {
        let call = Call { host, path, token: self.token.as_ref() };
        let whom = self.whom();
        match timeout(ANSWER, ask(io, call)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause @ AskError::Refused { .. })) => Err(Failure::Refused { whom, cause }),
            Ok(Err(cause)) => Err(Failure::Broken { whom, cause }),
            Err(_late) => Err(Failure::Broken { whom, cause: AskError::Late(ANSWER.as_secs()) }),
        }
    }
}

/// Whoever is at an address has a certificate for its host.
fn dial(address: &str, file: &Path, args: &ReachArgs) -> Result<Dial, Failure> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let identity = args.cert_file.clone().zip(args.key_file.clone()).map(|(certificate, key)| Identity {
        certificate: ("--cert-file", certificate),
        key: ("--key-file", key),
    });
    Ok(Dial::to(host, ("--ca-file", file), identity.as_ref())?)
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
            Err("that is no address and port".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_late) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}
