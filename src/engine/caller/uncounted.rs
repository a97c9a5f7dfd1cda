//! What an answer says that a call has cost: nothing of limits against which the provider does not count it, as GitHub's
//! 304; less or more than was granted where the answer tells.
//!
//! The slot was held from the grant to the answer, so giving some of it back then is as safe as for a call that was never
//! sent. What was spent beyond it counts all the same, though nobody had room for it. Must never know: which answers those
//! are; the declaration says. Next: `super`.

use std::sync::Arc;

use super::Caller;
use crate::limit::cost::{self, Told};
use crate::limiter::spends;
use crate::model::call::{Lane, LimitKey, Permit};
use crate::model::name::{Account, Key};
use crate::model::provider::{Limit, Operation};
use crate::model::verdict::{Answer, Failure};

impl Caller {
    /// The limits of which this answer says that the call has cost something else than was granted, and what.
    pub(super) fn costs(
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
        let told = all.iter().filter_map(|spend| Some((spend.key.clone(), self.told_cost(&spend.limit, answer)?)));
        told.collect()
    }

    /// `None`: as granted.
    fn told_cost(&self, limit: &Limit, answer: &Answer) -> Option<u32> {
        if limit.not_counted.contains(&answer.status) {
            return Some(0);
        }
        let most = limit.kind.max();
        match cost::read(limit.cost_from.as_ref()?, &answer.headers, &answer.body) {
            Told::Nothing => None,
            Told::Cost(cost) if cost <= most => Some(cost),
            // More than there ever is: it has cost all there is, and not a window of years.
            Told::Cost(_) => {
                self.metrics.limit_headers_ignored(self.provider.name.as_str(), 1);
                Some(most)
            }
            Told::Garbage => {
                self.metrics.limit_headers_ignored(self.provider.name.as_str(), 1);
                None
            }
        }
    }
}

/// What a call spent of a permit after all, for the journal; `None`: what was granted.
pub(super) fn spent(permit: &Permit, costs: &[(LimitKey, u32)]) -> Option<Arc<[(LimitKey, u32)]>> {
    let cost = |key: &LimitKey, granted: u32| costs.iter().find(|(of, _)| of == key).map_or(granted, |(_, cost)| *cost);
    let spent = permit.spends.iter().map(|(key, granted)| (key.clone(), cost(key, *granted)));
    let spent: Arc<[_]> = spent.filter(|(_, cost)| *cost > 0).collect();
    (spent != permit.spends).then_some(spent)
}
