//! Taking jobs in: what is known of them is looked up for all at once, the rules decide one by one, and all rows are
//! written at once. Next: `begin`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::bulk::json;
use super::row::{self, Columns};
use super::work::Work;
use super::{error, labels_text, sql};
use crate::model::flow::{Flow, FlowKey};
use crate::model::id::{FlowId, JobId};
use crate::model::job::{Coalesce, NewJob, Payload};
use crate::model::name::Key;
use crate::model::state::Event;
use crate::store::rules::{self, Core};
use crate::store::{Accepted, Enqueued, Error, Refusal};

/// The texts of a job.
struct Texts {
    payload: Payload,
    labels: Option<String>,
    traceparent: Option<Arc<str>>,
}

/// The last job of a key: in the database, or new in this batch.
struct Tail {
    core: Core,
    key: Option<Key>,
    /// Position among the new jobs.
    new: Option<usize>,
}

struct NewRow {
    core: Core,
    key: Option<Key>,
    texts: Texts,
    /// Number of its run; 0: none.
    run: i64,
}

/// (tenant, idempotency key), borrowed from the batch.
type Seen = HashMap<(Arc<str>, Arc<str>), ([u8; 32], JobId)>;

#[derive(Default)]
struct Intake {
    flows: HashMap<FlowKey, FlowId>,
    tails: HashMap<i64, Tail>,
    seen: Seen,
    rows: Vec<NewRow>,
    /// Jobs of the database that took a newer one in: as they were, as they are.
    joined: BTreeMap<i64, (Core, Core, Texts)>,
    /// Payloads of the database that may be merged into.
    payloads: HashMap<i64, Payload>,
    remember: Vec<(String, String, [u8; 32], JobId)>,
}

