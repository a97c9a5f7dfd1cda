//! Webhooks that come in, as senders send them: signed by the library that publishes the scheme where there is one.

use std::path::Path;

use aws_lc_rs::hmac;
use reqwest::Client;
use serde_json::Value;
use standardwebhooks::Webhook;
use tidegate::app::App;
use tidegate::clock::{Clock, Timestamp};
use tidegate::config::{self, LoadOptions};
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::record_service_client::RecordServiceClient;
use tidegate::simulator::{Simulator, SimulatorConfig, SimulatorHandle};
use tidegate::store::Change;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::process::until;

const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PLAIN: &str = "It's a Secret to Everybody";

struct House {
    folder: tempfile::TempDir,
    shop: SimulatorHandle,
    app: App,
    client: Client,
}

fn declarations(folder: &Path, base_url: &str) -> String {
    let secret = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        format!("{{ file = {file:?} }}")
    };
    let (new, old, plain) = (secret("new", NEW), secret("old", OLD), secret("plain", PLAIN));
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
socket = "none"
[http]
listen = "127.0.0.1:0"
[store]
path = {:?}
[providers.shop]
base_url = "{base_url}"
allow_private = true
[providers.shop.operations.sync]
request = "PUT /users/{{key}}"
body = "{{payload}}"
[providers.shop.operations.list]
request = "GET /items"
pages = {{ items = "/data", next = "link" }}
[collections.items]
[collections.items.pull]
operation = "shop/list"
[collections.orders]
schema = {{ type = "object", required = ["status"] }}
[webhooks.crm]
verify = "standard"
secrets = [{new}, {old}]
enqueue = {{ provider = "shop", operation = "sync", key = "user:{{payload.user.id}}", payload = {{ id = "{{payload.user.id}}", user = "{{payload.user}}" }} }}
[webhooks.github]
verify = "github"
secrets = [{plain}]
only = [{{ header = {{ x-github-event = "push" }} }}]
pull = "items"
[webhooks.stripe]
verify = "stripe"
secrets = [{plain}]
record = {{ collection = "orders", id = "{{payload.data.id}}", data = "{{payload.data}}", deleted_if = [{{ json = {{ "/type" = "gone" }} }}] }}
"#,
        folder.join("tidegate.db")
    )
}

async fn start(folder: &Path) -> App {
    let options = LoadOptions { file: Some(folder.join("tidegate.toml")), ..LoadOptions::default() };
    let loaded = config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    App::start(loaded, options).await.unwrap()
}

async fn house() -> House {
    tidegate::app::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let config = SimulatorConfig { lists: vec!["/items=link:25/10".parse().unwrap()], ..SimulatorConfig::default() };
    let shop = Simulator::start(config).await.unwrap();
    std::fs::write(folder.path().join("tidegate.toml"), declarations(folder.path(), &shop.base_url())).unwrap();
    let app = start(folder.path()).await;
    House { folder, shop, app, client: Client::builder().no_proxy().build().unwrap() }
}

