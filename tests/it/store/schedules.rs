//! Schedules: a tick and all that it starts are one commit, and of many who tick at once one does it. And calls that carry
//! no job, as answers that somebody waits for are made of.

use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::call::{Ending, LimitKey, Permit};
use tidegate::model::event::What;
use tidegate::model::flow::Class;
use tidegate::model::id::{CallId, FlowId};
use tidegate::model::invalidation::{Keys, Which};
use tidegate::model::name::{CollectionName, Namespace, ScheduleName, Tenant};
use tidegate::model::record::PullState;
use tidegate::model::run::{NewRun, RunState};
use tidegate::model::schedule::{Missed, Overlap, Schedule, Spec, Target};
use tidegate::store::*;

use super::factory::{Bench, all_jobs, job, keyed, permit};

suite!(
    a_schedule_is_kept_as_it_was_declared,
    a_declaration_replaces_only_the_revision_expected,
    a_tick_starts_its_run_and_moves_on_in_one_commit,
    a_tick_that_came_second_does_nothing,
    a_tick_calls_the_run_before_it_off,
    an_invalidation_is_told_in_the_log,
    a_tick_starts_its_pull_in_the_same_commit_once,
    a_call_without_jobs_is_journaled_and_ends,
    a_call_without_jobs_needs_no_partition_but_the_present_epoch,
);

fn name() -> ScheduleName {
    ScheduleName::new("nightly").unwrap()
}

fn spec(cron: &str) -> Spec {
    let which = Which { namespace: Namespace::new("crm").unwrap(), keys: Keys::Beginning("/users/".into()) };
    Spec {
        cron: cron.into(),
        zone: "Europe/Berlin".into(),
        jitter: Duration::from_millis(1_500),
        overlap: Overlap::Queue,
        missed: Missed::All(7),
        target: Target::Invalidate(which),
    }
}

fn apply(bench: &Bench, cron: &str, expect: Option<i64>) -> Change {
    let next_at = bench.now + Duration::from_secs(60);
    let apply = Apply { name: name(), spec: spec(cron), from_file: true, expect, next_at, actor: "ada".into() };
    Change::Schedule(Box::new(ScheduleChange::Apply(apply)))
}

async fn declared(bench: &Bench) -> Schedule {
    let Changed::Schedule(schedule) = bench.change(apply(bench, "0 3 * * *", None)).await.unwrap() else {
        panic!("expected a schedule");
    };
    *schedule
}

fn start(jobs: usize) -> Start {
    let run = NewRun {
        display_name: "nightly".into(),
        tenant: Tenant::default(),
        labels: [("a".into(), "b".into())].into(),
        undo_of: None,
    };
    Start { run, jobs: (0..jobs).map(|n| keyed(&format!("k{n}"), "{}")).collect() }
}

fn tick(schedule: &Schedule, starts: Vec<Start>) -> Tick {
    Tick {
        name: schedule.name.clone(),
        version: schedule.version,
        next_at: schedule.next_at + Duration::from_secs(60),
        queued: Vec::new(),
        last_tick_at: Some(schedule.next_at),
        outcome: "started".into(),
        starts,
        cancels: None,
        invalidates: None,
        pull: None,
        actor: "scheduler".into(),
    }
}

async fn ticked(bench: &Bench, tick: Tick) -> Result<Schedule, Refusal> {
    match bench.change(Change::Schedule(Box::new(ScheduleChange::Tick(tick)))).await? {
        Changed::Schedule(schedule) => Ok(*schedule),
        other => panic!("expected a schedule, got {other:?}"),
    }
}

fn pull(bench: &Bench) -> Option<Box<StartPull>> {
    Some(Box::new(StartPull {
        collection: CollectionName::new("items").unwrap(),
        shape: "s".into(),
        actor: "schedule nightly".into(),
        full: false,
        sweep: false,
        marks: false,
        full_before: bench.now,
        job: job("null"),
        replace: None,
    }))
}

