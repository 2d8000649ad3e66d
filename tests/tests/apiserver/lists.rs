//! LIST and GET: pages, selectors, metadata only, and what is served at all.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams},
    core::{PartialObjectMeta, Request},
};
use observer_tests::apiserver::{
    ApiServer, LEADER_WORKER_SETS,
    objects::{Replicas, leader_worker_set},
};

use super::{client, pod, refused};

fn names(list: &[Pod]) -> Vec<String> {
    list.iter().map(Pod::name_any).collect()
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_version() {
    let server = ApiServer::start();
    for number in 0..7 {
        server.put(pod(&format!("p{number}"), "n"));
    }
    let pods: Api<Pod> = Api::all(client(&server));
    let first = pods.list(&ListParams::default().limit(3)).await.expect("a page");
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    // What is written between the pages is not in them.
    server.put(pod("p8", "n"));
    server.delete("pods", "ml", "p5");
    let mut found = names(&first.items);
    let mut next = first.metadata.continue_.clone();
    while let Some(token) = next {
        let page = pods.list(&ListParams::default().limit(3).continue_token(&token)).await.expect("a page");
        assert_eq!(page.metadata.resource_version, first.metadata.resource_version);
        found.extend(names(&page.items));
        next = page.metadata.continue_;
    }
    assert_eq!(found, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    assert_eq!(names(&pods.list(&ListParams::default()).await.expect("a list").items).len(), 7);

    server.compact();
    let late = ListParams::default().limit(3).continue_token(&first.metadata.continue_.expect("more"));
    assert_eq!(refused(pods.list(&late).await), (410, "Expired".into()));
}

#[tokio::test]
async fn versions_that_are_asked_for() {
    let server = ApiServer::start();
    server.put(pod("a", "n"));
    let then = server.version().to_string();
    server.put(pod("b", "n"));
    let pods: Api<Pod> = Api::all(client(&server));
    let exact = ListParams::default().at(&then).matching(kube::api::VersionMatch::Exact);
    assert_eq!(names(&pods.list(&exact).await.expect("a list").items), ["a"]);
    let any = pods.list(&ListParams::default().match_any()).await.expect("a list");
    assert_eq!(
        (names(&any.items), any.metadata.resource_version),
        (vec!["a".into(), "b".into()], Some(server.version().to_string()))
    );
    server.compact();
    assert_eq!(refused(pods.list(&exact).await), (410, "Expired".into()));
}

#[tokio::test]
async fn namespaces_and_selectors() {
    let server = ApiServer::start();
    server.put(pod("a", "n1").label("app", "x"));
    server.put(pod("b", "n2").label("app", "y").phase("Failed"));
    server.put(observer_tests::apiserver::objects::Pod::new("other", "c").label("app", "x"));
    let client = client(&server);
    let (all, ml) = (Api::<Pod>::all(client.clone()), Api::<Pod>::namespaced(client, "ml"));
    let found =
        async |pods: &Api<Pod>, params: ListParams| names(&pods.list(&params).await.expect("a list").items);
    assert_eq!(found(&all, ListParams::default()).await, ["a", "b", "c"]);
    assert_eq!(found(&ml, ListParams::default()).await, ["a", "b"]);
    assert_eq!(found(&all, ListParams::default().labels("app in (x)")).await, ["a", "c"]);
    assert_eq!(found(&ml, ListParams::default().labels("app=x")).await, ["a"]);
    assert_eq!(found(&all, ListParams::default().fields("spec.nodeName=n2")).await, ["b"]);
    assert_eq!(found(&all, ListParams::default().fields("spec.nodeName=,status.phase!=Failed")).await, ["c"]);
    let wrong = all.list(&ListParams::default().fields("spec.priority=0")).await;
    assert_eq!(refused(wrong), (400, "BadRequest".into()));
}

#[tokio::test]
async fn metadata_only() {
    let server = ApiServer::start();
    server.put(pod("a", "n").owner("ReplicaSet", "set"));
    let pods: Api<Pod> = Api::namespaced(client(&server), "ml");
    let meta: PartialObjectMeta<Pod> = pods.get_metadata("a").await.expect("metadata");
    assert_eq!(meta.types.expect("types").kind, "PartialObjectMetadata");
    assert_eq!(meta.metadata.owner_references.expect("owners")[0].name, "set");
    let list = pods.list_metadata(&ListParams::default()).await.expect("a list");
    assert_eq!(
        (list.types.kind.as_str(), list.items[0].name_any()),
        ("PartialObjectMetadataList", "a".into())
    );
    assert!(server.requests().iter().all(|seen| seen.request.metadata_only));
    let whole = pods.get("a").await.expect("a pod");
    assert_eq!(whole.spec.expect("a spec").node_name.as_deref(), Some("n"));
    let requests = server.requests();
    let [meta, _, whole] = requests.as_slice() else { panic!("three requests: {requests:?}") };
    assert!(meta.bytes() < whole.bytes(), "{} and {} bytes", meta.bytes(), whole.bytes());
    assert_eq!(refused(pods.get("none").await), (404, "NotFound".into()));
}

#[tokio::test]
async fn what_is_not_installed_is_not_there() {
    let server = ApiServer::start();
    let client = client(&server);
    let groups = async || {
        let groups = client.list_api_groups().await.expect("groups").groups;
        groups.into_iter().map(|group| group.name).collect::<Vec<_>>()
    };
    let kind = ApiResource {
        group: "leaderworkerset.x-k8s.io".into(),
        version: "v1".into(),
        api_version: "leaderworkerset.x-k8s.io/v1".into(),
        kind: "LeaderWorkerSet".into(),
        plural: "leaderworkersets".into(),
    };
    let sets: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    assert!(!groups().await.contains(&kind.group));
    assert_eq!(refused(sets.list(&ListParams::default()).await).0, 404);

    server.install(LEADER_WORKER_SETS);
    server.put(leader_worker_set("ml", "llama", 4, Replicas::all(2)));
    assert!(groups().await.contains(&kind.group));
    let listed = sets.list(&ListParams::default()).await.expect("a list");
    assert_eq!(
        (listed.items[0].data["status"]["readyReplicas"].as_u64(), listed.types.kind.as_str()),
        (Some(2), "LeaderWorkerSetList")
    );
    let resources = client.list_api_group_resources(&kind.api_version).await.expect("resources").resources;
    assert_eq!((resources[0].name.as_str(), resources[0].namespaced), ("leaderworkersets", true));
    server.uninstall("leaderworkersets");
    assert_eq!(refused(sets.list(&ListParams::default()).await).0, 404);
}

#[tokio::test]
async fn what_it_says_about_itself() {
    let server = ApiServer::start();
    let client = client(&server);
    assert_eq!(client.apiserver_version().await.expect("a version").major, "1");
    assert_eq!(client.list_core_api_versions().await.expect("versions").versions, ["v1"]);
    let core = client.list_core_api_resources("v1").await.expect("resources").resources;
    assert!(core.iter().any(|one| one.name == "pods" && one.kind == "Pod"));
    let named = client.list_api_groups_aggregated().await.expect("groups").items;
    let apps = named
        .iter()
        .find(|group| group.metadata.as_ref().is_some_and(|meta| meta.name.as_deref() == Some("apps")));
    let apps = &apps.expect("apps").versions[0];
    assert!(apps.resources.iter().any(|one| one.resource.as_deref() == Some("deployments")));
    let health = Request::new("/livez").list(&ListParams::default()).expect("a request");
    assert_eq!(client.request_text(health).await.expect("health"), "ok");
}
