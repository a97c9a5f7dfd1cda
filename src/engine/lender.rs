//! Permits in the hands of programs outside: journaled before they are told, given back by whoever settles them, counted
//! from the end of their lease where nobody does.
//!
//! The journal is the truth, as for the daemon's own calls. What stands here is only which of them the limiter counts as
//! in flight for this process: permits of a former process were rebuilt from the journal and are never given back, and
//! of two that settle at the same time one finds it. Must never know: gates, providers' rules, who asks. Next:
//! `gate/outside`, which decides who gets permits; `sweeper`, which ends leases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::EngineError;
use super::writer::Writer;
use crate::clock::{Clock, Timestamp};
use crate::limiter::{Limiter, Said, Settle};
use crate::model::call::{Call, Ending, Lane, LimitKey, Permit};
use crate::model::id::{CallId, Id};
use crate::model::name::{Account, OperationName, ProviderName};
use crate::store::{Begin, FinishCall, Store};

/// Grants that are out at one time. More are refused until some are settled.
pub const GRANTS_MAX: usize = 10_000;

#[derive(Debug)]
pub struct Lender {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub limiter: Arc<dyn Limiter>,
    pub writer: Writer,
    lent: Mutex<BTreeMap<CallId, Lent>>,
}

/// What the limiter counts as in flight for a grant.
#[derive(Debug)]
struct Lent {
    permit: Permit,
    count: u32,
    until: Timestamp,
}

/// What a grant is for.
#[derive(Clone, Debug)]
pub struct Purpose {
    pub provider: ProviderName,
    pub operation: OperationName,
    pub lane: Lane,
    pub account: Account,
}

/// Permits that are out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loan {
    pub token: Id,
    pub count: u32,
    /// Steady.
    pub until: Timestamp,
}

/// What became of the permits, as their holder tells.
#[derive(Clone, Debug, Default)]
pub struct Used {
    pub sent: u32,
    pub status: Option<u16>,
    /// Steady time until which the provider said "not now".
    pub blocked_until: Option<Timestamp>,
    /// The only limit that this is about, when it said.
    pub blocked_limit: Option<String>,
    /// What the answer said about the limits of the grant.
    pub said: Vec<Said>,
}

impl Lender {
    pub fn new(clock: Clock, store: Arc<dyn Store>, limiter: Arc<dyn Limiter>, writer: Writer) -> Self {
        Lender { clock, store, limiter, writer, lent: Mutex::default() }
    }

    pub fn is_full(&self) -> bool {
        self.lent().len() >= GRANTS_MAX
    }

    /// Journals `count` permits, each of which spends `permit`. What cannot be journaled goes back: nobody was told.
    pub async fn lend(
        &self,
        purpose: Purpose,
        permit: Permit,
        count: u32,
        until: Timestamp,
    ) -> Result<Loan, EngineError> {
        let Purpose { provider, operation, lane, account } = purpose;
        let begin = Begin {
            provider,
            operation,
            lane,
            account,
            takes: Vec::new(),
            calls_max: 1,
            bytes_max: 0,
            permit: Permit { spends: times(&permit.spends, count), ..permit.clone() },
            keyed: Arc::from([]),
            bare: true,
            outside: count,
            lease_until: until,
        };
        let begun = self.writer.begin(vec![begin]).await;
        let call = match begun {
            Ok(begun) => begun.into_iter().flat_map(|b| b.calls).next().map(|call| call.id),
            Err(e) => {
                // Whether the journal has it is not known: if it has, the start or the sweeper counts it from its end.
                self.give_back(permit, count).await;
                return Err(e);
            }
        };
        let Some(call) = call else {
            self.give_back(permit, count).await;
            let said = "the limits are being rebuilt from the journal; ask again";
            return Err(EngineError::Unavailable(said.to_owned()));
        };
        let token = Id { created_at: permit.granted_at, seq: call.0 };
        self.lent().insert(call, Lent { permit, count, until });
        Ok(Loan { token, count, until })
    }

    /// The grant behind a token. `None`: there is none, or it is so old that the journal has forgotten it.
    pub async fn find(&self, token: Id) -> Result<Option<Call>, EngineError> {
        let call = self.store.call(CallId(token.seq)).await?;
        let is_it = |c: &Call| c.outside > 0 && c.jobs.is_empty() && c.permit.granted_at == token.created_at;
        Ok(call.filter(is_it))
    }

