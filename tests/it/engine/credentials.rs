//! A credential that is refused stops the jobs of its account and nobody else's, until it works again.

use std::time::Duration;

use tidegate::engine::status::{BreakerState, WaitingOn};
use tidegate::model::job::NewJob;
use tidegate::model::name::{Account, ProviderName};
use tidegate::model::state::State;

use super::stand::{Arrival, Reply, Stand, job};

/// Each account has a secret of its own; the wire of the stand looks at none.
const PER_ACCOUNT: &str = r#"
auth = { bearer = { env = "TOKEN_{account}" } }
retry = { attempts = 50, base = "1s", cap = "1s" }
breaker = { open_base = "1h", open_max = "2h" }
[providers.crm.operations.op]
request = "PUT /{account}/{key}"
body = "{payload}"
"#;

fn of(account: &str, key: &str) -> NewJob {
    NewJob { account: Account::new(account).unwrap(), ..job(key) }
}

fn of_account(account: &str) -> impl Fn(&&Arrival) -> bool {
    let path = format!("PUT /{account}/");
    move |arrival: &&Arrival| arrival.line.starts_with(&path)
}

fn crm() -> ProviderName {
    ProviderName::new("crm").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_wrong_credential_opens_only_its_own_breaker_after_three_refusals() {
    let mut stand = Stand::new(PER_ACCOUNT, Duration::from_millis(10)).await;
    let wrong = |a: &Arrival| Reply::Status(if a.line.contains("/bad/") { 401 } else { 200 });
    stand.replies(wrong);
    let bad = stand.enqueue((0..20).map(|n| of("bad", &format!("k{n}"))).collect()).await;
    // One at a time, so that "three in a row" can be counted.
    let first = stand.arrivals().len();
    assert_eq!(first, 0);
    let good = stand.enqueue((0..200).map(|n| of(&format!("good{}", n % 7), &format!("g{n}"))).collect()).await;
    assert!(stand.settled(&good, Duration::from_secs(60)).await.iter().all(|s| *s == State::Delivered));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let refused = stand.arrivals().iter().filter(of_account("bad")).count();
    // All that were on the wire when the third refusal came.
    assert!((3..=20).contains(&refused), "{refused}");
    let before = stand.arrivals().len();
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    assert_eq!(stand.arrivals().len(), before, "an open breaker costs no call");
    let status = stand.engine.provider_status(&crm()).await.unwrap();
    assert_eq!(status.breaker.state, BreakerState::Closed, "the host works");
    assert_eq!(status.credentials.len(), 1);
    assert_eq!(
        (status.credentials[0].account.as_str(), status.credentials[0].breaker.state),
        ("bad", BreakerState::Open)
    );
    let explained = stand.engine.explain(bad[0]).await.unwrap().unwrap();
    assert_eq!(explained.waiting_on, WaitingOn::Breaker);
    assert!(explained.sentence.contains("credential of account bad is open: status 401"), "{}", explained.sentence);

    // A restart remembers it, others still go.
    stand.restart(Duration::from_secs(5)).await;
    let more = stand.enqueue(vec![of("good1", "more")]).await;
    assert_eq!(stand.settled(&more, Duration::from_secs(60)).await, [State::Delivered]);
    assert_eq!(stand.arrivals().iter().filter(of_account("bad")).count(), refused);

    // Somebody mends it and says so.
    stand.replies(|_| Reply::Status(200));
    stand.engine.reset_breaker(&crm(), "test").await.unwrap();
    assert!(stand.settled(&bad, Duration::from_secs(60)).await.iter().all(|s| *s == State::Delivered));
    assert!(stand.engine.provider_status(&crm()).await.unwrap().credentials.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_third_refusal_in_a_row_opens_it_and_no_call_follows() {
    let slow = PER_ACCOUNT.replace("[providers.crm.operations.op]", "in_flight_max = 1\n[providers.crm.operations.op]");
    let stand = Stand::new(&slow, Duration::from_millis(10)).await;
    stand.replies(|_| Reply::Status(401));
    stand.enqueue((0..20).map(|n| of("bad", &format!("k{n}"))).collect()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(stand.arrivals().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_probe_at_a_time_and_good_ones_bring_the_account_back() {
    let quick = PER_ACCOUNT.replace("open_base = \"1h\", open_max = \"2h\"", "open_base = \"10s\", open_max = \"20s\"");
    let stand = Stand::new(&quick, Duration::from_millis(10)).await;
    stand.replies(|a| Reply::Status(if a.at.since(super::stand::START) < Duration::from_secs(60) { 401 } else { 200 }));
    let jobs = stand.enqueue((0..200).map(|n| of("acct", &format!("k{n}"))).collect()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let burst = stand.arrivals().len();
    tokio::time::sleep(Duration::from_secs(56)).await;
    let probes = stand.arrivals().len() - burst;
    assert!((2..=6).contains(&probes), "{probes} probes in a minute of 10 s and then 20 s each");
    assert!(stand.settled(&jobs, Duration::from_secs(300)).await.iter().all(|s| *s == State::Delivered));
}
