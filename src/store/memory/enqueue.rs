//! Taking jobs in: idempotency, runs, key order, coalescing. Next: `begin`.

use super::{Row, Work};
use crate::model::flow::FlowKey;
use crate::model::id::{FlowId, JobId};
use crate::model::job::NewJob;
use crate::model::state::Event;
use crate::store::rules::{self, Core};
use crate::store::{Accepted, Enqueued, Refusal};

impl Work<'_> {
    pub(super) fn enqueue(&mut self, job: NewJob) -> Result<Enqueued, Refusal> {
        if let Some(first) = self.seen_before(&job)? {
            return Ok(Enqueued { id: first, how: Accepted::Repeated });
        }
        self.check_run(&job)?;
        let hash = job.key.as_ref().map(|key| rules::key_hash(&job.provider, &job.account, key));
        let last = hash.and_then(|hash| self.world.chains.get(&hash)?.last().copied()).map(|(_, seq)| seq);
        let remembered = job.idempotency_key.clone().map(|key| ((job.tenant.clone(), key), rules::fingerprint(&job)));
        let enqueued = match last.filter(|&seq| self.coalesces(seq, &job)) {
            Some(seq) => self.coalesce(seq, job),
            None => self.create(job, hash, last.is_none()),
        };
        if let Some((key, fingerprint)) = remembered {
            self.world.idempotency.insert(key, (fingerprint, enqueued.id));
        }
        Ok(enqueued)
    }

    fn seen_before(&self, job: &NewJob) -> Result<Option<JobId>, Refusal> {
        let Some(key) = job.idempotency_key.clone() else { return Ok(None) };
        match self.world.idempotency.get(&(job.tenant.clone(), key)) {
            Some((fingerprint, first)) if *fingerprint == rules::fingerprint(job) => Ok(Some(*first)),
            Some((_, first)) => Err(Refusal::KeyReused { first: *first }),
            None => Ok(None),
        }
    }

    fn check_run(&self, job: &NewJob) -> Result<(), Refusal> {
        let Some(id) = job.run else { return Ok(()) };
        let run = self.world.runs.get(&id.seq).filter(|run| run.id == id).ok_or(Refusal::NoRun(id))?;
        if run.state.takes_jobs() { Ok(()) } else { Err(Refusal::WrongRunState { id, state: run.state.name() }) }
    }

    /// May the job become part of the last one of its key?
    fn coalesces(&self, last: i64, job: &NewJob) -> bool {
        let row = &self.world.jobs[&last];
        let flow = &self.world.flows[&row.core.flow].0;
        row.core.takes_coalesced(job.coalesce) && row.key == job.key && flow.is_like(&job.flow_key())
    }

    fn coalesce(&mut self, seq: i64, job: NewJob) -> Enqueued {
        let row = self.world.jobs.get_mut(&seq).expect("the chain holds only jobs that exist");
        row.payload = rules::coalesced_payload(job.coalesce, &row.payload, &job.payload);
        row.labels = job.labels;
        row.traceparent = job.traceparent;
        let mut core = row.core.clone();
        core.coalesce(job.class, job.due_at.unwrap_or(self.now), self.now);
        self.packer.changed(&core, Event::Coalesce, None);
        let id = core.id;
        self.put(core);
        Enqueued { id, how: Accepted::Coalesced }
    }

    fn create(&mut self, job: NewJob, key_hash: Option<i64>, first: bool) -> Enqueued {
        let flow = self.flow_id(job.flow_key());
        self.world.last_seq += 1;
        let id = JobId::new(self.now, self.world.last_seq);
        let core = Core::new(id, flow, &job, key_hash, first, self.now);
        self.world.index(&core, true);
        self.world.count(flow, None, Some((core.stand, core.class)));
        self.touched.insert(flow);
        self.packer.enqueued(flow, id.seq);
        let NewJob { key, payload, labels, traceparent, .. } = job;
        self.world.jobs.insert(id.seq, Row { core, key, payload, labels, traceparent, calls: Vec::new() });
        Enqueued { id, how: Accepted::Created }
    }

    fn flow_id(&mut self, key: FlowKey) -> FlowId {
        let next = FlowId(self.world.last_flow + 1);
        let id = *self.world.flow_ids.entry(key.clone()).or_insert(next);
        self.world.last_flow = self.world.last_flow.max(id.0);
        self.world.flows.entry(id).or_insert_with(|| (key, Default::default()));
        id
    }
}
