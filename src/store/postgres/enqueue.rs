//! Taking jobs in: what is known of them is locked and looked up for all at once, the rules decide one by one under
//! numbers of their own, and then the database gives out the real ones as all rows are written at once.
//!
//! The order of a key among daemons: whoever adds to a key holds the row of its first job (`heads.sql`); a key without one
//! gets its first job by `job_head`, which two daemons cannot both fill. Either way the second sees what the first did.
//! Next: `begin`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::arrays::{opt_text, text};
use super::error::Trouble;
use super::row::Columns;
use super::work::{Step, Work};
use super::{error, labels_text, sql};
use crate::model::flow::FlowKey;
use crate::model::id::{FlowId, JobId};
use crate::model::job::{Coalesce, NewJob, Payload};
use crate::model::name::Key;
use crate::model::run::Run;
use crate::model::state::Event;
use crate::store::rules::{self, Core};
use crate::store::{Accepted, Enqueued, Refusal};

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
    flow: FlowKey,
    key: Option<Key>,
    texts: Texts,
    named: bool,
}

struct Joined {
    before: Core,
    after: Core,
    texts: Texts,
    named: bool,
}

/// Which job an enqueue came to be, or became part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    New(usize),
    Old(JobId),
}

/// What was written to the log, in order, before the numbers were known.
enum Told {
    Created(usize),
    Coalesced(Which, Box<Core>),
}

type Identity = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Intake {
    runs: BTreeMap<i64, Run>,
    flows: HashMap<FlowKey, FlowId>,
    /// Flows to make, in the order of their first jobs.
    new_flows: Vec<FlowKey>,
    tails: HashMap<i64, Tail>,
    seen: HashMap<Identity, ([u8; 32], Which)>,
    rows: Vec<NewRow>,
    /// Jobs of the database that took a newer one in.
    joined: BTreeMap<i64, Joined>,
    /// Payloads of the database that may be merged into.
    payloads: HashMap<i64, Payload>,
    remember: BTreeMap<Identity, ([u8; 32], Which)>,
    told: Vec<Told>,
}

