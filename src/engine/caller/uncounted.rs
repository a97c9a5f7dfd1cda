//! Permits that an answer gives back: of answers that the provider does not count against some of its limits, as GitHub's
//! 304, all of them; of a call that cost less than the most it may, what is left.
//!
//! The slot was held from the grant to the answer, so giving it back then is as safe as for a call that was never sent.
//! Must never know: which answers those are; the declaration says. Next: `super`.

use std::sync::Arc;

use super::Caller;
use super::heard::Word;
use crate::clock::Timestamp;
use crate::limit::cost::{self, Told};
use crate::limiter::spends;
use crate::model::call::{Lane, LimitKey, Permit};
use crate::model::name::{Account, Key};
use crate::model::provider::{Limit, Operation};
use crate::model::verdict::{Answer, Failure};

impl Caller {
    /// The limits that get permits back after this answer, and how many.
    pub(super) fn returned(
        &self,
        operation: &Operation,
        lane: Lane,
        account: &Account,
        key: Option<&Key>,
        answer: &Result<Answer, Failure>,
    ) -> Vec<(LimitKey, u32)> {
        let Ok(answer) = answer else { return Vec::new() };
        let speaks = |limit: &Arc<Limit>| limit.not_counted.contains(&answer.status) || limit.cost_from.is_some();
        let own = operation.lane(lane).map(|spec| &spec.limits);
        if !self.provider.limits.iter().chain(own.into_iter().flatten()).any(speaks) {
            return Vec::new();
        }
        let all = spends(&self.provider, operation, lane, account, key);
        let back = all.iter().map(|spend| (spend.key.clone(), self.left_over(&spend.limit, answer)));
        back.filter(|(_, left)| *left > 0).collect()
    }

    /// Permits of the limit that a call did not cost after all.
    fn left_over(&self, limit: &Limit, answer: &Answer) -> u32 {
        let most = limit.cost.max(1);
        if limit.not_counted.contains(&answer.status) {
            return most;
        }
        let Some(source) = &limit.cost_from else { return 0 };
        match cost::read(source, &answer.headers, &answer.body) {
            Told::Nothing => 0,
            Told::Cost(cost) if cost <= most => most - cost,
            // It cost more than was declared to be the most: what is held is all there is to count.
            Told::Cost(_) | Told::Garbage => {
                self.metrics.limit_headers_ignored(self.provider.name.as_str(), 1);
                0
            }
        }
    }

    /// Settles one call of a permit of which some comes back, and says what it spent after all. `None`: nothing comes back,
    /// and nothing was settled.
    pub(super) async fn settle_counted(
        &self,
        permit: &Permit,
        returned: &[(LimitKey, u32)],
        sent: bool,
        now: Timestamp,
        word: &Word,
    ) -> Option<Arc<[(LimitKey, u32)]>> {
        let back = |key: &LimitKey| returned.iter().find(|(of, _)| of == key).map_or(0, |(_, left)| *left);
        let split =
            |(key, n): &(LimitKey, u32)| ((key.clone(), back(key).min(*n)), (key.clone(), n - back(key).min(*n)));
        let (mut free, mut spent): (Vec<_>, Vec<_>) = permit.spends.iter().map(split).unzip();
        free.retain(|(_, n)| *n > 0);
        spent.retain(|(_, n)| *n > 0);
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
