//! One call from request to recorded outcome: the five lines in `Caller::carry`.
//!
//! A caller is a bounded task: the transport ends within the provider's total timeout. Must never know: which job goes
//! next, SQL. Next: `outbound` for the wire, `model::verdict` for what an answer means, `outcome` for what follows.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::Instrument;

use super::collections::Collections;
use super::dice::Dice;
use super::gate::Lessons;
use super::outcome::{Spent, outcome};
use super::writer::Writer;
use crate::clock::{Clock, Timestamp};
use crate::limiter::{Keyed, Limiter, Settle};
use crate::model::call::{Ending, Lane, Permit};
use crate::model::name::{Account, Tenant};
use crate::model::provider::{Operation, Provider};
use crate::model::request::{RenderError, Request, render};
use crate::model::verdict::{Answer, Failure, Health, Judgement, Sent, Verdict, judge};
use crate::outbound::{Credential, Transport};
use crate::plan::batcher::Splitter;
use crate::store::{BegunCall, FinishCall, JobOutcome, Store};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace;

mod credential;
pub mod direct;
pub mod heard;
pub mod lease;
mod log;
mod pages;
mod stays;
mod throttle;
pub mod told;
mod uncounted;

pub use credential::Excused;
pub(super) use credential::REFUSED_AGAIN;
use credential::Sending;
use heard::Word;
use stays::Stays;
pub use throttle::Throttles;

const TOO_SLOW: &str = "the journal or the token was too slow: the lease no longer covers the call";

/// What all calls of a provider share with their gate.
#[derive(Debug)]
pub struct Caller {
    pub clock: Clock,
    pub provider: Arc<Provider>,
    pub transport: Arc<dyn Transport>,
    pub limiter: Arc<dyn Limiter>,
    pub store: Arc<dyn Store>,
    pub writer: Writer,
    pub dice: Dice,
    pub metrics: Arc<Metrics>,
    /// What pages are kept in.
    pub collections: Collections,
    /// "Not now" answers.
    pub throttles: Arc<Throttles>,
    /// What answers said of limits.
    pub told: Arc<told::Board>,
    /// Refusals that teach.
    pub lessons: Arc<Lessons>,
    /// Jobs that were refused for an outdated token, and may go once more for nothing.
    pub excused: Arc<Excused>,
}

/// What the gate wants to know of an ended call.
#[derive(Clone, Debug)]
pub struct Completion {
    pub lane: Lane,
    pub health: Health,
    pub probe: bool,
    /// Steady time until which the provider said "not now".
    pub throttled_until: Option<Timestamp>,
    pub jobs: usize,
    pub error: Option<Arc<str>>,
    /// The account's credential is no good until somebody mends it.
    pub lost_credential: bool,
    /// A token was refused as soon as it was fetched, after the one before it had been refused.
    pub refused_again: bool,
    /// It was in a worker's hands, not on our wire.
    pub leased: bool,
}

/// One begun call and what it is about.
#[derive(Debug)]
pub struct Errand {
    pub call: BegunCall,
    pub operation: Arc<Operation>,
    pub lane: Lane,
    pub account: Account,
    /// The flow's, on the single lane.
    pub tenant: Tenant,
    pub permit: Permit,
    pub lease_until: Timestamp,
    /// Limits that count by key, not acquired yet.
    pub keyed: Arc<[Keyed]>,
    /// The call is a breaker's probe.
    pub probe: bool,
    /// The group's search for bad records.
    pub splitter: Arc<Mutex<Splitter>>,
}

impl Caller {
    /// Runs the call to its recorded end. Tells the gate through `completed` as soon as the wire is free again.
    pub async fn run(&self, errand: Errand, completed: impl FnOnce(Completion)) {
        let span = tracing::info_span!(
            "call",
            otel.kind = "consumer",
            provider = %self.provider.name,
            operation = %errand.operation.name,
            lane = errand.lane.name(),
            call = errand.call.id.0,
            jobs = errand.call.jobs.len(),
        );
        for job in errand.call.jobs.iter().filter(|j| j.traceparent.is_some()) {
            // One job's call is part of its caller's trace; a batch has a trace of its own and points to each.
            match errand.lane {
                Lane::Single => trace::adopt(&span, job.traceparent.as_deref()),
                Lane::Batch => trace::link(&span, job.traceparent.as_deref()),
            }
        }
        self.carry(errand, completed).instrument(span).await;
    }

