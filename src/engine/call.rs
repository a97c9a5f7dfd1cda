//! Calls whose answer somebody waits for: from the cache where that is good enough, else one fetch for all who ask for the
//! same.
//!
//! A fetch is a task of its own: who started it may go away, the others get its answer all the same. Must never know: gRPC,
//! how an answer is kept. Next: `outbound/cache`, then `gate/direct`, where a fetch stands in line.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::EngineError;
use super::gate::GateHandle;
use super::gate::direct::{Ask, Said};
use super::handle::Handle;
use super::wall_of;
use crate::clock::Timestamp;
use crate::model::call::Lane;
use crate::model::flow::Class;
use crate::model::id::{FlowId, Id};
use crate::model::invalidation::Which;
use crate::model::job::{ClaimedJob, Payload};
use crate::model::name::{Account, Key, Namespace, OperationName, ProviderName, Tenant};
use crate::model::request::render;
use crate::model::verdict::{Answer, Sent};
use crate::outbound::cache::shelf::Place;
use crate::outbound::cache::{Asked, Cache, Fetched, Found, Kept};
use crate::store::{Change, Refusal};

/// Callers that wait at one time, all providers together.
const CALLERS_MAX: usize = 4_096;
/// How long a refresh that nobody waits for may stand in line.
const REFRESH_WAIT: Duration = Duration::from_secs(30);

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct CallAsk {
    pub provider: ProviderName,
    pub operation: OperationName,
    pub account: Account,
    pub tenant: Tenant,
    pub key: Option<Key>,
    pub payload: Payload,
    pub class: Class,
    /// How long it may wait for the limits.
    pub wait: Duration,
    pub namespace: Namespace,
    /// Not from the cache.
    pub fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    Bypass,
    Miss,
    Hit,
    Revalidated,
    Stale,
}

/// An answer and where it came from.
#[derive(Clone, Debug)]
pub struct Told {
    pub answer: Answer,
    pub cache: CacheStatus,
    /// Wall time at which the provider gave or confirmed it.
    pub answered_at: Timestamp,
    /// How long it stood in line and was on the wire.
    pub waited: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    #[error("no provider {0}")]
    NoProvider(ProviderName),
    #[error("provider {0} has no operation {1} with a single lane")]
    NoOperation(ProviderName, OperationName),
    /// The request cannot be made of what was handed in.
    #[error("{0}")]
    Render(String),
    /// Nothing was sent: no room before the deadline. `earliest`: wall time; `None`: it cannot be said.
    #[error("nothing was sent: {why}")]
    NoRoom { earliest: Option<Timestamp>, why: String },
    /// Nothing was sent: paused, or a secret is missing.
    #[error("nothing was sent: {0}")]
    Refused(String),
    #[error("nothing was sent: {0}")]
    NotSent(String),
    /// It may have happened.
    #[error("the call was sent and its answer was lost: {0}")]
    Lost(String),
    #[error("{0} callers wait already")]
    Busy(usize),
    #[error("{0}")]
    Unavailable(String),
    #[error("the daemon is shutting down")]
    Draining,
}

type Outcome = Result<Arc<Told>, CallError>;

/// A fetch under way, as those see it who wait for it.
#[derive(Clone, Debug)]
struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    /// False: it stands in line.
    on_wire: watch::Receiver<bool>,
}

/// What all calls share.
#[derive(Debug)]
pub struct Calls {
    cache: Cache,
    flights: Mutex<HashMap<Place, Flight>>,
    callers: Semaphore,
}

impl Default for Calls {
    fn default() -> Self {
        Calls { cache: Cache::default(), flights: Mutex::default(), callers: Semaphore::new(CALLERS_MAX) }
    }
}

impl Calls {
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Place, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One fetch: the request, and what the cache knows of it.
#[derive(Clone)]
struct Fetch {
    handle: Handle,
    gate: GateHandle,
    ask: Ask,
    asked: Option<Asked>,
}

impl Handle {
    /// The answer to one call, cached or fetched.
    pub async fn call(&self, ask: CallAsk) -> Outcome {
        let fetch = self.fetch_of(&ask)?;
        let Some(asked) = fetch.asked.clone() else { return self.alone(fetch, ask.wait).await };
        if ask.fresh {
            return self.alone(fetch, ask.wait).await;
        }
        let former = match self.calls().cache.look(&asked, self.clock().now()) {
            Found::Fresh(kept) => return Ok(told(&kept, CacheStatus::Hit)),
            Found::Stale(kept, headers) => {
                let former = headers.map(|headers| (kept.clone(), headers));
                drop(self.flight(fetch, former, REFRESH_WAIT));
                return Ok(told(&kept, CacheStatus::Stale));
            }
            Found::Old(kept, headers) => Some((kept, headers)),
            Found::Nothing => None,
        };
        let _caller = self.calls().callers.try_acquire().map_err(|_| CallError::Busy(CALLERS_MAX))?;
        let deadline = self.clock().steady() + ask.wait;
        loop {
            let left = deadline.since(self.clock().steady());
            let (flight, is_ours) = self.flight(fetch.clone(), former.clone(), left);
            // The line that our own stands in knows our deadline, and says when there would be room.
            let outcome = self.landing(flight, if is_ours { Timestamp::NEVER } else { deadline }).await;
            match &outcome {
                // Whoever began it may have had less time than we have.
                Err(CallError::NoRoom { earliest, .. }) if self.has_time(*earliest, deadline) => {}
                _ => return outcome,
            }
        }
    }

