//! Limits that count by key: kept on both lanes and through a restart, and in nobody else's way.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::model::call::Ending;
use tidegate::model::id::CallId;
use tidegate::model::state::State;
use tidegate::store::Store;

use super::stand::{Arrival, Reply, Stand, job};
use crate::limits::most_in_any_window;

const SINGLE: &str = r#"
timeouts = { connect = "1s", first_byte = "1s", idle = "1s", total = "2s" }
[providers.crm.operations.op]
request = "PUT /records/{key}"
body = "{payload}"
limits = [{ name = "record", max = 3, per = "10s", scope = "key" }]
"#;

const BATCH: &str = r#"
timeouts = { connect = "1s", first_byte = "1s", idle = "1s", total = "2s" }
[providers.crm.operations.op]
repeat = "always"
[providers.crm.operations.op.batch]
request = "POST /records"
body = "{payloads}"
size = 20
limits = ["100/s", { name = "record", max = 3, per = "10s", scope = "key" }]
"#;

/// Most arrivals of one record within any ten seconds.
fn most_of_a_record(arrivals: &[Arrival]) -> usize {
    let mut of: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for arrival in arrivals {
        arrival.ids.iter().for_each(|id| of.entry(id).or_default().push(arrival.at.0));
    }
    of.values_mut().for_each(|times| times.sort_unstable());
    of.values().map(|times| most_in_any_window(times, 10_000_000)).max().unwrap_or(0)
}

/// Twelve changes of one record among changes of fifty others; the daemon is killed in the middle, twice.
async fn is_kept_through_restarts(declaration: &str) {
    let mut stand = Stand::new(declaration, Duration::from_millis(40)).await;
    let mut jobs = Vec::new();
    for n in 0..48 {
        jobs.extend((n % 4 == 0).then(|| job("hot")));
        jobs.push(job(&format!("cold-{n}")));
    }
    let ids = stand.enqueue(jobs).await;
    tokio::time::sleep(Duration::from_millis(130)).await;
    stand.restart(Duration::from_millis(300)).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    stand.restart(Duration::from_secs(1)).await;
    let states = stand.settled(&ids, Duration::from_secs(200)).await;
    assert!(states.iter().all(|s| *s == State::Delivered), "{states:?}");
    let arrivals = stand.arrivals();
    assert_eq!(most_of_a_record(&arrivals), 3, "three a window, no more and no less");
    let cold = arrivals.iter().filter(|a| a.ids.iter().any(|id| id.starts_with("cold"))).map(|a| a.at);
    let (first, last) = (cold.clone().min().unwrap(), cold.max().unwrap());
    assert!(last.since(first) < Duration::from_secs(20), "the others were held up for {:?}", last.since(first));
    for id in &ids {
        let job = stand.job(*id).await;
        assert!(job.attempts <= 3, "waiting for a limit is no attempt: {}", job.attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn on_the_single_lane_no_record_gets_more_than_its_limit_through_restarts() {
    is_kept_through_restarts(SINGLE).await;
}

#[tokio::test(start_paused = true)]
async fn on_the_batch_lane_no_record_gets_more_than_its_limit_through_restarts() {
    is_kept_through_restarts(BATCH).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_held_back_leaves_no_trace_in_the_journal_of_spends() {
    let stand = Stand::new(BATCH, Duration::from_millis(5)).await;
    // Three for the hot record and then one more, which has to wait while its batch goes.
    for _ in 0..3 {
        let ids = stand.enqueue(vec![job("hot")]).await;
        stand.settled(&ids, Duration::from_secs(5)).await;
    }
    let ids = stand.enqueue(vec![job("hot"), job("a"), job("b")]).await;
    stand.settled(&ids[1..], Duration::from_secs(2)).await;
    let held = stand.job(ids[0]).await;
    assert_eq!((held.state, held.attempts), (State::Waiting, 0));
    assert!(held.last_error.as_deref().is_some_and(|e| e.contains("record")), "{:?}", held.last_error);
    let journal = stand.store.journal(stand.clock.steady() - Duration::from_secs(60), CallId(0), 100).await.unwrap();
    let hot = |e: &&tidegate::store::JournalEntry| e.sent && e.permit.spends.iter().any(|s| s.0.0.ends_with("@/hot"));
    assert_eq!(journal.iter().filter(hot).count(), 3, "{journal:?}");
    assert_eq!(stand.settled(&ids, Duration::from_secs(20)).await, [State::Delivered; 3]);
    let calls = stand.store.calls(&stand.job(ids[0]).await.calls).await.unwrap();
    assert!(calls.iter().any(|c| c.ending == Ending::Answered));
}

#[tokio::test(start_paused = true)]
async fn jobs_without_a_key_spend_no_limit_by_key() {
    let operation = SINGLE.replace("/records/{key}", "/records");
    let stand = Stand::new(&operation, Duration::from_millis(5)).await;
    let keyless = |_| {
        let mut job = job("x");
        job.key = None;
        job
    };
    let ids = stand.enqueue((0..20).map(keyless).collect()).await;
    assert!(stand.settled(&ids, Duration::from_secs(5)).await.iter().all(|s| *s == State::Delivered));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_sent_spends_nothing_of_its_key() {
    let stand = Stand::new(SINGLE, Duration::from_millis(5)).await;
    // The provider refuses to take it, five times: each was sent, so each counts, but none is an attempt.
    stand.replies(|_| Reply::Status(429));
    let ids = stand.enqueue(vec![job("hot")]).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(stand.states(&ids).await, [State::Waiting]);
    let refused = stand.arrivals().len();
    assert!(refused >= 3, "{refused}");
    assert!(most_of_a_record(&stand.arrivals()) <= 3);
    stand.replies(|_| Reply::Status(200));
    assert_eq!(stand.settled(&ids, Duration::from_secs(120)).await, [State::Delivered]);
}
