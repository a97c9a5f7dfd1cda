//! `/metrics` after real work: every family that is declared has been fed, by what it is named after.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::app::App;
use tidegate::config::{self, LoadOptions};
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::simulator::{Latency, Simulator, SimulatorConfig};
use tonic::transport::Channel;

use crate::support::process::until;

/// `crm` has work for an hour, `lent` is declared wider than it is, and nobody listens at `gone`.
fn declarations(base_url: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
socket = "none"

[http]
listen = "127.0.0.1:0"

[providers.crm]
base_url = "{base_url}"
allow_private = true

[providers.crm.operations.sync]
request = "PUT /users/{{key}}"
body = "{{payload}}"
limits = [{{ name = "singles", max = 20, per = "1h" }}]

[providers.crm.operations.sync.batch]
request = "POST /users/batch"
body = {{ users = "{{payloads}}" }}
size = 10
limits = [{{ name = "batches", max = 5, per = "1h" }}]

[providers.lent]
base_url = "{base_url}"
allow_private = true

[providers.lent.operations.post]
request = "POST /events"
body = "{{payload}}"
limits = [{{ name = "events", max = 100, per = "1h" }}]

[collections.items]

[alerts.gone_open]
provider = "gone"
breaker_open = "1s"

[webhooks.ring]
verify = "github"
secrets = [{{ env = "PATH" }}]
record = {{ collection = "items", id = "{{payload.id}}" }}

[providers.gone]
base_url = "http://127.0.0.1:9"
allow_private = true

[providers.gone.operations.ping]
request = "PUT /ping"
retry = {{ base = "10ms", cap = "20ms", attempts = 20 }}
"#
    )
}

struct House {
    app: App,
    url: String,
    client: reqwest::Client,
    jobs: JobServiceClient<Channel>,
}

async fn house(folder: &std::path::Path, base_url: &str) -> House {
    tidegate::app::install_crypto();
    let file = folder.join("tidegate.toml");
    let text = format!("{}\n[store]\npath = {:?}\n", declarations(base_url), folder.join("tidegate.db"));
    std::fs::write(&file, text).unwrap();
    // For the secret of the webhook, which nobody knows: any variable will do.
    let options = LoadOptions::from_process(Some(file));
    let app = App::start(config::load(&options).unwrap(), options).await.unwrap();
    let address = format!("http://{}", app.address().unwrap());
    let jobs = JobServiceClient::connect(address).await.unwrap();
    let url = format!("http://{}/metrics", app.http_address().unwrap());
    House { app, url, client: reqwest::Client::new(), jobs }
}

/// Values by family, each with its labels.
type Families = BTreeMap<String, Vec<(String, f64)>>;

