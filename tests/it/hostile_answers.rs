//! Hostile answers against the daemon as a whole: it survives, loses nothing, and every job says what is wrong.
//!
//! Three records leave in one POST batch, which may not be repeated when its answer is lost. Next: `hostile.rs`, the
//! provider; `outbound.rs`, what the wire alone makes of worse.

use std::time::Duration;

use tidegate::app::App;
use tidegate::config::{self, LoadOptions};
use tidegate::model::id::JobId;
use tidegate::model::job::{Job, NewJob};
use tidegate::model::name::{Key, OperationName, ProviderName};
use tidegate::model::state::State;

use crate::hostile::{Act, Hostile, answer};
use crate::support::process::until;

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(folder: &std::path::Path, provider: &Hostile) -> App {
    tidegate::app::install_crypto();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"none\"\n[http]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {:?}\n\
         [providers.crm]\nbase_url = \"http://{}\"\nallow_private = true\n\
         retry = {{ base = \"10ms\", cap = \"20ms\", attempts = 2 }}\n\
         [providers.crm.operations.sync]\nrequest = \"POST /users\"\nbody = \"{{payload}}\"\n\
         [providers.crm.operations.sync.batch]\nrequest = \"POST /batch\"\nbody = \"{{payloads}}\"\nsize = 10\n\
         result = {{ each = \"$.results[*]\", key = \"/id\", failed_if = \"/error\" }}\n",
        folder.join("tidegate.db"),
        provider.address
    );
    let file = folder.join("tidegate.toml");
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
    App::start(config::load(&options).unwrap(), options).await.unwrap()
}

fn record(id: &str) -> NewJob {
    let (provider, operation) = (ProviderName::new("crm").unwrap(), OperationName::new("sync").unwrap());
    NewJob { key: Some(Key::new(id).unwrap()), ..NewJob::new(provider, operation, format!("{{\"id\":\"{id}\"}}")) }
}

async fn read(app: &App, ids: &[JobId]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for id in ids {
        jobs.push(app.handle().store().job(*id).await.unwrap().expect("an acknowledged job is there"));
    }
    jobs
}

/// What becomes of the records a, b and c, and what must be said of those that did not arrive.
async fn check(what: &str, acts: Vec<Act>, expected: [State; 3], said: &str) {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Hostile::start(acts).await);
    let app = start(folder.path(), &provider).await;
    let jobs = ["a", "b", "c"].map(record).to_vec();
    let ids: Vec<JobId> = app.handle().enqueue(jobs).await.unwrap().into_iter().map(|e| e.unwrap().id).collect();
    let settled = until(PATIENCE, || async {
        let jobs = read(&app, &ids).await;
        let heard = |j: &Job| j.state != State::Waiting || j.throttles > 0;
        (jobs.iter().map(|j| j.state).eq(expected) && jobs.iter().all(heard)).then_some(jobs)
    });
    let Some(jobs) = settled.await else { panic!("{what}: {:?}", read(&app, &ids).await) };
    for job in jobs.iter().filter(|j| j.state != State::Delivered) {
        let expected = |e: &str| said.split('|').any(|part| !part.is_empty() && e.contains(part));
        assert!(job.last_error.as_deref().is_some_and(expected), "{what}: {:?}", job.last_error);
    }
    // A "not now" uses no attempt up, however often it comes.
    assert!(jobs.iter().filter(|j| j.state == State::Waiting).all(|j| j.attempts == 0), "{what}");
    assert_eq!(app.stop().await.calls_cut, 0, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_survives_hostile_answers_loses_nothing_and_says_what_is_wrong() {
    let say = |status: &str, headers: &str, body: &str| Act::Say(answer(status, headers, body.as_bytes()));
    let all = r#"{"results":[{"id":"a"},{"id":"b"},{"id":"c"}]}"#;
    let part = r#"{"results":[{"id":"c","error":"no such user"},{"id":"a"},{"id":"zz"}]}"#;
    let deep = "[".repeat(10_000);
    let past = say("429 Too Many Requests", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "");
    use State::{Dead, Delivered, Unknown, Waiting};
    check(
        "HTML with 200",
        vec![say("200 OK", "Content-Type: text/html\r\n", "<html>")],
        [Unknown; 3],
        "its results cannot be read",
    )
    .await;
    check(
        "207 partly failed",
        vec![say("207 Multi-Status", "", part)],
        [Delivered, Unknown, Dead],
        "no result for this job|the provider refused it",
    )
    .await;
    check("JSON 10,000 deep", vec![say("200 OK", "", &deep)], [Unknown; 3], "its results cannot be read").await;
    check("429 for ever", vec![say("429 Too Many Requests", "", "")], [Waiting; 3], "not now").await;
    check("503 for ever", vec![say("503 Service Unavailable", "", "")], [Dead; 3], "gave up after 2 attempts").await;
    check("a time in 1970", vec![past, say("200 OK", "", all)], [Delivered; 3], "").await;
}
