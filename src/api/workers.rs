//! Workers: who may take jobs of external operations, and what they may say of them.
//!
//! Must never know: proto types, timers of leases. Next: `engine/desk`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Api;
use super::error::{Code, Error, Result};
use crate::clock::Timestamp;
use crate::engine::cluster::inherit::Inherited;
use crate::engine::desk::{WORKERS_MAX, WorkerId};
use crate::model::call::Ending;
use crate::model::id::{CallId, Id};
use crate::model::name::{OperationName, ProviderName};
use crate::model::worker::{Ended, Failed, Offer, Progress, Told, Word, WorkerView};

pub const NAME_BYTES_MAX: usize = 256;
pub const OPERATIONS_MAX: usize = 100;
pub const SEATS_MAX: i32 = 1_000;
pub const RESULT_BYTES_MAX: usize = 256 << 10;
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);
const TEXT_BYTES_MAX: usize = 256;
const REASON_BYTES_MAX: usize = 1_024;
/// What a worker is told to wait whose lease another daemon has: about a beat between daemons.
const ELSEWHERE_WAIT: Duration = Duration::from_secs(1);
/// Heartbeats that may be missing before a lease ends.
const BEATS: u32 = 3;

/// A worker's first word, unchecked.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    pub name: String,
    /// As `crm/review`.
    pub operations: Vec<String>,
    /// 0: 1.
    pub seats: i32,
    pub resume_tokens: Vec<String>,
}

/// How a job could not be done, as a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Retry,
    Rejected,
    Throttled,
}

/// A worker that is here until this is dropped; what it holds then waits for its return.
#[derive(Debug)]
pub struct Worker {
    api: Api,
    id: WorkerId,
    told: mpsc::Receiver<Told>,
    pub heartbeat: Duration,
}

/// What comes next for a worker.
#[derive(Debug)]
pub enum Next {
    Told(Told),
    /// It did not read what it was told, and is let go.
    Unread,
    /// It was not heard for too long.
    Silent,
}

/// What a worker is told first.
#[derive(Debug)]
pub struct Joined {
    pub worker: Worker,
    pub resumed: Vec<Id>,
    pub ended: Vec<Ended>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.api.engine().desk().leave(self.id);
    }
}

impl Api {
    pub async fn join_worker(&self, hello: Hello) -> Result<Joined> {
        if self.is_draining() {
            return Err(Error::draining());
        }
        let (offer, patience) = self.offer(&hello)?;
        if hello.resume_tokens.len() > SEATS_MAX as usize {
            return Err(Error::field("hello.resume_tokens", "TOO_MANY", format!("expected at most {SEATS_MAX}")));
        }
        let tokens =
            hello.resume_tokens.iter().map(|t| token("hello.resume_tokens", t)).collect::<Result<Vec<Id>>>()?;
        // Before it joins: jobs that it brings take seats.
        let mut over = Vec::new();
        for token in tokens.iter().filter(|token| !self.engine().desk().has(**token)) {
            match self.engine().inherit_lease(*token).await? {
                Inherited::Taken => {}
                Inherited::Elsewhere => return Err(elsewhere(*token)),
                Inherited::Over => over.push(*token),
            }
        }
        let Some((id, told)) = self.engine().desk().join(offer, patience) else {
            let said = format!("{WORKERS_MAX} workers are here; no more are taken");
            return Err(Error::new(Code::ResourceExhausted, "TOO_MANY_WORKERS", said));
        };
        let worker = Worker { api: self.clone(), id, told, heartbeat: patience / BEATS };
        let (mut resumed, mut ended) = (Vec::new(), Vec::new());
        for token in tokens {
            match !over.contains(&token) && self.engine().desk().resume(id, token) {
                true => resumed.push(token),
                false => ended.push(self.ended_lease(token).await?),
            }
        }
        Ok(Joined { worker, resumed, ended })
    }

