//! A daemon on a stand: engine, store and limiter are real, time is virtual, the wire keeps a log of arrivals.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::clock::{Clock, Timestamp};
use tidegate::engine::dice::Dice;
use tidegate::engine::{self, Declared, Handle, Parts, Retention};
use tidegate::limiter::local::LocalLimiter;
use tidegate::limiter::{self, Acquire, LimitView, Limiter, Seed, Settle, Spend};
use tidegate::model::id::JobId;
use tidegate::model::job::{Job, NewJob};
use tidegate::model::name::{Key, OperationName, ProviderName, Tenant};
use tidegate::model::provider::Provider;
use tidegate::model::request::Request;
use tidegate::model::state::State;
use tidegate::model::verdict::{Answer, Failure, Sent};
use tidegate::outbound::{Connect, ConnectError, Transport};
use tidegate::store::Store;
use tidegate::store::memory::MemoryStore;

use super::shaky::Shaky;

pub const START: Timestamp = Timestamp(1_800_000_000_000_000);

/// One request as the provider saw it.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: Timestamp,
    /// Method and path.
    pub line: String,
    /// Ids of its records.
    pub ids: Vec<String>,
    pub headers: http::HeaderMap,
}

/// What the provider does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Status(u16),
    /// With these headers.
    Said(u16, Vec<(&'static str, String)>),
    /// It arrives, and no answer comes back.
    Lost,
}

type Rule = Box<dyn Fn(&Arrival) -> Reply + Send>;

pub struct Wire {
    clock: Clock,
    delay: Duration,
    arrivals: Mutex<Vec<Arrival>>,
    rule: Mutex<Rule>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

#[derive(Clone, Debug)]
struct Line(Arc<Wire>);

#[async_trait]
impl Transport for Line {
    async fn send(&self, request: Request) -> Result<Answer, Failure> {
        let Line(wire) = self;
        tokio::time::sleep(wire.delay).await;
        let arrival = Arrival {
            at: wire.clock.steady(),
            line: format!("{} {}", request.method, request.url.path()),
            ids: ids(&request.body),
            headers: request.headers,
        };
        let reply = (wire.rule.lock().unwrap())(&arrival);
        wire.arrivals.lock().unwrap().push(arrival);
        tokio::time::sleep(wire.delay).await;
        let (status, said) = match reply {
            Reply::Lost => {
                return Err(Failure { sent: Sent::Maybe, provider_fault: false, reason: "the answer was lost".into() });
            }
            Reply::Status(status) => (status, Vec::new()),
            Reply::Said(status, said) => (status, said),
        };
        let headers = said.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Ok(Answer {
            status,
            headers: headers.collect(),
            body: "{}".into(),
            truncated: false,
            received_at: wire.clock.now(),
        })
    }
}

impl Connect for Line {
    fn connect(&self, _: &Arc<Provider>) -> Result<Arc<dyn Transport>, ConnectError> {
        Ok(Arc::new(self.clone()))
    }
}

/// Ids of a record, or of a list of them.
fn ids(body: &[u8]) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let records = value.as_array().cloned().unwrap_or_else(|| vec![value]);
    records.iter().filter_map(|r| Some(r.get("id")?.as_str()?.to_owned())).collect()
}

/// A limiter that counts what it is asked.
#[derive(Debug)]
pub struct Counted {
    limiter: LocalLimiter,
    asked: AtomicU64,
}

impl Counted {
    async fn new(store: &MemoryStore) -> Arc<Counted> {
        let limiter = LocalLimiter::new(store.info().await.unwrap().epoch);
        Arc::new(Counted { limiter, asked: AtomicU64::new(0) })
    }

    /// Requests for permits and looks at limits so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Limiter for Counted {
    async fn acquire(&self, now: Timestamp, requests: &[Acquire]) -> Result<Vec<limiter::Answer>, limiter::Error> {
        self.count();
        self.limiter.acquire(now, requests).await
    }

    async fn settle(&self, now: Timestamp, settles: &[Settle]) -> Result<(), limiter::Error> {
        self.limiter.settle(now, settles).await
    }

    async fn seed(&self, now: Timestamp, limits: &[Spend], entries: &[Seed]) -> Result<(), limiter::Error> {
        self.limiter.seed(now, limits, entries).await
    }

    async fn peek(&self, now: Timestamp, spends: &[Spend]) -> Result<Vec<LimitView>, limiter::Error> {
        self.count();
        self.limiter.peek(now, spends).await
    }

    fn epoch(&self) -> i64 {
        self.limiter.epoch()
    }
}

pub struct Stand {
    pub clock: Clock,
    pub store: MemoryStore,
    pub engine: Handle,
    pub wire: Arc<Wire>,
    pub limiter: Arc<Counted>,
    declaration: String,
    lives: u64,
}

impl Stand {
    /// `operations` is TOML beside a base URL.
    pub async fn new(operations: &str, delay: Duration) -> Stand {
        Stand::with_refusals(operations, delay, 0).await
    }

    /// The store refuses so many times to journal calls.
    pub async fn with_refusals(operations: &str, delay: Duration, refusals: u32) -> Stand {
        let clock = Clock::tokio(START);
        let wire = Arc::new(Wire {
            clock: clock.clone(),
            delay,
            arrivals: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Reply::Status(200))),
        });
        let declaration = format!("[providers.crm]\nbase_url = \"http://crm.invalid\"\n{operations}");
        let store = MemoryStore::new();
        let limiter = Counted::new(&store).await;
        let engine = start(&clock, &store, &wire, &limiter, &declaration, 0, refusals).await;
        Stand { clock, store, engine, wire, limiter, declaration, lives: 0 }
    }

    /// Kill -9 and a new process after a while.
    pub async fn restart(&mut self, away: Duration) {
        self.engine.supervisor().kill();
        tokio::time::sleep(away).await;
        self.lives += 1;
        self.limiter = Counted::new(&self.store).await;
        self.engine =
            start(&self.clock, &self.store, &self.wire, &self.limiter, &self.declaration, self.lives, 0).await;
    }

    pub fn replies(&self, rule: impl Fn(&Arrival) -> Reply + Send + 'static) {
        *self.wire.rule.lock().unwrap() = Box::new(rule);
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.wire.arrivals.lock().unwrap().clone()
    }

    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Vec<JobId> {
        let accepted = self.engine.enqueue(jobs).await.unwrap();
        accepted.into_iter().map(|e| e.unwrap().id).collect()
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().unwrap()
    }

    pub async fn states(&self, ids: &[JobId]) -> Vec<State> {
        let mut states = Vec::new();
        for id in ids {
            states.push(self.job(*id).await.state);
        }
        states
    }

    /// Lets time pass until none of the jobs waits or calls. Fails after `most`.
    pub async fn settled(&self, ids: &[JobId], most: Duration) -> Vec<State> {
        let end = self.clock.steady() + most;
        loop {
            let states = self.states(ids).await;
            if states.iter().all(|s| !matches!(s, State::Waiting | State::Calling)) {
                return states;
            }
            assert!(self.clock.steady() < end, "still not settled: {states:?}");
            tokio::time::sleep(most / 200).await;
        }
    }
}

