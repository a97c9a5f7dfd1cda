//! The call log over REST: what is kept of a call, and what must never be in it. A daemon in this process, and a provider
//! that says back whatever it was told.

use axum::extract::Request;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tidegate::app::App;
use tidegate::config::{self, LoadOptions};

use crate::support::process::until;

const CREDENTIAL: &str = "canary-credential-7f3a/x";

/// Answers with the headers of a limit, the credential, and the body that came.
async fn echo(request: Request) -> impl IntoResponse {
    let credential = request.headers()["authorization"].to_str().unwrap().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let got: Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = json!({ "you_are": credential, "got": got, "refresh_token": "canary-token" }).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("x-ratelimit-remaining", "41"),
        ("x-shop-calls", "2/40"),
        ("set-cookie", "session=canary-cookie"),
    ];
    (headers, said.replace('/', "\\/"))
}

struct House {
    folder: tempfile::TempDir,
    app: App,
}

async fn house() -> House {
    tidegate::app::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback(echo)).await.unwrap() });
    let secret = folder.path().join("secret");
    std::fs::write(&secret, CREDENTIAL).unwrap();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"none\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = {:?}\n\
         [providers.crm]\nbase_url = \"http://{provider}\"\nallow_private = true\nauth = {{ bearer = {{ file = {secret:?} }} }}\n\
         limits = [{{ name = \"shop\", max = 40, per = \"1s\", headers = {{ usage = \"X-Shop-Calls\" }} }}]\n\
         [providers.crm.operations.sync]\nrequest = \"PUT /users/{{key}}\"\nbody = \"{{payload}}\"\nkeep_bytes = 0\n\
         log_bodies = true\nredact = [\"cardNumber\"]\n\
         [providers.crm.operations.quiet]\nrequest = \"PUT /users/{{key}}\"\nbody = \"{{payload}}\"\nkeep_bytes = 0\n",
        folder.path().join("tidegate.db"),
    );
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
    House { app: App::start(config::load(&options).unwrap(), options).await.unwrap(), folder }
}

impl House {
    async fn ask(&self, path: &str, body: Option<Value>) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}{path}", self.app.http_address().unwrap());
        let request = match body {
            Some(body) => client.post(url).header("content-type", "application/json").body(body.to_string()),
            None => client.get(url),
        };
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    }

    async fn deliver(&self, operation: &str, payload: Value) {
        let job = json!({ "provider": "crm", "operation": operation, "key": "7", "payload": payload });
        let id = self.ask("/api/v1/jobs", Some(job)).await["jobId"].as_str().unwrap().to_owned();
        let delivered = until(std::time::Duration::from_secs(20), || async {
            let job = self.ask(&format!("/api/v1/jobs/{id}"), None).await;
            (job["job"]["state"] == "JOB_STATE_DELIVERED").then_some(())
        });
        delivered.await.expect("the job is delivered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_logged_with_latency_limits_and_bodies_and_without_secrets() {
    let house = house().await;
    house.deliver("sync", json!({ "name": "Ada", "Card_Number": "canary-card", "password": "canary-word" })).await;
    house.deliver("quiet", json!({ "name": "Bob" })).await;

    let listed = house.ask("/api/v1/calls", None).await;
    let calls = listed["calls"].as_array().unwrap();
    let operations: Vec<&str> = calls.iter().map(|call| call["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["quiet", "sync"], "newest first");
    for call in calls {
        assert_eq!((&call["provider"], &call["status"], &call["jobCount"]), (&json!("crm"), &json!(200), &json!(1)));
        assert!(call["latency"].as_str().unwrap().ends_with('s'), "{call}");
        let said = [("x-ratelimit-remaining", "41"), ("x-shop-calls", "2/40")];
        let said = said.map(|(name, value)| json!({ "name": name, "value": value }));
        assert_eq!(call["limitHeaders"], json!(said), "those of any limit, and the one that a limit names");
        assert!(call["requestBody"].is_null() && call["answerBody"].is_null(), "a list has no bodies unless asked");
    }

    let full = house.ask(&format!("/api/v1/calls/{}", calls[1]["id"].as_str().unwrap()), None).await;
    let text = |body: &str| serde_json::from_str::<Value>(full["call"][body]["text"].as_str().unwrap()).unwrap();
    let sent = json!({ "name": "Ada", "Card_Number": "[hidden]", "password": "[hidden]" });
    assert_eq!(text("requestBody"), sent);
    assert_eq!(text("answerBody")["got"], sent);
    assert_eq!(text("answerBody")["refresh_token"], "[hidden]");
    assert!(!full.to_string().contains("canary"), "{full}");
    // Where bodies are not asked for, none is kept.
    let quiet = house.ask(&format!("/api/v1/calls/{}", calls[0]["id"].as_str().unwrap()), None).await;
    assert!(quiet["call"]["requestBody"].is_null(), "{quiet}");
    let with_bodies = house.ask("/api/v1/calls?view=VIEW_FULL&filter=operation%20%3D%20sync", None).await;
    assert_eq!(with_bodies["calls"], json!([full["call"]]));

    let slow = house.ask("/api/v1/calls?filter=latency_ms%20%3E%2060000%20OR%20status%20%3E%3D%20300", None).await;
    assert!(slow["calls"].as_array().is_none_or(Vec::is_empty), "{slow}");
    let wrong = house.ask("/api/v1/calls?filter=state%20%3D%20DEAD", None).await;
    assert!(wrong.to_string().contains("no field \\\"state\\\""), "{wrong}");

    // The credential is not in the files of the store, and so neither in the log.
    house.app.stop().await;
    for file in std::fs::read_dir(house.folder.path()).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tidegate.db")) {
            let bytes = std::fs::read(&path).unwrap();
            for secret in [CREDENTIAL, "canary-token", "canary-cookie"] {
                assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} in {}", path.display());
            }
        }
    }
}
