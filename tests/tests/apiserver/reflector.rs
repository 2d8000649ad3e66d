//! kube's reflector against a server that goes away, forgets, and cuts frames, while pods come and go.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    runtime::{
        WatchStreamExt as _, reflector,
        utils::Backoff,
        watcher::{self, InitialListStrategy, watcher},
    },
};
use observer_tests::apiserver::{ApiServer, Fault};
use serde_json::Value;
use tokio::time::sleep;

use super::{client, pod, until};

/// Sooner than kube's own, which waits up to 30 s after some errors.
struct Soon;

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(5))
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {}
}

/// Names and phases.
fn expected(server: &ApiServer) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let on_node = |pod: &Value| pod["spec"]["nodeName"] == "n1";
    let pods = server.all("pods").into_iter().filter(on_node);
    pods.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["status"]["phase"]))).collect()
}

fn kept(store: &reflector::Store<Pod>) -> BTreeMap<String, String> {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    store.state().iter().map(|pod| (pod.name_any(), phase(pod))).collect()
}

/// One of the changes of a churn that is the same every time.
fn change(server: &ApiServer, number: u32) {
    let name = format!("p{}", number * 7 % 23);
    match number % 5 {
        0 => {
            let phase = ["Running", "Failed", "Succeeded"][number as usize % 3];
            server.put(pod(&name, "n1").phase(phase));
        }
        1 => {
            server.put(pod(&name, "n2"));
        }
        2 => {
            server.delete("pods", "ml", &name);
        }
        _ => {
            server.put(pod(&name, "n1").label("number", &number.to_string()));
        }
    }
}

async fn survives(strategy: InitialListStrategy) {
    let mut server = ApiServer::start();
    server.bookmark_every(Duration::from_millis(50));
    let (store, writer) = reflector::store();
    let mut config = watcher::Config::default().fields("spec.nodeName=n1").page_size(5);
    config.initial_list_strategy = strategy.clone();
    let events = watcher(Api::<Pod>::all(client(&server)), config).backoff(Soon);
    let reflected = reflector(writer, events).for_each(async |_| ());
    let task = tokio::spawn(reflected);
    for number in 0..400 {
        change(&server, number);
        match number % 40 {
            5 => server.stop(),
            8 => server.restart(),
            15 => drop(server.cut_watches("pods")),
            20 => {
                // It comes back and remembers nothing of what it said.
                server.stop();
                change(&server, number + 1000);
                server.compact();
                server.restart();
            }
            25 => server.inject(Fault::code(500).times(2)),
            30 => server.inject(Fault::gone_in_head().times(1)),
            35 => {
                // So far it is kept, exactly.
                until("the store is as the server", || kept(&store) == expected(&server)).await;
            }
            _ => sleep(Duration::from_millis(1)).await,
        }
    }
    assert!(expected(&server).len() > 5, "the churn leaves something");
    until("the store is as the server", || kept(&store) == expected(&server)).await;
    task.abort();

    let requests = server.requests();
    let lists = requests.iter().filter(|seen| seen.request.verb == "list" && seen.code() == 200).count();
    let watches = requests.iter().filter(|seen| seen.request.verb == "watch" && seen.code() == 200).count();
    assert!(watches > 10, "{watches} watches");
    assert!(strategy == InitialListStrategy::StreamingList || lists > 10, "{lists} lists");
    assert!(requests.iter().all(|seen| seen.request.field_selector() == "spec.nodeName=n1"));
}

#[tokio::test]
async fn by_list_and_watch() {
    survives(InitialListStrategy::ListWatch).await;
}

#[tokio::test]
async fn by_streaming_lists() {
    survives(InitialListStrategy::StreamingList).await;
}
