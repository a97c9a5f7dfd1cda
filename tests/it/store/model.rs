//! Random batches go into the reference store and into another one; all answers and all reads must be the same.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tidegate::model::call::{Ending, Lane, LimitKey, Permit};
use tidegate::model::call_log::Seen;
use tidegate::model::filter::Filter;
use tidegate::model::flow::{Class, Flow};
use tidegate::model::id::{CallId, FlowId, JobId, RunId};
use tidegate::model::job::{Coalesce, NewJob};
use tidegate::model::name::{Account, IdempotencyKey, OperationName, Tenant};
use tidegate::model::run::{NewRun, RunWish};
use tidegate::model::shard::Hold;
use tidegate::store::*;

use super::factory::{self, Bench, audit, job, keyed};

/// A part of a batch, in small numbers that are resolved against what exists by then.
#[derive(Clone, Debug)]
enum Part {
    Enqueue { key: u8, class: u8, due_s: i64, coalesce: u8, idempotency: u8, run: u8, operation: u8, payload: u8 },
    Begin { flow: u8, class: u8, count: u8, batch: bool, spends: bool },
    Finish { call: u8, next: u8, skip: u8, ending: u8 },
    Jobs { first: u8, second: u8, what: u8 },
    Promote { limit: u8 },
    CreateRun,
    WishRun { run: u8, wish: u8 },
    CancelRun { run: u8, limit: u8 },
    Prune { age_s: u8, limit: u8 },
}

#[derive(Clone, Debug)]
struct Step {
    pass_s: u8,
    parts: Vec<Part>,
}

fn part() -> impl Strategy<Value = Part> {
    let enqueue = (0u8..5, 0u8..3, -2i64..4, 0u8..3, 0u8..6, 0u8..5, 0u8..2, 0u8..3).prop_map(
        |(key, class, due_s, coalesce, idempotency, run, operation, payload)| Part::Enqueue {
            key,
            class,
            due_s,
            coalesce,
            idempotency,
            run,
            operation,
            payload,
        },
    );
    let begin = (0u8..8, 0u8..3, 1u8..5, any::<bool>(), any::<bool>())
        .prop_map(|(flow, class, count, batch, spends)| Part::Begin { flow, class, count, batch, spends });
    let finish = (any::<u8>(), any::<u8>(), 0u8..8, 0u8..4).prop_map(|(call, next, skip, ending)| Part::Finish {
        call,
        next,
        skip,
        ending,
    });
    let jobs = (any::<u8>(), any::<u8>(), 0u8..9).prop_map(|(first, second, what)| Part::Jobs { first, second, what });
    prop_oneof![
        8 => enqueue,
        6 => begin,
        6 => finish,
        4 => jobs,
        1 => (0u8..5).prop_map(|limit| Part::Promote { limit }),
        1 => Just(Part::CreateRun),
        1 => (0u8..3, 0u8..4).prop_map(|(run, wish)| Part::WishRun { run, wish }),
        1 => (0u8..3, 0u8..5).prop_map(|(run, limit)| Part::CancelRun { run, limit }),
        1 => (0u8..6, 0u8..5).prop_map(|(age_s, limit)| Part::Prune { age_s, limit }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..3, proptest::collection::vec(part(), 1..8)).prop_map(|(pass_s, parts)| Step { pass_s, parts });
    proptest::collection::vec(step, 1..25)
}

/// What the test has learned of ids so far.
#[derive(Default)]
struct Known {
    jobs: Vec<JobId>,
    calls: Vec<(CallId, Vec<i64>)>,
    runs: Vec<RunId>,
}

fn pick<T: Clone>(from: &[T], n: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(n) % from.len()].clone())
}

impl Known {
    fn learn(&mut self, done: &Committed) {
        self.jobs.extend(done.enqueues.iter().flatten().filter(|e| e.how == Accepted::Created).map(|e| e.id));
        for call in done.begins.iter().flat_map(|begun| &begun.calls) {
            self.calls.push((call.id, call.jobs.iter().map(|job| job.id.seq).collect()));
        }
        for change in done.changes.iter().flatten() {
            if let Changed::Run(run) = change
                && !self.runs.contains(&run.id)
            {
                self.runs.push(run.id);
            }
        }
    }

