//! `tls.*`: who this observer is to others, and who vouches for them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::ConfigError;
use crate::tls::Identity;

/// `tls.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Address that is listened on beside, over TLS.
    pub listen: Option<SocketAddr>,
    /// The certificate that is shown, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// Certificates of those who vouch for other observers, and for whoever may see everything, PEM.
    pub ca_file: Option<PathBuf>,
}

impl TlsConfig {
    /// What is shown to others.
    pub fn identity(&self) -> Option<Identity> {
        identity(["tls.cert_file", "tls.key_file"], [&self.cert_file, &self.key_file])
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        pair(["tls.cert_file", "tls.key_file"], [&self.cert_file, &self.key_file])?;
        match self.listen {
            Some(listen) if self.cert_file.is_none() => Err(ConfigError::Contradiction {
                field: "tls.listen",
                value: listen.to_string(),
                other: "tls.cert_file",
                other_value: "none".to_owned(),
                remedy: "name the certificate and its key",
            }),
            _ => Ok(()),
        }
    }
}

/// An identity, if both of its files are named.
pub(super) fn identity(fields: [&'static str; 2], files: [&Option<PathBuf>; 2]) -> Option<Identity> {
    let [certificate, key] = files;
    let named = |at: usize, file: &Option<PathBuf>| Some((fields[at], file.clone()?));
    Some(Identity { certificate: named(0, certificate)?, key: named(1, key)? })
}

/// A certificate is of no use without its key, nor a key without its certificate.
pub(super) fn pair(fields: [&'static str; 2], files: [&Option<PathBuf>; 2]) -> Result<(), ConfigError> {
    let contradiction = |named: usize, file: &PathBuf| ConfigError::Contradiction {
        field: fields[named],
        value: file.display().to_string(),
        other: fields[1 - named],
        other_value: "none".to_owned(),
        remedy: "name both, or neither",
    };
    match files {
        [Some(file), None] => Err(contradiction(0, file)),
        [None, Some(file)] => Err(contradiction(1, file)),
        _ => Ok(()),
    }
}