async fn a_tick_starts_its_pull_in_the_same_commit_once(bench: Bench) {
    let schedule = declared(&bench).await;
    let with_pull = |schedule: &Schedule| Tick { pull: pull(&bench), ..tick(schedule, Vec::new()) };
    // Two daemons tick at once, and one of them has it.
    let change = |tick| Change::Schedule(Box::new(ScheduleChange::Tick(tick)));
    let changes = vec![change(with_pull(&schedule)), change(with_pull(&schedule))];
    let done = bench.commit(Batch { changes, ..bench.batch() }).await;
    assert!(matches!(&done.changes[..], [Ok(_), Err(Refusal::ScheduleMoved(_))]), "{:?}", done.changes);
    assert!(done.records.is_empty() && done.enqueues.is_empty(), "nobody asked for these");
    let items = CollectionName::new("items").unwrap();
    let running = bench.store.collection(&items).await.unwrap().unwrap().pull.unwrap();
    assert_eq!((running.id, running.state), (1, PullState::Running));
    assert_eq!(all_jobs(&*bench.store).await.len(), 1, "the job of the first page");
    // The next tick finds it running.
    let after = bench.store.schedule(&name()).await.unwrap().unwrap();
    ticked(&bench, with_pull(&after)).await.unwrap();
    assert_eq!(all_jobs(&*bench.store).await.len(), 1);
    assert_eq!(bench.store.collection(&items).await.unwrap().unwrap().pull.unwrap().id, 1);
    // A tick that came second pulls nothing even when nothing runs.
    assert!(ticked(&bench, with_pull(&schedule)).await.is_err());
}

async fn a_schedule_is_kept_as_it_was_declared(bench: Bench) {
    let schedule = declared(&bench).await;
    assert_eq!((schedule.revision, schedule.paused, schedule.from_file), (1, false, true));
    assert_eq!((&schedule.spec, &*schedule.actor), (&spec("0 3 * * *"), "ada"));
    assert_eq!(bench.store.schedules().await.unwrap(), std::slice::from_ref(&schedule));
    assert_eq!(bench.store.schedule(&name()).await.unwrap(), Some(schedule.clone()));
    let pause = |paused, next_at| ScheduleChange::Pause { name: name(), paused, next_at, actor: "ada".into() };
    let paused = bench.change(Change::Schedule(Box::new(pause(true, Timestamp::NEVER)))).await.unwrap();
    let Changed::Schedule(paused) = paused else { panic!("expected a schedule") };
    assert_eq!((paused.paused, paused.next_at), (true, Timestamp::NEVER));
    // A new declaration does not let it go.
    bench.change(apply(&bench, "0 4 * * *", None)).await.unwrap();
    let still = bench.store.schedule(&name()).await.unwrap().unwrap();
    assert_eq!((still.paused, still.next_at, still.revision), (true, Timestamp::NEVER, 2));
    assert!(still.version > schedule.version);
    let delete = || Change::Schedule(Box::new(ScheduleChange::Delete { name: name(), actor: "ada".into() }));
    bench.change(delete()).await.unwrap();
    assert_eq!(bench.store.schedule(&name()).await.unwrap(), None);
    assert_eq!(bench.change(delete()).await, Err(Refusal::NoSchedule(name())));
}

async fn a_declaration_replaces_only_the_revision_expected(bench: Bench) {
    bench.change(apply(&bench, "0 3 * * *", Some(0))).await.unwrap();
    let stale = Refusal::StaleSchedule { name: name(), current: 1, expected: 0 };
    assert_eq!(bench.change(apply(&bench, "0 3 * * *", Some(0))).await, Err(stale));
    bench.change(apply(&bench, "0 3 * * *", Some(1))).await.unwrap();
}

async fn a_tick_starts_its_run_and_moves_on_in_one_commit(bench: Bench) {
    let schedule = declared(&bench).await;
    // Beside others of the same commit, with keys of their own and the same ones.
    let change = Change::Schedule(Box::new(ScheduleChange::Tick(tick(&schedule, vec![start(3), start(0)]))));
    let batch = Batch { changes: vec![change], enqueues: vec![keyed("k1", "{}"), job("{}")], ..bench.batch() };
    let done = bench.commit(batch).await;
    assert!(done.changes[0].is_ok() && done.enqueues.iter().all(Result::is_ok));
    let runs = bench.store.list_runs(None, 10).await.unwrap();
    assert_eq!(runs.len(), 2);
    let (empty, full) = (&runs[0], &runs[1]);
    assert_eq!((empty.state, full.state, full.counts.ready_all()), (RunState::Finished, RunState::Sealed, 3));
    assert_eq!((full.display_name.as_str(), full.labels["a"].as_str()), ("nightly", "b"));
    let stands = bench.store.schedule(&name()).await.unwrap().unwrap();
    assert_eq!((stands.last_run, stands.last_outcome.as_str()), (Some(empty.id), "started"));
    assert_eq!((stands.last_tick_at, stands.next_at), (Some(schedule.next_at), tick(&schedule, vec![]).next_at));
    // The jobs of the tick came first, so the other one of the same key stands behind it.
    assert_eq!(bench.counts(flow_of(&done, 0)).await.behind, 1);
    assert!(done.events.iter().any(|e| matches!(&e.what, What::Schedule { kind, .. } if kind == "ticked")));
}