    fn add(&self, batch: &mut Batch, part: &Part) {
        let now = batch.now;
        match part.clone() {
            Part::Enqueue { key, class, due_s, coalesce, idempotency, run, operation, payload } => {
                let payload = ["{\"a\":1}", "{\"b\":null,\"c\":2}", "[3]"][usize::from(payload)];
                let mut new: NewJob = if key == 0 { job(payload) } else { keyed(&format!("k{key}"), payload) };
                new.class = Class::ALL[usize::from(class)];
                new.due_at = (due_s != 0).then(|| tidegate::clock::Timestamp(now.0 + due_s * 1_000_000));
                new.coalesce = [Coalesce::Never, Coalesce::Replace, Coalesce::Merge][usize::from(coalesce)];
                if idempotency < 2 {
                    new.idempotency_key = Some(IdempotencyKey::new(format!("i{idempotency}")).unwrap());
                }
                new.run = if run < 2 { pick(&self.runs, run) } else { None };
                // Keys meet themselves in other parts, as after a change of `spread`.
                new.part = u16::from(payload.starts_with('['));
                if operation == 1 {
                    new.operation = OperationName::new("erase").unwrap();
                    new.labels.insert("team".to_owned(), format!("t{key}"));
                }
                batch.enqueues.push(new);
            }
            Part::Begin { flow, class, count, batch: lane, spends } => {
                let spends: Arc<[_]> =
                    if spends { Arc::from([(LimitKey(Arc::from("crm/a:60s")), 1)]) } else { Arc::from([]) };
                let keyed: Arc<[_]> =
                    if count % 2 == 1 { Arc::from([(Arc::from("crm/k:60s@/"), 2)]) } else { Arc::from([]) };
                let flow = FlowId(i64::from(flow) + 1);
                let takes = Class::ALL.map(|class| Take { flow, class, count: u32::from(count), hold: Hold::ALONE });
                let mut begin = Begin {
                    provider: job("").provider,
                    operation: job("").operation,
                    lane: if lane { Lane::Batch } else { Lane::Single },
                    account: Account::default(),
                    takes: takes.into_iter().skip(usize::from(class)).collect(),
                    bare: false,
                    calls_max: u32::from(count),
                    bytes_max: 20,
                    permit: Permit { spends, granted_at: batch.steady, epoch: 0 },
                    keyed,
                    outside: 0,
                    lease_until: batch.steady + Duration::from_secs(3),
                };
                batch.begins.push(begin.clone());
                begin.operation = OperationName::new("erase").unwrap();
                batch.begins.push(begin);
            }
            Part::Finish { call, next, skip, ending } => {
                let Some((call, jobs)) = pick(&self.calls, call) else { return };
                let outcome = |(n, job): (usize, &i64)| {
                    let due_at = now + Duration::from_secs(u64::from(next) % 3);
                    let why = [Again::Retry, Again::Throttled, Again::NotSent, Again::Crashed][usize::from(next) % 4];
                    let next = match (usize::from(next) + n) % 6 {
                        0 | 1 => Next::Delivered,
                        2 | 3 => Next::Wait { due_at, why },
                        4 => Next::Dead,
                        _ => Next::Unknown,
                    };
                    let error = (next != Next::Delivered).then(|| Arc::from("no"));
                    JobOutcome { job: *job, next, error, result: (n == 1).then(|| Arc::from("{}")) }
                };
                let outcomes = jobs.iter().enumerate().filter(|(n, _)| *n != usize::from(skip)).map(outcome);
                let ending = [Ending::Answered, Ending::NotSent, Ending::Lost, Ending::Crashed][usize::from(ending)];
                batch.finishes.push(FinishCall {
                    call,
                    ending,
                    settled_at: batch.steady,
                    status: (ending == Ending::Answered).then_some(200),
                    error: None,
                    outcomes: outcomes.collect(),
                    spends: (next % 5 == 0).then(|| Arc::from([(LimitKey(Arc::from("crm/k:60s@/x")), 3)])),
                    seen: (next % 3 == 0).then(|| Seen { latency: Duration::from_millis(3), ..Seen::default() }),
                });
            }
            Part::Jobs { first, second, what } => {
                let (Some(first), Some(second)) = (pick(&self.jobs, first), pick(&self.jobs, second)) else { return };
                let jobs = vec![first, second];
                batch.changes.push(match what {
                    0 => Change::CancelJobs { jobs },
                    1 | 2 => Change::ReviveJobs { jobs, fresh: what == 1 },
                    3 => Change::ExpediteJobs { jobs },
                    4 => Change::ResolveJobs { jobs, decision: Decision::Delivered },
                    5 => Change::ResolveJobs { jobs, decision: Decision::Again },
                    6 => Change::ResolveJobs { jobs, decision: Decision::Dead },
                    7 => Change::EditJob {
                        job: first,
                        payload: Some(Arc::from("{\"edited\":1}")),
                        class: Some(Class::Urgent),
                        due_at: None,
                    },
                    _ => Change::EditJob {
                        job: first,
                        payload: None,
                        class: None,
                        due_at: Some(now + Duration::from_secs(2)),
                    },
                });
            }
            Part::Promote { limit } => batch.changes.push(Change::PromoteDue { limit: u32::from(limit) }),
            Part::CreateRun => {
                let run = NewRun {
                    display_name: "run".into(),
                    tenant: Tenant::default(),
                    labels: Default::default(),
                    undo_of: None,
                };
                batch.changes.push(Change::CreateRun { run });
            }
            Part::WishRun { run, wish } => {
                let Some(run) = pick(&self.runs, run) else { return };
                let wish = [RunWish::Pause, RunWish::Resume, RunWish::Seal, RunWish::Cancel][usize::from(wish)];
                batch.changes.push(Change::WishRun { run, wish });
            }
            Part::CancelRun { run, limit } => {
                let Some(run) = pick(&self.runs, run) else { return };
                batch.changes.push(Change::CancelRunJobs { run, limit: u32::from(limit) });
            }
            Part::Prune { age_s, limit } => {
                let before = now - Duration::from_secs(u64::from(age_s));
                batch.changes.push(Change::Prune {
                    finished_before: before,
                    dead_before: before - Duration::from_secs(3),
                    calls_before: before,
                    events_before: before,
                    limit: u32::from(limit),
                });
            }
        }
    }
}

