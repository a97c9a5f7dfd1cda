//! Alerts of a daemon with a provider that is not there, one that has no quota left, old jobs and dead ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::app::App;
use tidegate::config::{self, LoadOptions};
use tidegate::simulator::{Simulator, SimulatorConfig};

use crate::notify::{Inbox, SECRET};
use crate::support::process::until;

mod cluster;

const PATIENCE: Duration = Duration::from_secs(60);

fn declarations(folder: &Path, base_url: &str, url: &str) -> String {
    let secret = folder.join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
socket = "none"
[http]
listen = "127.0.0.1:0"
[store]
path = {:?}
[providers.crm]
base_url = "{base_url}"
allow_private = true
limits = [{{ name = "core", max = 2, per = "1h" }}]
[providers.crm.operations.sync]
request = "PUT /users/{{key}}"
body = "{{payload}}"
[providers.gone]
base_url = "http://127.0.0.1:9"
allow_private = true
[providers.gone.operations.ping]
request = "PUT /ping"
retry = {{ base = "10ms", cap = "20ms", attempts = 1000 }}
[notify.ops]
url = "{url}"
allow_private = true
secret = {{ file = {secret:?} }}
on = ["alert.raised", "alert.cleared"]
[alerts.dead]
provider = "crm"
failures = {{ dead = 2, within = "1m", operation = "sync" }}
[alerts.late]
provider = "crm"
oldest = "1s"
for = "1s"
[alerts.long]
provider = "crm"
oldest = "1s"
for = "1h"
[alerts.down]
provider = "gone"
breaker_open = "1s"
[alerts.quota]
provider = "crm"
quota = {{ limit = "core", left_below = 0.5 }}
[alerts.quiet]
provider = "crm"
oldest = "1h"
"#,
        folder.join("tidegate.db")
    )
}

async fn start(folder: &Path) -> App {
    let options = LoadOptions { file: Some(folder.join("tidegate.toml")), ..LoadOptions::default() };
    let loaded = config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    App::start(loaded, options).await.unwrap()
}

async fn post(app: &App, path: &str, body: Value) -> Value {
    let url = format!("http://{}{path}", app.http_address().unwrap());
    let request = reqwest::Client::new().post(url).header("content-type", "application/json");
    let response = request.body(body.to_string()).send().await.unwrap();
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

/// How often each was told.
fn told(inbox: &Inbox) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for got in inbox.got() {
        let kind = got.body["type"].as_str().unwrap();
        let name = got.body["data"]["alert"]["name"].as_str().unwrap();
        *told.entry(format!("{kind} {name}")).or_default() += 1;
    }
    told
}

async fn all_told(inbox: &Inbox, expected: &[&str]) {
    let expected: BTreeMap<String, usize> = expected.iter().map(|what| ((*what).to_owned(), 1)).collect();
    let as_expected = until(PATIENCE, || async { (told(inbox) == expected).then_some(()) }).await;
    assert!(as_expected.is_some(), "expected {expected:?}, got {:?}", told(inbox));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_amiss_is_told_once_over_a_restart_and_cleared_when_it_is_well() {
    tidegate::app::install_crypto();
    let (folder, crm) = (tempfile::tempdir().unwrap(), Simulator::start(SimulatorConfig::default()).await.unwrap());
    let (inbox, url) = Inbox::start(true).await;
    std::fs::write(folder.path().join("tidegate.toml"), declarations(folder.path(), &crm.base_url(), &url)).unwrap();
    let app = start(folder.path()).await;
    let job = |more: Value| {
        let mut job = json!({"provider": "crm", "operation": "sync", "payload": {"id": "a"}});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(&app, "/api/v1/jobs", job)
    };
    // Nothing is amiss yet: the first look at the dead ones has to be behind us.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..2 {
        // They cannot be sent without a key, and give their permits back.
        job(json!({})).await;
    }
    for key in ["a", "b"] {
        job(json!({"key": key})).await;
    }
    let late = job(json!({"key": "c"})).await["jobId"].clone();
    for _ in 0..10 {
        job(json!({"provider": "gone", "operation": "ping"})).await;
    }
    let raised = ["alert.raised dead", "alert.raised down", "alert.raised late", "alert.raised quota"];
    all_told(&inbox, &raised).await;
    let detail = |name: &str| {
        let of = |got: &crate::notify::Got| got.body["data"]["alert"]["name"] == name;
        inbox.got().iter().find(|got| of(got)).unwrap().body["data"]["alert"]["detail"].as_str().unwrap().to_owned()
    };
    assert_eq!(detail("quota"), "0 of 2 are left of core");
    assert_eq!(detail("dead"), "2 jobs died within 60 s");
    assert!(detail("down").contains("breaker is open"), "{}", detail("down"));
    // What was told before a restart is not told again; what is well after it is cleared.
    app.stop().await;
    let app = start(folder.path()).await;
    post(&app, "/api/v1/jobs:cancel", json!({"jobIds": [late]})).await;
    all_told(&inbox, &[&raised[..], &["alert.cleared late"]].concat()).await;
    let metrics = format!("http://{}/metrics", app.http_address().unwrap());
    let metrics = reqwest::get(metrics).await.unwrap().text().await.unwrap();
    for (alert, raised) in [("late", 0), ("quota", 1), ("quiet", 0)] {
        let line = format!("tidegate_alert_raised{{alert=\"{alert}\",provider=\"crm\"}} {raised}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    // A rule that is taken away takes its alert with it.
    let file = folder.path().join("tidegate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[alerts.quota]", "[alerts.share]").replace("0.5", "0.00001")).unwrap();
    app.reload().run().await.unwrap();
    let gone = ["alert.cleared late", "alert.cleared quota", "alert.raised share"];
    all_told(&inbox, &[&raised[..], &gone].concat()).await;
    app.stop().await;
}