    /// What a flight brings. A refusal if it still stands in line at the deadline (steady): who began it may have more
    /// time. What is on the wire then is waited for, because the wire has a bound of its own.
    async fn landing(&self, flight: Flight, deadline: Timestamp) -> Outcome {
        let Flight { mut outcome, mut on_wire } = flight;
        let in_line_too_long = async {
            self.clock().sleep_until(deadline).await;
            if on_wire.wait_for(|on_wire| !on_wire).await.is_err() {
                // It has ended: its outcome is about to be told.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            landed = outcome.wait_for(Option::is_some) => {
                let cut = || Err(CallError::Unavailable("the fetch was cut off".to_owned()));
                landed.ok().and_then(|outcome| outcome.clone()).unwrap_or_else(cut)
            }
            () = in_line_too_long => {
                let why = "another call for the same still waits for the limits".to_owned();
                Err(CallError::NoRoom { earliest: None, why })
            }
        }
    }

    /// Is there time to wait for room until `earliest` (wall), or at all?
    fn has_time(&self, earliest: Option<Timestamp>, deadline: Timestamp) -> bool {
        let (now, steady) = (self.clock().now(), self.clock().steady());
        steady < deadline && earliest.is_some_and(|at| steady + at.since(now) < deadline)
    }

    /// Throws cached answers away, here at once and elsewhere as soon as the news is there. How many there were here.
    pub async fn invalidate(&self, which: Which, actor: &str) -> Result<usize, EngineError> {
        let before = self.hear_invalidated(&which);
        self.change(Change::Invalidate { which: which.clone(), actor: actor.to_owned() }).await?;
        Ok(before + self.hear_invalidated(&which))
    }

    /// Somebody threw answers away.
    pub(super) fn hear_invalidated(&self, which: &Which) -> usize {
        // Whoever asks from now on must not be told what was fetched before.
        let of_it = |place: &Place| place.namespace == which.namespace && which.holds(&place.key);
        self.calls().flights().retain(|place, _| !of_it(place));
        self.calls().cache.invalidate(which)
    }

    fn fetch_of(&self, ask: &CallAsk) -> Result<Fetch, CallError> {
        if self.is_draining() {
            return Err(CallError::Draining);
        }
        let entry = self.registry().get(&ask.provider).ok_or_else(|| CallError::NoProvider(ask.provider.clone()))?;
        let provider = entry.provider;
        let operation =
            provider.operations.get(&ask.operation).filter(|o| o.single.is_some() && o.external.is_none()).cloned();
        let operation = operation.ok_or_else(|| CallError::NoOperation(ask.provider.clone(), ask.operation.clone()))?;
        let job = unqueued(self, ask.class, ask.key.clone(), ask.payload.clone());
        let jobs = std::slice::from_ref(&job);
        let request = render(&provider, &operation, Lane::Single, &ask.account, &ask.tenant, jobs)
            .map_err(|e| CallError::Render(e.reason))?;
        let whose = format!("{}/{}/{}", provider.name, entry.revision, ask.account);
        let asked = Asked::new(operation.cache, ask.namespace.clone(), &whose, &request, &provider.base_url);
        let (account, class) = (ask.account.clone(), ask.class);
        let (wait_until, on_wire) = (Timestamp::ZERO, watch::Sender::new(false));
        let ask = Ask { provider, operation, account, job, request, class, wait_until, on_wire };
        Ok(Fetch { handle: self.clone(), gate: entry.gate, ask, asked })
    }

    /// A fetch that is shared with nobody.
    async fn alone(&self, fetch: Fetch, wait: Duration) -> Outcome {
        let _caller = self.calls().callers.try_acquire().map_err(|_| CallError::Busy(CALLERS_MAX))?;
        let deadline = self.clock().steady() + wait;
        fetch.run(None, deadline).await.map(Arc::new)
    }