    async fn carry(&self, mut errand: Errand, completed: impl FnOnce(Completion)) {
        let mut stays = self.hold_back(&mut errand).await;
        if errand.call.jobs.is_empty() {
            return self.nothing_left(errand, stays, completed).await;
        }
        let started = self.clock.steady();
        let Sending { answer, at_fault, credential, lost } = self.send(&errand).await;
        let ended = self.clock.steady();
        let mut judgement =
            judge(&self.provider, &errand.operation, errand.lane, &errand.call.jobs, &answer, self.clock.now());
        if let Some(fault) = at_fault {
            // Only the job that cannot be rendered is at fault; the others go without it.
            judgement.verdicts[fault.job] = Verdict::Rejected { reason: fault.reason.into(), result: None };
        }
        if errand.lane == Lane::Batch {
            search(&errand, &answer, &mut judgement);
        }
        let page = self.page(&errand, &answer, &credential, &mut judgement);
        // After the search, which would take it for a refusal of the records.
        let refused_again = self.excuse(&errand, &answer, &credential, &mut judgement);
        credential::hide(&credential, &mut judgement);
        let word = self.word(&errand, &answer, &mut judgement);
        let throttled_until = word.blocked_until;
        // First: a 429 must slow the gate at once, before the outcome is written.
        self.settle(&mut errand, &mut stays, &answer, ended, &word).await;
        self.count(&errand, &answer, &judgement, ended.since(started));
        let completion = completion(&errand, &judgement, &answer, throttled_until);
        completed(Completion { lost_credential: lost, refused_again, ..completion });
        let (operation, now) = (errand.operation.clone(), self.clock.now());
        let over = |v: &&Verdict| matches!(v, Verdict::Delivered { .. } | Verdict::Rejected { .. });
        let jobs = errand.call.jobs.iter().zip(&judgement.verdicts).filter(|(_, v)| over(v));
        let times: Vec<Duration> = jobs.map(|(job, _)| now.since(job.id.created_at)).collect();
        let seen = self.seen(&errand, &answer, &credential, ended.since(started));
        let finish = FinishCall { seen, ..self.finish(errand, stays, answer, judgement, ended) };
        let page = page.and_then(|page| page.end(&finish));
        let is_last = page.as_ref().is_some_and(|page| page.is_last());
        self.writer.finish_page(finish, page).await;
        if is_last {
            // What no page had is to be swept away.
            self.collections.wake();
        }
        self.metrics.jobs_done(self.provider.name.as_str(), operation.name.as_str(), &times);
    }

    /// None of the jobs may go now: the call ends before its first byte, and gives back what it was given.
    async fn nothing_left(&self, errand: Errand, stays: Stays, completed: impl FnOnce(Completion)) {
        let now = self.clock.steady();
        self.settle_with(&errand.permit, &stays.permits, false, now, &Word::default()).await;
        let Errand { lane, probe, .. } = errand;
        let health = Health::Silent;
        completed(Completion {
            lane,
            health,
            probe,
            throttled_until: None,
            jobs: 0,
            error: None,
            lost_credential: false,
            refused_again: false,
            leased: false,
        });
        let error = stays.outcomes.first().and_then(|o| o.error.clone());
        let Stays { outcomes, .. } = stays;
        let (call, ending) = (errand.call.id, Ending::NotSent);
        self.writer
            .finish(FinishCall {
                call,
                ending,
                settled_at: now,
                status: None,
                error,
                outcomes,
                spends: None,
                seen: None,
            })
            .await;
    }

