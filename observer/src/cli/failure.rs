//! Why a question to a running observer has no answer, and what to do.

use std::io;

use crate::fleet::AskError;
use crate::kube::{ConnectError, ForwardError};
use crate::tls::TlsError;

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing answers, and no kubeconfig tells of a cluster either.
    #[error(
        "no agent answers at {address} ({cause}){}; start one with `observer agent` as root, or name whom to ask with \
         --address, --kubeconfig or --context",
        .cluster.as_ref().map_or_else(String::new, |why| format!(", and no cluster can be asked ({why})"))
    )]
    NoAgent {
        /// The address that was tried.
        address: String,
        /// What went wrong.
        cause: String,
        /// Why no cluster was asked instead, if there was a try.
        cluster: Option<Box<ConnectError>>,
    },
    /// The kubeconfig is of no use.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    /// The cluster role cannot be reached through the API server.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The token cannot be read.
    #[error("no token in {file}: it takes one line of visible characters; name its file with --token-file")]
    NoToken {
        /// The file.
        file: String,
    },
    /// A file for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Something answers, but not with what was asked for.
    #[error("{whom} answers with {cause}")]
    Refused {
        /// Who.
        whom: String,
        /// What it said.
        cause: AskError,
    },
    /// Whoever is followed went away.
    #[error("{whom} ended the stream: it was stopped; start it again and repeat the command")]
    Ended {
        /// Who.
        whom: String,
    },
    /// The connection broke.
    #[error("the connection to {whom} broke: {cause}; see whether it still runs")]
    Broken {
        /// Who.
        whom: String,
        /// What went wrong.
        cause: AskError,
    },
    /// A line is none of an answer.
    #[error(
        "{whom} sent what is no line of an answer ({cause}); see whether it is an observer of this version"
    )]
    NoLine {
        /// Who.
        whom: String,
        /// What is wrong with it.
        #[source]
        cause: serde_json::Error,
    },
    /// A flag cannot be used.
    #[error("{flag} {value:?} cannot be used; {remedy}")]
    Argument {
        /// Which.
        flag: &'static str,
        /// What it was given.
        value: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The runtime could not be had.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
}

impl Failure {
    /// `observer requests | head` is a fine way to stop.
    pub(super) fn unless_enough(result: Result<(), Self>) -> Result<(), Self> {
        match result {
            Err(Self::Output(cause)) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}
