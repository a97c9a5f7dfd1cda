//! What history leaves behind: runs and flows go once nothing can name them any more, and not before.

use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::flow::Class;
use tidegate::model::id::{FlowId, JobId, RunId};
use tidegate::model::job::NewJob;
use tidegate::model::name::{OperationName, Tenant};
use tidegate::model::run::{NewRun, RunWish};
use tidegate::model::state::State;
use tidegate::store::*;

use super::factory::{Bench, job};

suite!(
    an_ended_run_goes_with_its_flows_when_its_history_is_gone,
    a_flow_stays_while_a_dead_letter_names_it,
    a_flow_stays_while_an_event_names_it,
    a_flow_with_work_left_stays,
    a_flow_that_comes_back_counts_anew_and_the_sums_go_on,
    a_flow_that_the_same_commit_brings_back_to_life_stays,
    a_flow_ends_by_the_latest_time_seen_though_clocks_step_back,
    flows_go_in_bounded_steps_after_the_jobs,
);

impl Bench {
    /// Without the audit: pruned jobs are no longer in the recount.
    async fn quietly(&self, changes: Vec<Change>) -> Vec<Result<Changed, Refusal>> {
        self.store.commit(Batch { changes, ..self.batch() }).await.unwrap().changes
    }

    async fn prune(&self, change: Change) -> u64 {
        match self.quietly(vec![change]).await.remove(0) {
            Ok(Changed::Count(n)) => n,
            other => panic!("expected a count, got {other:?}"),
        }
    }

    /// Something happens elsewhere, so that the newest event, which always stays, is a new one.
    async fn elsewhere(&self) -> FlowId {
        let operation = OperationName::new("elsewhere").unwrap();
        let id = self.store.commit(Batch { enqueues: vec![NewJob { operation, ..job("1") }], ..self.batch() });
        let id = id.await.unwrap().enqueues.remove(0).unwrap().id;
        self.job(id).await.flow
    }

    async fn sealed_run_of(&self, jobs: usize) -> (RunId, Vec<JobId>) {
        let run =
            NewRun { display_name: "old".into(), tenant: Tenant::default(), labels: Default::default(), undo_of: None };
        let Changed::Run(run) = self.change(Change::CreateRun { run }).await.unwrap() else { panic!("expected a run") };
        let mut ids = Vec::new();
        for _ in 0..jobs {
            ids.push(self.add(NewJob { run: Some(run.id), ..job("1") }).await);
        }
        self.change(Change::WishRun { run: run.id, wish: RunWish::Seal }).await.unwrap();
        (run.id, ids)
    }

    async fn settle(&self, id: JobId, next: Next) {
        let call = self.claim(id).await;
        self.finish(self.end(call, vec![(id.seq, next)])).await;
    }
}

/// Everything before now.
fn all(bench: &Bench) -> Change {
    let before = bench.now;
    Change::Prune {
        finished_before: before,
        dead_before: before,
        calls_before: before,
        events_before: before,
        limit: 100,
    }
}

const LONG: Duration = Duration::from_secs(1_000);

async fn an_ended_run_goes_with_its_flows_when_its_history_is_gone(mut bench: Bench) {
    let (run, ids) = bench.sealed_run_of(1).await;
    let (empty, _) = bench.sealed_run_of(0).await;
    let (open, waiting) = bench.sealed_run_of(1).await;
    let flow = bench.job(ids[0]).await.flow;
    bench.settle(ids[0], Next::Delivered).await;
    bench.pass(LONG);
    let other = bench.elsewhere().await;
    bench.prune(all(&bench)).await;
    assert_eq!(bench.store.run(run).await.unwrap(), None);
    assert_eq!(bench.store.run(empty).await.unwrap(), None);
    assert_eq!(bench.store.flow(flow).await.unwrap(), None);
    assert!(bench.store.run(open).await.unwrap().is_some());
    assert!(bench.store.flow(other).await.unwrap().is_some());
    assert_eq!(bench.state(waiting[0]).await, State::Waiting);
    // Nothing is left to do.
    assert_eq!(bench.prune(all(&bench)).await, 0);
}

async fn a_flow_stays_while_a_dead_letter_names_it(mut bench: Bench) {
    let (run, ids) = bench.sealed_run_of(1).await;
    let flow = bench.job(ids[0]).await.flow;
    bench.settle(ids[0], Next::Dead).await;
    bench.pass(LONG);
    bench.elsewhere().await;
    let before = bench.now;
    let keep_dead = Change::Prune {
        finished_before: before,
        dead_before: Timestamp::ZERO,
        calls_before: before,
        events_before: before,
        limit: 100,
    };
    bench.prune(keep_dead).await;
    assert_eq!(bench.state(ids[0]).await, State::Dead);
    assert!(bench.store.flow(flow).await.unwrap().is_some());
    assert!(bench.store.run(run).await.unwrap().is_some());
    bench.prune(all(&bench)).await;
    assert_eq!(bench.store.flow(flow).await.unwrap(), None);
}

async fn a_flow_stays_while_an_event_names_it(mut bench: Bench) {
    let (run, ids) = bench.sealed_run_of(1).await;
    let flow = bench.job(ids[0]).await.flow;
    bench.settle(ids[0], Next::Delivered).await;
    bench.pass(LONG);
    bench.elsewhere().await;
    let before = bench.now;
    let keep_events = Change::Prune {
        finished_before: before,
        dead_before: before,
        calls_before: before,
        events_before: Timestamp::ZERO,
        limit: 100,
    };
    bench.prune(keep_events).await;
    assert_eq!(bench.store.job(ids[0]).await.unwrap(), None);
    assert!(bench.store.flow(flow).await.unwrap().is_some());
    assert!(bench.store.run(run).await.unwrap().is_some());
}