fn flow_of(done: &Committed, run: i64) -> FlowId {
    done.flows.iter().find(|flow| flow.key.run == run).unwrap().id
}

async fn a_tick_that_came_second_does_nothing(bench: Bench) {
    let schedule = declared(&bench).await;
    let first = ticked(&bench, tick(&schedule, vec![start(1)])).await.unwrap();
    assert_eq!(ticked(&bench, tick(&schedule, vec![start(1)])).await, Err(Refusal::ScheduleMoved(name())));
    assert_eq!(bench.store.list_runs(None, 10).await.unwrap().len(), 1);
    assert_eq!(bench.store.schedule(&name()).await.unwrap(), Some(first));
}

async fn a_tick_calls_the_run_before_it_off(bench: Bench) {
    let schedule = declared(&bench).await;
    let first = ticked(&bench, tick(&schedule, vec![start(1)])).await.unwrap();
    let second = Tick { cancels: first.last_run, ..tick(&first, vec![start(1)]) };
    let second = ticked(&bench, second).await.unwrap();
    let state = async |id| bench.store.run(id).await.unwrap().unwrap().state;
    assert_eq!(state(first.last_run.unwrap()).await, RunState::Cancelling);
    assert_eq!(state(second.last_run.unwrap()).await, RunState::Sealed);
    // One that has ended is left alone.
    let cancels = Some(first.last_run.unwrap());
    bench.change(Change::CancelRunJobs { run: first.last_run.unwrap(), limit: 10 }).await.unwrap();
    ticked(&bench, Tick { cancels, ..tick(&second, vec![]) }).await.unwrap();
    assert_eq!(state(first.last_run.unwrap()).await, RunState::Cancelled);
}

async fn an_invalidation_is_told_in_the_log(bench: Bench) {
    let which = Which { namespace: Namespace::new("crm").unwrap(), keys: Keys::Exactly("/users/7".into()) };
    bench.change(Change::Invalidate { which: which.clone(), actor: "ada".into() }).await.unwrap();
    let schedule = declared(&bench).await;
    ticked(&bench, Tick { invalidates: Some(which.clone()), ..tick(&schedule, vec![]) }).await.unwrap();
    let events = bench.store.events(0, 10).await.unwrap();
    let told: Vec<_> = events.iter().filter(|e| matches!(&e.what, What::Invalidated { .. })).collect();
    assert_eq!(told.len(), 2);
    assert!(matches!(&told[0].what, What::Invalidated { which: w, actor } if *w == which && actor == "ada"));
}

fn bare(bench: &Bench, count: u32) -> Begin {
    let spends = Arc::from([(LimitKey(Arc::from("crm/a:60s")), 1)]);
    let permit = Permit { spends, ..permit() };
    Begin { bare: true, takes: Vec::new(), permit, calls_max: count, ..bench.take(FlowId(1), Class::Normal, 0) }
}

async fn a_call_without_jobs_is_journaled_and_ends(bench: Bench) {
    let flow = bench.job(bench.add(job("{}")).await).await.flow;
    let batch = Batch { begins: vec![bare(&bench, 2), bench.take(flow, Class::Normal, 1)], ..bench.batch() };
    let begun = bench.commit(batch).await.begins;
    assert_eq!((begun[0].calls.len(), begun[1].calls[0].jobs.len()), (2, 1));
    let open = bench.store.open_calls(Whose::Anyone, CallId(0), 10).await.unwrap();
    assert_eq!(open.iter().filter(|call| call.jobs.is_empty()).count(), 2);
    let id = begun[0].calls[0].id;
    assert_eq!(bench.store.claimed(id).await.unwrap(), []);
    let journal = bench.store.journal(bench.now, CallId(0), 10).await.unwrap();
    assert!(journal.iter().any(|entry| entry.call == id && entry.settled_at.is_none()));
    let end = FinishCall { spends: Some(Arc::from([])), ..bench.end(id, vec![]) };
    assert!(bench.finish(end.clone()).await.applied);
    assert!(!bench.finish(end).await.applied);
    let call = bench.store.call(id).await.unwrap().unwrap();
    assert_eq!((call.ending, call.status, call.permit.spends.len()), (Ending::Answered, Some(200), 0));
}

async fn a_call_without_jobs_needs_no_partition_but_the_present_epoch(bench: Bench) {
    assert_eq!(bench.begin(bare(&bench, 1)).await.len(), 1);
    bench.store.bump_epoch(0, "run-2").await.unwrap();
    assert!(bench.begin(bare(&bench, 1)).await.is_empty());
}
