//! A repeat after the idempotency key has died is never silent.

use std::time::Duration;

use tidegate::model::id::JobId;
use tidegate::model::state::State;
use tidegate::store::{Change, Decision, Store};

use super::stand::{Reply, Stand, job};

/// A POST whose key lives for a minute, and a limit that makes a repeat wait longer than that.
const KEYED: &str = r#"
retry = { attempts = 10, base = "1s", cap = "2s" }
limits = [{ name = "hour", max = 1, per = "10m" }]
[providers.crm.operations.op]
request = "POST /records"
body = "{payload}"
idempotency = { header = "Idempotency-Key", life = "1m" }
"#;

async fn sent_once_then(stand: &mut Stand, restart: bool, first: Reply) -> JobId {
    stand.replies(move |_| first.clone());
    let id = stand.enqueue(vec![job("a")]).await[0];
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((stand.arrivals().len(), stand.job(id).await.state), (1, State::Waiting));
    stand.replies(|_| Reply::Status(200));
    if restart {
        stand.restart(Duration::from_secs(5)).await;
    }
    id
}

#[tokio::test(start_paused = true)]
async fn a_lost_call_is_not_repeated_after_its_key_has_died() {
    for restart in [false, true] {
        let mut stand = Stand::new(KEYED, Duration::from_millis(10)).await;
        let id = sent_once_then(&mut stand, restart, Reply::Lost).await;
        assert_eq!(stand.settled(&[id], Duration::from_secs(1_500)).await, [State::Unknown], "restart: {restart}");
        assert_eq!(stand.arrivals().len(), 1, "sent again without asking");
        let job = stand.job(id).await;
        assert!(job.last_error.as_deref().is_some_and(|e| e.contains("no longer protects")), "{:?}", job.last_error);
        // A person may decide; then it goes, once.
        let change = Change::ResolveJobs { jobs: vec![id], decision: Decision::Again };
        stand.engine.change(change).await.unwrap();
        assert_eq!(stand.settled(&[id], Duration::from_secs(1_500)).await, [State::Delivered]);
        assert_eq!(stand.arrivals().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_cut_off_by_a_crash_is_not_repeated_after_its_key_has_died() {
    let mut stand = Stand::new(KEYED, Duration::from_secs(2)).await;
    let id = stand.enqueue(vec![job("a")]).await[0];
    tokio::time::sleep(Duration::from_secs(3)).await;
    stand.restart(Duration::from_secs(1)).await;
    assert_eq!(stand.settled(&[id], Duration::from_secs(1_500)).await, [State::Unknown]);
    assert_eq!(stand.arrivals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn within_the_life_of_its_key_a_lost_call_is_repeated() {
    let quick = KEYED.replace("per = \"10m\"", "per = \"10s\"");
    let mut stand = Stand::new(&quick, Duration::from_millis(10)).await;
    stand.replies(|_| Reply::Lost);
    let id = stand.enqueue(vec![job("a")]).await[0];
    tokio::time::sleep(Duration::from_secs(5)).await;
    stand.replies(|_| Reply::Status(200));
    stand.restart(Duration::from_secs(1)).await;
    assert_eq!(stand.settled(&[id], Duration::from_secs(60)).await, [State::Delivered]);
    assert_eq!(stand.arrivals().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_answered_is_repeated_however_long_it_takes() {
    let mut stand = Stand::new(KEYED, Duration::from_millis(10)).await;
    // It said that it did not do it: there is nothing to protect a repeat from.
    let id = sent_once_then(&mut stand, true, Reply::Status(503)).await;
    assert_eq!(stand.settled(&[id], Duration::from_secs(1_500)).await, [State::Delivered]);
    let calls = stand.store.calls(&stand.job(id).await.calls).await.unwrap();
    assert_eq!((stand.arrivals().len(), calls.len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_batch_which_carries_no_key_does_not_repeat_what_was_lost_singly() {
    let both = r#"
retry = { attempts = 10, base = "10s", cap = "10s" }
[providers.crm.operations.op]
request = "POST /records"
body = "{payload}"
limits = [{ name = "single", max = 1, per = "10m" }]
idempotency = { header = "Idempotency-Key", life = "1h" }
[providers.crm.operations.op.batch]
request = "POST /batch"
body = "{payloads}"
size = 10
limits = ["100/10m"]
"#;
    let stand = Stand::new(both, Duration::from_millis(10)).await;
    stand.replies(|a| if a.line == "POST /records" { Reply::Lost } else { Reply::Status(200) });
    let lost = stand.enqueue(vec![job("a")]).await[0];
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stand.arrivals().len(), 1);
    let others = stand.enqueue((0..30).map(|n| job(&format!("b{n}"))).collect()).await;
    stand.settled(&others, Duration::from_secs(600)).await;
    assert_eq!(stand.settled(&[lost], Duration::from_secs(600)).await, [State::Unknown]);
    assert!(stand.arrivals().iter().skip(1).all(|a| !a.ids.contains(&"a".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_lost_put_is_not_repeated_by_a_batch_that_may_not_repeat_it() {
    let both = r#"
retry = { attempts = 10, base = "10s", cap = "10s" }
[providers.crm.operations.op]
request = "PUT /records/{key}"
body = "{payload}"
limits = [{ name = "single", max = 1, per = "10m" }]
[providers.crm.operations.op.batch]
request = "POST /batch"
body = "{payloads}"
size = 10
limits = ["100/10m"]
"#;
    let always = both.replace("body = \"{payload}\"", "body = \"{payload}\"\nrepeat = \"always\"");
    for (declaration, state, times) in [(both, State::Unknown, 1), (always.as_str(), State::Delivered, 2)] {
        let stand = Stand::new(declaration, Duration::from_millis(10)).await;
        stand.replies(|a| if a.line.starts_with("PUT") { Reply::Lost } else { Reply::Status(200) });
        let lost = stand.enqueue(vec![job("a")]).await[0];
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(stand.arrivals().len(), 1);
        // The single lane is used up: what waits goes in batches.
        let others = stand.enqueue((0..30).map(|n| job(&format!("b{n}"))).collect()).await;
        stand.settled(&others, Duration::from_secs(590)).await;
        assert_eq!(stand.settled(&[lost], Duration::from_secs(590)).await, [state]);
        let sent = stand.arrivals().iter().filter(|a| a.ids.contains(&"a".to_owned())).count();
        assert_eq!(sent, times, "{declaration}");
    }
}
