//! REST as curl and a browser use it: a daemon in this process, its HTTP listener, and answers held to the OpenAPI file.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tidegate::app::App;
use tidegate::config::{self, LoadOptions};
use tidegate::grpc::transcode::openapi;
use tidegate::simulator::{Simulator, SimulatorConfig, SimulatorHandle};

mod routes;

struct House {
    folder: tempfile::TempDir,
    provider: SimulatorHandle,
    app: App,
    client: Client,
}

async fn house() -> House {
    house_with(SimulatorConfig::default(), "").await
}

/// With `more` in its settings, of the provider `crm` first.
async fn house_with(provider: SimulatorConfig, more: &str) -> House {
    tidegate::app::install_crypto();
    let (folder, provider) = (tempfile::tempdir().unwrap(), Simulator::start(provider).await.unwrap());
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"none\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = {:?}\n\
         [providers.crm]\nbase_url = \"{}\"\nallow_private = true\n\
         [providers.crm.operations.sync]\nrequest = \"PUT /users/{{key}}\"\nbody = \"{{payload}}\"\n{more}",
        folder.path().join("tidegate.db"),
        provider.base_url()
    );
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
    let app = App::start(config::load(&options).unwrap(), options).await.unwrap();
    House { folder, provider, app, client: Client::builder().no_proxy().build().unwrap() }
}

impl House {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.http_address().unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        read(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.post(self.url(path)).header("content-type", "application/json");
        read(request.body(body.to_string()).send().await.unwrap()).await
    }

    async fn job(&self, key: &str) -> String {
        let job = json!({"provider": "crm", "operation": "sync", "key": key, "payload": {"id": key}});
        let (status, body) = self.post("/api/v1/jobs", job).await;
        assert_eq!(status, 200, "{body}");
        body["jobId"].as_str().unwrap().to_owned()
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("expected JSON, got {text:?}: {e}")))
}

/// Holds an answer to a schema of the OpenAPI file, by name.
fn fits(name: &str, value: &Value) {
    fits_schema(name, &json!({"$ref": format!("#/components/schemas/{name}")}), value);
}