async fn a_flow_with_work_left_stays(mut bench: Bench) {
    let [unknown, later] = [bench.add(job("1")).await, bench.sealed_run_of(1).await.1[0]];
    let due_at = Some(bench.now + LONG * 9);
    bench.settle(unknown, Next::Unknown).await;
    bench.change(Change::EditJob { job: later, payload: None, class: None, due_at }).await.unwrap();
    bench.pass(LONG);
    bench.elsewhere().await;
    bench.prune(all(&bench)).await;
    assert_eq!(bench.state(unknown).await, State::Unknown);
    assert_eq!(bench.state(later).await, State::Waiting);
    assert!(bench.store.flow(bench.job(later).await.flow).await.unwrap().is_some());
}

async fn a_flow_that_comes_back_counts_anew_and_the_sums_go_on(mut bench: Bench) {
    let id = bench.add(job("1")).await;
    let flow = bench.job(id).await.flow;
    bench.settle(id, Next::Delivered).await;
    bench.pass(LONG);
    bench.elsewhere().await;
    assert!(bench.prune(all(&bench)).await > 0);
    assert_eq!(bench.store.flow(flow).await.unwrap(), None);
    let done = bench.store.commit(Batch { enqueues: vec![job("2"), job("3")], ..bench.batch() }).await.unwrap();
    let again = done.flows[0].clone();
    assert_eq!((again.counts.delivered, again.counts.ready_all()), (0, 2));
    assert_eq!(bench.store.flow(again.id).await.unwrap(), Some(again));
    let tallies = bench.store.tallies().await.unwrap();
    let sum = tallies.iter().find(|t| t.operation == job("1").operation).unwrap();
    assert_eq!((sum.counts.delivered, sum.counts.ready_all()), (1, 2));
}

async fn a_flow_that_the_same_commit_brings_back_to_life_stays(mut bench: Bench) {
    let (run, ids) = bench.sealed_run_of(1).await;
    let flow = bench.job(ids[0]).await.flow;
    bench.settle(ids[0], Next::Dead).await;
    bench.pass(LONG);
    bench.elsewhere().await;
    let revive = Change::ReviveJobs { jobs: ids.clone(), fresh: true };
    let done = bench.quietly(vec![revive, all(&bench)]).await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(bench.state(ids[0]).await, State::Waiting);
    assert_eq!(bench.counts(flow).await.ready_all(), 1);
    assert!(bench.store.run(run).await.unwrap().is_some());
    // And one that is pruned and asked for in the same commit is a new one.
    let call = bench.store.commit(Batch { begins: vec![bench.take(flow, Class::Normal, 1)], ..bench.batch() }).await;
    let call = call.unwrap().begins.remove(0).calls.remove(0);
    let end = bench.end(call.id, vec![(ids[0].seq, Next::Delivered)]);
    bench.store.commit(Batch { finishes: vec![end], ..bench.batch() }).await.unwrap();
    bench.pass(LONG);
    bench.elsewhere().await;
    let late = NewJob { run: Some(run), ..job("2") };
    let both = Batch { changes: vec![all(&bench)], enqueues: vec![late, job("3")], ..bench.batch() };
    let done = bench.store.commit(both).await.unwrap();
    assert_eq!(done.enqueues[0], Err(Refusal::NoRun(run)));
    assert!(done.enqueues[1].is_ok());
}

async fn a_flow_ends_by_the_latest_time_seen_though_clocks_step_back(mut bench: Bench) {
    let ids = [bench.add(job("1")).await, bench.add(job("2")).await];
    let flow = bench.job(ids[0]).await.flow;
    let calls = bench.begin(bench.take(flow, Class::Normal, 2)).await;
    bench.finish(bench.end(calls[0].id, vec![(ids[0].seq, Next::Delivered)])).await;
    let right = bench.now;
    bench.now = right - LONG;
    bench.finish(bench.end(calls[1].id, vec![(ids[1].seq, Next::Delivered)])).await;
    bench.now = right;
    bench.elsewhere().await;
    let before = right - LONG / 2;
    let prune = Change::Prune {
        finished_before: before,
        dead_before: before,
        calls_before: before,
        events_before: right + LONG,
        limit: 100,
    };
    bench.prune(prune).await;
    // The job that ended at the right time is still there, and so is its flow.
    assert_eq!(bench.state(ids[0]).await, State::Delivered);
    assert_eq!(bench.store.job(ids[1]).await.unwrap(), None);
    assert!(bench.store.flow(flow).await.unwrap().is_some());
}

async fn flows_go_in_bounded_steps_after_the_jobs(mut bench: Bench) {
    let mut flows = Vec::new();
    for n in 0..5 {
        let tenant = Tenant::new(format!("t{n}")).unwrap();
        let id = bench.add(NewJob { tenant, ..job("1") }).await;
        flows.push(bench.job(id).await.flow);
        bench.settle(id, Next::Delivered).await;
        bench.pass(Duration::from_secs(1));
    }
    bench.pass(LONG);
    bench.elsewhere().await;
    let before = bench.now;
    let step = |finished_before, limit| Change::Prune {
        finished_before,
        dead_before: before,
        calls_before: Timestamp::ZERO,
        events_before: before,
        limit,
    };
    // The events first, so that the jobs alone hold the flows.
    bench.prune(step(Timestamp::ZERO, 100)).await;
    let mut left = Vec::new();
    for _ in 0..6 {
        bench.prune(step(before, 2)).await;
        let mut there = 0;
        for flow in &flows {
            there += usize::from(bench.store.flow(*flow).await.unwrap().is_some());
        }
        left.push(there);
    }
    // Five jobs take three steps, the last of which finds that none is left.
    assert_eq!(left, [5, 5, 3, 1, 0, 0]);
}
