//! One call that carries no job, from its journal entry to its recorded end. What it is told goes to whoever waits.
//!
//! The same steps as for jobs: journal, credential, send, judge, settle, record. Must never know: who waits, caches.
//! Next: `super::Caller`.

use std::sync::Arc;
use std::time::Duration;

use super::super::gate::direct::{Ask, Reply, Said};
use super::super::handle::EngineError;
use super::super::open_calls;
use super::heard::Word;
use super::{Caller, Completion, Sending, log, uncounted};
use crate::clock::Timestamp;
use crate::model::call::{Ending, Lane, Permit};
use crate::model::verdict::{Answer, Failure, Health, Sent, judge};
use crate::outbound::{NoCredential, Shown};
use crate::store::{Begin, FinishCall};

/// A caller for one call that somebody waits for.
#[derive(Debug)]
pub struct Direct {
    pub caller: Caller,
    /// Until the outcome is recorded.
    pub open: open_calls::Held,
}

/// What it is about, with leave to send it.
#[derive(Debug)]
pub struct Errand {
    pub ask: Ask,
    pub permit: Permit,
    pub lease_until: Timestamp,
    pub probe: bool,
    pub reply: Reply,
}

impl Direct {
    /// How long it took: zero when it could not be journaled, and so was not sent.
    pub async fn carry(self, errand: Errand, completed: impl FnOnce(Completion)) -> Duration {
        let Direct { caller, open: _open } = self;
        let Errand { ask, permit, lease_until, probe, reply } = errand;
        let ended = |health, throttled_until, error, lost_credential| Completion {
            lane: Lane::Single,
            health,
            probe,
            throttled_until,
            jobs: 0,
            error,
            lost_credential,
            refused_again: false,
            leased: false,
        };
        let silent = || ended(Health::Silent, None, None, false);
        let call = match caller.journal(&ask, &permit, lease_until).await {
            Ok(Some(call)) => call,
            other => {
                // Of an error it is not known whether the journal has it; if so, its end counts it when the lease is over.
                caller.settle_with(&permit, &[], false, caller.clock.steady(), &Word::default()).await;
                completed(silent());
                let rebuilt = || EngineError::Unavailable("the limits are being rebuilt; ask again".to_owned());
                let _ = reply.send(Err(other.err().unwrap_or_else(rebuilt)));
                return Duration::ZERO;
            }
        };
        let started = caller.clock.steady();
        let Sending { answer, credential, lost, .. } = if reply.is_closed() {
            Sending::without(NoCredential { reason: "whoever waited for it is gone".into(), for_good: false })
        } else {
            caller.send_direct(&ask, lease_until, probe).await
        };
        let settled_at = caller.clock.steady();
        let jobs = std::slice::from_ref(&ask.job);
        let mut judgement = judge(&caller.provider, &ask.operation, Lane::Single, jobs, &answer, caller.clock.now());
        let refused = judgement.health == Health::Refusing;
        let shown = answer.as_ref().map_or(Shown::Fine, |a| credential.answered(a.status, settled_at));
        let outdated = shown == Shown::Outdated && refused;
        let refused_again = shown == Shown::RefusedAgain && refused;
        if outdated {
            // Nobody's fault: it may go again under the next token.
            judgement.health = Health::Silent;
        }
        let (ending, status, error) = ending(&answer);
        let sent = ending != Ending::NotSent;
        // First: a 429 must slow the gate at once, before anything is written.
        let key = ask.job.key.as_ref();
        let mut word = caller.heard(&ask.operation, Lane::Single, &ask.account, key, &answer, &mut judgement.health);
        caller.learn(&mut word, judgement.health, permit.granted_at);
        let throttled_until = word.blocked_until;
        word.costs = caller.costs(&ask.operation, Lane::Single, &ask.account, key, &answer);
        caller.settle_with(&permit, &[], sent, settled_at, &word).await;
        let spends = uncounted::spent(&permit, &word.costs);
        let method = &ask.request.method;
        caller.metrics.attempt(caller.provider.name.as_str(), Lane::Single.name(), status);
        let took = settled_at.since(started);
        caller.metrics.http_call(caller.provider.name.as_str(), method.as_str(), status, took);
        if throttled_until.is_some() {
            caller.metrics.throttled(caller.provider.name.as_str(), "");
        }
        let blame = match judgement.health {
            Health::Good => None,
            _ => error.clone().or_else(|| status.map(|s| format!("status {s}").into())),
        };
        completed(Completion { refused_again, ..ended(judgement.health, throttled_until, blame, lost) });
        let request = || Some(ask.request.clone());
        let seen = log::seen(&ask.provider, &ask.operation, Lane::Single, &answer, &credential, took, request);
        let said = match (answer, throttled_until) {
            (Ok(answer), Some(until)) => Said::NotNow { until, answer: credential.hide_in(&answer) },
            (Ok(answer), None) if outdated => Said::Outdated(credential.hide_in(&answer)),
            (Ok(answer), None) => Said::Answered(credential.hide_in(&answer)),
            (Err(failure), _) => Said::Failed(failure),
        };
        // Told before it is written: an answer that is known is of use, and a crash in between counts too much only.
        let _ = reply.send(Ok(said));
        let finish = FinishCall { call, ending, settled_at, status, error, outcomes: Vec::new(), spends, seen };
        caller.writer.finish(finish).await;
        took
    }
}

fn ending(answer: &Result<Answer, Failure>) -> (Ending, Option<u16>, Option<Arc<str>>) {
    match answer {
        Ok(answer) => (Ending::Answered, Some(answer.status), None),
        Err(f) if f.sent == Sent::No => (Ending::NotSent, None, Some(f.reason.clone())),
        Err(f) => (Ending::Lost, None, Some(f.reason.clone())),
    }
}

impl Caller {
    async fn send_direct(&self, ask: &Ask, lease_until: Timestamp, probe: bool) -> Sending {
        if probe {
            self.transport.before_probe(&ask.account);
        }
        // Before the lease is looked at, because a token may have to be waited for.
        let credential = match self.transport.credential(&ask.account).await {
            Ok(credential) => credential,
            Err(none) => return Sending::without(none),
        };
        let answer = if self.clock.steady() + self.provider.timeouts.total > lease_until {
            Err(Failure { sent: Sent::No, provider_fault: false, reason: super::TOO_SLOW.into() })
        } else {
            self.exchange(ask.request.clone(), &credential).await
        };
        Sending { answer, at_fault: None, credential, lost: false }
    }

    /// Durable when it returns. `None`: the limits are of an older epoch.
    async fn journal(
        &self,
        ask: &Ask,
        permit: &Permit,
        lease_until: Timestamp,
    ) -> Result<Option<crate::model::id::CallId>, EngineError> {
        let begin = Begin {
            provider: self.provider.name.clone(),
            operation: ask.operation.name.clone(),
            lane: Lane::Single,
            account: ask.account.clone(),
            takes: Vec::new(),
            bare: true,
            calls_max: 1,
            bytes_max: 0,
            permit: permit.clone(),
            keyed: Arc::from([]),
            outside: 0,
            lease_until,
        };
        let begun = self.writer.begin(vec![begin]).await?;
        Ok(begun.into_iter().flat_map(|begun| begun.calls).next().map(|call| call.id))
    }
}