    async fn send(&self, errand: &Errand) -> Sending {
        if errand.probe {
            self.transport.before_probe(&errand.account);
        }
        // Before the lease is looked at, because a token may have to be waited for.
        let credential = match self.transport.credential(&errand.account).await {
            Ok(credential) => credential,
            Err(none) => return Sending::without(none),
        };
        let (answer, at_fault) = self.send_as(errand, &credential).await;
        Sending { answer, at_fault, credential, lost: false }
    }

    async fn send_as(
        &self,
        errand: &Errand,
        credential: &Credential,
    ) -> (Result<Answer, Failure>, Option<RenderError>) {
        let not_sent = |reason: &str| Err(Failure { sent: Sent::No, provider_fault: false, reason: reason.into() });
        // A first byte only if the lease covers the whole call: else another daemon could begin it beside us.
        if self.clock.steady() + self.provider.timeouts.total > errand.lease_until {
            return (not_sent(TOO_SLOW), None);
        }
        let Errand { operation, lane, account, tenant, call, .. } = errand;
        match render(&self.provider, operation, *lane, account, tenant, &call.jobs) {
            Ok(mut request) => {
                if let Err(reason) = pages::prepare(errand, &mut request) {
                    return (not_sent("the page cannot be asked for"), Some(RenderError { job: 0, reason }));
                }
                let mut answer = self.exchange(request.clone(), credential).await;
                if crate::mutant::on("library-retry") && answer.is_err() {
                    answer = self.transport.send_as(request, credential).await;
                }
                (answer, None)
            }
            Err(fault) => (not_sent("another job of the batch cannot be sent"), Some(fault)),
        }
    }

    /// Sends, within a span of its own where traces are made: the provider may then go on from it.
    async fn exchange(&self, mut request: Request, credential: &Credential) -> Result<Answer, Failure> {
        if !trace::is_on() {
            return self.transport.send_as(request, credential).await;
        }
        let span = trace::client_span(&request.method, &request.url);
        if self.provider.propagate_trace
            && let Some(Ok(parent)) = trace::traceparent(&span).map(|text| http::HeaderValue::from_str(&text))
        {
            request.headers.insert("traceparent", parent);
        }
        let answer = self.transport.send_as(request, credential).instrument(span.clone()).await;
        match &answer {
            Ok(answer) => trace::answered(&span, answer.status),
            Err(failure) => trace::failed(&span, &failure.reason),
        }
        answer
    }

    /// What the answer tells the limiter: numbers, and until when (steady) the provider said "not now", or a growing
    /// penalty when it did not say.
    fn word(&self, errand: &Errand, answer: &Result<Answer, Failure>, judgement: &mut Judgement) -> Word {
        let Errand { operation, lane, account, permit, call, .. } = errand;
        let alone = (*lane == Lane::Single).then(|| call.jobs.first()).flatten();
        let key = alone.and_then(|job| job.key.as_ref());
        let mut word = self.heard(operation, *lane, account, key, answer, &mut judgement.health);
        self.learn(&mut word, judgement.health, permit.granted_at);
        word.costs = self.costs(operation, *lane, account, None, answer);
        word
    }

    async fn settle(
        &self,
        errand: &mut Errand,
        stays: &mut Stays,
        answer: &Result<Answer, Failure>,
        now: Timestamp,
        word: &Word,
    ) {
        let sent = !matches!(answer, Err(Failure { sent: Sent::No, .. })) && !crate::mutant::on("settle-unsent");
        self.settle_with(&errand.permit, &stays.permits, sent, now, word).await;
        if let Some(spent) = uncounted::spent(&errand.permit, &word.costs) {
            // The journal is told too: a restart counts what the provider does.
            errand.permit.spends = spent;
            stays.unspent = true;
        }
    }

    async fn settle_with(&self, permit: &Permit, keyed: &[Permit], sent: bool, now: Timestamp, word: &Word) {
        let permits = std::iter::once(permit).chain(keyed);
        let settle = |p: &Permit| Settle {
            permit: p.clone(),
            count: 1,
            sent,
            good: sent && word.good,
            costs: word.costs.clone(),
            blocked_until: word.blocked_until,
            blocked_limit: word.blocked_limit.clone(),
            said: word.said.clone(),
        };
        let settles: Vec<Settle> = permits.map(settle).collect();
        if let Err(e) = self.limiter.settle(now, &settles).await {
            // Safe: an unsettled permit stays spent until the limiter is rebuilt.
            tracing::warn!(error = %e, "a permit could not be settled");
        }
    }

