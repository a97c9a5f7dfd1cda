//! Notices as they arrive: signed as the published library expects, under one id over all tries, and none lost by a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tidegate::app::App;
use tidegate::clock::Clock;
use tidegate::config::{self, LoadOptions};
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::model::name::ProviderName;
use tidegate::simulator::dice::Dice;
use tidegate::simulator::{Simulator, SimulatorConfig};

use crate::support::process::{Place, Provider, until};

pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Got {
    pub id: String,
    pub body: Value,
    pub taken: bool,
}

/// Somebody who is told, and who takes nothing while it is shut.
#[derive(Clone, Default)]
pub struct Inbox {
    got: Arc<Mutex<Vec<Got>>>,
    open: Arc<AtomicBool>,
}

async fn take_in(State(inbox): State<Inbox>, headers: HeaderMap, body: Bytes) -> StatusCode {
    // As a receiver does it, with the library.
    Webhook::new(SECRET).unwrap().verify(&body, &headers).expect("the signature holds");
    let taken = inbox.open.load(Ordering::SeqCst);
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    inbox.got.lock().unwrap().push(Got { id, body: serde_json::from_slice(&body).unwrap(), taken });
    if taken { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

impl Inbox {
    /// Whether it takes nothing from now on.
    pub fn shut(&self, shut: bool) {
        self.open.store(!shut, Ordering::SeqCst);
    }

    /// Starts it; answers with its URL.
    pub async fn start(open: bool) -> (Inbox, String) {
        let inbox = Inbox { open: Arc::new(open.into()), ..Inbox::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks/tide%20gate", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/hooks/{name}", axum::routing::post(take_in));
        let router = router.with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (inbox, url)
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Those that were taken, once so many are there.
    async fn taken(&self, count: usize) -> Vec<Got> {
        let enough = until(PATIENCE, || async {
            let taken: Vec<Got> = self.got().into_iter().filter(|got| got.taken).collect();
            (taken.len() >= count).then_some(taken)
        });
        enough.await.unwrap_or_else(|| panic!("expected {count} notices, got {:?}", self.got()))
    }
}

fn declarations(folder: &Path, base_url: &str, url: &str) -> String {
    let secret = folder.join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    format!(
        r#"
[providers.crm]
base_url = "{base_url}"
allow_private = true
timeouts = {{ first_byte = "2s", total = "2s" }}
[providers.crm.operations.sync]
request = "PUT /users/{{key}}"
body = "{{payload}}"
[notify.ops]
url = "{url}"
allow_private = true
secret = {{ file = {secret:?} }}
on = ["job.delivered", "job.dead", "job.cancelled", "run.finished"]
timeouts = {{ first_byte = "2s", total = "2s" }}
retry = {{ base = "50ms", cap = "200ms", attempts = 1000 }}
breaker = {{ failures_in_a_row = 1000, calls_min = 100000 }}
"#
    )
}

struct House {
    app: App,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

async fn house(base_url: &str, url: &str) -> House {
    tidegate::app::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"none\"\n[http]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {:?}\n{}",
        folder.path().join("tidegate.db"),
        declarations(folder.path(), base_url, url)
    );
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
    let loaded = config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    House { app: App::start(loaded, options).await.unwrap(), client: reqwest::Client::new(), _folder: folder }
}

impl House {
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("http://{}{path}", self.app.http_address().unwrap());
        let mut request = self.client.post(url);
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    async fn job(&self, more: Value) -> String {
        let mut job = json!({"provider": "crm", "operation": "sync", "payload": {"id": "a"}});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, said) = self.post("/api/v1/jobs", job).await;
        assert_eq!(status, 200, "{said}");
        said["jobId"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told_signed_under_one_id_over_all_tries() {
    let crm = Simulator::start(SimulatorConfig::default()).await.unwrap();
    let (inbox, url) = Inbox::start(false).await;
    let house = house(&crm.base_url(), &url).await;
    let good = house.job(json!({"key": "a"})).await;
    // Refused three times by who is told, and not given up.
    let refused = until(PATIENCE, || async { (inbox.got().len() >= 3).then_some(()) }).await;
    assert!(refused.is_some(), "it is tried again");
    inbox.open.store(true, Ordering::SeqCst);
    let taken = inbox.taken(1).await.remove(0);
    assert!(inbox.got().iter().all(|got| got.id == taken.id && got.body == taken.body), "{:?}", inbox.got());
    assert_eq!((&taken.body["type"], &taken.body["data"]["job"]["id"]), (&json!("job.delivered"), &json!(good)));
    assert!(taken.body["timestamp"].is_string() && taken.body["data"]["job"].get("payload").is_none());
    // One that cannot be sent, one that is called off, and a run.
    let dead = house.job(json!({})).await;
    let off = house.job(json!({"key": "b", "delay": "3600s"})).await;
    house.post("/api/v1/jobs:cancel", json!({"jobIds": [off]})).await;
    let run = house.post("/api/v1/runs", json!({"displayName": "import"})).await.1["run"]["id"].clone();
    let of_run = house.job(json!({"key": "c", "runId": run})).await;
    let (status, said) = house.post(&format!("/api/v1/runs/{}:seal", run.as_str().unwrap()), Value::Null).await;
    assert_eq!(status, 200, "{said}");
    let told: BTreeMap<String, String> = inbox
        .taken(5)
        .await
        .into_iter()
        .map(|got| {
            let about = if got.body["data"].get("run").is_some() { "run" } else { "job" };
            (got.body["data"][about]["id"].as_str().unwrap().to_owned(), got.body["type"].as_str().unwrap().to_owned())
        })
        .collect();
    let run = run.as_str().unwrap();
    let expected = [
        (good.as_str(), "job.delivered"),
        (&dead, "job.dead"),
        (&off, "job.cancelled"),
        (&of_run, "job.delivered"),
        (run, "run.finished"),
    ];
    assert_eq!(told, expected.map(|(id, what)| (id.to_owned(), what.to_owned())).into());
    // The notices have ended too, and nobody was told of that.
    let name = ProviderName::new("notify-ops").unwrap();
    let ended = until(PATIENCE, || async {
        let status = house.app.handle().provider_status(&name).await?;
        (status.counts.delivered == 5 && status.counts.waiting() + status.counts.calling == 0).then_some(())
    });
    assert!(ended.await.is_some());
    assert_eq!(inbox.got().iter().filter(|got| got.taken).count(), 5);
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_hands_notices_in_or_declares_who_sends_them() {
    let crm = Simulator::start(SimulatorConfig::default()).await.unwrap();
    let (_, url) = Inbox::start(true).await;
    let house = house(&crm.base_url(), &url).await;
    let forged = json!({"provider": "notify-ops", "operation": "send", "payload": {"type": "job.dead"}});
    let (status, said) = house.post("/api/v1/jobs", forged).await;
    assert_eq!((status, &said["reason"]), (400, &json!("RESERVED_PROVIDER")));
    let source = "[providers.notify-ops]\nbase_url = \"https://evil.example\"\n[providers.notify-ops.operations.send]\nrequest = \"POST /\"\n";
    let (status, said) = house.post("/api/v1/providers", json!({"source": source})).await;
    assert_eq!((status, &said["reason"]), (400, &json!("RESERVED_PROVIDER")), "{said}");
    house.app.stop().await;
}

/// The outcome is durable, its notice is not delivered yet, and the daemon is killed; again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_an_outcome_and_its_notice_loses_none() {
    const ROUNDS: usize = 5;
    const JOBS: usize = 40;
    let (folder, clock, mut dice) = (tempfile::tempdir().unwrap(), Clock::system(), Dice::new(7));
    let provider = Provider::start(&[], &folder.path().join("arrivals.jsonl")).await;
    let (inbox, url) = Inbox::start(false).await;
    let text = declarations(folder.path(), &provider.base_url, &url);
    let place = Place::new(folder.path(), folder.path(), &text);
    let mut ids = BTreeSet::new();
    for round in 0..ROUNDS {
        let daemon = place.start().await;
        let mut jobs = JobServiceClient::new(daemon.channel());
        for n in 0..JOBS {
            let job = pb::JobSpec {
                provider: "crm".to_owned(),
                operation: "sync".to_owned(),
                key: format!("{round}-{n}"),
                payload: format!(r#"{{"id":"{round}-{n}"}}"#),
                ..pb::JobSpec::default()
            };
            let request = pb::EnqueueJobRequest { job: Some(job), ..pb::EnqueueJobRequest::default() };
            ids.insert(jobs.enqueue_job(request).await.unwrap().into_inner().job_id);
        }
        // At any moment between the first outcome and the last notice.
        tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
        daemon.kill(&clock).await;
    }
    inbox.open.store(true, Ordering::SeqCst);
    let daemon = place.start().await;
    let told = until(PATIENCE, || async {
        let taken = inbox.got().into_iter().filter(|got| got.taken);
        let told: BTreeSet<String> =
            taken.map(|got| got.body["data"]["job"]["id"].as_str().unwrap().to_owned()).collect();
        (told == ids).then_some(())
    });
    assert!(told.await.is_some(), "{} jobs, {} notices:\n{}", ids.len(), inbox.got().len(), place.log_tail());
    // One notice per job, whatever was tried again: the same id and the same words each time.
    let mut by_job: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for got in inbox.got() {
        let job = got.body["data"]["job"]["id"].as_str().unwrap().to_owned();
        by_job.entry(job).or_default().insert((got.id, got.body.to_string()));
    }
    assert!(by_job.values().all(|notices| notices.len() == 1), "{by_job:?}");
    assert!(inbox.got().iter().any(|got| !got.taken), "some were tried before the kills");
    assert!(daemon.stop().await);
    provider.stop().await;
}
