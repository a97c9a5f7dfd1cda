//! Calls whose answer somebody waits for, in virtual time: who joins a fetch of another, and what is fetched again behind
//! an answer that is stale. Next: `tests/it/calls.rs`, the same on real daemons.

use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::engine::call::{CacheStatus, CallAsk, CallError};
use tidegate::model::flow::Class;
use tidegate::model::name::{Account, Key, Namespace, OperationName, ProviderName, Tenant};

use super::stand::{Arrival, Reply, START, Stand};

const DELAY: Duration = Duration::from_millis(40);

fn declaration(provider: &str, cache: &str) -> String {
    format!("{provider}\n[providers.crm.operations.user]\nrequest = \"GET /users/{{key}}\"\ncache = {cache}\n")
}

fn user(key: &str, wait_s: u64) -> CallAsk {
    CallAsk {
        provider: ProviderName::new("crm").unwrap(),
        operation: OperationName::new("user").unwrap(),
        account: Account::default(),
        tenant: Tenant::default(),
        key: Some(Key::new(key).unwrap()),
        payload: "null".into(),
        class: Class::Urgent,
        wait: Duration::from_secs(wait_s),
        namespace: Namespace::new("crm").unwrap(),
        fresh: false,
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// One who has five minutes begins a fetch of ada, and a second later one who has a second joins. What that one was told,
/// how long after it asked, and whether the first one got an answer in the end.
async fn joined(stand: &Stand) -> (Result<CacheStatus, CallError>, Duration, bool) {
    let engine = stand.engine.clone();
    let patient = tokio::spawn(async move { engine.call(user("ada", 300)).await });
    tokio::time::sleep(seconds(1)).await;
    let asked_at = stand.clock.steady();
    let told = stand.engine.call(user("ada", 1)).await.map(|told| told.cache);
    let took = stand.clock.steady().since(asked_at);
    (told, took, patient.await.unwrap().is_ok())
}

#[tokio::test(start_paused = true)]
async fn who_joins_a_fetch_that_stands_in_line_waits_no_longer_than_it_said() {
    let limits = "limits = [{ name = \"core\", max = 1, per = \"1m\" }]";
    let stand = Stand::new(&declaration(limits, "{ ttl = \"1h\" }"), DELAY).await;
    stand.engine.call(user("bob", 1)).await.unwrap();
    let (told, took, patient) = joined(&stand).await;
    assert!(matches!(told, Err(CallError::NoRoom { .. })), "{told:?}");
    assert!(took >= seconds(1) && took < Duration::from_millis(1_100), "{took:?}");
    assert!(patient, "who has time gets its answer");
    assert_eq!(stand.arrivals().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_joins_a_fetch_that_is_on_the_wire_gets_its_answer() {
    let stand = Stand::new(&declaration("", "{ ttl = \"1h\" }"), seconds(5)).await;
    let (told, took, patient) = joined(&stand).await;
    assert!(matches!(told, Ok(CacheStatus::Miss)), "{told:?}");
    assert!(took > seconds(8) && patient, "{took:?}");
    assert_eq!(stand.arrivals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_joins_a_fetch_that_the_provider_sends_back_into_the_line_is_told_then() {
    let stand = Stand::new(&declaration("", "{ ttl = \"1h\" }"), seconds(5)).await;
    stand.replies(|arrival: &Arrival| {
        let early = arrival.at < START + seconds(60);
        if early { Reply::Said(429, vec![("retry-after", "100".to_owned())]) } else { Reply::Status(200) }
    });
    let (told, took, patient) = joined(&stand).await;
    assert!(matches!(told, Err(CallError::NoRoom { .. })), "{told:?}");
    assert!(took < seconds(12), "{took:?}");
    assert!(patient, "who has time gets its answer");
}

/// A refresh asks with the validators that the old answer had, so a 304 is all that comes, and nobody waited for it.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_stale_is_told_at_once_and_asked_for_again_behind_it() {
    let limits = "limits = [{ name = \"core\", max = 2, per = \"1h\", not_counted = [304] }]";
    let stand = Stand::new(&declaration(limits, "{ ttl = \"5m\", stale = \"1m\" }"), DELAY).await;
    stand.replies(|arrival: &Arrival| match arrival.headers.get("if-none-match") {
        Some(_) => Reply::Said(304, vec![("etag", "\"a\"".to_owned())]),
        None => Reply::Said(200, vec![("etag", "\"a\"".to_owned())]),
    });
    let ask = async |key: &str| {
        let asked_at: Timestamp = stand.clock.steady();
        let cache = stand.engine.call(user(key, 1)).await.map(|told| told.cache);
        (cache, stand.clock.steady().since(asked_at))
    };
    assert!(matches!(ask("ada").await.0, Ok(CacheStatus::Miss)));
    tokio::time::sleep(seconds(310)).await;
    let (stale, took) = ask("ada").await;
    assert!(matches!(stale, Ok(CacheStatus::Stale)) && took < Duration::from_millis(1), "{stale:?} {took:?}");
    tokio::time::sleep(seconds(1)).await;
    let conditions: Vec<bool> = stand.arrivals().iter().map(|a| a.headers.contains_key("if-none-match")).collect();
    assert_eq!(conditions, [false, true]);
    // Good for five minutes again; and the 304 has cost nothing, so another call of two has room.
    tokio::time::sleep(seconds(290)).await;
    assert!(matches!(ask("ada").await.0, Ok(CacheStatus::Hit)));
    assert!(matches!(ask("bob").await.0, Ok(CacheStatus::Miss)));
    assert!(matches!(ask("eve").await.0, Err(CallError::NoRoom { .. })));
}
