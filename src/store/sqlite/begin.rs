//! Journaling calls and claiming their jobs. Next: `read`.

use super::bulk::json;
use super::work::Work;
use super::{packed, row, sql};
use crate::model::call::Lane;
use crate::model::flow::Class;
use crate::model::id::{CallId, FlowId};
use crate::model::job::ClaimedJob;
use crate::model::state::Event;
use crate::store::rules::{Core, Stand};
use crate::store::{Begin, Begun, BegunCall, Error, Take};

/// Jobs picked for a begin, and what their call will know of them.
type Picked = Vec<(Core, ClaimedJob)>;

impl Work<'_> {
    pub(super) async fn begin(&mut self, begin: Begin) -> Result<Begun, Error> {
        if begin.permit.epoch < self.desk.epoch {
            return Ok(Begun::default());
        }
        if begin.bare {
            let mut calls = Vec::new();
            for _ in 0..begin.calls_max {
                calls.push(BegunCall { id: CallId(self.numbers.call), jobs: Vec::new() });
                self.numbers.call += 1;
            }
            self.journal(&begin, &calls);
            return Ok(Begun { calls });
        }
        let picked = match begin.lane {
            Lane::Single => self.pick(&begin, begin.calls_max as usize, None).await?,
            Lane::Batch if begin.calls_max == 0 => Vec::new(),
            Lane::Batch => self.pick(&begin, usize::MAX, Some(begin.bytes_max)).await?,
        };
        if picked.is_empty() {
            return Ok(Begun::default());
        }
        let first = self.numbers.call;
        let per_call = if begin.lane == Lane::Single { 1 } else { picked.len() };
        let (jobs, step) = (json(picked.iter().map(|(core, _)| core.id.seq)), i64::from(begin.lane == Lane::Single));
        self.trip.write(sql::BEGIN_JOBS, &[jobs.into(), first.into(), step.into(), self.now.0.into()]);
        let calls = self.begin_calls(picked, per_call);
        self.journal(&begin, &calls);
        Ok(Begun { calls })
    }

    /// Jobs to take, in order: the takes as asked for, within one the oldest turn first.
    async fn pick(&mut self, begin: &Begin, count_max: usize, bytes_max: Option<usize>) -> Result<Picked, Error> {
        self.need_flows(begin.takes.iter().map(|take| take.flow).collect()).await?;
        let mut picked: Picked = Vec::new();
        let mut bytes = 0usize;
        let mut seen: Vec<(FlowId, Class)> = Vec::new();
        for take in &begin.takes {
            let count = (take.count as usize).min(count_max - picked.len());
            // A class of a flow that is asked for twice would meet the same jobs again.
            let again = seen.contains(&(take.flow, take.class));
            if count == 0 || again || !self.may_take(begin, take) {
                continue;
            }
            seen.push((take.flow, take.class));
            let values = [take.flow.0.into(), (take.class as i64).into(), (count as i64).into()];
            for job in self.trip.read(sql::CLAIM, &values).await? {
                let (core, job) = row::ready(&job, take.flow, take.class)?;
                bytes = bytes.saturating_add(job.payload.len());
                if bytes_max.is_some_and(|max| bytes > max && !picked.is_empty()) {
                    return Ok(picked);
                }
                picked.push((core, job));
            }
        }
        Ok(picked)
    }

    fn may_take(&self, begin: &Begin, take: &Take) -> bool {
        // One process, one partition: the fence starts at 0 and never grows here.
        let ours = take.hold.fence >= 0;
        ours && self.flows.get(&take.flow).is_some_and(|flow| {
            !flow.held
                && flow.key.provider == begin.provider
                && flow.key.operation == begin.operation
                && flow.key.account == begin.account
        })
    }

    fn begin_calls(&mut self, picked: Picked, per_call: usize) -> Vec<BegunCall> {
        let mut calls: Vec<BegunCall> = Vec::with_capacity(picked.len() / per_call);
        for (n, (mut core, mut job)) in picked.into_iter().enumerate() {
            if n % per_call == 0 {
                self.packer.section();
                calls.push(BegunCall { id: CallId(self.numbers.call), jobs: Vec::with_capacity(per_call) });
                self.numbers.call += 1;
            }
            let call = calls.last_mut().expect("one was just pushed");
            core.begin(call.id, self.now);
            (job.attempts, job.first_sent_at) = (core.attempts, core.first_sent_at);
            call.jobs.push(job);
            self.packer.changed(&core, Event::Begin, Some((call.id, None)));
            self.count(core.flow, Some((Stand::Ready, core.class)), Some((Stand::Calling, core.class)));
            self.calling.insert(core.id.seq, Some(core));
        }
        calls
    }

    fn journal(&mut self, begin: &Begin, calls: &[BegunCall]) {
        let Some(first) = calls.first() else { return };
        let jobs: Vec<Vec<i64>> = calls.iter().map(|call| call.jobs.iter().map(|job| job.id.seq).collect()).collect();
        let packed = jobs.iter().map(|jobs| packed::hex(&packed::pack(jobs)));
        // Where limits count by key, every call spends something else.
        let own = |call: &BegunCall| packed::spends(&begin.spends(&call.jobs));
        let rows: Vec<(String, Option<String>)> = if begin.keyed.is_empty() {
            packed.map(|jobs| (jobs, None)).collect()
        } else {
            packed.zip(calls.iter().map(own)).collect()
        };
        let values = [
            serde_json::to_string(&rows).expect("texts are JSON").into(),
            first.id.0.into(),
            begin.provider.as_str().into(),
            begin.operation.as_str().into(),
            (begin.lane as i64).into(),
            begin.account.as_str().into(),
            packed::spends(&begin.permit.spends).into(),
            begin.permit.granted_at.0.into(),
            begin.permit.epoch.into(),
            begin.lease_until.0.into(),
            self.now.0.into(),
            i64::from(begin.outside).into(),
        ];
        self.trip.write(sql::INSERT_CALLS, &values);
        self.calls_begun.extend(calls.iter().map(|call| call.id).zip(jobs));
    }
}