fn fits_schema(name: &str, schema: &Value, value: &Value) {
    let mut whole = openapi();
    whole.as_object_mut().unwrap().extend(schema.as_object().unwrap().clone());
    let validator = jsonschema::options().should_validate_formats(true).build(&whole).unwrap();
    let wrong: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:?} in {value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_in_as_json_and_its_payload_comes_back_as_json() {
    let house = house().await;
    let id = house.job("u/7").await;
    let (_, waited) = house.post("/api/v1/jobs:wait", json!({"jobIds": [id], "timeout": "20s"})).await;
    assert_eq!(waited["done"], true, "{waited}");
    fits("WaitJobsResponse", &waited);
    let (_, got) = house.get(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!((&got["job"]["state"], &got["job"]["payload"]), (&json!("JOB_STATE_DELIVERED"), &json!({"id": "u/7"})));
    fits("GetJobResponse", &got);
    let (_, list) = house.get("/api/v1/jobs?page_size=1&filter=key%20%3D%20%22u%2F7%22").await;
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_and_status_fits_the_openapi_file() {
    let house = house().await;
    let (id, run) = (house.job("a").await, house.post("/api/v1/runs", json!({"displayName": "r"})).await.1);
    fits("CreateRunResponse", &run);
    let run = run["run"]["id"].as_str().unwrap().to_owned();
    for (path, answer) in [
        (format!("/api/v1/jobs/{id}:explain"), "ExplainJobResponse"),
        ("/api/v1/jobs?view=VIEW_FULL".to_owned(), "ListJobsResponse"),
        ("/api/v1/runs".to_owned(), "ListRunsResponse"),
        (format!("/api/v1/runs/{run}"), "GetRunResponse"),
        ("/api/v1/providers".to_owned(), "ListProvidersResponse"),
        ("/api/v1/providers/crm?view=VIEW_FULL".to_owned(), "GetProviderResponse"),
        ("/api/v1/providers/crm/status".to_owned(), "GetProviderStatusResponse"),
        ("/api/v1/daemon".to_owned(), "GetDaemonResponse"),
        ("/api/v1/events?page_size=100".to_owned(), "ListEventsResponse"),
    ] {
        let (status, body) = house.get(&path).await;
        assert_eq!(status, 200, "{path}: {body}");
        fits(answer, &body);
    }
    // The test can fail: what is not in the schema is refused.
    let schema = openapi()["components"]["schemas"]["GetRunResponse"].clone();
    assert_eq!(schema["additionalProperties"], false);
    let served = house.get("/api/v1/openapi.json").await.1;
    assert_eq!(served, openapi());
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_a_problem_with_a_reason() {
    let house = house().await;
    let check = |got: (u16, Value), status: u16, reason: &str| {
        fits("Problem", &got.1);
        assert_eq!((got.0, got.1["reason"].as_str()), (status, Some(reason)), "{}", got.1);
    };
    check(house.get("/api/v1/jobs/nonsense").await, 400, "BAD_ID");
    check(house.get("/api/v1/providers/none").await, 404, "NO_SUCH_PROVIDER");
    check(house.get("/api/v1/nothing").await, 404, "NO_SUCH_PATH");
    check(house.get("/api/v1/jobs?pge_size=1").await, 400, "UNKNOWN_PARAMETER");
    check(house.post("/api/v1/jobs", json!({"provider": "crm"})).await, 400, "BAD_NAME");
    check(house.post("/api/v1/jobs", json!("x".repeat(5 << 20))).await, 413, "ABOVE_CAP");
    let form = house.client.post(house.url("/api/v1/jobs")).body("{}").send().await.unwrap();
    check(read(form).await, 415, "UNSUPPORTED_MEDIA_TYPE");
    let other = house.client.delete(house.url("/api/v1/jobs")).send().await.unwrap();
    assert_eq!(other.headers()["allow"], "GET, POST");
    check(read(other).await, 405, "OTHER_METHOD");
    let foreign = house.client.post(house.url("/api/v1/providers/crm:pause")).header("origin", "https://evil.example");
    check(read(foreign.send().await.unwrap()).await, 403, "FOREIGN_ORIGIN");
    let rebound = house.client.get(house.url("/api/v1/jobs")).header("host", "evil.example");
    check(read(rebound.send().await.unwrap()).await, 403, "FOREIGN_ORIGIN");
    assert!(!house.get("/api/v1/providers/crm").await.1.to_string().contains("\"paused\":true"));
    house.app.stop().await;
}

/// Reads server-sent events until `enough` says so: `(id, data)` each.
async fn events(response: Response, enough: impl Fn(&Value) -> bool) -> Vec<(String, Value)> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut body, mut text, mut seen) = (response.bytes_stream(), String::new(), Vec::new());
    loop {
        let more = tokio::time::timeout(Duration::from_secs(30), body.next()).await.expect("an event comes");
        text.push_str(std::str::from_utf8(&more.expect("the stream goes on").unwrap()).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| event.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim();
            let data = serde_json::from_str(field("data:")).unwrap_or(Value::Null);
            let id = field("id:").to_owned();
            text = rest.to_owned();
            let last = enough(&data);
            seen.push((id, data));
            if last {
                return seen;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_watches_jobs_and_goes_on_where_it_was() {
    let house = house().await;
    let watch = |last: Option<String>| {
        let request = house.client.get(house.url("/api/v1/jobs:watch")).header("accept", "text/event-stream");
        last.into_iter().fold(request, |request, id| request.header("last-event-id", id)).send()
    };
    let watching = watch(None).await.unwrap();
    house.job("a").await;
    let of = |key: &'static str| {
        move |data: &Value| {
            let text = data.to_string();
            text.contains(&format!("\"{key}\"")) && text.contains("DELIVERED")
        }
    };
    let seen = events(watching, of("a")).await;
    seen.iter().for_each(|(_, data)| fits("WatchJobsResponse", data));
    let last = seen.last().unwrap().0.clone();
    assert!(!last.is_empty());
    house.job("b").await;
    let seen = events(watch(Some(last)).await.unwrap(), of("b")).await;
    assert!(!seen.iter().any(|(_, data)| data.to_string().contains("\"a\"")), "{seen:?}");
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_fed_line_by_line_and_a_bad_line_ends_it_with_a_problem() {
    let house = house().await;
    let run = house.post("/api/v1/runs", json!({"displayName": "r"})).await.1;
    let run = run["run"]["id"].as_str().unwrap().to_owned();
    let job = |key: &str| json!({"provider": "crm", "operation": "sync", "key": key, "payload": {"id": key}});
    let lines = [
        json!({"runId": run, "sequence": 1, "jobs": [job("a"), job("b")]}).to_string(),
        json!({"runId": run, "sequence": 2, "jobs": [job("c")]}).to_string(),
        "{\"sequence\": }".to_owned(),
    ];
    let request = house.client.post(house.url("/api/v1/runs:addJobs")).header("content-type", "application/x-ndjson");
    let answer = request.body(lines.join("\n")).send().await.unwrap().text().await.unwrap();
    let told: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), 3, "{answer}");
    told[..2].iter().for_each(|line| fits("AddRunJobsResponse", line));
    assert_eq!(told[2]["reason"], "BAD_JSON", "{answer}");
    let (_, got) = house.get(&format!("/api/v1/runs/{run}")).await;
    assert!(got.to_string().contains("\"r\""), "{got}");
    house.app.stop().await;
}

/// `docs/openapi.json` is what the daemon serves. `TIDEGATE_BLESS=1` writes it anew.
#[test]
fn the_openapi_file_is_the_one_that_is_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let now = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == now, "docs/openapi.json is old; write it anew with: TIDEGATE_BLESS=1 cargo test --test it rest::");
}
