//! A daemon in a test: real engine, real server, reference store, and a provider that answers as told.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::api::{Api, Options};
use tidegate::clock::Clock;
use tidegate::config;
use tidegate::engine::dice::Dice;
use tidegate::engine::{self, Declared, Handle, Parts, Retention};
use tidegate::grpc::pb::admin_service_client::AdminServiceClient;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::provider_service_client::ProviderServiceClient;
use tidegate::grpc::pb::run_service_client::RunServiceClient;
use tidegate::grpc::{self, Limits, pb};
use tidegate::limiter::local::LocalLimiter;
use tidegate::model::provider::Provider;
use tidegate::model::request::Request;
use tidegate::model::verdict::{Answer, Failure};
use tidegate::outbound::{Connect, ConnectError, Transport};
use tidegate::store::Store;
use tidegate::store::memory::MemoryStore;
use tidegate::telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::{ErrorDetails, StatusExt};

/// Cap of a payload in these tests, small enough to go over it.
pub const PAYLOAD_BYTES_MAX: usize = 10_000;

/// How the provider answers: a status, or not until told otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Says {
    Status(u16),
    Nothing,
}

pub struct House {
    pub engine: Handle,
    pub says: watch::Sender<Says>,
    pub stop: CancellationToken,
    pub channel: Channel,
    pub at: std::net::SocketAddr,
    pub server: JoinHandle<Result<(), grpc::server::ServeError>>,
}

/// A daemon with providers `crm` and `shop`, which have the operations `ping` and `update`.
pub async fn house() -> House {
    house_with(Limits { grace: Duration::from_secs(30), ..Limits::default() }, Arc::new(MemoryStore::new())).await
}

pub async fn house_with(limits: Limits, store: Arc<MemoryStore>) -> House {
    let clock = Clock::system();
    let (says, wire) = watch::channel(Says::Status(200));
    let parts = Parts {
        clock: clock.clone(),
        store: store.clone() as Arc<dyn Store>,
        limiter: Arc::new(LocalLimiter::new(store.info().await.unwrap().epoch)),
        connect: Arc::new(Wire { says: wire, clock }),
        metrics: Arc::new(Metrics::new()),
        dice: Dice::seeded(7),
        retention: Retention::default(),
        collections: Default::default(),
        subscriptions: Default::default(),
        alerts: Default::default(),
        cluster: None,
    };
    let declared = ["crm", "shop"].map(|name| Declared {
        provider: Arc::new(config::provider::parse(&source(name), "test").unwrap().remove(0)),
        source: source(name),
        actor: Some("test".to_owned()),
    });
    let engine = engine::start(parts, declared.into()).await.unwrap();
    let options = Options { payload_bytes_max: PAYLOAD_BYTES_MAX, ..Options::default() };
    let api = Api::new(engine.clone(), options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(grpc::serve(api, Some(listener), None, limits, stop.clone()));
    let channel = Channel::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap();
    House { engine, says, stop, channel, at, server }
}

impl House {
    pub fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone())
    }

    pub fn runs(&self) -> RunServiceClient<Channel> {
        RunServiceClient::new(self.channel.clone())
    }

    pub fn providers(&self) -> ProviderServiceClient<Channel> {
        ProviderServiceClient::new(self.channel.clone())
    }

    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    /// Keeps all jobs of `crm` waiting.
    pub async fn pause(&self) {
        let request = pb::PauseProviderRequest { name: "crm".into() };
        self.providers().pause_provider(request).await.unwrap();
    }

    pub async fn enqueue(&self, job: pb::JobSpec) -> Result<String, Status> {
        let request = pb::EnqueueJobRequest { job: Some(job), ..Default::default() };
        Ok(self.jobs().enqueue_job(request).await?.into_inner().job_id)
    }

    /// Waits until the jobs are settled.
    pub async fn settled(&self, ids: &[String]) -> Vec<pb::Job> {
        let request = pb::WaitJobsRequest { job_ids: ids.to_vec(), ..Default::default() };
        let waited = self.jobs().wait_jobs(request).await.unwrap().into_inner();
        assert!(waited.done, "{:?}", waited.jobs);
        waited.jobs
    }
}

/// A job for `crm/ping`.
pub fn ping() -> pb::JobSpec {
    pb::JobSpec {
        provider: "crm".into(),
        operation: "ping".into(),
        payload: r#"{"n": 1}"#.into(),
        ..Default::default()
    }
}

/// The reason of an error, with its details.
pub fn told(status: &Status) -> (String, ErrorDetails) {
    let details = status.get_error_details();
    let reason = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}")).reason.clone();
    (reason, details)
}

/// A declaration with the operations `ping`, and `update`, whose waiting jobs coalesce.
pub fn source(name: &str) -> String {
    format!(
        r#"
[providers.{name}]
base_url = "http://{name}.example"
retry = {{ attempts = 1 }}
in_flight_max = 8

[providers.{name}.operations.ping]
request = "PUT /ping"
body = "{{payload}}"

[providers.{name}.operations.update]
request = "PUT /users/{{key}}"
body = "{{payload}}"
coalesce = "replace"
"#
    )
}

/// The wire to the providers.
#[derive(Clone, Debug)]
struct Wire {
    says: watch::Receiver<Says>,
    clock: Clock,
}

#[async_trait]
impl Transport for Wire {
    async fn send(&self, _: Request) -> Result<Answer, Failure> {
        let mut says = self.says.clone();
        let says = *says.wait_for(|says| *says != Says::Nothing).await.expect("the house outlives its calls");
        let Says::Status(status) = says else { unreachable!("waited for a status") };
        Ok(Answer {
            status,
            headers: http::HeaderMap::new(),
            body: "{}".into(),
            truncated: false,
            received_at: self.clock.now(),
        })
    }
}

impl Connect for Wire {
    fn connect(&self, _: &Arc<Provider>) -> Result<Arc<dyn Transport>, ConnectError> {
        Ok(Arc::new(self.clone()))
    }
}
