//! When a run is through, told on the way: from limits and backlog, to the answer of its last call.

use std::time::Duration;

use tidegate::model::job::NewJob;
use tidegate::model::run::NewRun;
use tidegate::model::state::State;
use tidegate::store::{Change, Changed};

use super::stand::{Stand, job};

/// A call takes two seconds, and a window begins again with the answers: 20 jobs leave at once, 20 after 32 s, 10 after 64 s.
const DECLARATION: &str = r#"
in_flight_max = 50
limits = [{ name = "core", max = 20, per = "30s" }]
[providers.crm.operations.op]
request = "PUT /records/{key}"
body = "{payload}"
"#;

#[tokio::test(start_paused = true)]
async fn a_run_is_foretold_to_the_answer_of_its_last_call() {
    let stand = Stand::new(DECLARATION, Duration::from_secs(1)).await;
    let run =
        NewRun { display_name: "all".into(), tenant: Default::default(), labels: Default::default(), undo_of: None };
    let Changed::Run(run) = stand.engine.change(Change::CreateRun { run }).await.unwrap() else { panic!("a run") };
    let of_run = |n: i32| NewJob { run: Some(run.id), ..job(&format!("r{n}")) };
    let ids = stand.enqueue((0..50).map(of_run).collect()).await;
    let mut told = Vec::new();
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        told.push(stand.engine.run_forecast(run.id).await.unwrap().expect("nothing holds it back"));
    }
    let states = stand.settled(&ids, Duration::from_secs(60)).await;
    assert!(states.iter().all(|s| *s == State::Delivered), "{states:?}");
    let mut ended = stand.job(ids[0]).await.finished_at.unwrap();
    for id in &ids {
        ended = ended.max(stand.job(*id).await.finished_at.unwrap());
    }
    let off_ms: Vec<i64> = told.iter().map(|at| (at.0 - ended.0) / 1_000).collect();
    assert!(off_ms.iter().all(|off| off.abs() <= 500), "off by {off_ms:?} ms");
}