impl House {
    async fn enqueue(&mut self, provider: &str, operation: &str, count: usize) {
        let spec = |n| pb::JobSpec {
            provider: provider.to_owned(),
            operation: operation.to_owned(),
            key: format!("k{n}"),
            payload: format!(r#"{{"id":"k{n}"}}"#),
            ..pb::JobSpec::default()
        };
        let request = pb::EnqueueJobsRequest { jobs: (0..count).map(spec).collect(), ..Default::default() };
        let answer = self.jobs.enqueue_jobs(request).await.unwrap().into_inner();
        assert_eq!(usize::try_from(answer.accepted_count), Ok(count));
    }

    /// What is exposed: declared families with their samples. Of a histogram, count and sum.
    async fn scrape(&self) -> Families {
        let text = self.client.get(&self.url).send().await.unwrap().text().await.unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut families: Families = types.map(|(name, _)| (name.to_owned(), Vec::new())).collect();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (named, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = named.split_once('{').unwrap_or((named, ""));
            let of = |suffix: &str| name.strip_suffix(suffix).filter(|family| families.contains_key(*family));
            let family = of("_total").or_else(|| of("_count")).or_else(|| of("")).map(str::to_owned);
            if let Some(family) = family {
                let sample = (labels.trim_end_matches('}').to_owned(), value.parse().unwrap());
                families.get_mut(&family).unwrap().push(sample);
            }
        }
        families
    }
}

/// The sum of all samples of a family whose labels contain all of these.
fn sum(families: &Families, name: &str, labels: &[&str]) -> f64 {
    let samples = families.get(name).into_iter().flatten();
    samples.filter(|(l, _)| labels.iter().all(|want| l.contains(want))).map(|(_, v)| v).sum()
}

/// What must be seen: family, labels, smallest and largest value.
const EXPECTED: &[(&str, &[&str], f64, f64)] = &[
    ("tidegate_jobs_enqueued", &["crm", "sync"], 300.0, 300.0),
    ("tidegate_jobs_finished", &["crm", "delivered"], 70.0, 70.0),
    ("tidegate_attempts", &["crm", "single", "2xx"], 20.0, 20.0),
    ("tidegate_attempts", &["crm", "batch", "2xx"], 5.0, 5.0),
    ("tidegate_attempts", &["gone", "none"], 5.0, 100.0),
    ("tidegate_throttled", &["lent"], 1.0, 3.0),
    ("tidegate_wait_seconds", &["crm", "cause"], 0.5, 100.0),
    ("tidegate_wait_seconds", &["gone", "breaker"], 0.5, 100.0),
    ("tidegate_webhooks", &["ring", "bad_signature"], 1.0, 1.0),
    ("tidegate_alert_raised", &["gone_open"], 1.0, 1.0),
    ("tidegate_actor_restarts", &["fragile"], 1.0, 1.0),
    ("tidegate_job_wait_seconds", &["crm", "sync"], 70.0, 70.0),
    ("tidegate_job_total_seconds", &["crm", "sync"], 70.0, 70.0),
    ("tidegate_batch_records", &["crm", "sync"], 5.0, 5.0),
    ("http_client_request_duration_seconds", &["crm", "PUT", "\"200\""], 20.0, 20.0),
    ("rpc_server_call_duration_seconds", &["JobService/EnqueueJobs", "\"OK\""], 3.0, 3.0),
    ("rpc_server_call_duration_seconds", &["JobService/GetJob", "\"NOT_FOUND\""], 1.0, 1.0),
    ("rpc_server_call_duration_seconds", &["other", "\"UNIMPLEMENTED\""], 1.0, 1.0),
    ("tidegate_store_commit_seconds", &[], 5.0, 10_000.0),
    ("tidegate_event_readers", &[], 1.0, 1.0),
    ("tidegate_event_lag_events", &[], 0.0, 10_000.0),
    // A daemon alone; tests/it/operate.rs has many.
    ("tidegate_limiter_away", &[], 0.0, 0.0),
    ("tidegate_limiter_epoch", &[], 0.0, 100.0),
    ("tidegate_cluster_daemons", &[], 1.0, 1.0),
    ("tidegate_partitions_held", &[], 0.0, 0.0),
    ("tidegate_queue_jobs", &["crm", "ready"], 230.0, 230.0),
    ("tidegate_queue_oldest_seconds", &["crm"], 0.5, 600.0),
    ("tidegate_drain_forecast_seconds", &["crm"], 3_600.0, 100_000.0),
    ("tidegate_limit_max", &["singles"], 20.0, 20.0),
    ("tidegate_limit_used", &["singles"], 20.0, 20.0),
    ("tidegate_limit_used", &["batches"], 5.0, 5.0),
    ("tidegate_limit_in_flight", &["singles"], 0.0, 0.0),
    ("tidegate_limit_reset_seconds", &["batches"], 3_000.0, 3_600.0),
    ("tidegate_limit_utilization_ratio", &["batches"], 1.0, 1.0),
    ("tidegate_breaker_state", &["crm"], 0.0, 0.0),
    ("tidegate_breaker_state", &["gone"], 1.0, 2.0),
    ("tidegate_build_info", &["version"], 1.0, 1.0),
];

/// What is not as expected.
fn amiss(families: &Families) -> Vec<String> {
    let wrong = EXPECTED.iter().filter_map(|(name, labels, min, max)| {
        let seen = sum(families, name, labels);
        (!(*min..=*max).contains(&seen)).then(|| format!("{name} {labels:?}: {seen} is not {min} to {max}"))
    });
    wrong.collect()
}

/// The exposition leaves out families that were never fed, so the list of them is taken from where they are made.
#[test]
fn no_instrument_is_without_a_line_in_the_table() {
    let source = include_str!("../../src/telemetry/metrics.rs");
    let declared = source.split("to.register(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let expected: Vec<&str> = EXPECTED.iter().map(|(name, ..)| *name).collect();
    let forgotten: Vec<&str> = declared.clone().filter(|name| !expected.contains(name)).collect();
    assert!(declared.count() > 20 && forgotten.is_empty(), "say in EXPECTED what feeds {forgotten:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instrument_is_fed_by_the_work_it_is_named_after() {
    let folder = tempfile::tempdir().unwrap();
    let simulated = SimulatorConfig::default().limit("narrow=rolling:2/1h@POST /events").unwrap();
    let provider = Simulator::start(SimulatorConfig { latency: Latency::none(), ..simulated }).await.unwrap();
    let mut house = house(folder.path(), &provider.base_url()).await;
    let watching = house.jobs.watch_jobs(pb::WatchJobsRequest::default()).await.unwrap();
    house.enqueue("crm", "sync", 300).await;
    house.enqueue("lent", "post", 3).await;
    house.enqueue("gone", "ping", 8).await;
    let nobody = pb::GetJobRequest { job_id: "019aa8c2-7d31-7123-8000-00000000002a".to_owned(), view: 0 };
    house.jobs.get_job(nobody).await.unwrap_err();
    // A message that nobody signed, and one for a webhook that there is not, which makes no label.
    for name in ["ring", "nobody"] {
        let url = house.url.replace("/metrics", &format!("/hooks/{name}"));
        house.client.post(url).body("{}").send().await.unwrap();
    }
    // A method that there is not: clients choose paths, and labels must not grow with them.
    let mut unknown = stranger(&house).await;
    unknown.unary().await;
    let (failed_once, _) = tokio::sync::watch::channel(false);
    house.app.handle().supervisor().actor("fragile", Default::default(), move |beat| {
        let failed_once = failed_once.clone();
        async move {
            if !failed_once.send_replace(true) {
                return Err("the first start goes wrong".to_owned());
            }
            beat.stop.cancelled().await;
            Ok(())
        }
    });
    let seen = until(Duration::from_secs(60), || async {
        let families = house.scrape().await;
        amiss(&families).is_empty().then_some(families)
    })
    .await;
    if seen.is_none() {
        panic!("{:#?}", amiss(&house.scrape().await));
    }
    drop(watching);
    house.app.stop().await;
}

/// A client of a service that does not exist.
struct Stranger(tonic::client::Grpc<Channel>);

async fn stranger(house: &House) -> Stranger {
    let address = format!("http://{}", house.app.address().unwrap());
    Stranger(tonic::client::Grpc::new(Channel::from_shared(address).unwrap().connect().await.unwrap()))
}

impl Stranger {
    async fn unary(&mut self) {
        self.0.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/nobody.v1.Nothing/Nowhere");
        let codec: tonic_prost::ProstCodec<pb::GetDaemonRequest, pb::GetDaemonResponse> = Default::default();
        let request = tonic::Request::new(pb::GetDaemonRequest {});
        self.0.unary(request, path, codec).await.unwrap_err();
    }
}