impl Work<'_> {
    pub(super) async fn enqueue_all(&mut self, jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, Refusal>>, Error> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let hash = |job: &NewJob| job.key.as_ref().map(|key| rules::key_hash(&job.provider, &job.account, key));
        let hashes: Vec<Option<i64>> = jobs.iter().map(hash).collect();
        let mut intake = Intake::default();
        self.find_flows(&jobs, &mut intake).await?;
        self.need_runs(jobs.iter().filter_map(|job| Some(job.run?.seq)).collect()).await?;
        self.find_tails(&jobs, &hashes, &mut intake).await?;
        self.find_idempotency(&jobs, &mut intake).await?;
        let mut results = Vec::with_capacity(jobs.len());
        for (job, hash) in jobs.into_iter().zip(hashes) {
            results.push(self.enqueue(job, hash, &mut intake));
        }
        self.save_intake(intake).await?;
        Ok(results)
    }

    fn enqueue(&mut self, job: NewJob, hash: Option<i64>, intake: &mut Intake) -> Result<Enqueued, Refusal> {
        let identity = job.idempotency_key.as_ref().map(|key| identity(&job, key.as_str()));
        let print = identity.as_ref().map(|_| rules::fingerprint(&job));
        match identity.as_ref().and_then(|identity| intake.seen.get(identity)) {
            Some((known, first)) if Some(known) == print.as_ref() => {
                return Ok(Enqueued { id: *first, how: Accepted::Repeated });
            }
            Some((_, first)) => return Err(Refusal::KeyReused { first: *first }),
            None => {}
        }
        self.check_run(&job)?;
        let enqueued = match hash.filter(|hash| self.coalesces(&job, *hash, intake)) {
            Some(hash) => self.join(job, hash, intake),
            None => self.create(job, hash, intake),
        };
        if let (Some(identity), Some(print)) = (identity, print) {
            let (tenant, key) = (identity.0.to_string(), identity.1.to_string());
            intake.remember.push((tenant, key, print, enqueued.id));
            intake.seen.insert(identity, (print, enqueued.id));
        }
        Ok(enqueued)
    }

    fn check_run(&self, job: &NewJob) -> Result<(), Refusal> {
        let Some(id) = job.run else { return Ok(()) };
        let run = self.runs.get(&id.seq).filter(|run| run.id == id).ok_or(Refusal::NoRun(id))?;
        if run.state.takes_jobs() { Ok(()) } else { Err(Refusal::WrongRunState { id, state: run.state.name() }) }
    }

    /// May the job become part of the last one of its key? Same flow but for the part, same key to the letter, and that
    /// one waits.
    fn coalesces(&self, job: &NewJob, hash: i64, intake: &Intake) -> bool {
        intake.tails.get(&hash).is_some_and(|tail| {
            tail.core.takes_coalesced(job.coalesce)
                && tail.key == job.key
                && self.flows.get(&tail.core.flow).is_some_and(|flow| flow.key.is_like(&job.flow_key()))
        })
    }

    /// The job becomes part of the last one of its key.
    fn join(&mut self, job: NewJob, hash: i64, intake: &mut Intake) -> Enqueued {
        let tail = intake.tails.get_mut(&hash).expect("coalesces found it");
        let before = tail.core.clone();
        tail.core.coalesce(job.class, job.due_at.unwrap_or(self.now), self.now);
        self.packer.changed(&tail.core, Event::Coalesce, None);
        let (id, core) = (tail.core.id, tail.core.clone());
        let labels = labels_text(&job.labels);
        let texts = |old: &Payload| Texts {
            payload: rules::coalesced_payload(job.coalesce, old, &job.payload),
            labels: labels.clone(),
            traceparent: job.traceparent.clone(),
        };
        match tail.new {
            Some(at) => {
                let row = &mut intake.rows[at];
                row.texts = texts(&row.texts.payload);
                row.core = core;
            }
            None => {
                let joined = intake.joined.remove(&id.seq);
                let old = match &joined {
                    Some((_, _, texts)) => Some(&texts.payload),
                    None => intake.payloads.get(&id.seq),
                };
                let texts = texts(old.unwrap_or(&job.payload));
                let before = joined.map_or(before, |joined| joined.0);
                intake.joined.insert(id.seq, (before, core, texts));
            }
        }
        Enqueued { id, how: Accepted::Coalesced }
    }

    fn create(&mut self, job: NewJob, key_hash: Option<i64>, intake: &mut Intake) -> Enqueued {
        let flow = self.flow_id(&job, intake);
        let id = JobId::new(self.now, self.numbers.seq);
        self.numbers.seq += 1;
        let first = key_hash.is_none_or(|hash| !intake.tails.contains_key(&hash));
        let core = Core::new(id, flow, &job, key_hash, first, self.now);
        self.packer.enqueued(flow, id.seq);
        if let Some(hash) = key_hash {
            let tail = Tail { core: core.clone(), key: job.key.clone(), new: Some(intake.rows.len()) };
            intake.tails.insert(hash, tail);
        }
        let labels = labels_text(&job.labels);
        let texts = Texts { payload: job.payload, labels, traceparent: job.traceparent };
        let run = job.run.map_or(0, |run| run.seq);
        intake.rows.push(NewRow { core, key: job.key, texts, run });
        Enqueued { id, how: Accepted::Created }
    }

    fn flow_id(&mut self, job: &NewJob, intake: &mut Intake) -> FlowId {
        let key = job.flow_key();
        if let Some(id) = intake.flows.get(&key) {
            return *id;
        }
        let id = FlowId(self.numbers.flow);
        self.numbers.flow += 1;
        let held = job.run.is_some_and(|run| self.runs.get(&run.seq).is_none_or(|run| run.state.holds_jobs()));
        self.flows.insert(id, Flow { id, key: key.clone(), counts: Default::default(), held, version: 0 });
        self.flows_made.insert(key.clone(), id);
        intake.flows.insert(key, id);
        id
    }

    async fn find_flows(&mut self, jobs: &[NewJob], intake: &mut Intake) -> Result<(), Error> {
        let keys: HashSet<FlowKey> = jobs.iter().map(NewJob::flow_key).collect();
        let mut unknown: Vec<(&str, &str, &str, &str, i64, u16)> = Vec::new();
        let mut known = BTreeSet::new();
        for key in &keys {
            match self.flows_made.get(key).copied().or_else(|| self.desk.flow_ids.get(key)) {
                Some(id) => {
                    known.insert(id);
                    intake.flows.insert(key.clone(), id);
                }
                None => unknown.push((
                    key.provider.as_str(),
                    key.operation.as_str(),
                    key.account.as_str(),
                    key.tenant.as_str(),
                    key.run,
                    key.part,
                )),
            }
        }
        self.need_flows(known).await?;
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown = serde_json::to_string(&unknown).expect("texts and numbers are JSON");
        for flow in self.trip.read(sql::FLOWS_BY_KEY, &[unknown.into()]).await? {
            let flow = row::flow(&flow)?;
            intake.flows.insert(flow.key.clone(), flow.id);
            // A working copy from earlier in this commit knows better.
            self.flows.entry(flow.id).or_insert(flow);
        }
        Ok(())
    }

    async fn find_tails(&mut self, jobs: &[NewJob], hashes: &[Option<i64>], intake: &mut Intake) -> Result<(), Error> {
        let wanted: BTreeSet<i64> = hashes.iter().copied().flatten().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        for tail in self.trip.read(sql::TAILS, &[json(wanted).into()]).await? {
            let mut columns = Columns::of(&tail);
            let (core, key) = (columns.core()?, columns.key()?);
            let Some(hash) = core.key_hash else { continue };
            intake.tails.insert(hash, Tail { core, key, new: None });
        }
        // One may stand in a flow of another part, and take a job in all the same.
        if jobs.iter().any(|job| job.coalesce != Coalesce::Never) {
            self.need_flows(intake.tails.values().map(|tail| tail.core.flow).collect()).await?;
        }
        let merges = |(job, hash): (&NewJob, &Option<i64>)| {
            let tail = intake.tails.get(&(*hash)?)?;
            (job.coalesce == Coalesce::Merge).then_some(tail.core.id.seq)
        };
        let merged: BTreeSet<i64> = jobs.iter().zip(hashes).filter_map(merges).collect();
        if merged.is_empty() {
            return Ok(());
        }
        for row in self.trip.read(sql::PAYLOADS, &[json(merged).into()]).await? {
            let mut columns = Columns::of(&row);
            intake.payloads.insert(columns.int()?, columns.text()?);
        }
        Ok(())
    }

    async fn find_idempotency(&mut self, jobs: &[NewJob], intake: &mut Intake) -> Result<(), Error> {
        let named =
            |job: &NewJob| Some((job.tenant.as_str().to_owned(), job.idempotency_key.as_ref()?.as_str().to_owned()));
        let wanted: BTreeSet<(String, String)> = jobs.iter().filter_map(named).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted = serde_json::to_string(&wanted).expect("texts are JSON");
        for row in self.trip.read(sql::IDEMPOTENCY, &[wanted.into()]).await? {
            let mut columns = Columns::of(&row);
            let identity = (columns.text()?, columns.text()?);
            let print = columns.bytes()?;
            let print =
                print.try_into().map_err(|_| error::strange("a fingerprint", format!("{} bytes", print.len())))?;
            let id = JobId { seq: columns.int()?, created_at: columns.time()? };
            intake.seen.insert(identity, (print, id));
        }
        Ok(())
    }

    async fn save_intake(&mut self, intake: Intake) -> Result<(), Error> {
        let bulk = sql::bulk();
        for row in &intake.rows {
            self.count(row.core.flow, None, Some((row.core.stand, row.core.class)));
        }
        let insert = bulk.insert_jobs.write(&mut self.trip, &intake.rows, |cells, row| {
            let core = &row.core;
            cells.int(core.id.seq);
            cells.int(core.id.created_at.0);
            cells.int(core.flow.0);
            cells.int(core.stand as i64);
            cells.int(core.class as i64);
            cells.int(core.turn);
            cells.opt_int(core.key_hash);
            cells.int(i64::from(core.version));
            cells.int(core.due_at.0);
            cells.int(core.updated_at.0);
            cells.opt_str(row.key.as_ref().map(Key::as_str));
            cells.text(&row.texts.payload);
            cells.opt_str(row.texts.labels.as_deref());
            cells.opt_text(row.texts.traceparent.as_ref());
            cells.int(row.run);
        });
        insert.await?;
        if !intake.joined.is_empty() {
            let joined: Vec<(i64, Texts)>;
            let changed: Vec<(Core, Core)>;
            (joined, changed) =
                intake.joined.into_iter().map(|(seq, (old, new, texts))| ((seq, texts), (old, new))).unzip();
            let update = bulk.update_texts.write(&mut self.trip, &joined, |cells, (seq, texts)| {
                cells.int(*seq);
                cells.text(&texts.payload);
                cells.opt_str(texts.labels.as_deref());
                cells.opt_text(texts.traceparent.as_ref());
            });
            update.await?;
            self.save_jobs(changed).await?;
        }
        let remember =
            bulk.insert_idempotency.write(&mut self.trip, &intake.remember, |cells, (tenant, key, print, id)| {
                cells.str(tenant);
                cells.str(key);
                cells.blob(print.to_vec());
                cells.int(id.seq);
                cells.int(id.created_at.0);
            });
        remember.await
    }
}

fn identity(job: &NewJob, key: &str) -> (Arc<str>, Arc<str>) {
    (job.tenant.as_str().into(), key.into())
}
