//! A daemon that is killed is replaced, and one that joins or leaves takes nobody's turn away: judged by the longest time
//! in which an account with work had no arrival at the provider.

use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::engine::cluster::members::LEASE;

use tidegate::engine::LEASE_MARGIN;
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::model::name::Account;
use tidegate::model::shard::shard_of;

use super::stage::Stage;
use crate::support::process::{Place, Provider, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

/// For the partitions of a daemon that was killed.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(15);
/// While a daemon joins, or leaves politely.
const HANDED_OVER_MAX: Duration = Duration::from_secs(1);
/// Between two steps, so that each is seen by itself.
const CALM: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_are_replaced_and_who_joins_or_leaves_pauses_nobody() {
    let (stage, clock) = (Stage::paced(45).await, Clock::system());
    let mut daemons = Vec::new();
    for place in &stage.places {
        daemons.push(place.start().await);
    }
    stage.enqueue(&daemons[0]).await;
    tokio::time::sleep(CALM).await;
    let killed_at = daemons.pop().expect("there are three").kill(&clock).await;
    // Until the others have taken over; what had to wait for that shows its pause.
    tokio::time::sleep(LEASE + CALM).await;
    let joining_at = stage.now();
    daemons.push(stage.places[2].start().await);
    tokio::time::sleep(CALM).await;
    let leaving_at = stage.now();
    assert!(daemons.remove(0).stop().await, "expected a clean end:\n{}", stage.places[0].log_tail());
    tokio::time::sleep(CALM).await;
    let to = stage.now();
    let seen = stage.end(daemons).await;
    let taken_over = seen.longest_pause(killed_at, to);
    let joined = seen.longest_pause(joining_at, leaving_at);
    let left = seen.longest_pause(leaving_at, to);
    eprintln!(
        "longest pauses of an account with work: {taken_over:?} after a death, {joined:?} when one joined, {left:?} when one left"
    );
    seen.is_in_order();
    assert!(taken_over < TAKEN_OVER_MAX, "{taken_over:?} after a death");
    assert!(joined < HANDED_OVER_MAX, "{joined:?} when a daemon joined");
    assert!(left < HANDED_OVER_MAX, "{left:?} when a daemon left");
}

/// Of the calls of the account below, which has one on the wire nearly always.
const TOTAL: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(120);

fn arrivals(log: &std::path::Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_daemon_had_on_the_wire_holds_its_account_for_a_lease_and_no_longer() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let (database, redis) = (Database::new().await, RedisServer::start().await);
    let log = folder.path().join("arrivals.jsonl");
    let provider = Provider::start(&["--latency", "2s", "--tail-share", "0"], &log).await;
    let declaration = format!(
        "[providers.crm]\nbase_url = \"{}\"\nallow_private = true\n\
         timeouts = {{ connect = \"2s\", first_byte = \"4s\", total = \"{}s\" }}\n\
         limits = [{{ name = \"wire\", concurrent = 1 }}]\n\
         [providers.crm.operations.op]\nrequest = \"POST /calls\"\nbody = \"{{payload}}\"\n",
        provider.base_url,
        TOTAL.as_secs()
    );
    let mut daemons = Vec::new();
    for name in ["d1", "d2"] {
        let place = Place::shared(&folder.path().join(name), name, &database.url(), &redis.url(), &declaration);
        daemons.push((name, place.start().await));
    }
    let account = "one";
    let job = |n: usize| pb::JobSpec {
        provider: "crm".to_owned(),
        operation: "op".to_owned(),
        account: account.to_owned(),
        payload: format!("{{\"id\":\"{n}\"}}"),
        ..pb::JobSpec::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: (0..60).map(job).collect(), ..Default::default() };
    JobServiceClient::new(daemons[0].1.channel()).enqueue_jobs(request).await.unwrap();
    until(PATIENCE, async || (arrivals(&log) >= 3).then_some(())).await.expect("the account is served");
    let shard = shard_of(&Account::new(account).unwrap(), 0) as i16;
    let ask =
        "select d.name from partition p join daemon d on d.id = p.owner where p.provider = 'crm' and p.shard = $1";
    let owner = async || {
        let row = sqlx::query_scalar::<_, String>(ask).bind(shard);
        row.fetch_optional(&mut database.connect().await).await.unwrap()
    };
    // The share of each is settled by now or soon; a call of the owner is on the wire.
    tokio::time::sleep(LEASE).await;
    let owner = owner().await.expect("somebody serves it");
    let at = daemons.iter().position(|(name, _)| *name == owner).expect("one of the two");
    daemons.remove(at).1.kill(&clock).await;
    let (before, killed_at) = (arrivals(&log), clock.steady());
    let most = LEASE + TOTAL + LEASE_MARGIN + CALM;
    until(PATIENCE, async || (arrivals(&log) > before).then_some(())).await.expect("it is served again");
    let stood = clock.steady().since(killed_at);
    eprintln!("an account whose one call was on the wire of a dead daemon stood still for {stood:?}; {most:?} at most");
    // The limit holds: what was on the wire may arrive until its lease is over.
    assert!(stood > TOTAL, "{stood:?}");
    for (_, daemon) in daemons {
        daemon.kill(&clock).await;
    }
    provider.stop().await;
}
