//! Two replicas and one lease, by `kube-lease-manager`.

use std::time::Duration;

use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use observer_tests::apiserver::ApiServer;
use tokio::{sync::watch::Receiver, time::sleep};

use super::{client, until};

async fn replica(server: &ApiServer, name: &str) -> LeaseManager {
    LeaseManagerBuilder::new(client(server), "observer-cluster")
        .with_namespace("o")
        .with_identity(name)
        .with_duration(2)
        .with_grace(1)
        .build()
        .await
        .expect("a lease")
}

fn holder(server: &ApiServer) -> Option<String> {
    let lease = server.get("leases", "o", "observer-cluster")?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

fn leads(channel: &Receiver<bool>) -> bool {
    *channel.borrow()
}

#[tokio::test]
async fn one_leads_and_the_other_takes_over_on_release_and_on_death() {
    let server = ApiServer::start();
    let (a, a_task) = replica(&server, "a").await.watch().await;
    let (b, b_task) = replica(&server, "b").await.watch().await;
    until("one leads", || leads(&a) || leads(&b)).await;
    for _ in 0..25 {
        assert!(leads(&a) != leads(&b), "exactly one");
        sleep(Duration::from_millis(100)).await;
    }
    let ((first, first_task), (second, second_task)) =
        if leads(&a) { ((a, a_task), (b, b_task)) } else { ((b, b_task), (a, a_task)) };
    let before = holder(&server).expect("a holder");

    // Who is asked to stop gives the lease back.
    drop(first);
    first_task.await.expect("it ends").expect("released");
    until("the other leads", || leads(&second)).await;
    assert_ne!(holder(&server), Some(before));

    // Who dies leaves it to expire.
    second_task.abort();
    let (third, _task) = replica(&server, "c").await.watch().await;
    until("the third leads", || leads(&third)).await;
    assert_eq!(holder(&server).as_deref(), Some("c"));
    let mut verbs: Vec<_> = server.requests().iter().map(|seen| seen.request.needs().verb).collect();
    verbs.sort();
    verbs.dedup();
    assert_eq!(verbs, ["create", "get", "patch"]);
}

#[tokio::test]
async fn of_ten_that_begin_together_one_leads() {
    let server = ApiServer::start();
    let mut replicas = Vec::new();
    for number in 0..10 {
        replicas.push(replica(&server, &number.to_string()).await);
    }
    let mut channels = Vec::new();
    for replica in replicas {
        channels.push(replica.watch().await);
    }
    let leaders = || channels.iter().filter(|(channel, _)| leads(channel)).count();
    until("one leads", || leaders() > 0).await;
    for _ in 0..10 {
        sleep(Duration::from_millis(50)).await;
        assert_eq!(leaders(), 1);
    }
    assert!(server.requests().iter().any(|seen| seen.code() == 409), "they competed");
}
