//! Where the agents are: the endpoints of their headless Service, with the nodes that they run on.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{Api, Client, api::ListParams};

use super::connect::{ConnectError, Connection};
use super::health::{Failure, Health};

/// Label of the slices of a Service (kubernetes: `api/discovery/v1/well_known_labels.go`).
const SERVICE: &str = "kubernetes.io/service-name";

/// Slices that come in one answer of a list. One has up to 100 endpoints, unless the controller is told otherwise.
const PAGE: u32 = 100;

/// Names of the agents' ports, in the clear and over TLS.
const PORTS: [&str; 2] = ["http", "https"];

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentAt {
    /// The node that it runs on; its address if nobody says.
    pub node: String,
    /// Where it serves.
    pub address: SocketAddr,
}

/// Lists the agents.
#[derive(Clone)]
pub struct Agents {
    client: Client,
    namespace: String,
    service: String,
    port: &'static str,
}

impl Agents {
    /// Behind this Service; where they speak TLS, if that is asked for.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn behind(
        connection: &Connection,
        namespace: &str,
        service: &str,
        over_tls: bool,
        clock: fn() -> u64,
    ) -> Result<Self, ConnectError> {
        // It is asked when somebody asks, so its age would tell nothing.
        let client = connection.client(&Health::of("endpointslices", clock))?;
        let port = PORTS[usize::from(over_tls)];
        Ok(Self { client, namespace: namespace.to_owned(), service: service.to_owned(), port })
    }

    /// The agents as they are now, ready or not.
    ///
    /// # Errors
    /// Why the API server does not tell.
    pub async fn list(&self) -> Result<Vec<AgentAt>, String> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut page = ListParams::default().labels(&format!("{SERVICE}={}", self.service)).limit(PAGE);
        let mut agents = Vec::new();
        loop {
            let list = slices.list(&page).await.map_err(|error| {
                let said = Failure::of_request(&error);
                format!("listing EndpointSlices of {}/{}: {}", self.namespace, self.service, said.as_str())
            })?;
            agents.extend(list.items.iter().flat_map(|slice| endpoints(slice, self.port)));
            match list.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => page = page.continue_token(&more),
                None => break,
            }
        }
        // An endpoint may be in two slices while it moves.
        agents.sort_unstable();
        agents.dedup_by(|a, b| a.address == b.address);
        Ok(agents)
    }
}

fn endpoints(slice: &EndpointSlice, name: &str) -> Vec<AgentAt> {
    let ports = slice.ports.iter().flatten();
    let port = ports
        .filter(|port| port.name.as_deref() == Some(name))
        .find_map(|port| u16::try_from(port.port?).ok());
    let Some(port) = port else { return Vec::new() };
    let agent = |endpoint: &Endpoint| {
        // All addresses of an endpoint are the same (kubernetes: the API's words on `addresses`); a name is none.
        let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let address = SocketAddr::new(ip, port);
        let node = endpoint.node_name.clone().unwrap_or_else(|| address.to_string());
        Some(AgentAt { node, address })
    };
    slice.endpoints.iter().flatten().filter_map(agent).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_agents_on_nodes() {
        let slice = |ports: serde_json::Value| -> EndpointSlice {
            serde_json::from_value(json!({
                "addressType": "IPv4", "metadata": {}, "ports": ports,
                "endpoints": [
                    {"addresses": ["10.0.0.1"], "nodeName": "a", "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.2"]},
                    {"addresses": ["fd00::1"], "nodeName": "c"},
                    {"addresses": ["host.example"], "nodeName": "d"},
                    {"addresses": []},
                ],
            }))
            .unwrap()
        };
        let ports = json!([{"name": "https", "port": 9843}, {"name": "http", "port": 9842}]);
        assert_eq!(endpoints(&slice(ports.clone()), "https")[0].address.port(), 9843);
        let found = endpoints(&slice(ports), "http");
        let told: Vec<_> =
            found.iter().map(|agent| (agent.node.as_str(), agent.address.to_string())).collect();
        assert_eq!(
            told,
            [
                ("a", "10.0.0.1:9842".to_owned()),
                ("10.0.0.2:9842", "10.0.0.2:9842".to_owned()),
                ("c", "[fd00::1]:9842".to_owned()),
            ]
        );
        for ports in
            [json!([]), json!(null), json!([{"name": "http"}]), json!([{"name": "http", "port": 70000}])]
        {
            assert_eq!(endpoints(&slice(ports.clone()), "http"), [], "{ports}");
        }
    }
}
