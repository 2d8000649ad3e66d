//! What a role needs of Kubernetes and of those who ask it.

use super::{Finding, Role, State};
use crate::config::{Config, LabelStyle};
use crate::kube::{Agents, Connection, Failure, missing, of_agent, of_cluster, of_reviews, pod_monitors};
use crate::serve::TokenFile;
use crate::tls::{self, Trusted};

pub(super) async fn examine(role: Role, config: &Config) -> Vec<Finding> {
    let mut findings = vec![token(config), certificates(config)];
    // The cluster role is nothing without; an agent names no pods, and everything else goes on.
    let state = match role {
        Role::Agent => State::Less,
        Role::Cluster => State::Missing,
    };
    let connection = match Connection::find(&config.kubernetes).await {
        Ok(Some(connection)) => connection,
        Ok(None) => {
            findings.push(Finding::with(
                "api server",
                state,
                "this is no pod, and no kubeconfig is set: pods are not known",
                "in Kubernetes, mount the service account's token; elsewhere set kubernetes.kubeconfig if pods matter",
            ));
            findings.push(unknown_scrape(config));
            return findings;
        }
        Err(error) => {
            findings.push(Finding::said("api server", State::Missing, &error));
            return findings;
        }
    };
    let namespace = config.cluster.namespace.as_deref().unwrap_or(connection.namespace());
    let mut rights = match role {
        Role::Agent => of_agent(),
        Role::Cluster => of_cluster(namespace, &config.cluster.lease),
    };
    if config.api.kubernetes {
        rights.extend(of_reviews());
    }
    let asked = rights.len();
    match missing(&connection, rights).await {
        Err((failure, said)) => findings.push(Finding::with("api server", state, said, remedy(failure))),
        Ok(missing) => {
            findings.push(Finding::ok("api server", "answers"));
            let names = format!("the {asked} that this role uses");
            if missing.is_empty() {
                findings.push(Finding::ok("rights", names));
            }
            findings.extend(missing.iter().map(|right| {
                let remedy = "grant it to the service account, as deploy/ does";
                Finding::with("rights", State::Missing, format!("may not {}", right.shown()), remedy)
            }));
            if role == Role::Cluster {
                findings.push(agents(&connection, namespace, config).await);
            }
            findings.push(scrape(&connection, config).await);
        }
    }
    findings
}

fn remedy(failure: Failure) -> &'static str {
    match failure {
        Failure::Unauthorized => "check the service account's token, or the kubeconfig's credentials",
        Failure::Unreachable => {
            "see that the pod reaches the API server: NetworkPolicy (networkPolicy.apiServer), DNS, its address"
        }
        _ => "see the API server's log",
    }
}

fn token(config: &Config) -> Finding {
    match &config.api.token_file {
        None => Finding::ok("api token", "none is set: /api answers on loopback only"),
        Some(path) => match TokenFile::at(Some(path.clone())).read() {
            Some(_) => Finding::ok("api token", path.display().to_string()),
            None => Finding::with(
                "api token",
                State::Missing,
                format!("no token in {}: other machines are refused", path.display()),
                "give the Secret the key that the chart names (api.tokenSecret), with one line of visible characters",
            ),
        },
    }
}

fn certificates(config: &Config) -> Finding {
    let identity = config.tls.identity();
    let vouching = config.tls.ca_file.as_deref().map(|file| ("tls.ca_file", file));
    let tried = match (&identity, vouching) {
        (None, None) => {
            return Finding::ok("tls", "no certificate is set: other machines are answered in the clear");
        }
        (None, Some(file)) => tls::client(Trusted::File(file), None).map(drop),
        (Some(identity), vouching) => tls::server(identity, vouching).map(drop),
    };
    match tried {
        Ok(()) => Finding::ok("tls", "the certificates can be used"),
        Err(error) => Finding::said("tls", State::Missing, &error),
    }
}

async fn agents(connection: &Connection, namespace: &str, config: &Config) -> Finding {
    let service = &config.cluster.agents;
    let listed = match Agents::behind(connection, namespace, service, config.tls.ca_file.is_some(), || 0) {
        Ok(agents) => agents.list().await,
        Err(error) => Err(error.to_string()),
    };
    match listed {
        Ok(agents) if agents.is_empty() => Finding::with(
            "agents",
            State::Less,
            format!("none behind the Service {namespace}/{service}: no requests of nodes can be shown"),
            "see that the DaemonSet runs, and that cluster.agents and cluster.namespace name its headless Service",
        ),
        Ok(agents) => {
            Finding::ok("agents", format!("{} behind the Service {namespace}/{service}", agents.len()))
        }
        Err(why) => {
            Finding::with("agents", State::Less, why, "grant list on endpointslices, as deploy/ does")
        }
    }
}

/// What Prometheus does with our labels cannot be told from here, unless the operator's objects can be read.
async fn scrape(connection: &Connection, config: &Config) -> Finding {
    if config.metrics.labels == LabelStyle::Otel {
        return unknown_scrape(config);
    }
    match pod_monitors(connection).await {
        Ok(monitors) if !monitors.is_empty() => match monitors.iter().find(|(_, honors)| !honors) {
            None => Finding::ok("honorLabels", format!("in {}", monitors[0].0)),
            Some((name, _)) => Finding::with(
                "honorLabels",
                State::Missing,
                format!(
                    "not in PodMonitor {name}: Prometheus renames namespace, pod and container to exported_…"
                ),
                "set honorLabels: true in each of its endpoints, or metrics.labels = \"otel\"",
            ),
        },
        Ok(_) | Err(_) => unknown_scrape(config),
    }
}

fn unknown_scrape(config: &Config) -> Finding {
    match config.metrics.labels {
        LabelStyle::Otel => Finding::ok("honorLabels", "not needed: metrics.labels is otel"),
        LabelStyle::Default => Finding::with(
            "honorLabels",
            State::Unknown,
            "what Prometheus does with our labels cannot be seen from here",
            "ask it for count(llm_requests_total{exported_pod!=\"\"}): if that is anything, set honorLabels: true in the \
             PodMonitor (honor_labels in a scrape configuration), or metrics.labels = \"otel\"",
        ),
    }
}
