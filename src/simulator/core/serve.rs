//! What a served call does to its records: each fails by itself, takes effect, or, in a set, is so already.
//!
//! Must never know: limits, time. Next: `super`.

use super::{Core, Judged, RECORDS_MAX, Seen};
use crate::simulator::records::Carried;

impl Judged {
    /// About the call as a whole.
    pub(super) fn of(status: u16) -> Judged {
        Judged { status, failed: Vec::new(), unchanged: Vec::new() }
    }
}

impl Core {
    pub(super) fn is_poisoned(&self, carried: &Carried) -> bool {
        let poison = &self.config.faults.poison;
        !poison.is_empty() && carried.records.iter().any(|r| poison.iter().any(|p| r.id.contains(p.as_str())))
    }

    pub(super) fn serve(&mut self, carried: &Carried, removes: bool) -> Judged {
        let (share, keys) = (self.config.faults.record_failure_share, &self.config.faults.record_failures);
        let (mut failed, mut unchanged) = (Vec::new(), Vec::new());
        let mark = |marks: &mut Vec<bool>, i: usize| {
            marks.resize(carried.records.len(), false);
            marks[i] = true;
        };
        for (i, record) in carried.records.iter().enumerate() {
            if self.dice.falls(share) || keys.iter().any(|k| record.id.contains(k.as_str())) {
                mark(&mut failed, i);
                self.totals.records.failed += 1;
                continue;
            }
            let known = self.seen.get_mut(record.id.as_str());
            if self.config.records.set && known.as_ref().is_some_and(|seen| seen.is_in != removes) {
                mark(&mut unchanged, i);
                self.totals.records.unchanged += 1;
                continue;
            }
            self.totals.records.taken += 1;
            if !self.config.records.keep {
                continue;
            }
            if let Some(seen) = known {
                seen.version = seen.version.max(record.version);
                seen.times += 1;
                seen.is_in = !removes;
            } else if self.seen.len() < RECORDS_MAX {
                let seen = Seen { version: record.version, times: 1, is_in: !removes };
                self.seen.insert(record.id.as_str().into(), seen);
            }
        }
        let status = if !carried.batch && !failed.is_empty() { 422 } else { 200 };
        Judged { status, failed, unchanged }
    }
}