/// A batch cannot be cloned on purpose; its parts can be told again.
fn batch(known: &Known, now: tidegate::clock::Timestamp, step: &Step) -> Batch {
    let mut batch = Batch { now, steady: now, ..Batch::default() };
    for part in &step.parts {
        known.add(&mut batch, part);
    }
    batch
}

/// Without the version, which only a store of several daemons counts.
fn plain(flows: impl IntoIterator<Item = Flow>) -> Vec<Flow> {
    flows.into_iter().map(|flow| Flow { version: 0, ..flow }).collect()
}

async fn same_reads(a: &dyn Store, b: &dyn Store, known: &Known) {
    assert_eq!(factory::all_jobs(a).await, factory::all_jobs(b).await);
    assert_eq!(plain(a.flows(FlowId(0), 100).await.unwrap()), plain(b.flows(FlowId(0), 100).await.unwrap()));
    assert_eq!(a.list_runs(None, 100).await.unwrap(), b.list_runs(None, 100).await.unwrap());
    assert_eq!(
        a.open_calls(Whose::Anyone, CallId(0), 100).await.unwrap(),
        b.open_calls(Whose::Anyone, CallId(0), 100).await.unwrap()
    );
    let since = tidegate::clock::Timestamp(factory::START.0 + 5_000_000);
    assert_eq!(a.journal(since, CallId(0), 100).await.unwrap(), b.journal(since, CallId(0), 100).await.unwrap());
    assert_eq!(a.events(0, 1_000).await.unwrap(), b.events(0, 1_000).await.unwrap());
    for flow in (1..20).map(FlowId) {
        assert_eq!(plain(a.flow(flow).await.unwrap()), plain(b.flow(flow).await.unwrap()));
    }
    for (call, _) in &known.calls {
        assert_eq!(a.call(*call).await.unwrap(), b.call(*call).await.unwrap());
        assert_eq!(a.claimed(*call).await.unwrap(), b.claimed(*call).await.unwrap());
    }
    for job in a.list_jobs(&Filter::everything(), None, 100).await.unwrap().jobs {
        assert_eq!(a.blocker(&job).await.unwrap(), b.blocker(&job).await.unwrap());
        assert_eq!(a.ahead(&job).await.unwrap(), b.ahead(&job).await.unwrap());
        assert_eq!(a.oldest_ready(job.flow).await.unwrap(), b.oldest_ready(job.flow).await.unwrap());
    }
    for run in a.list_runs(None, 100).await.unwrap() {
        assert_eq!(plain(a.run_flows(run.id, 100).await.unwrap()), plain(b.run_flows(run.id, 100).await.unwrap()));
    }
}

async fn same(steps: Vec<Step>, b: Bench) {
    let a = factory::memory().store;
    let mut known = Known::default();
    let mut now = factory::START;
    for step in &steps {
        now = now + Duration::from_secs(u64::from(step.pass_s));
        let one = a.commit(batch(&known, now, step)).await.unwrap();
        let two = b.store.commit(batch(&known, now, step)).await.unwrap();
        assert_eq!(one.finishes, two.finishes);
        assert_eq!(one.changes, two.changes);
        assert_eq!(one.enqueues, two.enqueues);
        assert_eq!(one.begins, two.begins);
        assert_eq!(plain(one.flows.clone()), plain(two.flows));
        assert_eq!(one.events, two.events);
        assert_eq!(one.next_due, two.next_due);
        known.learn(&one);
    }
    same_reads(&*a, &*b.store, &known).await;
    // Pruning takes jobs out of the tables and leaves them in the counts.
    if !steps.iter().flat_map(|step| &step.parts).any(|part| matches!(part, Part::Prune { .. })) {
        audit(&*a).await;
        audit(&*b.store).await;
    }
    b.store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_answers_like_the_reference(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { same(steps, factory::sqlite().await).await });
    }

    #[test]
    fn postgres_answers_like_the_reference(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { same(steps, factory::postgres().await).await });
    }
}
