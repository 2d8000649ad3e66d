//! TLS: who this observer is, to those who connect and to those whom it connects to, and whom it trusts.
//!
//! In: files in PEM. Out: settings of the TLS library. The certificate and its key are read again for each handshake, so that new ones
//! count at once; those who vouch for others are read once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::{info, warn};

/// How long a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is of no use.
    #[error("{field} {}: {why}; {remedy}", path.display())]
    File {
        /// The setting, or the flag, that names it.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The system trusts nobody, or does not say whom.
    #[error("no certificates of the system: {0}; name those who vouch for the other end, in {1}")]
    NoRoots(std::io::Error, &'static str),
}

/// Who vouches for the other end.
#[derive(Clone, Copy, Debug)]
pub enum Trusted<'a> {
    /// Those of a file.
    File(Named<'a>),
    /// Those whom the system trusts; the setting by which others can be named.
    System(&'static str),
    /// Nobody has to where nothing is encrypted.
    Nobody,
}

/// A file, and what names it.
pub type Named<'a> = (&'static str, &'a Path);

/// A certificate with those that lead to who vouches for it, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and what names its file.
    pub certificate: (&'static str, PathBuf),
    /// The key, and what names its file.
    pub key: (&'static str, PathBuf),
}

impl Identity {
    /// What the files say now.
    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let (field, path) = &self.certificate;
        let chain = certificates((field, path))?;
        let (field, path) = &self.key;
        let failed = |why: String| TlsError::File {
            field,
            path: path.clone(),
            why,
            remedy: "name the file with the certificate's key in PEM",
        };
        let key = PrivateKeyDer::from_pem_file(path).map_err(|error| failed(error.to_string()))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| failed(error.to_string()))
    }
}

/// Those who vouch for others.
fn roots(file: Named<'_>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| no_certificates(file, error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(file: Named<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error: rustls::pki_types::pem::Error| no_certificates(file, error.to_string());
    let found: Vec<_> =
        CertificateDer::pem_file_iter(file.1).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(no_certificates(file, "it holds no certificate".to_owned()));
    }
    Ok(found)
}

fn no_certificates((field, path): Named<'_>, why: String) -> TlsError {
    TlsError::File { field, path: path.to_owned(), why, remedy: "name a file with certificates in PEM" }
}

/// Shows an identity, as its files have it at each handshake.
#[derive(Debug)]
struct Shown {
    identity: Identity,
    failing: AtomicBool,
}

impl Shown {
    /// Files that cannot be used now may be usable later, but not without a word at the beginning.
    fn of(identity: &Identity) -> Result<Arc<Self>, TlsError> {
        identity.read()?;
        Ok(Arc::new(Self { identity: identity.clone(), failing: AtomicBool::new(false) }))
    }

    fn now(&self) -> Option<Arc<CertifiedKey>> {
        match self.identity.read() {
            Ok(key) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("the certificate can be read again");
                }
                Some(Arc::new(key))
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(%error, "no certificate can be shown");
                }
                None
            }
        }
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.now()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.now()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// For those who connect; whom the file's certificates vouch for is known, others may connect, too.
///
/// # Errors
/// When a file cannot be used.
pub fn server(identity: &Identity, vouching: Option<Named<'_>>) -> Result<Arc<ServerConfig>, TlsError> {
    let shown = Shown::of(identity)?;
    let builder = match ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
    {
        Ok(builder) => builder,
        Err(error) => unreachable!("ring has the default versions: {error}"),
    };
    let builder = match vouching {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(roots(file)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, provider()).allow_unauthenticated();
            let verifier = verifier.build().map_err(|error| no_certificates(file, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(shown);
    // Who resumes a session shows nothing: it would be let in by what was good when that began.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For those whom it connects to, if these vouch for them; it shows them who it is, if they ask.
///
/// # Errors
/// When a file cannot be used.
pub fn client(trusted: Trusted<'_>, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let builder = match ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
    {
        Ok(builder) => builder,
        Err(error) => unreachable!("ring has the default versions: {error}"),
    };
    let builder = match trusted {
        Trusted::File(file) => builder.with_root_certificates(roots(file)?),
        Trusted::System(field) => {
            builder.with_native_roots().map_err(|error| TlsError::NoRoots(error, field))?
        }
        Trusted::Nobody => builder.with_root_certificates(RootCertStore::empty()),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(Shown::of(identity)?),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Turns connections to one name into such over TLS. Cheap to clone.
#[derive(Clone)]
pub struct Dial {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Dial {
    /// To whoever has a certificate for this name.
    ///
    /// # Errors
    /// When a file cannot be used, or the name is none.
    pub fn to(name: &str, vouching: Named<'_>, identity: Option<&Identity>) -> Result<Self, TlsError> {
        let config = client(Trusted::File(vouching), identity)?;
        let name = ServerName::try_from(name.to_owned()).map_err(|_unhelpful| TlsError::File {
            field: vouching.0,
            path: vouching.1.to_owned(),
            why: format!("{name:?} is no name that a certificate could have"),
            remedy: "name a host, or an address, that certificates are made for",
        })?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// The same connection, encrypted.
    ///
    /// # Errors
    /// Why the other end is not trusted, or does not trust this one.
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<TlsStream<S>, String> {
        match timeout(HANDSHAKE, self.connector.connect(self.name.clone(), stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("TLS with {}: {error}", self.name.to_str())),
            Err(_late) => Err(format!("TLS with {}: no answer in {HANDSHAKE:?}", self.name.to_str())),
        }
    }
}