    /// The fetch under way for this place, or a new one; and whether it is a new one.
    fn flight(&self, fetch: Fetch, former: Option<(Arc<Kept>, http::HeaderMap)>, wait: Duration) -> (Flight, bool) {
        let place = fetch.asked.as_ref().map(|asked| asked.place().clone());
        let mut flights = self.calls().flights();
        if let Some(flight) = place.as_ref().and_then(|place| flights.get(place)) {
            return (flight.clone(), false);
        }
        let (tell, outcome) = watch::channel(None);
        let flight = Flight { outcome, on_wire: fetch.ask.on_wire.subscribe() };
        if let Some(place) = &place {
            flights.insert(place.clone(), flight.clone());
        }
        let (handle, mine, deadline) = (self.clone(), flight.clone(), self.clock().steady() + wait);
        self.supervisor().task(async move {
            // Also when the task is cut off: the next one must find no flight that never lands.
            let _landed = Landed { handle, place, flight: mine };
            let outcome = fetch.run(former, deadline).await.map(Arc::new);
            tell.send_replace(Some(outcome));
        });
        (flight, true)
    }
}

struct Landed {
    handle: Handle,
    place: Option<Place>,
    flight: Flight,
}

impl Drop for Landed {
    fn drop(&mut self) {
        let Some(place) = &self.place else { return };
        let mut flights = self.handle.calls().flights();
        // After an invalidation another one may be under way there.
        if flights.get(place).is_some_and(|flight| flight.outcome.same_channel(&self.flight.outcome)) {
            flights.remove(place);
        }
    }
}

impl Fetch {
    /// `former`: an old answer and the headers that ask whether it is still good.
    async fn run(
        self,
        mut former: Option<(Arc<Kept>, http::HeaderMap)>,
        deadline: Timestamp,
    ) -> Result<Told, CallError> {
        let clock = self.handle.clock();
        let cache = &self.handle.calls().cache;
        let started = clock.steady();
        let mut excused = false;
        loop {
            let mark = cache.mark();
            self.ask.on_wire.send_replace(false);
            let mut ask = Ask { wait_until: deadline, ..self.ask.clone() };
            if let Some((_, headers)) = &former {
                ask.request.headers = headers.clone();
            }
            let said = self.gate.direct(ask).await.ok_or(CallError::Draining)?;
            let answer = match said.map_err(CallError::from)? {
                Said::Answered(answer) => answer,
                Said::Outdated(_) if !excused => {
                    excused = true;
                    continue;
                }
                Said::Outdated(answer) => answer,
                // The limits are blocked until then, so the next turn waits in line.
                Said::NotNow { until, .. } if until < deadline => continue,
                Said::NotNow { until, answer } => {
                    let why = format!("the provider said not now with status {}", answer.status);
                    return Err(CallError::NoRoom { earliest: Some(wall_of(clock, until)), why });
                }
                Said::Failed(failure) if failure.sent == Sent::No => {
                    return Err(CallError::NotSent(failure.reason.to_string()));
                }
                Said::Failed(failure) => return Err(CallError::Lost(failure.reason.to_string())),
                Said::NoRoom { earliest, why } => {
                    return Err(CallError::NoRoom { earliest: earliest.map(|at| wall_of(clock, at)), why });
                }
                Said::Refused(why) => return Err(CallError::Refused(why)),
            };
            let (now, waited) = (clock.now(), clock.steady().since(started));
            let Some(asked) = &self.asked else {
                return Ok(Told { answer, cache: CacheStatus::Bypass, answered_at: now, waited });
            };
            match cache.fetched(asked, answer, former.take().map(|(kept, _)| kept), mark, now) {
                Fetched::New(answer) => return Ok(Told { answer, cache: CacheStatus::Miss, answered_at: now, waited }),
                Fetched::Revalidated(kept) => {
                    let answer = kept.answer.clone();
                    return Ok(Told { answer, cache: CacheStatus::Revalidated, answered_at: now, waited });
                }
                // Without conditions, once more.
                Fetched::Unfit => {}
            }
        }
    }
}

/// A job that is in no queue, for what the templates see.
pub(super) fn unqueued(handle: &Handle, class: Class, key: Option<Key>, payload: Payload) -> ClaimedJob {
    let now = handle.clock().now();
    ClaimedJob {
        id: Id::new(now, (handle.dice() * (1u64 << 53) as f64) as i64),
        flow: FlowId(0),
        class,
        key,
        payload,
        version: 1,
        due_at: now,
        attempts: 1,
        crashes: 0,
        throttles: 0,
        first_sent_at: None,
        traceparent: None,
    }
}

fn told(kept: &Kept, cache: CacheStatus) -> Arc<Told> {
    let answer = kept.answer.clone();
    Arc::new(Told { answer, cache, answered_at: kept.stored_at, waited: Duration::ZERO })
}

impl From<EngineError> for CallError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Draining => CallError::Draining,
            EngineError::Busy { waiting } => CallError::Busy(waiting),
            EngineError::Refused(Refusal::NoProvider(name)) => CallError::NoProvider(name),
            other => CallError::Unavailable(other.to_string()),
        }
    }
}
