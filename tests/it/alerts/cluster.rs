//! Alerts and notices of two daemons on PostgreSQL and Redis: raised once, told once, though the daemon that raised it is
//! killed before anybody was told.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::admin_service_client::AdminServiceClient;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::model::name::Account;
use tidegate::model::shard::shard_of;

use super::PATIENCE;
use crate::notify::{Inbox, SECRET};
use crate::support::process::{Daemon, Place, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

/// Jobs that die at once, so that each has a notice.
const DEAD: usize = 12;

fn declarations(folder: &std::path::Path, url: &str) -> String {
    let secret = folder.join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    format!(
        r#"
[providers.crm]
base_url = "http://127.0.0.1:9"
allow_private = true
[providers.crm.operations.late]
external = true
[providers.crm.operations.sync]
request = "PUT /users/{{key}}"
body = "{{payload}}"
[notify.ops]
url = "{url}"
allow_private = true
secret = {{ file = {secret:?} }}
on = ["job.dead", "alert.raised", "alert.cleared"]
timeouts = {{ first_byte = "2s", total = "2s" }}
retry = {{ base = "50ms", cap = "200ms", attempts = 1000 }}
breaker = {{ failures_in_a_row = 1000, calls_min = 100000 }}
[alerts.late]
provider = "crm"
oldest = "2s"
"#
    )
}

/// Which of the two sends for a partition of crm, once each has half of them.
async fn halves(daemons: &[Daemon; 2]) -> [BTreeSet<u16>; 2] {
    let mut halves: [BTreeSet<u16>; 2] = Default::default();
    for (at, daemon) in daemons.iter().enumerate() {
        let half = until(PATIENCE, async || {
            let mut admin = AdminServiceClient::new(daemon.channel());
            let about = admin.get_daemon(pb::GetDaemonRequest {}).await.unwrap().into_inner().daemon.unwrap();
            let cluster = about.cluster.unwrap();
            let me = cluster.daemons.into_iter().find(|d| d.id == cluster.daemon_id)?;
            let held = me.partitions.into_iter().find(|held| held.provider == "crm")?;
            let numbers = held.partitions.iter().map(|p| u16::try_from(p.number).unwrap());
            (held.partitions.len() == 32).then(|| numbers.collect::<BTreeSet<u16>>())
        });
        halves[at] = half.await.expect("each has half of the partitions");
    }
    halves
}

async fn enqueue(daemon: &Daemon, operation: &str, accounts: &[String]) -> Vec<String> {
    let job = |account: &String| pb::JobSpec {
        provider: "crm".into(),
        operation: operation.into(),
        account: account.clone(),
        payload: "{}".into(),
        ..Default::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: accounts.iter().map(job).collect(), ..Default::default() };
    let answer = JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap().into_inner();
    let id = |result: pb::EnqueueResult| match result.result {
        Some(pb::enqueue_result::Result::Enqueued(done)) => done.job_id,
        other => panic!("expected a job, got {other:?}"),
    };
    answer.results.into_iter().map(id).collect()
}

/// What each notice is about, and its ids over all tries.
fn told(inbox: &Inbox, only_taken: bool) -> BTreeMap<String, BTreeSet<String>> {
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for got in inbox.got().into_iter().filter(|got| got.taken || !only_taken) {
        let data = &got.body["data"];
        let about = data["alert"]["name"].as_str().or(data["job"]["id"].as_str()).unwrap();
        told.entry(format!("{} {about}", got.body["type"].as_str().unwrap())).or_default().insert(got.id);
    }
    told
}

async fn all_told(inbox: &Inbox, expected: &BTreeSet<String>) {
    let all = until(PATIENCE, async || {
        let told: BTreeSet<String> = told(inbox, true).into_keys().collect();
        (told == *expected).then_some(())
    });
    assert!(all.await.is_some(), "expected {expected:?}, got {:?}", told(inbox, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_raised_and_told_once_though_the_daemon_that_raised_it_is_killed() {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let (inbox, url) = Inbox::start(false).await;
    let text = declarations(folder.path(), &url);
    let place = |name: &str| Place::shared(&folder.path().join(name), name, &database.url(), &redis.url(), &text);
    let daemons = [place("d1").start().await, place("d2").start().await];
    let halves = halves(&daemons).await;
    let owner = halves.iter().position(|half| half.contains(&shard_of(&Account::default(), 0))).unwrap();
    let of = |at: usize, count: usize| -> Vec<String> {
        let names = (0..).map(|n| format!("a{n}"));
        let ours = names.filter(|name| halves[at].contains(&shard_of(&Account::new(name).unwrap(), 0)));
        ours.take(count).collect()
    };
    // Old jobs only where the owner of the rule does not send, and nobody takes them.
    let late = enqueue(&daemons[owner], "late", &of(1 - owner, 3)).await;
    // They cannot be sent without a key.
    let dead = enqueue(&daemons[0], "sync", &[of(0, DEAD / 2), of(1, DEAD / 2)].concat()).await;
    let mut expected: BTreeSet<String> = dead.iter().map(|id| format!("job.dead {id}")).collect();
    expected.insert("alert.raised late".into());
    // Each was tried, and refused by who is told: raised, and told to nobody.
    let tried = until(PATIENCE, async || {
        let tried: BTreeSet<String> = told(&inbox, false).into_keys().collect();
        (tried == expected).then_some(())
    });
    assert!(tried.await.is_some(), "expected tries of {expected:?}, got {:?}", told(&inbox, false));
    let [d1, d2] = daemons;
    let (dying, alive) = if owner == 0 { (d1, d2) } else { (d2, d1) };
    dying.kill(&Clock::system()).await;
    inbox.shut(false);
    all_told(&inbox, &expected).await;
    // The one that is left looks after the rule now, and finds it raised; it clears it when all is well.
    let request = pb::CancelJobsRequest { job_ids: late, ..Default::default() };
    JobServiceClient::new(alive.channel()).cancel_jobs(request).await.unwrap();
    expected.insert("alert.cleared late".into());
    all_told(&inbox, &expected).await;
    let told = told(&inbox, false);
    assert!(told.values().all(|ids| ids.len() == 1), "one notice each, whatever was tried again: {told:?}");
    let request = pb::ListEventsRequest { page_size: 1_000, ..Default::default() };
    let events = AdminServiceClient::new(alive.channel()).list_events(request).await.unwrap().into_inner().events;
    let kinds = |wanted: &str| {
        let is = |e: &&pb::Event| matches!(&e.what, Some(pb::event::What::Provider(p)) if p.kind == wanted);
        events.iter().filter(is).count()
    };
    assert_eq!(["alert-raised", "alert-repeated", "alert-cleared"].map(kinds), [1, 0, 1]);
    assert!(alive.stop().await);
}
