//! Tokens, rules, reviews, and the record of who asked for what.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
        SubjectAccessReviewSpec,
    },
    core::v1::{Node, Pod},
};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use observer_tests::apiserver::{ApiServer, TOKEN, granted};
use serde_json::{Value, json};

use super::{client, client_with, pod, refused};

const AGENT: &str = "system:serviceaccount:o:agent";

fn rules() -> Vec<Value> {
    vec![
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "agent"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
                {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "agent"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"},
            "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": "o"}]}),
    ]
}

#[tokio::test]
async fn only_what_the_rules_allow() {
    let server = ApiServer::start();
    server.put(pod("a", "n"));
    server.accept("agent-token", AGENT);
    server.enforce(&rules());
    let agent = client_with(&server, "agent-token");
    let (pods, nodes) = (Api::<Pod>::all(agent.clone()), Api::<Node>::all(agent.clone()));
    assert_eq!(pods.list(&ListParams::default()).await.expect("allowed").items.len(), 1);
    drop(pods.watch(&WatchParams::default(), "0").await.expect("allowed").boxed());
    let refusal = nodes.list(&ListParams::default()).await.expect_err("not allowed");
    let kube::Error::Api(status) = refusal else { panic!("{refusal}") };
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    let message = format!(
        "nodes is forbidden: User \"{AGENT}\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
    );
    assert_eq!(status.message, message);
    let one = Api::<Pod>::namespaced(agent.clone(), "ml").get("a").await;
    assert_eq!(refused(one), (403, "Forbidden".into()));
    assert!(agent.apiserver_version().await.is_ok(), "everybody may ask for the version");
    let stranger = Api::<Pod>::all(client(&server)).list(&ListParams::default()).await;
    assert_eq!(refused(stranger), (403, "Forbidden".into()), "no rule is for it");

    let answered = server.requests();
    let made: BTreeSet<_> = answered
        .iter()
        .filter(|seen| seen.request.user == AGENT && seen.code() == 200 && !seen.request.resource.is_empty())
        .map(|seen| seen.request.needs())
        .collect();
    let unused: Vec<_> = granted(&rules()).difference(&made).cloned().collect();
    assert_eq!(
        unused.iter().map(|grant| (grant.resource.as_str(), grant.verb.as_str())).collect::<Vec<_>>(),
        [("replicasets", "get")]
    );
    assert!(made.is_subset(&granted(&rules())));
}

#[tokio::test]
async fn a_token_that_is_changed() {
    let server = ApiServer::start();
    let pods: Api<Pod> = Api::all(client(&server));
    assert!(pods.list(&ListParams::default()).await.is_ok());
    server.reject(TOKEN);
    server.accept("the-next", AGENT);
    assert_eq!(refused(pods.list(&ListParams::default()).await), (401, "Unauthorized".into()));
    let pods: Api<Pod> = Api::all(client_with(&server, "the-next"));
    assert!(pods.list(&ListParams::default()).await.is_ok());
    let users: Vec<_> = server.requests().iter().map(|seen| seen.request.user.clone()).collect();
    assert_eq!(users, [observer_tests::apiserver::USER, "", AGENT]);
}

#[tokio::test]
async fn by_a_kubeconfig_and_a_file_with_the_token() {
    let server = ApiServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (config, token) = (folder.path().join("config"), folder.path().join("token"));
    let connect = async || {
        let read = Kubeconfig::read_from(&config).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .expect("a configuration");
        Client::try_from(config).expect("a client").apiserver_version().await
    };
    server.kubeconfig(&config);
    connect().await.expect("a version");
    std::fs::write(&token, "from-a-file").expect("a token");
    server.accept("from-a-file", AGENT);
    server.kubeconfig_with(&config, &json!({"tokenFile": token}));
    connect().await.expect("a version");
    assert_eq!(server.requests()[1].request.user, AGENT);
    assert!(
        !server.requests()[1].request.user_agent.is_empty()
            || server.requests()[1].request.path == "/version"
    );
}

#[tokio::test]
async fn reviews_by_the_tables_or_by_the_test() {
    let server = ApiServer::start();
    server.accept("agent-token", AGENT);
    server.enforce(&rules());
    let client = client(&server);
    let token = async |token: &str| {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.into(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        Api::<TokenReview>::all(client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map(|review| review.status.expect("a status"))
    };
    // To ask is a right of its own.
    assert_eq!(refused(token("agent-token").await), (403, "Forbidden".into()));
    let mut objects = rules();
    objects.push(json!({"kind": "ClusterRole", "metadata": {"name": "delegator"}, "rules": [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}]}));
    objects.push(json!({"kind": "ClusterRoleBinding", "metadata": {"name": "delegator"}, "roleRef": {"kind": "ClusterRole", "name": "delegator"},
        "subjects": [{"kind": "User", "name": observer_tests::apiserver::USER}]}));
    server.enforce(&objects);
    let known = token("agent-token").await.expect("a review");
    assert_eq!(
        (known.authenticated, known.user.expect("a user").username.as_deref()),
        (Some(true), Some(AGENT))
    );
    assert_eq!(token("wrong").await.expect("a review").authenticated, Some(false));

    let attributes = |verb: &str| {
        Some(ResourceAttributes {
            resource: Some("pods".into()),
            verb: Some(verb.into()),
            ..ResourceAttributes::default()
        })
    };
    let may = async |verb: &str| {
        let spec = SubjectAccessReviewSpec {
            user: Some(AGENT.into()),
            resource_attributes: attributes(verb),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer =
            Api::<SubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await;
        answer.expect("a review").status.expect("a status").allowed
    };
    assert_eq!((may("list").await, may("delete").await), (true, false));
    let own = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: attributes("list"),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let own = Api::<SelfSubjectAccessReview>::all(client_with(&server, "agent-token"))
        .create(&PostParams::default(), &own)
        .await;
    assert!(own.expect("a review").status.expect("a status").allowed);

    server.review_by(|kind, spec| {
        (kind == "TokenReview" && spec["token"] == "special")
            .then(|| json!({"authenticated": true, "user": {"username": "x"}}))
    });
    assert_eq!(
        token("special").await.expect("a review").user.expect("a user").username.as_deref(),
        Some("x")
    );
    assert_eq!(token("wrong").await.expect("a review").authenticated, Some(false));
}
