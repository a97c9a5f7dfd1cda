//! The world outside of the daemon, in virtual time: a provider with exact limits, delays, faults and a perfect memory.
//!
//! An arrival is fixed the moment the request is sent: killing the daemon does not call back what the wire has taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate::clock::{Clock, Timestamp};
use tidegate::model::provider::Provider;
use tidegate::model::request::Request;
use tidegate::model::verdict::{Answer, Failure, Sent};
use tidegate::outbound::{Connect, ConnectError, Transport};

/// One record of one request, as the provider saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    pub at: Timestamp,
    pub lane: &'static str,
    pub account: String,
    /// (record id, content number) of every record in the request.
    pub records: Vec<(String, u64)>,
    /// The provider refused the call as a whole or these records of it.
    pub refused: bool,
    pub failed: Vec<String>,
    /// The answer reached the daemon.
    pub answered: bool,
}

/// What goes wrong, and how often, in `[0, 1]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub lost_before: f64,
    pub lost_after: f64,
    pub not_sent: f64,
    pub server_error: f64,
    pub record_failure: f64,
    pub slow: f64,
}

#[derive(Debug)]
pub struct World {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    faults: Faults,
    arrivals: Vec<Arrival>,
    /// (lane, account) -> (max, per): the limits that the provider enforces.
    limits: BTreeMap<&'static str, (usize, Duration)>,
}

/// A request on its way.
struct Departed {
    index: usize,
    there: Duration,
    back: Duration,
    server_error: bool,
    lost: bool,
}

impl World {
    pub fn new(seed: u64, clock: Clock, limits: &[(&'static str, usize, Duration)]) -> Arc<Self> {
        let limits = limits.iter().map(|&(lane, max, per)| (lane, (max, per))).collect();
        let rng = StdRng::seed_from_u64(seed ^ 0x005e_ed0f_700d);
        let state = State { rng, faults: Faults::default(), arrivals: Vec::new(), limits };
        Arc::new(World { clock, state: Mutex::new(state) })
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().unwrap().faults = faults;
    }

    /// All arrivals so far, in the order of their arrival.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let mut all = self.state.lock().unwrap().arrivals.clone();
        all.sort_by_key(|a| a.at);
        all
    }

    /// Sends one request through the simulated wire. Returns what the daemon gets to see.
    async fn carry(&self, request: Request) -> Result<Answer, Failure> {
        let lane = match (request.method.as_str(), request.url.path()) {
            (_, "/users/batch") => "batch",
            ("POST", _) => "add",
            _ => "single",
        };
        let account = request.headers.get("x-account").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let records = records_of(&request.body);
        let Departed { index, there, back, server_error, lost } = match self.depart(lane, account, records) {
            Ok(departed) => departed,
            Err((there, sent, reason)) => {
                tokio::time::sleep(there).await;
                return Err(failure(sent, reason));
            }
        };
        tokio::time::sleep(there).await;
        let throttled = self.over_limit(index);
        tokio::time::sleep(back).await;
        if lost {
            return Err(failure(Sent::Maybe, "no answer"));
        }
        let mut s = self.state.lock().unwrap();
        s.arrivals[index].answered = true;
        let arrival = s.arrivals[index].clone();
        drop(s);
        if throttled {
            return Ok(self.answer(429, "{}".to_owned()));
        }
        if server_error {
            return Ok(self.answer(503, "{}".to_owned()));
        }
        let status = |id: &String| {
            if arrival.failed.contains(id) {
                format!(r#"{{"id":"{id}","error":"no"}}"#)
            } else {
                format!(r#"{{"id":"{id}"}}"#)
            }
        };
        let results: Vec<String> = arrival.records.iter().map(|(id, _)| status(id)).collect();
        let single_failed = lane != "batch" && !arrival.failed.is_empty();
        Ok(self.answer(if single_failed { 422 } else { 200 }, format!(r#"{{"results":[{}]}}"#, results.join(","))))
    }

    /// Throws the dice of one request and fixes its arrival; or says after how long and how it breaks on the way there.
    fn depart(
        &self,
        lane: &'static str,
        account: String,
        records: Vec<(String, u64)>,
    ) -> Result<Departed, (Duration, Sent, &'static str)> {
        let s = &mut *self.state.lock().unwrap();
        let (faults, rng) = (s.faults, &mut s.rng);
        if rng.random_bool(faults.not_sent) {
            return Err((Duration::ZERO, Sent::No, "connection refused"));
        }
        let slow = rng.random_bool(faults.slow);
        let mut delay = || Duration::from_micros(rng.random_range(200..if slow { 1_500_000 } else { 40_000 }));
        let (there, back) = (delay(), delay());
        if rng.random_bool(faults.lost_before) {
            return Err((there, Sent::Maybe, "connection reset"));
        }
        let (server_error, lost) = (rng.random_bool(faults.server_error), rng.random_bool(faults.lost_after));
        let failed = records.iter().filter(|_| rng.random_bool(faults.record_failure)).map(|r| r.0.clone()).collect();
        let at = self.clock.steady() + there;
        s.arrivals.push(Arrival { at, lane, account, records, refused: server_error, failed, answered: false });
        Ok(Departed { index: s.arrivals.len() - 1, there, back, server_error, lost })
    }

    /// The provider's own exact check at the time of the arrival; a call over the limit is refused and takes no effect.
    fn over_limit(&self, index: usize) -> bool {
        let mut s = self.state.lock().unwrap();
        let me = s.arrivals[index].clone();
        let Some(&(max, per)) = s.limits.get(me.lane) else { return false };
        let same = |a: &&Arrival| a.lane == me.lane && a.account == me.account && a.at <= me.at && a.at > me.at - per;
        let over = s.arrivals.iter().filter(same).count() > max;
        s.arrivals[index].refused |= over;
        over
    }

    fn answer(&self, status: u16, body: String) -> Answer {
        Answer {
            status,
            headers: http::HeaderMap::new(),
            body: body.into(),
            truncated: false,
            received_at: self.clock.now(),
        }
    }
}

fn failure(sent: Sent, reason: &str) -> Failure {
    Failure { sent, provider_fault: true, reason: reason.into() }
}

fn records_of(body: &[u8]) -> Vec<(String, u64)> {
    let json: serde_json::Value = serde_json::from_slice(body).expect("the daemon sends JSON");
    let list = json.get("users").and_then(|u| u.as_array().cloned()).unwrap_or_else(|| vec![json.clone()]);
    list.iter().map(|r| (r["id"].as_str().unwrap().to_owned(), r["n"].as_u64().unwrap())).collect()
}

/// The wire of one life of the daemon.
#[derive(Debug, Clone)]
pub struct Wire(pub Arc<World>);

#[async_trait]
impl Transport for Wire {
    async fn send(&self, request: Request) -> Result<Answer, Failure> {
        self.0.carry(request).await
    }
}

impl Connect for Wire {
    fn connect(&self, _: &Arc<Provider>) -> Result<Arc<dyn Transport>, ConnectError> {
        Ok(Arc::new(self.clone()))
    }
}