    /// Ends a grant. False: it had ended before; then only a "not now" is taken from what is told.
    pub async fn settle(&self, call: &Call, used: Used) -> bool {
        let Used { sent, status, blocked_until, blocked_limit, said } = used;
        let lent = if call.ending == Ending::Open { self.lent().remove(&call.id) } else { None };
        let now = self.clock.steady();
        let part = |permit: &Permit, count, sent| Settle {
            // Of a refusal it would have told.
            good: sent && blocked_until.is_none(),
            blocked_until,
            blocked_limit: blocked_limit.clone(),
            said: said.clone(),
            ..Settle::new(permit.clone(), count, sent)
        };
        // First: a 429 must slow everybody at once.
        let settles = match &lent {
            Some(lent) => {
                vec![part(&lent.permit, sent, true), part(&lent.permit, lent.count - sent.min(lent.count), false)]
            }
            // Nothing is in flight for it here; the block counts all the same.
            None => vec![part(&call.permit, 0, false)],
        };
        self.tell(
            now,
            settles.into_iter().filter(|s| s.count > 0 || blocked_until.is_some() || !said.is_empty()).collect(),
        )
        .await;
        if call.ending != Ending::Open {
            return false;
        }
        let ending = if sent == 0 { Ending::NotSent } else { Ending::Answered };
        let spends = (sent > 0 && sent < call.outside).then(|| times(&each(&call.permit.spends, call.outside), sent));
        self.end(call.id, ending, now, status, None, spends).await
    }

    /// The lease of a grant is over and nobody said what became of it: all of it may have been sent, just now.
    pub async fn expire(&self, call: &Call) {
        let error: Arc<str> = "the lease ended before the permits were settled; all count as sent".into();
        let lent = self.lent().remove(&call.id);
        if let Some(Lent { permit, count, .. }) = lent {
            self.tell(self.clock.steady(), vec![whole(permit, count, true)]).await;
        }
        self.end(call.id, Ending::Lost, call.lease_until, None, Some(error), None).await;
    }

    /// Of those that are out here, the ones whose lease is over. A daemon among many is not told of them as nobody's.
    pub fn overdue(&self, now: Timestamp) -> Vec<CallId> {
        self.lent().iter().filter(|(_, lent)| lent.until < now).map(|(id, _)| *id).collect()
    }

    /// Nobody was told of the grant: its permits go back.
    pub async fn take_back(&self, loan: Loan) {
        if let Ok(Some(call)) = self.find(loan.token).await {
            self.settle(&call, Used::default()).await;
        }
    }

    pub async fn give_back(&self, permit: Permit, count: u32) {
        self.tell(self.clock.steady(), vec![whole(permit, count, false)]).await;
    }

    async fn tell(&self, now: Timestamp, settles: Vec<Settle>) {
        if let Err(e) = self.limiter.settle(now, &settles).await {
            // Safe: an unsettled permit stays spent until the limiter is rebuilt.
            tracing::warn!(error = %e, "permits of a program outside could not be settled");
        }
    }

    async fn end(
        &self,
        call: CallId,
        ending: Ending,
        settled_at: Timestamp,
        status: Option<u16>,
        error: Option<Arc<str>>,
        spends: Option<Arc<[(LimitKey, u32)]>>,
    ) -> bool {
        let finish = FinishCall { call, ending, settled_at, status, error, outcomes: Vec::new(), spends, seen: None };
        self.writer.finish(finish).await.is_some_and(|finished| finished.applied)
    }

    fn lent(&self) -> MutexGuard<'_, BTreeMap<CallId, Lent>> {
        self.lent.lock().expect("no panic while held")
    }
}

fn whole(permit: Permit, count: u32, sent: bool) -> Settle {
    Settle { good: false, ..Settle::new(permit, count, sent) }
}

fn times(spends: &[(LimitKey, u32)], count: u32) -> Arc<[(LimitKey, u32)]> {
    spends.iter().map(|(key, cost)| (key.clone(), cost.saturating_mul(count))).collect()
}

fn each(spends: &[(LimitKey, u32)], count: u32) -> Vec<(LimitKey, u32)> {
    spends.iter().map(|(key, cost)| (key.clone(), cost / count.max(1))).collect()
}
