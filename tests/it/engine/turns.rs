//! Turns between tenants as the provider sees them.

use std::time::Duration;

use super::stand::{Stand, job, of_tenant};

const ONE_AT_A_TIME: &str = r#"
in_flight_max = 1
tenants = { big = 3 }
[providers.crm.operations.op]
request = "PUT /records/{key}"
body = "{payload}"
"#;

async fn served(stand: &Stand, tenant: &str, n: usize) -> Vec<tidegate::model::id::JobId> {
    let jobs = (0..n).map(|i| of_tenant(job(&format!("{tenant}-{i}")), tenant)).collect();
    stand.enqueue(jobs).await
}

fn of(stand: &Stand, tenant: &str, first: usize) -> usize {
    let mine = |id: &String| id.starts_with(tenant);
    stand.arrivals().iter().take(first).filter(|a| a.ids.iter().any(mine)).count()
}

#[tokio::test(start_paused = true)]
async fn a_declared_weight_gives_a_tenant_more_turns() {
    let stand = Stand::new(ONE_AT_A_TIME, Duration::from_millis(5)).await;
    stand.engine.pause_provider(&"crm".parse_name(), true, "test").await.unwrap();
    let mut ids = served(&stand, "small", 100).await;
    ids.extend(served(&stand, "big", 300).await);
    stand.engine.pause_provider(&"crm".parse_name(), false, "test").await.unwrap();
    stand.settled(&ids, Duration::from_secs(100)).await;
    let big = of(&stand, "big", 200);
    assert!((145..=155).contains(&big), "{big} of the first 200 calls, with a weight of 3 against 1");
}

#[tokio::test(start_paused = true)]
async fn ten_jobs_do_not_wait_behind_ten_thousand() {
    let stand = Stand::new(ONE_AT_A_TIME, Duration::from_millis(5)).await;
    for _ in 0..10 {
        served(&stand, "hog", 1_000).await;
    }
    let ids = served(&stand, "little", 10).await;
    let before = stand.arrivals().len();
    stand.settled(&ids, Duration::from_secs(60)).await;
    let between = stand.arrivals().iter().skip(before).position(|a| a.ids[0] == "little-9").unwrap();
    assert!(between <= 25, "{between} calls before the last of ten had its turn");
}

trait Named {
    fn parse_name(&self) -> tidegate::model::name::ProviderName;
}

impl Named for str {
    fn parse_name(&self) -> tidegate::model::name::ProviderName {
        tidegate::model::name::ProviderName::new(self).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_could_not_be_journaled_go_when_the_store_is_back() {
    let single = r#"
[providers.crm.operations.op]
request = "PUT /records/{key}"
body = "{payload}"
"#;
    for refusals in [1, 3] {
        let stand = Stand::with_refusals(single, Duration::from_millis(10), refusals).await;
        let ids = stand.enqueue((0..5).map(|n| job(&format!("a{n}"))).collect()).await;
        // Nothing else happens: no other job comes, and no call ends.
        let states = stand.settled(&ids, Duration::from_secs(20)).await;
        assert!(states.iter().all(|s| *s == tidegate::model::state::State::Delivered), "{states:?}");
        assert_eq!(stand.arrivals().len(), 5);
    }
}
