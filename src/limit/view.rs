//! How one limit stands: what status pages show and what the planner computes with. Plain data.

use std::time::Duration;

use super::Correction;
use crate::clock::Timestamp;
use crate::model::call::LimitKey;
use crate::model::flow::Class;

#[derive(Clone, Debug, PartialEq)]
pub struct LimitView {
    pub key: LimitKey,
    /// Permits that may be had in the window at most.
    pub max: u32,
    /// Answered calls that still count, in permits.
    pub used: u32,
    pub in_flight: u32,
    /// Free for the class `bulk` now, in permits.
    pub free: u32,
    /// Free per class, most urgent first, in permits.
    pub free_by_class: [u32; 3],
    /// Permits kept back from each class, most urgent first, for those before it.
    pub kept_by_class: [u32; 3],
    /// Permits that one call costs; at least 1.
    pub cost: u32,
    /// `max` permits per this time in the long run; zero for a cap on calls in flight.
    pub per: Duration,
    /// Steady time at which a used permit returns next; `NEVER` when none is used.
    pub next_free_at: Timestamp,
    /// Steady time until which the provider said "not now".
    pub blocked_until: Option<Timestamp>,
    /// After a refusal, with the calls that go first on the wire: an answer lets more through before `blocked_until`.
    pub is_probing: bool,
    /// What the provider said is left, and its reset (steady).
    pub said: Option<Correction>,
    /// Steady times at which the first used permits return, in order, with their counts: at most 130 clumps.
    pub returns: Vec<(Timestamp, u32)>,
}

impl LimitView {
    /// Permits left, by our count or by the provider's word: whichever is less.
    pub fn left(&self) -> u32 {
        let ours = self.max.saturating_sub(self.used.saturating_add(self.in_flight));
        self.said.map_or(ours, |said| ours.min(said.free(self.in_flight)))
    }

    /// Calls that this limit lets through now for a class.
    pub fn calls(&self, class: Class) -> u32 {
        self.free_by_class[class as usize] / self.cost.max(1)
    }
}
