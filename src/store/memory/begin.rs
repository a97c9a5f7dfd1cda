//! Journaling calls and claiming their jobs. Next: `read`.

use super::Work;
use super::read::as_claimed;
use crate::model::call::{Call, Ending, Lane, Permit};
use crate::model::id::CallId;
use crate::model::state::Event;
use crate::store::{Begin, Begun, BegunCall, CALLS_KEPT, Take};

impl Work<'_> {
    pub(super) fn begin(&mut self, begin: Begin) -> Begun {
        if begin.permit.epoch < self.world.epoch {
            return Begun::default();
        }
        if begin.bare {
            return Begun { calls: (0..begin.calls_max).map(|_| self.begin_call(&begin, &[])).collect() };
        }
        let jobs = match begin.lane {
            Lane::Single => self.pick(&begin, begin.calls_max as usize, None),
            Lane::Batch if begin.calls_max == 0 => Vec::new(),
            Lane::Batch => self.pick(&begin, usize::MAX, Some(begin.bytes_max)),
        };
        let per_call = if begin.lane == Lane::Single { 1 } else { jobs.len().max(1) };
        Begun { calls: jobs.chunks(per_call).map(|jobs| self.begin_call(&begin, jobs)).collect() }
    }

    /// Jobs to take, in order: the takes as asked for, within one the oldest turn first.
    fn pick(&self, begin: &Begin, count_max: usize, bytes_max: Option<usize>) -> Vec<i64> {
        let mut picked = Vec::new();
        let mut bytes = 0usize;
        for take in begin.takes.iter().filter(|take| self.may_take(begin, take)) {
            let left = count_max - picked.len();
            let from = (take.flow, take.class, i64::MIN, i64::MIN);
            let to = (take.flow, take.class, i64::MAX, i64::MAX);
            for &(_, _, _, seq) in self.world.ready.range(from..=to).take(left.min(take.count as usize)) {
                // A class of a flow that is asked for twice meets the same jobs again.
                if picked.contains(&seq) {
                    break;
                }
                bytes = bytes.saturating_add(self.world.jobs[&seq].payload.len());
                if bytes_max.is_some_and(|max| bytes > max && !picked.is_empty()) {
                    return picked;
                }
                picked.push(seq);
            }
        }
        picked
    }

    fn may_take(&self, begin: &Begin, take: &Take) -> bool {
        // One process, one partition: the fence starts at 0 and never grows here.
        let ours = take.hold.fence >= 0;
        ours && self.world.flow(take.flow).is_some_and(|flow| {
            !flow.held
                && flow.key.provider == begin.provider
                && flow.key.operation == begin.operation
                && flow.key.account == begin.account
        })
    }

    fn begin_call(&mut self, begin: &Begin, jobs: &[i64]) -> BegunCall {
        self.packer.section();
        self.world.last_call += 1;
        let id = CallId(self.world.last_call);
        for seq in jobs {
            let row = self.world.jobs.get_mut(seq).expect("the ready set holds only jobs that exist");
            row.calls.push(id);
            let excess = row.calls.len().saturating_sub(CALLS_KEPT);
            row.calls.drain(..excess);
            let mut core = row.core.clone();
            core.begin(id, self.now);
            self.packer.changed(&core, Event::Begin, Some((id, None)));
            self.put(core);
        }
        let claimed: Vec<_> = jobs.iter().filter_map(|seq| self.world.jobs.get(seq).map(as_claimed)).collect();
        let permit = Permit { spends: begin.spends(&claimed), ..begin.permit.clone() };
        let call = Call {
            id,
            provider: begin.provider.clone(),
            operation: begin.operation.clone(),
            lane: begin.lane,
            account: begin.account.clone(),
            permit,
            lease_until: begin.lease_until,
            jobs: jobs.to_vec(),
            begun_at: self.now,
            ended_at: None,
            settled_at: None,
            ending: Ending::Open,
            status: None,
            error: None,
            seen: None,
            outside: begin.outside,
        };
        self.world.calls.insert(id, call);
        BegunCall { id, jobs: self.world.claimed(id) }
    }
}