type Headers = Vec<(&'static str, String)>;

fn now() -> i64 {
    Clock::system().now().millis() / 1_000
}

/// Signed by the published library.
fn standard(secret: &str, id: &str, time: i64, body: &str) -> Headers {
    let signature = Webhook::new(secret).unwrap().sign(id, time, body.as_bytes()).unwrap();
    vec![("webhook-id", id.to_owned()), ("webhook-timestamp", time.to_string()), ("webhook-signature", signature)]
}

fn hex(secret: &str, parts: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, parts.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn github(secret: &str, event: &str, delivery: &str, body: &str) -> Headers {
    let signature = format!("sha256={}", hex(secret, body));
    let (event, delivery) = (event.to_owned(), delivery.to_owned());
    vec![("x-hub-signature-256", signature), ("x-github-event", event), ("x-github-delivery", delivery)]
}

fn stripe(time: i64, body: &str) -> Headers {
    vec![("stripe-signature", format!("t={time},v1={}", hex(PLAIN, &format!("{time}.{body}"))))]
}

impl House {
    /// Status and reason, or "accepted".
    async fn send(&self, name: &str, headers: &Headers, body: &str) -> (u16, String) {
        let url = format!("http://{}/hooks/{name}", self.app.http_address().unwrap());
        let request = headers.iter().fold(self.client.post(url), |request, (name, value)| request.header(*name, value));
        let response = request.body(body.to_owned()).send().await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let text = response.text().await.unwrap();
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("expected JSON, got {text:?}: {e}"));
        assert_eq!(kind.contains("problem"), said["type"].is_string(), "{said}");
        (status, said["reason"].as_str().unwrap_or("accepted").to_owned())
    }

    async fn jobs(&self) -> Vec<pb::Job> {
        let mut jobs = JobServiceClient::connect(format!("http://{}", self.app.address().unwrap())).await.unwrap();
        let request = pb::ListJobsRequest { view: pb::View::Full as i32, ..Default::default() };
        jobs.list_jobs(request).await.unwrap().into_inner().jobs
    }

    async fn records(&self) -> RecordServiceClient<tonic::transport::Channel> {
        RecordServiceClient::connect(format!("http://{}", self.app.address().unwrap())).await.unwrap()
    }
}

fn said(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

const USER: &str = r#"{"user": {"id": 7, "name": "Ada", "n": 1.50}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_message_starts_its_job_once_over_a_restart() {
    let mut house = house().await;
    let headers = standard(NEW, "msg_1", now(), USER);
    assert_eq!(house.send("crm", &headers, USER).await, said(202, "accepted"));
    let jobs = house.jobs().await;
    let labels: Vec<_> = jobs[0].labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!((jobs.len(), jobs[0].key.as_str()), (1, "user:7"));
    assert!(labels.contains(&("webhook", "crm")) && labels.contains(&("delivery", "msg_1")), "{labels:?}");
    assert_eq!(jobs[0].payload, r#"{"id":7,"user":{"id": 7, "name": "Ada", "n": 1.50}}"#, "a value as it came");
    assert_eq!(house.send("crm", &headers, USER).await, said(200, "WEBHOOK_REPEATED"));
    // Retention forgets it when `remember` is over, and not before.
    let now_at = house.app.handle().clock().now();
    let prune = Change::Prune {
        finished_before: now_at,
        dead_before: now_at,
        calls_before: Timestamp::ZERO,
        events_before: Timestamp::ZERO,
        limit: 1_000,
    };
    house.app.handle().change(prune).await.unwrap();
    assert_eq!(house.send("crm", &headers, USER).await, said(200, "WEBHOOK_REPEATED"));
    // Signed anew, as a sender does that tries again.
    let again = standard(NEW, "msg_1", now(), USER);
    let House { folder, shop, app, client } = house;
    app.stop().await;
    house = House { app: start(folder.path()).await, folder, shop, client };
    assert_eq!(house.send("crm", &again, USER).await, said(200, "WEBHOOK_REPEATED"));
    assert_eq!(house.jobs().await.len(), 1);
    // The old secret still holds, and the next message is another one.
    assert_eq!(house.send("crm", &standard(OLD, "msg_2", now(), USER), USER).await, said(202, "accepted"));
    assert_eq!(house.jobs().await.len(), 2);
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_late_or_unfit_is_told_so_and_starts_nothing() {
    let house = house().await;
    let good = || standard(NEW, "msg_1", now(), USER);
    let forged = standard("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "msg_1", now(), USER);
    let other = USER.replace("Ada", "Eve");
    assert_eq!(house.send("crm", &forged, USER).await, said(401, "BAD_SIGNATURE"));
    assert_eq!(house.send("crm", &good(), &other).await, said(401, "BAD_SIGNATURE"));
    assert_eq!(house.send("crm", &Vec::new(), USER).await, said(401, "BAD_SIGNATURE"));
    for late in [-302, 302] {
        let headers = standard(NEW, "msg_1", now() + late, USER);
        assert_eq!(house.send("crm", &headers, USER).await, said(401, "STALE_TIMESTAMP"));
    }
    for (body, reason) in [("", "PAYLOAD_NOT_JSON"), ("{", "PAYLOAD_NOT_JSON"), (r#"{"user":{}}"#, "BAD_MESSAGE")] {
        assert_eq!(house.send("crm", &standard(NEW, "msg_1", now(), body), body).await, said(400, reason), "{body}");
    }
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat((1 << 20) - 7));
    assert_eq!(house.send("crm", &standard(NEW, "msg_1", now(), &huge), &huge).await, said(413, "ABOVE_CAP"));
    assert_eq!(house.send("nobody", &good(), USER).await, said(404, "NO_SUCH_WEBHOOK"));
    let get = house.client.get(format!("http://{}/hooks/crm", house.app.http_address().unwrap())).send().await.unwrap();
    assert_eq!(get.status().as_u16(), 405);
    assert!(house.jobs().await.is_empty(), "nothing was started");
    // None of them spoilt the id, and a page of another site may bring a message that is signed.
    let mut foreign = good();
    foreign.extend([("origin", "https://evil.example".to_owned()), ("sec-fetch-site", "cross-site".to_owned())]);
    assert_eq!(house.send("crm", &foreign, USER).await, said(202, "accepted"));
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_push_of_github_starts_a_pull_and_a_copy_of_it_does_not() {
    let house = house().await;
    let body = r#"{"ref":"refs/heads/main","repository":{"id":1}}"#;
    assert_eq!(house.send("github", &github("guess", "push", "d1", body), body).await, said(401, "BAD_SIGNATURE"));
    assert_eq!(house.send("github", &github(PLAIN, "ping", "d0", body), body).await, said(200, "NOT_WANTED"));
    assert!(house.shop.arrivals().is_empty(), "nothing was started");
    assert_eq!(house.send("github", &github(PLAIN, "push", "d1", body), body).await, said(202, "accepted"));
    let records = house.records().await;
    let done = until(std::time::Duration::from_secs(60), || {
        let mut records = records.clone();
        async move {
            let request = pb::GetCollectionRequest { name: "items".to_owned() };
            let pull = records.get_collection(request).await.unwrap().into_inner().collection.unwrap().pull?;
            (pull.state() == pb::PullState::Done).then_some(pull)
        }
    });
    let pull = done.await.expect("the pull ends");
    assert_eq!((pull.id, pull.item_count), (1, 25));
    // Its delivery id is not signed: another one does not make it another message.
    let copy = github(PLAIN, "push", "d2", body);
    assert_eq!(house.send("github", &copy, body).await, said(200, "WEBHOOK_REPEATED"));
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_stripe_writes_and_deletes_its_record() {
    let house = house().await;
    let event = |id: &str, kind: &str, data: &str| format!(r#"{{"id":"{id}","type":"{kind}","data":{data}}}"#);
    let get = async || {
        let request = pb::GetRecordRequest { collection: "orders".to_owned(), id: "o1".to_owned() };
        let found = house.records().await.get_record(request).await;
        found.ok().map(|found| found.into_inner().record.unwrap().data)
    };
    let paid = event("evt_1", "paid", r#"{"id":"o1","status":"paid"}"#);
    assert_eq!(house.send("stripe", &stripe(now(), &paid), &paid).await, said(202, "accepted"));
    assert_eq!(get().await.as_deref(), Some(r#"{"id":"o1","status":"paid"}"#));
    let unfit = event("evt_2", "paid", r#"{"id":"o1"}"#);
    assert_eq!(house.send("stripe", &stripe(now(), &unfit), &unfit).await, said(400, "BAD_DOCUMENT"));
    let gone = event("evt_3", "gone", r#"{"id":"o1","status":"gone"}"#);
    assert_eq!(house.send("stripe", &stripe(now(), &gone), &gone).await, said(202, "accepted"));
    assert_eq!(get().await, None);
    // The first event once more, a second later: it does not bring the record back.
    assert_eq!(house.send("stripe", &stripe(now() + 1, &paid), &paid).await, said(200, "WEBHOOK_REPEATED"));
    assert_eq!(get().await, None);
    house.app.stop().await;
}

/// Each place is given back when the body is late, and not only when its connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn senders_that_never_send_their_body_hold_the_places_for_five_seconds() {
    let house = house().await;
    let address = house.app.http_address().unwrap();
    let slow = (0..64).map(|_| async move {
        let mut wire = TcpStream::connect(address).await.unwrap();
        wire.write_all(b"POST /hooks/crm HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").await.unwrap();
        let (mut answer, mut bytes) = (String::new(), [0; 4_096]);
        // The connection may stay open behind the answer.
        while !answer.contains('}') {
            let n = wire.read(&mut bytes).await.unwrap();
            assert_ne!(n, 0, "the connection ended after {answer:?}");
            answer.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
        (wire, answer)
    });
    let answers = futures_util::future::join_all(slow).await;
    for (_, answer) in &answers {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("within 5 s"), "{answer}");
    }
    assert_eq!(house.send("crm", &standard(NEW, "msg_1", now(), USER), USER).await, said(202, "accepted"));
    drop(answers);
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_puts_other_webhooks_in_force() {
    let house = house().await;
    let file = house.folder.path().join("tidegate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[webhooks.crm]", "[webhooks.erp]")).unwrap();
    let done = house.app.reload().run().await.unwrap();
    assert_eq!(done.changes, ["3 webhooks are declared"]);
    let headers = standard(NEW, "msg_1", now(), USER);
    assert_eq!(house.send("crm", &headers, USER).await, said(404, "NO_SUCH_WEBHOOK"));
    assert_eq!(house.send("erp", &headers, USER).await, said(202, "accepted"));
    // One whose secret cannot be used changes nothing.
    std::fs::write(house.folder.path().join("old"), "whsec_short").unwrap();
    let refused = house.app.reload().run().await.unwrap_err().to_string();
    assert!(refused.contains("webhook erp") && !refused.contains("whsec_short"), "{refused}");
    assert_eq!(house.send("erp", &standard(NEW, "msg_2", now(), USER), USER).await, said(202, "accepted"));
    house.app.stop().await;
}