impl Work<'_> {
    pub(super) async fn enqueue_all(&mut self, jobs: &[NewJob]) -> Step<Vec<Result<Enqueued, Refusal>>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let hash = |job: &NewJob| job.key.as_ref().map(|key| rules::key_hash(&job.provider, &job.account, key));
        let hashes: Vec<Option<i64>> = jobs.iter().map(hash).collect();
        let mut intake = Intake {
            runs: self.keep_runs(jobs.iter().filter_map(|job| Some(job.run?.seq)).collect()).await?,
            ..Intake::default()
        };
        self.find_flows(jobs, &mut intake).await?;
        self.find_tails(jobs, &hashes, &mut intake).await?;
        self.find_idempotency(jobs, &mut intake).await?;
        let mut results = Vec::with_capacity(jobs.len());
        for (job, hash) in jobs.iter().zip(hashes) {
            results.push(self.enqueue(job, hash, &mut intake));
        }
        self.save_intake(&mut intake).await?;
        let id = |which: Which| match which {
            Which::New(at) => intake.rows[at].core.id,
            Which::Old(id) => id,
        };
        Ok(results.into_iter().map(|result| result_of(result, id)).collect())
    }

    fn enqueue(
        &mut self,
        job: &NewJob,
        hash: Option<i64>,
        intake: &mut Intake,
    ) -> Result<(Which, Accepted), Unnumbered> {
        let identity = job.idempotency_key.as_ref().map(|key| identity(job, key.as_str()));
        let print = identity.as_ref().map(|_| rules::fingerprint(job));
        match identity.as_ref().and_then(|identity| intake.seen.get(identity)) {
            Some((known, first)) if Some(known) == print.as_ref() => return Ok((*first, Accepted::Repeated)),
            Some((_, first)) => return Err(Unnumbered::KeyReused(*first)),
            None => {}
        }
        check_run(job, intake).map_err(Unnumbered::Told)?;
        let enqueued = match hash.filter(|hash| self.coalesces(job, *hash, intake)) {
            Some(hash) => (self.join(job, hash, intake), Accepted::Coalesced),
            None => (self.create(job, hash, intake), Accepted::Created),
        };
        if let (Some(identity), Some(print)) = (identity, print) {
            intake.remember.insert(identity.clone(), (print, enqueued.0));
            intake.seen.insert(identity, (print, enqueued.0));
        }
        Ok(enqueued)
    }

    /// May the job become part of the last one of its key? Same flow but for the part, same key to the letter, and that
    /// one waits.
    fn coalesces(&self, job: &NewJob, hash: i64, intake: &Intake) -> bool {
        let Some(tail) = intake.tails.get(&hash) else { return false };
        // A new one has no number of a flow yet.
        let flow = tail.new.map_or_else(|| self.flows.get(&tail.core.flow), |at| Some(&intake.rows[at].flow));
        tail.core.takes_coalesced(job.coalesce)
            && tail.key == job.key
            && flow.is_some_and(|flow| flow.is_like(&job.flow_key()))
    }

    /// The job becomes part of the last one of its key.
    fn join(&mut self, job: &NewJob, hash: i64, intake: &mut Intake) -> Which {
        let tail = intake.tails.get_mut(&hash).expect("coalesces found it");
        let before = tail.core.clone();
        tail.core.coalesce(job.class, job.due_at.unwrap_or(self.now), self.now);
        let core = tail.core.clone();
        let labels = labels_text(&job.labels);
        let texts = |old: &Payload| Texts {
            payload: rules::coalesced_payload(job.coalesce, old, &job.payload),
            labels: labels.clone(),
            traceparent: job.traceparent.clone(),
        };
        let named = job.idempotency_key.is_some();
        let which = match tail.new {
            Some(at) => {
                let row = &mut intake.rows[at];
                row.texts = texts(&row.texts.payload);
                row.core = core.clone();
                row.named |= named;
                Which::New(at)
            }
            None => {
                let joined = intake.joined.remove(&core.id.seq);
                let old = match &joined {
                    Some(joined) => Some(&joined.texts.payload),
                    None => intake.payloads.get(&core.id.seq),
                };
                let texts = texts(old.unwrap_or(&job.payload));
                let (before, was_named) = joined.map_or((before, false), |joined| (joined.before, joined.named));
                let joined = Joined { before, after: core.clone(), texts, named: named || was_named };
                intake.joined.insert(core.id.seq, joined);
                Which::Old(core.id)
            }
        };
        intake.told.push(Told::Coalesced(which, Box::new(core)));
        which
    }

    fn create(&mut self, job: &NewJob, key_hash: Option<i64>, intake: &mut Intake) -> Which {
        let flow = job.flow_key();
        if !intake.flows.contains_key(&flow) {
            // A number of its own until the database gives the real one.
            intake.new_flows.push(flow.clone());
            intake.flows.insert(flow.clone(), FlowId(-(intake.new_flows.len() as i64)));
        }
        let at = intake.rows.len();
        let first = key_hash.is_none_or(|hash| !intake.tails.contains_key(&hash));
        // It gets its number from the database.
        let id = JobId::new(self.now, 0);
        let core = Core::new(id, intake.flows[&flow], job, key_hash, first, self.now);
        if let Some(hash) = key_hash {
            intake.tails.insert(hash, Tail { core: core.clone(), key: job.key.clone(), new: Some(at) });
        }
        let labels = labels_text(&job.labels);
        let texts = Texts { payload: job.payload.clone(), labels, traceparent: job.traceparent.clone() };
        let named = job.idempotency_key.is_some();
        intake.rows.push(NewRow { core, flow, key: job.key.clone(), texts, named });
        intake.told.push(Told::Created(at));
        Which::New(at)
    }

    async fn find_flows(&mut self, jobs: &[NewJob], intake: &mut Intake) -> Step<()> {
        let keys: BTreeSet<FlowKey> = jobs.iter().map(NewJob::flow_key).collect();
        let keys: Vec<FlowKey> = keys.into_iter().collect();
        self.find_flows_by_key(&keys, &mut intake.flows).await
    }

    async fn find_flows_by_key(&mut self, keys: &[FlowKey], found: &mut HashMap<FlowKey, FlowId>) -> Step<()> {
        for row in bind_keys(sql::FLOWS_BY_KEY, keys).fetch_all(&mut *self.conn).await? {
            let mut columns = Columns::of(&row);
            let (nth, id) = (columns.int()?, FlowId(columns.int()?));
            let key = usize::try_from(nth - 1).ok().and_then(|n| keys.get(n));
            let key = key.ok_or_else(|| error::strange("a position of a flow", nth))?;
            found.insert(key.clone(), id);
            self.flows.insert(id, key.clone());
        }
        Ok(())
    }

    async fn make_flows(&mut self, intake: &mut Intake) -> Step<()> {
        if intake.new_flows.is_empty() {
            return Ok(());
        }
        let new = std::mem::take(&mut intake.new_flows);
        bind_keys(sql::INSERT_FLOWS, &new).execute(&mut *self.conn).await?;
        self.find_flows_by_key(&new, &mut intake.flows).await?;
        for row in &mut intake.rows {
            row.core.flow = intake.flows[&row.flow];
            if row.core.flow.0 < 0 {
                return Err(Trouble::Again("a flow went away while it was made".to_owned()));
            }
        }
        Ok(())
    }

    async fn find_tails(&mut self, jobs: &[NewJob], hashes: &[Option<i64>], intake: &mut Intake) -> Step<()> {
        let wanted: BTreeSet<i64> = hashes.iter().copied().flatten().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<i64> = wanted.into_iter().collect();
        let mut used = Vec::new();
        for query in [sql::HEADS, sql::TAILS] {
            let hashes = if query == sql::HEADS { &wanted } else { &used };
            if hashes.is_empty() {
                break;
            }
            let rows = sqlx::query(query).bind(hashes).fetch_all(&mut *self.conn).await?;
            for tail in rows {
                let mut columns = Columns::of(&tail);
                let (core, key) = (columns.core()?, columns.key()?);
                let Some(hash) = core.key_hash else { continue };
                if query == sql::HEADS {
                    used.push(hash);
                }
                intake.tails.insert(hash, Tail { core, key, new: None });
            }
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
        let merged: Vec<i64> = merged.into_iter().collect();
        for row in sqlx::query(sql::PAYLOADS).bind(merged).fetch_all(&mut *self.conn).await? {
            let mut columns = Columns::of(&row);
            intake.payloads.insert(columns.int()?, columns.text()?);
        }
        Ok(())
    }

    async fn find_idempotency(&mut self, jobs: &[NewJob], intake: &mut Intake) -> Step<()> {
        let named = |job: &NewJob| Some(identity(job, job.idempotency_key.as_ref()?.as_str()));
        let wanted: BTreeSet<Identity> = jobs.iter().filter_map(named).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let tenants: Vec<&str> = wanted.iter().map(|(tenant, _)| &**tenant).collect();
        let keys: Vec<&str> = wanted.iter().map(|(_, key)| &**key).collect();
        let rows = sqlx::query(sql::IDEMPOTENCY).bind(tenants).bind(keys).fetch_all(&mut *self.conn).await?;
        for row in rows {
            let mut columns = Columns::of(&row);
            let identity = (columns.text()?, columns.text()?);
            let print = columns.bytes()?;
            let print =
                print.try_into().map_err(|_| error::strange("a fingerprint", format!("{} bytes", print.len())))?;
            let id = JobId { seq: columns.int()?, created_at: columns.time()? };
            intake.seen.insert(identity, (print, Which::Old(id)));
        }
        Ok(())
    }

    async fn save_intake(&mut self, intake: &mut Intake) -> Step<()> {
        self.make_flows(intake).await?;
        if !intake.rows.is_empty() {
            self.insert_jobs(&mut intake.rows).await?;
        }
        for told in &intake.told {
            match told {
                Told::Created(at) => {
                    let core = &intake.rows[*at].core;
                    self.packer.enqueued(core.flow, core.id.seq);
                }
                Told::Coalesced(Which::Old(_), core) => self.packer.changed(core, Event::Coalesce, None),
                Told::Coalesced(Which::New(at), core) => {
                    let (id, flow) = (intake.rows[*at].core.id, intake.rows[*at].core.flow);
                    self.packer.changed(&Core { id, flow, ..(**core).clone() }, Event::Coalesce, None);
                }
            }
        }
        if !intake.joined.is_empty() {
            let joined = std::mem::take(&mut intake.joined);
            self.update_texts(&joined).await?;
            self.save_jobs(joined.into_values().map(|joined| (joined.before, joined.after)).collect()).await?;
        }
        self.save_identities(intake).await
    }

    async fn insert_jobs(&mut self, rows: &mut [NewRow]) -> Step<()> {
        for row in rows.iter() {
            self.count(row.core.flow, None, Some((row.core.stand, row.core.class)));
            self.due_changed |= row.core.stand == rules::Stand::Later;
        }
        let ints = |get: fn(&Core) -> i64| -> Vec<i64> { rows.iter().map(|row| get(&row.core)).collect() };
        let hashes: Vec<Option<i64>> = rows.iter().map(|row| row.core.key_hash).collect();
        let named: Vec<i64> = rows.iter().map(|row| i64::from(row.named)).collect();
        let keys: Vec<Option<&str>> = rows.iter().map(|row| row.key.as_ref().map(Key::as_str)).collect();
        let payloads: Vec<_> = rows.iter().map(|row| text(&row.texts.payload)).collect();
        let labels: Vec<_> = rows.iter().map(|row| row.texts.labels.as_deref()).collect();
        let traces: Vec<_> = rows.iter().map(|row| opt_text(row.texts.traceparent.as_deref())).collect();
        let runs: Vec<i64> = rows.iter().map(|row| row.flow.run).collect();
        let insert = sqlx::query(sql::INSERT_JOBS)
            .bind(self.now.0)
            .bind(ints(|c| c.flow.0))
            .bind(ints(|c| c.stand as i64))
            .bind(ints(|c| c.class as i64))
            .bind(hashes)
            .bind(ints(|c| i64::from(c.version)))
            .bind(ints(|c| c.due_at.0))
            .bind(named)
            .bind(keys)
            .bind(payloads)
            .bind(labels)
            .bind(traces)
            .bind(runs);
        let seqs = insert.fetch_all(&mut *self.conn).await?;
        if seqs.len() != rows.len() {
            return Err(error::strange("a number for each new job", seqs.len()).into());
        }
        for (row, seq) in rows.iter_mut().zip(&seqs) {
            let seq = Columns::of(seq).int()?;
            (row.core.id.seq, row.core.turn) = (seq, seq);
        }
        Ok(())
    }

    async fn update_texts(&mut self, joined: &BTreeMap<i64, Joined>) -> Step<()> {
        let seqs: Vec<i64> = joined.keys().copied().collect();
        let payloads: Vec<_> = joined.values().map(|joined| text(&joined.texts.payload)).collect();
        let labels: Vec<_> = joined.values().map(|joined| joined.texts.labels.as_deref()).collect();
        let traces: Vec<_> = joined.values().map(|joined| opt_text(joined.texts.traceparent.as_deref())).collect();
        let named: Vec<i64> = joined.values().map(|joined| i64::from(joined.named)).collect();
        let update = sqlx::query(sql::UPDATE_TEXTS).bind(seqs).bind(payloads).bind(labels).bind(traces).bind(named);
        update.execute(&mut *self.conn).await?;
        Ok(())
    }

    async fn save_identities(&mut self, intake: &Intake) -> Step<()> {
        if intake.remember.is_empty() {
            return Ok(());
        }
        let id = |which: Which| match which {
            Which::New(at) => intake.rows[at].core.id,
            Which::Old(id) => id,
        };
        let remember = &intake.remember;
        let tenants: Vec<&str> = remember.keys().map(|(tenant, _)| &**tenant).collect();
        let keys: Vec<&str> = remember.keys().map(|(_, key)| &**key).collect();
        let prints: Vec<&[u8]> = remember.values().map(|(print, _)| &print[..]).collect();
        let seqs: Vec<i64> = remember.values().map(|(_, which)| id(*which).seq).collect();
        let times: Vec<i64> = remember.values().map(|(_, which)| id(*which).created_at.0).collect();
        let insert = sqlx::query(sql::INSERT_IDEMPOTENCY).bind(tenants).bind(keys).bind(prints).bind(seqs).bind(times);
        let inserted = insert.execute(&mut *self.conn).await?.rows_affected();
        if inserted != remember.len() as u64 {
            return Err(Trouble::Again("another daemon took an idempotency key".to_owned()));
        }
        Ok(())
    }
}

