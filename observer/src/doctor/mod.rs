//! `observer doctor`: what a role needs and does not have, each with its remedy.
//!
//! In: the configuration of the role, and the machine and the API server as they are. Out: one [`Finding`] for each thing
//! that is needed. Nothing is changed, but that tracefs is mounted: probes are loaded and detached again.

mod cluster;
mod machine;
mod probes;

use std::fmt::Display;

use serde::Serialize;

use crate::config::Config;

/// What is examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `observer agent`.
    Agent,
    /// `observer cluster`.
    Cluster,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Ok,
    /// It is not, and something is not told without it.
    Less,
    /// It is not, and the role does not do what it is for.
    Missing,
    /// It cannot be told from here.
    Unknown,
}

impl State {
    /// The word that is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Less => "less",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub check: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), remedy: None }
    }

    /// By a message of this program: what is wrong, and after a semicolon what to do.
    fn said(check: &'static str, state: State, message: &dyn Display) -> Self {
        let message = message.to_string();
        let (found, remedy) =
            message.split_once("; ").map_or((&*message, None), |(found, remedy)| (found, Some(remedy)));
        Self { check, state, found: found.to_owned(), remedy: remedy.map(str::to_owned) }
    }

    fn with(check: &'static str, state: State, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Examines everything that the role needs.
pub async fn examine(role: Role, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if role == Role::Agent {
        findings.extend(machine::examine(config));
        findings.extend(probes::examine(config));
    }
    findings.extend(cluster::examine(role, config).await);
    findings
}