    fn finish(
        &self,
        errand: Errand,
        stays: Stays,
        answer: Result<Answer, Failure>,
        judgement: Judgement,
        settled_at: Timestamp,
    ) -> FinishCall {
        let now = self.clock.now();
        let spent = match &answer {
            Err(Failure { sent: Sent::No, .. }) => Spent::NotSent,
            _ => Spent::Sent,
        };
        let judged = errand.call.jobs.iter().zip(judgement.verdicts);
        let mut outcomes: Vec<JobOutcome> =
            judged.map(|(job, v)| outcome(job, v, &errand.operation, spent, now, self.dice.roll())).collect();
        let (ending, status, error) = match &answer {
            Ok(a) => (Ending::Answered, Some(a.status), None),
            Err(f) if f.sent == Sent::No => (Ending::NotSent, None, Some(f.reason.clone())),
            Err(f) => (Ending::Lost, None, Some(f.reason.clone())),
        };
        let spends = stays.spends(&errand.permit);
        outcomes.extend(stays.outcomes);
        FinishCall { call: errand.call.id, ending, settled_at, status, error, outcomes, spends, seen: None }
    }

    fn count(&self, errand: &Errand, answer: &Result<Answer, Failure>, judgement: &Judgement, took: Duration) {
        let (provider, operation) = (self.provider.name.as_str(), errand.operation.name.as_str());
        let status = answer.as_ref().ok().map(|a| a.status);
        let method = errand.operation.lane(errand.lane).map_or("", |l| l.method.as_str());
        self.metrics.attempt(provider, errand.lane.name(), status);
        self.metrics.http_call(provider, method, status, took);
        let began_at = self.clock.now() - took;
        let first = errand.call.jobs.iter().filter(|job| job.attempts == 1 && job.throttles == 0);
        self.metrics.jobs_waited(provider, operation, first.map(|job| began_at.since(job.due_at)));
        if errand.lane == Lane::Batch {
            self.metrics.batch_records(provider, operation, errand.call.jobs.len() as u32);
        }
        if matches!(judgement.health, Health::Limiting { .. }) {
            self.metrics.throttled(provider, "");
            tracing::warn!(provider, operation, call = %errand.call.id, "the provider said not now");
        }
        for oddity in &judgement.oddities {
            tracing::warn!(provider, operation, call = %errand.call.id, "{oddity}");
        }
    }
}

/// Tells the search for bad records how the batch fared, and lets it decide whether a refusal of the whole is to be
/// tried in halves or holds for every job.
fn search(errand: &Errand, answer: &Result<Answer, Failure>, judgement: &mut Judgement) {
    let mut splitter = errand.splitter.lock().expect("no panic while held");
    let jobs = errand.call.jobs.len() as u32;
    // A refusal of the whole is one of its only job, or sends all of them back, to be tried in halves.
    let refused = judgement.verdicts.iter().any(|v| matches!(v, Verdict::Split { .. }));
    // What was throttled or lost says nothing about the records.
    if refused || (answer.is_ok() && judgement.health == Health::Good) {
        splitter.ended(jobs, refused);
    }
}

fn completion(
    errand: &Errand,
    judgement: &Judgement,
    answer: &Result<Answer, Failure>,
    throttled_until: Option<Timestamp>,
) -> Completion {
    let error = match (answer, judgement.health) {
        (_, Health::Good) => None,
        (Ok(a), _) => Some(format!("status {}", a.status).into()),
        (Err(f), _) => Some(f.reason.clone()),
    };
    Completion {
        lane: errand.lane,
        health: judgement.health,
        probe: errand.probe,
        throttled_until,
        jobs: errand.call.jobs.len(),
        error,
        lost_credential: false,
        refused_again: false,
        leased: false,
    }
}