/// A refusal that may name a job without a number yet.
enum Unnumbered {
    KeyReused(Which),
    Told(Refusal),
}

fn result_of(result: Result<(Which, Accepted), Unnumbered>, id: impl Fn(Which) -> JobId) -> Result<Enqueued, Refusal> {
    match result {
        Ok((which, how)) => Ok(Enqueued { id: id(which), how }),
        Err(Unnumbered::KeyReused(which)) => Err(Refusal::KeyReused { first: id(which) }),
        Err(Unnumbered::Told(refusal)) => Err(refusal),
    }
}

fn bind_keys<'q>(query: &'static str, keys: &[FlowKey]) -> super::arrays::Query<'q> {
    let texts = |get: fn(&FlowKey) -> &str| -> Vec<&str> { keys.iter().map(get).collect() };
    sqlx::query(query)
        .bind(texts(|key| key.provider.as_str()))
        .bind(texts(|key| key.operation.as_str()))
        .bind(texts(|key| key.account.as_str()))
        .bind(texts(|key| key.tenant.as_str()))
        .bind(keys.iter().map(|key| key.run).collect::<Vec<i64>>())
        .bind(keys.iter().map(|key| i64::from(key.part)).collect::<Vec<i64>>())
}

fn identity(job: &NewJob, key: &str) -> Identity {
    (job.tenant.as_str().into(), key.into())
}

fn check_run(job: &NewJob, intake: &Intake) -> Result<(), Refusal> {
    let Some(id) = job.run else { return Ok(()) };
    let run = intake.runs.get(&id.seq).filter(|run| run.id == id).ok_or(Refusal::NoRun(id))?;
    if run.state.takes_jobs() { Ok(()) } else { Err(Refusal::WrongRunState { id, state: run.state.name() }) }
}