/// Its tasks must not go on beside those of the next one.
impl Drop for Stand {
    fn drop(&mut self) {
        self.engine.supervisor().kill();
    }
}

async fn start(
    clock: &Clock,
    store: &MemoryStore,
    wire: &Arc<Wire>,
    limiter: &Arc<Counted>,
    declaration: &str,
    life: u64,
    refusals: u32,
) -> Handle {
    let providers = tidegate::config::provider::parse(declaration, "stand").unwrap_or_else(|p| panic!("{p}"));
    let declared = providers.into_iter().map(|p| Declared {
        provider: Arc::new(p),
        source: declaration.to_owned(),
        actor: Some("stand".to_owned()),
    });
    let parts = Parts {
        clock: clock.clone(),
        store: Arc::new(Shaky { inner: store.clone(), refusals: AtomicU32::new(refusals) }),
        limiter: limiter.clone(),
        connect: Arc::new(Line(wire.clone())),
        metrics: Arc::default(),
        dice: Dice::seeded(life + 1),
        retention: Retention::default(),
        collections: Default::default(),
        subscriptions: Default::default(),
        alerts: Default::default(),
        cluster: None,
    };
    engine::start(parts, declared.collect()).await.unwrap()
}

/// A job of `crm/op` about the record `id`, which is its key.
pub fn job(id: &str) -> NewJob {
    let crm = ProviderName::new("crm").unwrap();
    let mut job = NewJob::new(crm, OperationName::new("op").unwrap(), format!(r#"{{"id":"{id}"}}"#));
    job.key = Some(Key::new(id).unwrap());
    job
}

pub fn of_tenant(mut job: NewJob, tenant: &str) -> NewJob {
    job.tenant = Tenant::new(tenant).unwrap();
    job
}
