//! POST, PUT, PATCH and DELETE, and what they conflict with.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use observer_tests::apiserver::{ApiServer, objects::lease};
use serde_json::json;

use super::{client, refused};

fn leases(server: &ApiServer) -> Api<Lease> {
    Api::namespaced(client(server), "o")
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

#[tokio::test]
async fn created_replaced_if_fresh_and_deleted() {
    let server = ApiServer::start();
    let leases = leases(&server);
    let new: Lease =
        serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}}))
            .expect("a lease");
    let created = leases.create(&PostParams::default(), &new).await.expect("created");
    assert_eq!(created.namespace().as_deref(), Some("o"));
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    assert_eq!(refused(leases.create(&PostParams::default(), &new).await), (409, "AlreadyExists".into()));

    let replace = async |holder: &str, from: &Lease| {
        let mut lease = from.clone();
        lease.spec.as_mut().expect("a spec").holder_identity = Some(holder.to_owned());
        leases.replace("l", &PostParams::default(), &lease).await
    };
    let second = replace("b", &created).await.expect("fresh");
    assert_eq!((holder(&second), second.uid()), (Some("b"), created.uid()));
    assert_eq!(refused(replace("c", &created).await), (409, "Conflict".into()));
    assert_eq!(refused(replace("c", &new).await), (422, "Invalid".into()), "a lease is not replaced blindly");
    assert_eq!(holder(&leases.get("l").await.expect("a lease")), Some("b"));

    leases.delete("l", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(refused(leases.get("l").await), (404, "NotFound".into()));
    assert_eq!(refused(replace("c", &second).await), (404, "NotFound".into()));
    let verbs: Vec<_> =
        server.requests().iter().map(|seen| (seen.request.verb.clone(), seen.code())).collect();
    let expected = [
        ("create", 201),
        ("create", 409),
        ("update", 200),
        ("update", 409),
        ("update", 422),
        ("get", 200),
        ("delete", 200),
        ("get", 404),
        ("update", 404),
    ];
    assert_eq!(verbs, expected.map(|(verb, code)| (verb.to_owned(), code)));
}

#[tokio::test]
async fn a_patch_changes_what_it_names_if_it_is_fresh() {
    let server = ApiServer::start();
    let stored = server.put(lease("o", "l", "a", 15));
    let leases = leases(&server);
    let patch = async |patch| leases.patch("l", &PatchParams::default(), &Patch::Merge(patch)).await;
    let lease = patch(json!({"spec": {"holderIdentity": "b", "acquireTime": null}})).await.expect("patched");
    let spec = lease.spec.expect("a spec");
    assert_eq!(
        (spec.holder_identity.as_deref(), spec.acquire_time, spec.lease_duration_seconds),
        (Some("b"), None, Some(15))
    );
    let stale = json!({"metadata": {"resourceVersion": stored["metadata"]["resourceVersion"]}, "spec": {"holderIdentity": "c"}});
    assert_eq!(refused(patch(stale).await), (409, "Conflict".into()));
    assert_eq!(server.get("leases", "o", "l").expect("a lease")["spec"]["holderIdentity"], "b");
}

#[tokio::test]
async fn who_applies_what_another_owns_is_refused() {
    let server = ApiServer::start();
    server.put(lease("o", "l", "", 15));
    let leases = leases(&server);
    let held_by = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": name}});
    let apply =
        async |who: &str| leases.patch("l", &PatchParams::apply(who), &Patch::Apply(held_by(who))).await;
    assert_eq!(holder(&apply("a").await.expect("nobody owns it")), Some("a"));
    assert_eq!(refused(apply("b").await), (409, "Conflict".into()));
    let released = json!({"spec": {"holderIdentity": null}});
    let params = PatchParams { field_manager: Some("a".into()), ..PatchParams::default() };
    leases.patch("l", &params, &Patch::Strategic(released)).await.expect("released");
    assert_eq!(holder(&apply("b").await.expect("nobody owns it")), Some("b"));
    let forced = leases.patch("l", &PatchParams::apply("a").force(), &Patch::Apply(held_by("a"))).await;
    assert_eq!(holder(&forced.expect("by force")), Some("a"));
}
