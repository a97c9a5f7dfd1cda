//! The simulated provider over real sockets: limits, mishaps on the wire, control requests, the arrival log.

use std::time::Duration;

use tidegate::simulator::{Arrival, Faults, Latency, Simulator, SimulatorConfig, SimulatorHandle};

async fn start(limits: &[&str], change: impl FnOnce(&mut SimulatorConfig)) -> SimulatorHandle {
    let config = limits.iter().fold(SimulatorConfig::default(), |c, l| c.limit(l).unwrap());
    let mut config = SimulatorConfig { latency: Latency::none(), keep_arrivals: 1_000, ..config };
    change(&mut config);
    Simulator::start(config).await.unwrap()
}

async fn put(
    client: &reqwest::Client,
    sim: &SimulatorHandle,
    id: &str,
    body: &str,
) -> reqwest::Result<reqwest::Response> {
    client.put(format!("{}/users/{id}", sim.base_url())).body(body.to_owned()).send().await
}

#[tokio::test]
async fn the_simulator_refuses_exactly_what_is_over_the_limit() {
    let sim = start(&["singles=rolling:3/1h@PUT /users/*"], |_| {}).await;
    let client = reqwest::Client::new();
    let mut statuses = Vec::new();
    for i in 0..5 {
        let answer = put(&client, &sim, &format!("u{i}"), r#"{"n":1}"#).await.unwrap();
        let retry_after = answer.headers().get("retry-after").map(|v| v.to_str().unwrap().parse::<u64>().unwrap());
        assert_eq!(retry_after.is_some_and(|s| (3_590..=3_600).contains(&s)), answer.status() == 429);
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let report = sim.stop().await;
    let limit = report.limit("singles").unwrap();
    assert_eq!((report.refused, limit.max_in_any_window, report.records.distinct), (2, Some(5), 3));
}

#[tokio::test]
async fn a_batch_is_answered_record_by_record_over_both_http_versions() {
    let sim = start(&[], |c| c.faults.record_failures = vec!["bad".to_owned()]).await;
    let two = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for client in [reqwest::Client::new(), two] {
        let url = format!("{}/users/batch", sim.base_url());
        let answer = client.post(url).body(r#"{"users":[{"id":"u1","n":2},{"id":"bad"}]}"#).send().await.unwrap();
        let expected = r#"{"results":[{"id":"u1"},{"id":"bad","error":"refused by the simulator"}]}"#;
        assert_eq!(answer.text().await.unwrap(), expected);
    }
    assert_eq!(sim.report().records.taken, 2);
}

#[tokio::test]
async fn a_reset_and_a_silence_take_effect_without_an_answer() {
    let sim = start(&[], |c| c.faults.reset_share = 1.0).await;
    let client = reqwest::Client::builder().retry(reqwest::retry::never()).build().unwrap();
    assert!(put(&client, &sim, "u1", r#"{"n":1}"#).await.is_err());
    sim.set_faults(Faults { silence_share: 1.0, ..Faults::default() });
    let silent = put(&client, &sim, "u2", r#"{"n":1}"#);
    assert!(tokio::time::timeout(Duration::from_millis(200), silent).await.is_err());
    sim.set_faults(Faults::default());
    assert_eq!(put(&client, &sim, "u3", r#"{"n":1}"#).await.unwrap().status(), 200);
    let withheld: Vec<Option<String>> = sim.arrivals().into_iter().map(|a| a.withheld).collect();
    assert_eq!(withheld, [Some("reset".to_owned()), Some("silence".to_owned()), None]);
    assert_eq!(sim.stop().await.records.distinct, 3);
}

#[tokio::test]
async fn a_body_that_never_came_whole_counts_as_an_arrival_without_effect() {
    use tokio::io::AsyncWriteExt;
    let sim = start(&["all=rolling:9/1h"], |_| {}).await;
    let mut wire = tokio::net::TcpStream::connect(sim.addr()).await.unwrap();
    wire.write_all(b"PUT /users/u1 HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{\"n\":").await.unwrap();
    while sim.report().arrivals == 0 {
        tokio::task::yield_now().await;
    }
    drop(wire);
    while sim.report().faults.cut == 0 {
        tokio::task::yield_now().await;
    }
    let arrivals = sim.arrivals();
    assert_eq!((arrivals[0].status, arrivals[0].limits.as_slice()), (0, ["all".to_owned()].as_slice()));
    assert_eq!(sim.stop().await.records.taken, 0);
}

#[tokio::test]
async fn the_arrival_log_tells_the_same_story_as_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("arrivals.jsonl");
    let sim = start(&["all=rolling:2/1h"], |c| {
        c.log = Some(log.clone());
        c.account_header = Some("authorization".to_owned());
    })
    .await;
    let client = reqwest::Client::new();
    for i in 0..3 {
        let request = client.post(format!("{}/users", sim.base_url())).bearer_auth("s3cret");
        let request = request.header("idempotency-key", format!("k{i}"));
        request.body(format!(r#"{{"id":"u{i}","n":{i}}}"#)).send().await.unwrap();
    }
    let kept = sim.arrivals();
    sim.stop().await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("s3cret"), "a credential in the arrival log");
    let lines: Vec<Arrival> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines, kept);
    assert_eq!(lines.iter().map(|a| a.status).collect::<Vec<_>>(), [200, 200, 429]);
    assert_eq!((lines[2].records.clone(), lines[2].versions.clone()), (vec!["u2".to_owned()], vec![Some(2)]));
    assert_eq!(lines[1].idempotency_key.as_deref(), Some("k1"));
}

#[tokio::test]
async fn control_requests_report_reset_and_change_faults() {
    let sim = start(&["all=rolling:9/1h"], |_| {}).await;
    let client = reqwest::Client::new();
    let at = |path: &str| format!("{}/__sim/{path}", sim.base_url());
    put(&client, &sim, "u1", r#"{"n":7}"#).await.unwrap();
    let report: serde_json::Value =
        serde_json::from_slice(&client.get(at("report")).send().await.unwrap().bytes().await.unwrap()).unwrap();
    assert_eq!((&report["arrivals"], &report["limits"][0]["max_in_any_window"]), (&1.into(), &1.into()));
    let record = client.get(at("records/u1")).send().await.unwrap().text().await.unwrap();
    assert!(record.contains("\"version\": 7"), "{record}");
    let refused = client.put(at("faults")).body(r#"{"error_share":2}"#).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    client.put(at("faults")).body(r#"{"error_share":1.0}"#).send().await.unwrap();
    assert_eq!(put(&client, &sim, "u1", "{}").await.unwrap().status(), 503);
    client.delete(at("faults")).send().await.unwrap();
    client.post(at("reset")).send().await.unwrap();
    assert_eq!(put(&client, &sim, "u1", "{}").await.unwrap().status(), 200);
    assert_eq!(sim.report().arrivals, 1);
    assert_eq!(client.get(at("nothing")).send().await.unwrap().status(), 404);
}
