//! What may be changed about a provider while it runs: faults, the number of a limit, everything that was counted.
//!
//! Must never know: who asks for it. Next: `super`.

use std::collections::HashMap;

use super::{Core, LimitState};
use crate::clock::Timestamp;
use crate::simulator::config::Faults;
use crate::simulator::dice::Dice;
use crate::simulator::report::Report;

impl Core {
    pub fn set_faults(&mut self, faults: Faults) {
        self.config.faults = faults;
    }

    /// From now on a limit has another number, and no answer says so. False: there is no such limit.
    pub fn set_max(&mut self, now: Timestamp, limit: &str, max: u32) -> bool {
        let Some(limit) = self.limits.iter_mut().find(|l| l.rule.name == limit) else { return false };
        limit.rule.rule = limit.rule.rule.with_max(max);
        for counted in limit.accounts.values_mut().chain([&mut limit.everybody]) {
            counted.enforcer.set_max(now, max);
        }
        true
    }

    /// Forgets everything but the configuration; requests that have not left yet leave without a trace.
    pub fn reset(&mut self, now: Timestamp) {
        self.limits = self.config.limits.iter().map(|rule| LimitState::new(rule.clone(), now)).collect();
        self.dice = Dice::new(self.config.seed);
        self.started_at = now;
        self.seen = HashMap::new();
        self.totals = Report::default();
        self.in_flight = 0;
    }
}
