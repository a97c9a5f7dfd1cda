//! Answers that the provider does not count against some of its limits, as GitHub's 304: those permits return at once.
//!
//! The slot was held from the grant to the answer, so giving it back then is as safe as for a call that was never sent.
//! Must never know: which answers those are; the declaration says. Next: `super`.

use std::sync::Arc;

use super::Caller;
use super::heard::Word;
use crate::clock::Timestamp;
use crate::limiter::spends;
use crate::model::call::{Lane, LimitKey, Permit};
use crate::model::name::{Account, Key};
use crate::model::provider::Operation;

impl Caller {
    /// The limits that do not count an answer of this status.
    pub(super) fn uncounted(
        &self,
        operation: &Operation,
        lane: Lane,
        account: &Account,
        key: Option<&Key>,
        status: Option<u16>,
    ) -> Vec<LimitKey> {
        let Some(status) = status else { return Vec::new() };
        let own = operation.lane(lane).map(|spec| &spec.limits);
        let mut declared = self.provider.limits.iter().chain(own.into_iter().flatten());
        if !declared.any(|limit| limit.not_counted.contains(&status)) {
            return Vec::new();
        }
        let all = spends(&self.provider, operation, lane, account, key);
        let free = all.iter().filter(|spend| spend.limit.not_counted.contains(&status));
        free.map(|spend| spend.key.clone()).collect()
    }

    /// Settles one call of a permit of which some limits do not count it, and says what it spent after all. `None`: all
    /// of them count it, and nothing was settled.
    pub(super) async fn settle_counted(
        &self,
        permit: &Permit,
        uncounted: &[LimitKey],
        sent: bool,
        now: Timestamp,
        word: &Word,
    ) -> Option<Arc<[(LimitKey, u32)]>> {
        let (free, spent): (Vec<_>, Vec<_>) =
            permit.spends.iter().cloned().partition(|(key, _)| uncounted.contains(key));
        if free.is_empty() || !sent {
            return None;
        }
        let part = |spends: Vec<(LimitKey, u32)>| Permit { spends: spends.into(), ..permit.clone() };
        let (free, spent) = (part(free), part(spent));
        self.settle_with(&free, &[], false, now, word).await;
        if !spent.spends.is_empty() {
            self.settle_with(&spent, &[], true, now, word).await;
        }
        Some(spent.spends)
    }
}
