//! `examples/small-business-orders`: CRUD and sync by curl, on SQLite and on PostgreSQL and Redis.

use super::{arrivals, on_servers, plain};
use crate::readme::{Ran, run};

fn check(env: &[(&str, String)]) {
    let Ran { folder, said } = run("examples/small-business-orders/README.md", env);
    let (said, arrivals) = (plain(&said), arrivals(folder.path(), "arrivals.jsonl"));
    let calls = |method: &str, path: &str| arrivals.iter().filter(|a| a.method == method && a.path == path).count();
    assert!(said.contains(r#""status":"paid","amount":19.9},"version":"2""#), "{said}");
    assert!(said.contains(r#""status":400"#) && said.contains(r#""field":"data/amount""#), "{said}");
    assert!(said.contains(r#""status":409"#) && said.contains("is at version 2, not 1"), "{said}");
    assert_eq!(calls("PUT", "/orders/o3"), 0, "what does not fit goes nowhere");
    assert_eq!(calls("DELETE", "/orders/o2"), 1);

    // A thousand requests, all open at one time, all answered with the one job, and one call.
    assert!(said.contains("\n1000 requests were open at one time, "), "{said}");
    let synced = std::fs::read_to_string(folder.path().join("synced.jsonl")).unwrap();
    let jobs: Vec<serde_json::Value> = synced.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(jobs.len(), 1_000);
    assert!(jobs.iter().all(|job| job["jobId"].is_string() && *job == jobs[0]), "{synced}");
    assert_eq!(calls("PUT", "/orders/o4"), 1);
    assert!(said.contains("\n\"times\": 1"), "{said}");
    assert_eq!(calls("POST", "/ping"), 1);

    let of = |path: &str| arrivals.iter().filter(|a| a.path == path).map(|a| a.status).collect::<Vec<_>>();
    let down = of("/orders/o5");
    assert!(down.len() >= 2 && down[0] == 503 && down.iter().filter(|status| **status == 200).count() == 1, "{down:?}");
    assert_eq!(of("/orders/bad-1"), [400, 200]);
    assert!(said.contains(r#""state":"JOB_STATE_DEAD""#) && said.contains("poison record"), "{said}");
    // Under its own key, the same for every try.
    let keys: std::collections::BTreeSet<_> =
        arrivals.iter().filter(|a| a.path == "/orders/o5").map(|a| a.idempotency_key.clone()).collect();
    assert!(keys.len() == 1 && !keys.contains(&None), "{keys:?}");
    assert!(said.contains("ready") && said.contains(r#"operation="ping",outcome="delivered"} 1"#), "{said}");
    assert!(said.contains(" 0 refused, "), "{said}");
}

#[test]
fn orders_reach_the_erp_once_each() {
    check(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_reach_the_erp_once_each_on_postgresql_and_redis() {
    on_servers(check).await;
}