    /// Everybody who takes jobs from this daemon.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.engine().desk().views()
    }

    fn offer(&self, hello: &Hello) -> Result<(Offer, Duration)> {
        let Hello { name, operations, seats, .. } = hello;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let said = format!("expected 1 to {NAME_BYTES_MAX} bytes, got {}", name.len());
            return Err(Error::field("hello.name", "BAD_NAME", said));
        }
        if operations.is_empty() || operations.len() > OPERATIONS_MAX {
            let said = format!("expected 1 to {OPERATIONS_MAX} operations, got {}", operations.len());
            return Err(Error::field("hello.operations", "BAD_COUNT", said));
        }
        let seats = if *seats == 0 { 1 } else { *seats };
        if !(1..=SEATS_MAX).contains(&seats) {
            return Err(Error::field("hello.seats", "BAD_COUNT", format!("expected 1 to {SEATS_MAX}, got {seats}")));
        }
        let (mut serves, mut patience) = (Vec::new(), Duration::MAX);
        for (at, text) in operations.iter().enumerate() {
            let field = format!("hello.operations[{at}]");
            let names = text.split_once('/').and_then(|(provider, operation)| {
                Some((ProviderName::new(provider).ok()?, OperationName::new(operation).ok()?))
            });
            let Some((provider, operation)) = names else {
                return Err(Error::field(field, "BAD_NAME", format!("expected PROVIDER/OPERATION, got {text:?}")));
            };
            let declared = self.engine().registry().operation(&provider, &operation);
            let Some((_, declared)) = declared else {
                return Err(Error::field(field, "UNKNOWN_OPERATION", format!("{text} is not declared")));
            };
            let Some(external) = declared.external else {
                let said = format!("{text} is not declared as external: the daemon carries it out itself");
                return Err(Error::field(field, "NOT_EXTERNAL", said));
            };
            patience = patience.min(external.lease);
            serves.push((provider, operation));
        }
        Ok((Offer { name: name.clone(), serves, seats: seats.unsigned_abs() }, patience))
    }

    /// Of a lease that nobody holds any more: was its end told by a worker?
    async fn ended_lease(&self, token: Id) -> Result<Ended> {
        let call = self.engine().store().call(CallId(token.seq)).await?;
        let call = call.filter(|call| call.outside > 0 && call.permit.granted_at == token.created_at);
        let (recorded, reason) = match call.map(|call| call.ending) {
            Some(Ending::Answered) => (true, ""),
            Some(Ending::Open) => (false, "another daemon gave it out"),
            Some(_) => (false, "the lease ended before anything was said"),
            None => (false, "there is no such lease"),
        };
        Ok(Ended { token, recorded, reason: reason.into() })
    }
}

impl Worker {
    /// What there is to tell, or why there will be nothing more.
    pub async fn next(&mut self) -> Next {
        let (clock, desk) = (self.api.clock().clone(), self.api.engine().desk().clone());
        loop {
            tokio::select! {
                told = self.told.recv() => return told.map_or(Next::Unread, Next::Told),
                () = clock.sleep_until(desk.silent_at(self.id)) => {}
            }
            if clock.steady() >= desk.silent_at(self.id) {
                return Next::Silent;
            }
        }
    }

    /// Something came from it.
    pub fn heard(&self) {
        self.api.engine().desk().heard(self.id);
    }

    /// How far a job is. What is said of a lease that is over is answered by its end.
    pub async fn progress(&self, of: &str, fraction: f64, text: &str) -> Result<Option<Ended>> {
        let token = token("progress.token", of)?;
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        let text = cut(text, TEXT_BYTES_MAX);
        let progress = Progress { fraction, text, said_at: self.api.clock().now() };
        match self.api.engine().desk().note(self.id, token, progress) {
            true => Ok(None),
            false => Ok(Some(self.api.ended_lease(token).await?)),
        }
    }

    pub async fn completed(&self, of: &str, result: &str) -> Result<Option<Ended>> {
        if result.len() > RESULT_BYTES_MAX {
            let said = format!("expected at most {RESULT_BYTES_MAX} bytes, got {}", result.len());
            return Err(Error::field("completed.result", "TOO_LONG", said));
        }
        let result = (!result.is_empty()).then(|| Arc::from(result));
        self.say(token("completed.token", of)?, Word::Done { result }).await
    }

    pub async fn failed(
        &self,
        of: &str,
        reason: &str,
        failure: Failure,
        retry_after: Option<Duration>,
    ) -> Result<Option<Ended>> {
        if retry_after.is_some_and(|wait| wait > RETRY_AFTER_MAX) {
            let said = format!("expected at most {} s", RETRY_AFTER_MAX.as_secs());
            return Err(Error::field("failed.retry_after", "TOO_LONG", said));
        }
        let at: Option<Timestamp> = retry_after.map(|wait| self.api.clock().now() + wait);
        let what = match failure {
            Failure::Retry => Failed::Retry { not_before: at },
            Failure::Rejected => Failed::Rejected,
            Failure::Throttled => Failed::Throttled { until: at },
        };
        let reason = if reason.is_empty() { "its worker says that it failed" } else { reason };
        let word = Word::Failed { reason: cut(reason, REASON_BYTES_MAX), what };
        self.say(token("failed.token", of)?, word).await
    }

    async fn say(&self, token: Id, word: Word) -> Result<Option<Ended>> {
        match self.api.engine().desk().say(self.id, token, word) {
            true => Ok(None),
            false => Ok(Some(self.api.ended_lease(token).await?)),
        }
    }
}

/// Not an end: the worker goes on with the job meanwhile.
fn elsewhere(token: Id) -> Error {
    let said = format!(
        "the daemon that gave lease {token} out is not known to be dead; go back to it, or come again once it is: within \
         seconds"
    );
    Error::new(Code::Unavailable, "LEASE_ELSEWHERE", said).retry_in(ELSEWHERE_WAIT)
}

fn token(field: &str, text: &str) -> Result<Id> {
    text.parse().map_err(|_| Error::field(field, "BAD_TOKEN", "expected the token of a lease"))
}

/// NUL, which databases refuse, becomes U+FFFD.
fn cut(text: &str, bytes_max: usize) -> Arc<str> {
    text[..text.floor_char_boundary(bytes_max)].replace('\0', "\u{fffd}").into()
}
